"""Training steps per second on this computer: this project against nerf-pytorch, the same work, interleaved in one run.

    python benchmarks/step.py --peer PATH_TO_NERF_PYTORCH [--pairs 5] [--precision fp32] [--equilibrate]
    python benchmarks/step.py --device cuda --backends torch compiled triton [--peer PATH] [--config paper/fern.txt]

Work: a step of nerf-pytorch's fern.txt (1024 rays, 64 coarse and 64 + 64 fine samples, two 8×256 networks, Adam). Each
side runs in a separate process, because they change process-wide settings; only one computes at a time. The peer takes
part twice: in stock settings, and tuned (``peer.Tuned``) in the precision that our side runs in. It gets precomputed
rays and colors, our side samples pixels and computes their rays as in training. Then the errors of our gradients
against float64 are reported, and the share of the speed of matrix products and of the arithmetic peak that is reached.
The last two lines are rays/s of our fastest side over theirs, median over the pairs: ``stock ratio=X noise=LOW..HIGH``
to the stock peer, and ``ratio=X noise=LOW..HIGH`` to the tuned one; without a peer, over our slowest
side (1, if there is one side).
"""

import argparse
import statistics

import accuracy
import floor
import ours
import peer
import sides
from sides import Side

from enerf.core.errors import InputError
from enerf.reporting import tables
from enerf.tasks.nerf.config import NerfConfig

STOCK, TUNED = "nerf-pytorch", "nerf-pytorch, tuned"


class OurSide(ours.Training):
    """Our steps, their errors and their arithmetic."""

    def errors(self) -> list[tuple[str, ...]]:
        """The table of errors against float64."""
        return accuracy.table(self.run.config, self.run.device)

    def arithmetic(self, seconds: float) -> str:
        """The arithmetic of a step that takes ``seconds``, in words."""
        return floor.share_words(self.run, seconds, self.precision)

    def used_precision(self) -> str:
        """The precision that was chosen."""
        return self.precision

    def flops(self) -> int:
        """Floating-point operations of a step."""
        return floor.step_flops(self.run)


def our_side(options: NerfConfig) -> OurSide:
    return OurSide(options, ours.noise_scene())


def our_sides(args: argparse.Namespace, report: sides.Report) -> dict[str, Side]:
    """One of our sides for each backend, built at the same time; those that cannot be built are reported and left out.

    Raises
    ------
    InputError
        If none can be built.
    """
    backends = args.backends or [args.backend]
    made = {}
    for backend in backends:
        args.backend = backend
        options = ours.options_of(args, equilibrate=args.equilibrate)
        name = "enerf" if len(backends) == 1 else f"enerf {backend}"
        made[name] = Side(name, our_side, options, wait=False)
    found = {}
    for name, side in made.items():
        try:
            found[name] = side.ready()
        except InputError as error:
            report(f"not measured: {error}")
            side.close()
    if not found:
        raise InputError("none of our sides could be built")
    return found


def conclude(seconds: dict[str, list[float]], mine: dict[str, Side], n_rays: int, report: sides.Report) -> None:
    """Report the speed of every side, how far each of ours is from the measured floor, and the ratio."""
    flops = next(iter(mine.values())).call("flops")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        speed = f"{n_rays / value:.0f} rays/s, {1 / value:.4g} steps/s, {value * 1e3:.4g} ms a step"
        report(f"{name}: median {speed}, {flops / value / 1e9:.0f} GFLOP/s")
    for name, side in mine.items():
        report(f"{name}: {side.call('arithmetic', median[name])}")
    fastest = min(mine, key=lambda name: median[name])
    if len(mine) > 1:
        report(f"ratios: {fastest!r}, the fastest of ours, over another side")
    slowest = max(mine, key=lambda name: median[name])
    others = {STOCK: "stock ", TUNED: ""} if STOCK in seconds else {slowest: ""}
    for other, word in others.items():
        report(word + sides.ratio_line(sides.ratios(seconds[other], seconds[fastest])))


def main() -> None:
    parser = sides.parser(__doc__)
    peer.add_option(parser, required=False)
    ours.add_options(parser)
    parser.add_argument("--backends", nargs="+", help="several of our backends, by turns; what is missing is left out")
    parser.add_argument("--pairs", type=sides.count, default=5, help="how often the sides take turns")
    parser.add_argument("--steps", type=sides.count, default=1, help="steps a turn")
    parser.add_argument("--equilibrate", nargs="?", const="row", default="none", help="our side trains E-NeRF")
    parser.add_argument("--no_errors", action="store_true", help="leave out the errors against float64")
    args = parser.parse_args()
    options = ours.options_of(args, equilibrate=args.equilibrate)
    device, n_rays = ours.device_of(args.device), options.train.N_rand
    report = sides.Report(args.out, device)
    render = options.render
    mine = our_sides(args, report)
    both = dict(mine)
    if args.peer:
        sizes = {"N_rand": n_rays, "N_samples": render.N_samples, "N_importance": render.N_importance}
        path, precision = args.peer.resolve(), next(iter(mine.values())).call("used_precision")
        both[STOCK] = Side(STOCK, peer.stepping, path, device.type, n_rays, sizes)
        both[TUNED] = Side(TUNED, peer.tuned, path, device.type, n_rays, precision, sizes)
    for name, side in both.items():
        report(f"{name}: {side.words}")

    def on_round(turn: int, seconds: dict[str, float]) -> None:
        report(f"pair {turn}: " + ", ".join(f"{n} {n_rays / s:.0f} rays/s" for n, s in sorted(seconds.items())))

    timers = {name: lambda side=side: side.call("seconds", args.steps) for name, side in both.items()}
    seconds = sides.by_turns(timers, args.pairs, on_round)
    if not args.no_errors:
        report(f"errors of a step of {accuracy.RAYS} rays against float64:")
        for side in mine.values():
            report(tables.as_text(side.call("errors")))
    conclude(seconds, mine, n_rays, report)


if __name__ == "__main__":
    sides.enter(main)
