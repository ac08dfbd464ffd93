"""Tables and curves of the runs of ``study.py``: best rates, paired differences, early and late.

    python benchmarks/study_report.py STAGE [STAGE ...] [--against plain] [--out FILE.md] [--plot FILE.png]

Stages that are given together are one table: a sweep of rates with one seed, and further seeds at the best rates. Each
method is shown at the rate with the highest mean score of the first stage, by the runs of the other stages if there are
any, since the first one chose the rate; ``at an end`` marks a best rate beyond which nothing was tried. Differences are
paired by seed: mean, and half-width of the 95 % interval of the mean by Student's t, from two seeds on. ``early`` is
the score on the curve at a tenth of the steps, or at its first point after that. ``--seconds`` plots against seconds of
training on quiet cores: steps times the milliseconds of a step of each method in ``results/method_cost.txt``, since the
runs of a queue share cores with other work.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sides
from scipy.stats import t as student
from study import best_rates, recorded

from enerf.config.methods import split_ratio
from enerf.core import io
from enerf.core.errors import InputError
from enerf.reporting import plots, tables

Rows = list[dict[str, Any]]
EARLY = 0.1  # share of the steps
SHOWN = 4.0  # of the score below the best, in plots
COSTS = "benchmarks/results/method_cost.txt"
LAST = ("stable_rank", "kappa")  # medians over the hidden layers but the first, at the end


def chosen(stages: Sequence[str]) -> dict[str, Rows]:
    """Method -> its finished runs at its best rate, by seed; methods in the order of their mean score, best first.

    Raises
    ------
    InputError
        If there are no runs.
    """
    swept, further = recorded(stages[0]), [row for stage in stages[1:] for row in recorded(stage)]
    found: dict[str, Rows] = {}
    for method in dict.fromkeys(row["method"] for row in swept):
        (rate,) = best_rates(swept, method)
        runs = [r for r in further or swept if (r["method"], r["lrate"]) == (method, rate) and r["score"] is not None]
        if runs:
            found[method] = sorted(runs, key=lambda run: run["seed"])
    if not found:
        raise InputError(f"stages {', '.join(stages)}: found no finished runs; run study.py first")
    return dict(sorted(found.items(), key=lambda item: -mean(item[1], "score")))


def mean(runs: Rows, key: str) -> float:
    """Mean of a value over runs; NaN if one lacks it."""
    values = [run.get(key) for run in runs]
    return math.nan if None in values else statistics.fmean(values)


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


def table(stages: Sequence[str], against: str, digits: int) -> list[list[str]]:
    """One row for each method; see the module."""
    found, swept = chosen(stages), recorded(stages[0])
    base = found.get(against)
    if base is None:
        raise InputError(f"option --against: found {against}, expected one of {', '.join(found)}")
    head = ["method", "rate", "score", "spread", "seeds", f"less {against}", "early", f"less {against}, early"]
    rows = [[*head, "held out", "failed rates", "stable rank", "κ"]]
    for method, runs in found.items():
        own = [row for row in swept if row["method"] == method]
        rates = sorted({row["lrate"] for row in own})
        scores = [run["score"] for run in runs]
        at_end = " at an end" if len(rates) > 1 and runs[0]["lrate"] in (rates[0], rates[-1]) else ""
        failed = [f"{row['lrate']:g}" for row in own if row["score"] is None or row.get("collapsed")]
        last = [run["ranks"][-1] for run in runs if run.get("ranks")]
        rows.append(
            [
                *(method, f"{runs[0]['lrate']:g}{at_end}", f"{statistics.fmean(scores):.{digits}f}"),
                f"{statistics.stdev(scores):.{digits}f}" if len(scores) > 1 else "",
                ",".join(str(run["seed"]) for run in runs),
                words_of(paired(runs, base, lambda run: run["score"]), digits),
                f"{statistics.fmean(map(early, runs)):.{digits}f}",
                words_of(paired(runs, base, early), digits),
                "" if math.isnan(held := mean(runs, "psnr_heldout")) else f"{held:.{digits}f}",
                ", ".join(failed),
                *(f"{statistics.fmean(each[key] for each in last):.3g}" if last else "" for key in LAST),
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
            scores = [row["score"] for row in rows if (row["method"], row["lrate"]) == (method, rate)]
            line.append("failed" if None in scores else f"{statistics.fmean(scores):.{digits}f}" if scores else "")
        lines.append(line)
    return lines


def seconds_of_step(method: str) -> float:
    """Seconds of a step of a method, as ``method_cost.py`` has measured it.

    A method of Muon that was not measured costs what ``muon_gain`` does; an initialization what the plain network does.

    Raises
    ------
    InputError
        If there is no measurement.
    """
    lines = [line.split() for line in (sides.ROOT / COSTS).read_text(encoding="utf-8").splitlines()]
    rows = [words for words in lines if len(words) > 2 and words[1].replace(".", "").isdigit()]
    known = {words[0]: float(words[1]) / 1000 for words in rows}
    name = split_ratio(method)[0]
    like = {"muon_he": "muon", "muon_unit_row": "muon", "muon_e": "muon_gain", "muon_ws": "muon_gain", "unit_row": "he"}
    if (found := known.get(name, known.get(like.get(name, "")))) is None:
        raise InputError(f"{COSTS}: found no cost of {name}, expected one; run method_cost.py")
    return found


def draw(stages: Sequence[str], path: Path, title: str, against_seconds: bool = False) -> None:
    """Plot the curves of all methods at their best rates: mean over seeds, the range shaded."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=[colormaps["tab20"](i) for i in range(20)])
    found = chosen(stages)
    for method, runs in found.items():
        curves = [run["curve"] for run in runs]
        n = min(map(len, curves))
        unit = seconds_of_step(method) if against_seconds else 1
        steps = [point[0] * unit for point in curves[0][:n]]
        values = [[curve[i][-1] for curve in curves] for i in range(n)]
        (line,) = axes.plot(steps, [statistics.fmean(v) for v in values], label=f"{method} @ {runs[0]['lrate']:g}")
        axes.fill_between(steps, [*map(min, values)], [*map(max, values)], color=line.get_color(), alpha=0.15, lw=0)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], axes.dataLim.y1 - SHOWN))  # failed runs do not flatten the others
    score = "IoU" if any("iou" in run for runs in found.values() for run in runs) else "test PSNR [dB]"
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
    reader.add_argument("--seconds", action="store_true", help="plot against seconds")
    args = reader.parse_args()
    rows, rates = table(args.stages, args.against, args.digits), rates_table(args.stages[0], args.digits)
    print(tables.as_text(rows), tables.as_text(rates), sep="\n\n")
    if args.out:
        io.write_atomic(Path(args.out), f"{tables.as_markdown(rows)}\n\n{tables.as_markdown(rates)}\n")
    if args.plot:
        draw(args.stages, args.plot, ", ".join(args.stages), args.seconds)


if __name__ == "__main__":
    sides.enter(main)
