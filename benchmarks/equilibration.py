"""Cost of equilibration: training steps plain, plain again and equilibrated, by turns in one process.

    python benchmarks/equilibration.py [--config fast/fern.txt] [--rounds 40] [--steps 1] [--device cuda]

Work: steps as ``train_nerf.py`` takes them, on photographs of noise. ``plain again`` over ``plain`` is the A/A ratio,
which measures the noise of this computer. A step is long and a map of its weights is short, so the map is timed alone
as well: entering and leaving ``computed_once`` with a gradient on every weight, less the same with nothing conditioned;
that share of a step is measurable below the noise (on a GPU, where steps are replayed as a whole and the map here is
launched kernel by kernel, it is an upper bound). A baked model is rendered beside an unconditioned one. The last line
is ``ratio=X noise=LOW..HIGH``: seconds of an equilibrated step over a plain one, median over the rounds.
"""

import copy
import statistics

import floor
import ours
import sides
import torch
from sides import Report
from torch.nn.utils import parametrize

from enerf.conditioning import layers
from enerf.conditioning.weight_cache import computed_once
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.views import renderer_of

PLAIN, AGAIN, TREATED = "plain", "plain again", "equilibrated"
MAP_REPEATS, MAP_ROUNDS = 10, 30


def map_seconds(fields: RadianceFields, device: torch.device) -> float:
    """Median seconds to compute all conditioned weights and to backpropagate a gradient through each."""
    found = [(module, torch.randn_like(module.weight)) for module in conditioned(fields)]

    def compute() -> None:
        with computed_once(fields):
            for module, gradient in found:
                module.weight.grad = gradient

    compute()  # allocates the gradients of the raw weights, as in training
    return statistics.median(ours.seconds_of(compute, MAP_REPEATS, device) for _ in range(MAP_ROUNDS))


def conditioned(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules whose weight is computed from a raw one."""
    return [module for module in model.modules() if parametrize.is_parametrized(module, "weight")]


def evaluation(plain: ours.Training, treated: ours.Training, n_rays: int, rounds: int, report: Report) -> None:
    """Report the conditioned layers of a baked model, and the cost of rendering with it."""
    baked = layers.bake(copy.deepcopy(treated.run.fields))
    report(f"baked: {len(conditioned(treated.run.fields))} conditioned layers before, {len(conditioned(baked))} after")
    scene, device = plain.run.scene, plain.run.device
    pixels = scenes_pixels.fixed_pixels(scene, scene.test[0], n_rays)
    rays = scenes_pixels.rays_of(scene, pixels, 0.5)
    timers = {}
    for name, training in ((PLAIN, plain), (AGAIN, plain), (TREATED, treated)):
        render = renderer_of(training.run).render

        def seconds(render=render) -> float:
            with torch.no_grad():
                return ours.seconds_of(lambda: render(rays), 1, device)

        seconds()
        timers[name] = seconds
    found = sides.by_turns(timers, rounds)
    again, treated_ratio = (sides.ratio_line(sides.ratios(found[name], found[PLAIN]), 3) for name in (AGAIN, TREATED))
    report(f"evaluation of {n_rays} rays, plain again / plain (A/A): {again}")
    report(f"evaluation of {n_rays} rays, baked / plain: {treated_ratio}")


def variants_of(options: NerfConfig, method: str) -> dict[str, ours.Training]:
    """The three runs; they share the seed and the scene."""
    scene = ours.noise_scene()
    methods = {PLAIN: "none", AGAIN: "none", TREATED: method}
    return {
        name: ours.Training(ours.config_parser.replace(options, equilibrate=m), scene) for name, m in methods.items()
    }


def main() -> None:
    parser = sides.parser(__doc__)
    ours.add_options(parser)
    parser.add_argument("--rounds", type=int, default=40, help="how often the three take turns")
    parser.add_argument("--steps", type=int, default=1, help="steps a turn")
    parser.add_argument("--method", default="row", help="row, column, row_column or jacobi")
    args = parser.parse_args()
    options = ours.options_of(args)
    device, n_rays = ours.device_of(args.device), options.train.N_rand
    report = sides.Report(args.out, device)
    variants = variants_of(options, args.method)
    plain, treated = variants[PLAIN], variants[TREATED]
    report(f"{args.config}, {n_rays} rays a step: {treated.words}")
    timers = {name: lambda training=training: training.seconds(args.steps) for name, training in variants.items()}
    found = sides.by_turns(timers, args.rounds)
    for name, values in found.items():
        low, high = sides.interval(values)
        middle = statistics.median(values)
        spread = f"{middle * 1e3:.2f} ms a step ({low * 1e3:.2f}..{high * 1e3:.2f})"
        report(f"{name}: {spread}, {n_rays / middle:.0f} rays/s")
    step = statistics.median(found[PLAIN])
    report(floor.share_words(plain.run, step, plain.precision))
    bare, whole = map_seconds(plain.run.fields, device), map_seconds(treated.run.fields, device)
    cost, layer_words = whole - bare, f"{len(conditioned(treated.run.fields))} layers"
    report(
        f"the map alone: {cost * 1e3:.3f} ms a step with its gradient ({layer_words}; {bare * 1e3:.3f} ms with none), "
        f"{cost / step:.2%} of a plain step"
    )
    evaluation(plain, treated, min(n_rays, 1024), min(args.rounds, 20), report)
    report(f"plain again / plain (A/A): {sides.ratio_line(sides.ratios(found[AGAIN], found[PLAIN]), 4)}")
    report(sides.ratio_line(sides.ratios(found[TREATED], found[PLAIN]), 4))


if __name__ == "__main__":
    sides.enter(main)
