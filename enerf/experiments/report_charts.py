"""Charts of a report: curves against steps and seconds, condition numbers and ranks, and sweeps of an option."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from enerf.config import options
from enerf.experiments import reported_runs
from enerf.experiments.reported_runs import ReportedRun
from enerf.reporting import grouping
from enerf.reporting.charts import Chart, Point, Series, chart
from enerf.reporting.html_page import Charts
from enerf.reporting.presentation import Curve, value

_STATISTICS = {
    "kappa": "condition number κ of applied weights",
    "kappa_raw": "condition number κ of raw weights",
    "stable_rank": "stable rank of applied weights",
    "effective_rank": "effective rank of applied weights",
    "stable_rank_raw": "stable rank of raw weights",
    "effective_rank_raw": "effective rank of raw weights",
}
_MOST_LAYERS = 16  # of one run that are drawn one by one
_LENGTHS = {"N_iters", "epochs", "max_seconds"}  # options that say the same in different units


def all_charts(runs: Sequence[ReportedRun], groups: Sequence[str]) -> tuple[list[Charts], list[str]]:
    """Return the charts of runs of one task, and sentences about what could not be drawn.

    ``groups`` are the names of all variants, which have a color each.
    """
    found = [curves(runs, groups), *sweeps(runs), *weights(runs, groups)]
    drawn = [each for each in found if each is not None]
    notes = [] if found[0] is not None else [f"{_names(runs)}: no curves were recorded"]
    without = [run for run in runs if not any(reported_runs.spectra(run, list(_STATISTICS)).values())]
    if without:
        notes.append(
            f"{_names(without)}: no condition numbers were recorded (--i_spectrum 0, or it ended before the first); "
            "enerf analyze RUN --no_hessian measures those of its checkpoints"
        )
    elif not any(reported_runs.spectra(run, ["stable_rank"])["stable_rank"] for run in runs):
        notes.append(f"{_names(runs)}: stable ranks were not recorded by the version that trained or analyzed it")
    return drawn, notes


def curves(runs: Sequence[ReportedRun], groups: Sequence[str]) -> Charts | None:
    """Return the curves of the journals, each against steps and against seconds of training."""
    known = runs[0].presentation.curves
    chosen = [each for each in known if any(run.series(each.key) for run in runs)]
    main = [each for each in chosen if not each.is_detail]
    pairs = {each.key: _both(each, runs, groups) for each in chosen}
    if not chosen:
        return None
    shown = [drawn for each in main for drawn in pairs[each.key]]
    details = [drawn for each in chosen if each.is_detail for drawn in pairs[each.key]]
    note = "One line per run; runs that differ in their seed share a color." if len(runs) > len(groups) else ""
    return Charts("Curves", shown or details, details if shown else (), note, groups)


def _both(curve: Curve, runs: Sequence[ReportedRun], groups: Sequence[str]) -> list[Chart]:
    """Return two charts of a quantity of all runs: against training steps, and against seconds of training."""
    by_step = [Series(run.name, run.group, run.series(curve.key)) for run in runs]
    by_time = []
    for run, series in zip(runs, by_step, strict=True):
        seconds = run.seconds_at([step for step, _ in series.points])
        points = zip(seconds, (y for _, y in series.points), strict=True) if seconds is not None else ()
        by_time.append(Series(series.name, series.group, list(points)))
    found = [
        chart(curve.title, "step", curve.title, by_step, groups, log_y=curve.logarithmic),
        chart(curve.title, "seconds of training", curve.title, by_time, groups, log_y=curve.logarithmic),
    ]
    return [drawn for drawn in found if drawn is not None]


def weights(runs: Sequence[ReportedRun], groups: Sequence[str]) -> list[Charts]:
    """Return condition numbers and ranks over steps: by layer for one run, else medians over layers."""
    spectra = [reported_runs.spectra(run, list(_STATISTICS)) for run in runs]
    layers = list(dict.fromkeys(layer for found in spectra for by_layer in found.values() for layer in by_layer))
    one_by_one = len(runs) == 1 and len(layers) <= _MOST_LAYERS
    legend: Sequence[str] = layers if one_by_one else groups
    drawn = []
    for statistic, title in _STATISTICS.items():
        if one_by_one:
            series = [Series(layer, layer, points) for layer, points in spectra[0][statistic].items()]
        else:
            series = [
                Series(run.name, run.group, _medians(found[statistic]))
                for run, found in zip(runs, spectra, strict=True)
            ]
        heading = title if one_by_one else f"median {title}"
        drawn.append(chart(heading, "step", heading, series, legend, log_y=statistic.startswith("kappa")))
    shown = [each for each in drawn if each is not None]
    note = (
        "κ is the largest over the smallest singular value of a weight matrix; the stable rank is the squared "
        "Frobenius norm over the squared spectral norm; the effective rank the exponential of the entropy of the "
        "singular values."
    )
    return [Charts("Condition numbers and ranks of weights", shown, (), note, legend)] if shown else []


def sweeps(runs: Sequence[ReportedRun]) -> list[Charts]:
    """Return the first figure of runs against each numeric option that alone differs between runs of a method."""
    figures = runs[0].presentation.figures
    figure = next((f for f in figures if any(value(run.metrics, f.path) is not None for run in runs)), None)
    declared = options.declared(runs[0].task.load("config"))
    found = []
    for name in declared if figure is not None else ():
        effect = declared[name].metadata["affects"]
        if effect == "neutral" or name == "seed" or declared[name].type not in (int, float):
            continue
        methods = _by_method(runs, name)
        if max((len(values) for values in methods.values()), default=0) < 2 or figure is None:
            continue
        series = [
            Series(method, method, [(x, sum(ys) / len(ys)) for x, ys in sorted(_scores(some, figure.path).items())])
            for method, some in methods.items()
        ]
        drawn = chart(f"{figure.heading} by {name}", name, figure.heading, series, list(methods), log_x=name == "lrate")
        if drawn is not None:
            note = "Points are means over seeds at the end of training."
            found.append(Charts(f"Sweep of {name}", [drawn], (), note, list(methods)))
    return found


def _by_method(runs: Sequence[ReportedRun], name: str) -> dict[str, dict[float, list[ReportedRun]]]:
    """Return method -> value of an option -> its runs.

    Runs are of one line if they differ in this option and their seed only; lines of one method are distinguished by
    the other options in which they differ.
    """
    lines: dict[tuple[str, tuple[tuple[str, str], ...]], dict[float, list[ReportedRun]]] = {}
    for run in runs:
        x = run.options.get(name)
        if isinstance(x, int | float) and run.metrics is not None:
            key = (_method(run), tuple(_others(run, name).items()))
            lines.setdefault(key, {}).setdefault(float(x), []).append(run)
    several = {key: values for key, values in lines.items() if len(values) > 1}
    found: dict[str, dict[float, list[ReportedRun]]] = {}
    for (method, others), values in several.items():
        alike = [dict(more) for other, more in several if other == method]
        differing = [f"{key} {text}" for key, text in others if any(each.get(key) != text for each in alike)]
        found[", ".join([method, *differing])] = values
    return found


def _others(run: ReportedRun, name: str) -> dict[str, str]:
    """Return all options of a run that affect its result, but one and the seed, and its data, as text."""
    declared = options.declared(run.task.load("config"))
    left_out = grouping.FREE | (_LENGTHS if name in _LENGTHS else {name})
    found = {
        key: str(chosen)
        for key, chosen in run.options.items()
        if key in declared and key not in left_out and declared[key].metadata["affects"] != "neutral"
    }
    where = " ".join(str(run.options[key]) for key in sorted(grouping.FREE - {"seed"}) if run.options.get(key))
    return found | {"data": grouping.digest(run.metrics or {})[:6] or where}


def _method(run: ReportedRun) -> str:
    """Return the method of a run by its name in a comparison, without the rate, else by its metrics."""
    return run.group.partition("@")[0] if "@" in run.group else str((run.metrics or {}).get("method", run.group))


def _scores(values: dict[float, list[ReportedRun]], path: Sequence[str]) -> dict[float, list[float]]:
    """Return value of an option -> figures of its runs."""
    found = {x: [v for run in some if (v := value(run.metrics, path)) is not None] for x, some in values.items()}
    return {x: ys for x, ys in found.items() if ys}


def _medians(by_layer: dict[str, list[Point]]) -> list[Point]:
    """Return the median over layers at each step."""
    at: dict[float, list[float]] = {}
    for points in by_layer.values():
        for step, number in points:
            at.setdefault(step, []).append(number)
    return [(step, median(numbers)) for step, numbers in sorted(at.items())]


def _names(runs: Sequence[Any]) -> str:
    names = [run.name for run in runs]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
