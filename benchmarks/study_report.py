"""Tables and curves of the runs of ``study.py``: best rates, paired differences, early and late.

    python benchmarks/study_report.py STAGE [STAGE ...] [--against plain] [--at STEP ...] [--by_seed] [--out FILE.md]
        [--plot FILE.png [--seconds]]

Stages that are given together are one table: a sweep of rates with one seed, and further seeds at the best rates. Each
method is shown at the rate with the highest mean score of the first stage, by its runs of the other stages, since the
first one chose the rate; ``chose the rate`` marks methods without other runs, and ``at an end`` a best rate beyond
which nothing was tried, since the sweep has reached its longest, or is ``not finished``. Means and differences are of
the runs that succeeded; the others are listed, of the sweep by rate, of the best rate by seed. Differences are paired
by seed: mean, and half-width of the 95 % interval of the mean by Student's t, from two seeds on. ``early`` is the score
on the curve at a tenth of the steps, or at its first point after that; ``--at`` adds the scores at other steps.
``--by_seed`` is another table: each seed in a column of its own, and the other rates. ``--seconds`` plots against
seconds of training on quiet cores: steps times the milliseconds of a step of each method in
``results/method_cost.txt``, since the runs of a queue share cores with other work. The file is about the paper's model,
so stages of others are refused.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sides
from scipy.stats import t as student
from study import best_rate, next_rates, recorded
from study_stages import LABELS, STAGES

from enerf.config.methods import split_ratio
from enerf.core import io
from enerf.core.errors import InputError
from enerf.reporting import plots, tables

Rows = list[dict[str, Any]]
EARLY = 0.1  # share of the steps
SHOWN = 4.0  # of the score below the best, in plots; more if methods end lower
BELOW_ENDS = 1.0  # below the end of every successful method
LARGEST_KAPPA = 1e7  # of a matrix of full rank in float32
COSTS = "benchmarks/results/method_cost.txt"
COSTS_OF = "cpu/"  # the paper's model, reduced: configurations of which the file measures a step
MORE = (  # where runs have them, and they are not the score
    *(("psnr_heldout", "held out"), ("ssim", "SSIM"), ("fit_psnr", "training views")),
    ("iou", "IoU"),
)
NAMES = (("iou_near", "near IoU"), ("iou", "IoU"), ("psnr", "PSNR [dB]"))  # of scores
LAST = (("stable_rank", "stable rank"), ("kappa_range", "κ"))  # medians of the hidden layers but the first, at the end


@dataclass(frozen=True)
class Arm:
    """The runs of a method at its best rate.

    Attributes
    ----------
    method, rate
        Its name, and the rate.
    runs
        Successful runs that are shown, by seed.
    pairs
        All successful runs at that rate: those that other methods are compared with.
    failed
        Seeds of the runs at that rate that failed.
    chose_rate
        Whether ``runs`` are those that chose the rate, since there are no others.
    rates
        Rate -> runs of the sweep, for all rates.
    """

    method: str
    rate: float
    runs: Rows
    pairs: Rows
    failed: list[int]
    chose_rate: bool
    rates: dict[float, Rows]


def is_failed(run: Mapping[str, Any]) -> bool:
    """Whether a run ended without a finite loss, or as a constant image."""
    return run["score"] is None or bool(run.get("collapsed"))


def chosen(stages: Sequence[str]) -> dict[str, Arm]:
    """Method -> its runs at its best rate; methods in the order of their mean score, best first.

    Raises
    ------
    InputError
        If there are no runs.
    """
    swept, further = recorded(stages[0]), [row for stage in stages[1:] for row in recorded(stage)]
    found = []
    for method in dict.fromkeys(row["method"] for row in swept):
        (rate,) = best_rate(swept, method)
        first, more = ([r for r in rows if (r["method"], r["lrate"]) == (method, rate)] for rows in (swept, further))
        every = sorted({run["seed"]: run for run in [*first, *more]}.values(), key=lambda run: run["seed"])
        pairs = [run for run in every if not is_failed(run)]
        runs = [run for run in pairs if run in more or not more]
        rates = sorted({row["lrate"] for row in swept if row["method"] == method})
        of_rates = {each: [r for r in swept if (r["method"], r["lrate"]) == (method, each)] for each in rates}
        failed = [run["seed"] for run in every if is_failed(run)]
        found.append(Arm(method, rate, runs, pairs, failed, bool(further) and not more, of_rates))
    if not any(arm.pairs for arm in found):
        raise InputError(f"stages {', '.join(stages)}: found no finished runs; run study.py first")
    return {
        arm.method: arm for arm in sorted(found, key=lambda arm: -mean(arm.runs, "score") if arm.runs else math.inf)
    }


def mean(runs: Rows, key: str) -> float:
    """Mean of a value over runs; NaN if there are none, or one lacks it."""
    return mean_of([run.get(key) for run in runs])


def mean_of(values: Sequence[float | None]) -> float:
    """Mean of numbers; NaN if there are none, or one is missing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else math.nan


