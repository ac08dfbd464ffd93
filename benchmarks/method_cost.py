"""Cost of conditioning methods in radiance fields: training steps of the paper's model with each method, by turns.

    python benchmarks/method_cost.py [--config cpu/fern.txt] [--methods he,equilibrate,muon] [--rounds 10] [--steps 1]

Work: steps as ``train_nerf.py`` takes them, on photographs of noise, in one process. Every method has the options that
comparisons give it (``enerf.config.methods``). ``plain again`` over ``plain`` is the A/A ratio, which measures the
noise of this computer. ``raw parameters`` is the number of trained numbers. A baked model costs what a plain one does,
except with layer normalization. The last line is ``ratio=X noise=LOW..HIGH`` of the last method.
"""

import statistics

import ours
import sides

from enerf.config import methods
from enerf.config import parser as config_parser
from enerf.reporting import tables

PLAIN, AGAIN = "plain", "plain again"
DEFAULT = "he,equilibrate,gain,row_gains,weight_norm,ws,spectral_norm,orthogonal,fourier,layer_norm,batch_norm,"
DEFAULT += "muon,muon_unit_row,muon_e,muon_gain,muon_ws,soap"


def trained(options: ours.NerfConfig, method: str) -> ours.Training:
    """A run of a method on images of noise."""
    changed = {**methods.FIELDS.common, **methods.FIELDS.changes[method]}
    return ours.Training(config_parser.replace(options, **changed), ours.noise_scene())


def main() -> None:
    """Measure and print the table."""
    parser = sides.parser(__doc__)
    ours.add_options(parser, "cpu/fern.txt")
    parser.add_argument("--methods", default=DEFAULT, help="methods of comparisons, separated by commas")
    parser.add_argument("--rounds", type=int, default=10, help="how often all take turns")
    parser.add_argument("--steps", type=int, default=1, help="steps a turn")
    args = parser.parse_args()
    options, names = ours.options_of(args), [name.strip() for name in args.methods.split(",")]
    report = sides.Report(args.out, ours.device_of(args.device))
    runs = {PLAIN: trained(options, PLAIN), AGAIN: trained(options, PLAIN)}
    runs |= {name: trained(options, name) for name in names}
    report(f"{args.config}, {options.train.N_rand} rays a step: {runs[PLAIN].words}")
    timers = {name: lambda training=training: training.seconds(args.steps) for name, training in runs.items()}
    found = sides.by_turns(timers, args.rounds)
    rows = [["method", "ms a step", "ratio to plain", "interval", "raw parameters"]]
    for name, values in found.items():
        ratios = sides.ratios(values, found[PLAIN])
        low, high = sides.interval(ratios)
        count = sum(p.numel() for p in runs[name].run.fields.parameters())
        middle = f"{statistics.median(values) * 1e3:.1f}"
        rows.append([name, middle, f"{statistics.median(ratios):.3f}", f"{low:.3f} to {high:.3f}", f"{count:,}"])
    report(tables.as_text(rows))
    report(sides.ratio_line(sides.ratios(found[names[-1]], found[PLAIN]), 3))


if __name__ == "__main__":
    sides.enter(main)
