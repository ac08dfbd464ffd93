"""Plots of classifier runs (see ``report``): curves against epochs, and results against learning rates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enerf.reporting import plots
from enerf.tasks.classifier.report import Run, method_label

# axis label, column of the curve, whether the axis may be logarithmic
PANELS = (
    ("test accuracy [%]", 2, False),
    ("test loss", 3, False),
    ("training loss", 5, False),
    ("median κ of the layers", 6, True),
)
LINE_STYLES = ("-", "--", ":", "-.")
DECADE = 10.0  # ratio above which the axis is logarithmic


def draw(runs: Sequence[Run], path: Path, title: str) -> Path | None:
    """Plot accuracy, losses and κ against epochs; None if no run has a curve.

    One color per method, one line style per learning rate; lines are means over seeds, shaded areas their range.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    drawn = [run for run in runs if len(run.get("curve") or ()) > 1]
    if not drawn:
        return None
    variants = list(dict.fromkeys(map(method_label, drawn)))
    methods, rates = (list(dict.fromkeys(variant.partition("@")[i] for variant in variants)) for i in (0, 2))
    figure = Figure(figsize=(3.6 * len(PANELS), 4.6), layout="constrained")
    for axes, (words, column, may_be_log) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        values: list[float] = []
        for variant in variants:
            method, _, rate = variant.partition("@")
            some = [run for run in drawn if method_label(run) == variant]
            found = [plots.curve_points(run["curve"], 0, column, 1 / run["steps_an_epoch"]) for run in some]
            values += [float(value) for points in found for value in points[:, 1]]
            before = len(axes.lines)
            plots.plot_curves(axes, found, variant, _color(methods.index(method), len(methods)))
            axes.lines[before].set_linestyle(LINE_STYLES[rates.index(rate) % len(LINE_STYLES)])
        axes.set(xlabel="epoch", ylabel=words)
        axes.grid(alpha=0.3)
        if may_be_log and values and max(values) > DECADE * min(values) > 0:
            axes.set_yscale("log")
    figure.suptitle(title)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(7, len(names)))
    return plots.save(figure, path)


def draw_rates(runs: Sequence[Run], path: Path, title: str) -> Path | None:
    """Plot final test accuracy and training loss against learning rate, one line per method; None for a single rate.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    rated = [run for run in runs if "@" in method_label(run)]
    methods = list(dict.fromkeys(method_label(run).partition("@")[0] for run in rated))
    if len({method_label(run).partition("@")[2] for run in rated}) < 2:
        return None
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    for axes, (words, part, name) in zip(
        figure.subplots(1, 2),
        (("test accuracy [%]", "test", "accuracy"), ("training loss", "fit", "loss")),
        strict=True,
    ):
        for i, method in enumerate(methods):
            some = [run for run in rated if method_label(run).partition("@")[0] == method]
            found = [
                plots.curve_points(
                    sorted((float(method_label(run).partition("@")[2]), run[part][name]) for run in of_seed), 0, 1
                )
                for of_seed in _by_seed(some)
            ]
            plots.plot_curves(axes, found, method, _color(i, len(methods)))
        axes.set(xlabel="learning rate", ylabel=words, xscale="log")
        axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(title)
    return plots.save(figure, path)


def _by_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs by seed; seeds with fewer runs than others are omitted."""
    found: dict[int, list[Run]] = {}
    for run in runs:
        found.setdefault(run["seed"], []).append(run)
    most = max(map(len, found.values()))
    return [some for some in found.values() if len(some) == most]


def _color(number: int, among: int) -> Any:
    from matplotlib import colormaps

    palette = colormaps["tab10" if among <= 10 else "tab20"]
    return palette(number % palette.N)