def early(run: Mapping[str, Any]) -> float:
    """Score on the curve of a run at the first point from a tenth of the steps on."""
    points = [point for point in run["curve"] if point[0] >= EARLY * run["steps"]]
    return points[0][-1] if points else math.nan


def paired(runs: Rows, against: Rows, value: Any) -> tuple[float, float]:
    """Mean difference by seed, and the half-width of its 95 % interval (NaN for fewer than two seeds)."""
    others = {run["seed"]: value(run) for run in against}
    differences = [value(run) - others[run["seed"]] for run in runs if run["seed"] in others]
    if not differences:
        return math.nan, math.nan
    n = len(differences)
    half = math.nan if n < 2 else student.ppf(0.975, n - 1) * statistics.stdev(differences) / math.sqrt(n)
    return statistics.fmean(differences), float(half)


def words_of(difference: tuple[float, float], digits: int) -> str:
    """Text of a difference and its interval."""
    middle, half = difference
    return "" if math.isnan(middle) else f"{middle:+.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def arms(stages: Sequence[str], against: str) -> tuple[dict[str, Arm], Arm]:
    """The methods, and the one that they are compared with.

    Raises
    ------
    InputError
        If there is no such method.
    """
    found = chosen(stages)
    if against not in found:
        raise InputError(f"option --against: found {against}, expected one of {', '.join(found)}")
    return found, found[against]


def at_step(run: Mapping[str, Any], step: int) -> float:
    """Score on the curve of a run at a step; NaN if there was no evaluation."""
    return next((point[-1] for point in run["curve"] if point[0] == step), math.nan)


def table(stages: Sequence[str], against: str, digits: int, steps: Sequence[int] = ()) -> list[list[str]]:
    """One row for each method; see the module."""
    found, base = arms(stages, against)
    is_swept = stages[0] in STAGES and STAGES[stages[0]].sweep
    every = [run for arm in found.values() for run in arm.runs]
    keys = [(key, words) for key, words in MORE if any(run.get(key) not in {None, run["score"]} for run in every)]
    head = ["method", "rate", "score", "deviation", "seeds", f"minus {against}", "early", f"early, minus {against}"]
    at_steps = [f"after {step}" for step in steps]
    rows = [[*head, *at_steps, *(words for _, words in keys), "failed", *(words for _, words in LAST)]]
    for method, arm in found.items():
        scores = [run["score"] for run in arm.runs]
        at_end = " at an end" if len(arm.rates) > 1 and arm.rate in (min(arm.rates), max(arm.rates)) else ""
        at_end = " sweep not finished" if is_swept and next_rates(recorded(stages[0]), method, ()) else at_end
        failed = [f"{rate:g}" for rate, runs in arm.rates.items() if rate != arm.rate and any(map(is_failed, runs))]
        rows.append(
            [
                *(title(method), f"{arm.rate:g}{at_end}", text_of(mean_of(scores), digits)),
                f"{statistics.stdev(scores):.{digits}f}" if len(scores) > 1 else "",
                ",".join(str(run["seed"]) for run in arm.runs) + " (chose the rate)" * arm.chose_rate,
                words_of(paired(arm.runs, base.pairs, lambda run: run["score"]), digits),
                text_of(mean_of([*map(early, arm.runs)]), digits),
                words_of(paired(arm.runs, base.pairs, early), digits),
                *(text_of(mean_of([at_step(run, step) for run in arm.runs]), digits) for step in steps),
                *(text_of(mean(arm.runs, key), 3 if key in {"ssim", "iou"} else digits) for key, _ in keys),
                ", ".join([*failed, *(f"seed {seed}" for seed in arm.failed)]),
                *(last_of(arm.runs, key) for key, _ in LAST),
            ]
        )
    return rows


def text_of(value: float, digits: int) -> str:
    """Text of a number; empty for NaN."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def without_empty(rows: list[list[str]]) -> list[list[str]]:
    """A table without the columns that have a head only."""
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def title(method: str) -> str:
    """Words for a method, and its name."""
    return f"{LABELS[method]} (`{method}`)" if method in LABELS else f"`{method}`"


def last_of(runs: Rows, key: str) -> str:
    """Text of the mean over runs of a statistic at the end of training; empty where it was not recorded.

    κ on the range is κ, which older rows have, unless a matrix does not have full rank.
    """
    last = [run["ranks"][-1] for run in runs if run.get("ranks")]
    values = [each.get(key, each["kappa"] if key == "kappa_range" else None) for each in last]
    middle = mean_of(values)
    return "" if math.isnan(middle) or middle > LARGEST_KAPPA else f"{middle:.3g}"


def seeds_table(stages: Sequence[str], against: str, digits: int) -> list[list[str]]:
    """One row for each method, with all its seeds at the best rate, and the other rates."""
    found, base = arms(stages, against)
    found = dict(sorted(found.items(), key=lambda item: -item[1].pairs[0]["score"] if item[1].pairs else math.inf))
    seeds = sorted({seed for arm in found.values() for seed in [*(run["seed"] for run in arm.pairs), *arm.failed]})
    head = ["method", "rate", *(f"seed {seed}" for seed in seeds), f"minus {against}, by seed"]
    rows = [[*head, f"early, minus {against}, by seed", "stable rank", "other rates"]]
    for method, arm in found.items():
        scores = {run["seed"]: f"{run['score']:.{digits}f}" for run in arm.pairs} | dict.fromkeys(arm.failed, "fails")
        differences = [
            ", ".join(filter(None, (words_of(paired([run], base.pairs, value), digits) for run in arm.pairs)))
            for value in (lambda run: run["score"], early)
        ]
        others = [
            f"fails at {rate:g}" if any(map(is_failed, runs)) else f"{mean(runs, 'score'):.{digits}f} at {rate:g}"
            for rate, runs in arm.rates.items()
            if rate != arm.rate
        ]
        cells = [scores.get(seed, "") for seed in seeds]
        rows.append(
            [
                title(method),
                f"{arm.rate:g}",
                *cells,
                *differences,
                last_of(arm.pairs[:1], "stable_rank"),
                ", ".join(others),
            ]
        )
    return rows


def rates_table(stage: str, digits: int) -> list[list[str]]:
    """Scores of all rates of a sweep, means over seeds."""
    rows = recorded(stage)
    rates = sorted({row["lrate"] for row in rows})
    lines = [["method", *(f"{rate:g}" for rate in rates)]]
    for method in dict.fromkeys(row["method"] for row in rows):
        line = [method]
        for rate in rates:
            own = [row for row in rows if (row["method"], row["lrate"]) == (method, rate)]
            scores = [None if is_failed(row) else row["score"] for row in own]
            line.append("failed" if None in scores else f"{statistics.fmean(scores):.{digits}f}" if scores else "")
        lines.append(line)
    return lines


def seconds_of_step(method: str) -> float:
    """Seconds of a step of a method, as ``method_cost.py`` has measured it.

    Initializations that were not measured cost what others do.

    Raises
    ------
    InputError
        If there is no measurement.
    """
    lines = [line.split() for line in (sides.ROOT / COSTS).read_text(encoding="utf-8").splitlines()]
    rows = [words for words in lines if len(words) > 2 and words[1].replace(".", "").isdigit()]
    known = {words[0]: float(words[1]) / 1000 for words in rows}
    name = split_ratio(method)[0]
    like = {"muon_he": "muon", "unit_row": "he"}
    if (found := known.get(name, known.get(like.get(name, "")))) is None:
        raise InputError(f"{COSTS}: found no cost of {name}, expected one; run method_cost.py")
    return found


def check_seconds(stages: Sequence[str]) -> None:
    """Check that the costs of steps are those of the stages.

    Raises
    ------
    InputError
        If a stage trains another model, or in another precision.
    """
    papers = {name: stage for name, stage in STAGES.items() if stage.config.startswith(COSTS_OF)}
    fitting = [name for name, stage in papers.items() if "fp32" not in stage.words]  # the costs are those of bf16
    for other in (stage for stage in stages if stage not in fitting):
        raise InputError(
            f"option --seconds: found the stage {other}, expected stages of the paper's model, whose steps {COSTS} "
            f"measures: {', '.join(fitting)}"
        )


def draw(stages: Sequence[str], path: Path, title: str, against_seconds: bool = False) -> None:
    """Plot the curves of all methods at their best rates: mean over seeds, the range shaded."""
    from cycler import cycler
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(cycler(linestyle=["-", "--"]) * cycler(color=[colormaps["tab20"](i) for i in range(20)]))
    found, ends = chosen(stages), []
    for method, arm in ((name, arm) for name, arm in found.items() if arm.runs):
        curves = [run["curve"] for run in arm.runs]
        n = min(map(len, curves))
        unit = seconds_of_step(method) if against_seconds else 1
        steps = [point[0] * unit for point in curves[0][:n]]
        values = [[curve[i][-1] for curve in curves] for i in range(n)]
        ends.append(statistics.fmean(values[-1]))
        (line,) = axes.plot(steps, [statistics.fmean(v) for v in values], label=f"{method} @ {arm.rate:g}")
        axes.fill_between(steps, [*map(min, values)], [*map(max, values)], color=line.get_color(), alpha=0.15, lw=0)
    every = [run for arm in found.values() for run in arm.runs]
    score = next((words for key, words in NAMES if any(key in run for run in every)), "score")
    if "dB" in score:
        lowest = min(axes.dataLim.y1 - SHOWN, min(ends) - BELOW_ENDS)
        axes.set_ylim(bottom=max(axes.get_ylim()[0], lowest))  # failed runs do not flatten the others
    axes.set(xlabel="seconds of training" if against_seconds else "step", ylabel=score, title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
    plots.save(figure, path)


def main() -> None:
    """Print the tables, and write them."""
    reader = sides.parser(__doc__)
    reader.add_argument("stages", nargs="+", metavar="STAGE", help="stages of study.py")
    reader.add_argument("--against", default="plain", help="the method that differences refer to")
    reader.add_argument("--digits", type=int, default=2, help="digits after the point; 4 for IoU")
    reader.add_argument("--plot", type=Path, help="file of the curves")
    reader.add_argument("--at", nargs="+", type=int, default=[], metavar="STEP", help="columns of scores at steps")
    reader.add_argument("--by_seed", action="store_true", help="the table with a column for each seed")
    reader.add_argument("--seconds", action="store_true", help="plot against seconds")
    args = reader.parse_args()
    if args.seconds:
        check_seconds(args.stages)
        if not args.plot:
            raise InputError("option --seconds: found no --plot, expected one: it is the axis of a plot")
    if args.by_seed and args.at:
        raise InputError("option --at: found --by_seed too, expected one of them: its table has no such columns")
    given = args.stages, args.against, args.digits
    rows = without_empty(seeds_table(*given) if args.by_seed else table(*given, args.at))
    rates = rates_table(args.stages[0], args.digits)
    print(tables.as_text(rows), tables.as_text(rates), sep="\n\n")
    if args.out:
        io.write_atomic(Path(args.out), f"{tables.as_markdown(rows)}\n\n{tables.as_markdown(rates)}\n")
    if args.plot:
        draw(args.stages, args.plot, ", ".join(args.stages), args.seconds)


if __name__ == "__main__":
    sides.enter(main)
