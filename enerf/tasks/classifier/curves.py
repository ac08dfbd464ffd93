"""Curves of classifier runs, as ``classifier_report`` describes them: against epochs, and against learning rates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enerf.reporting import plots
from enerf.tasks.classifier.report import Run, named

# words of a figure, column of the curve, whether it may need a logarithmic axis
DRAWN = (
    ("test accuracy [%]", 2, False),
    ("test loss", 3, False),
    ("training loss", 5, False),
    ("median κ of the layers", 6, True),
)
LINES = ("-", "--", ":", "-.")
DECADE = 10.0  # a wider range gets a logarithmic axis


def draw(runs: Sequence[Run], path: Path, title: str) -> Path | None:
    """Accuracy, losses and κ against epochs, a colour a method, a dash a learning rate; None if no run has a curve.

    Lines are means over seeds, shades lie between their extremes.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    drawn = [run for run in runs if len(run.get("curve") or ()) > 1]
    if not drawn:
        return None
    arms = list(dict.fromkeys(map(named, drawn)))
    methods, rates = (list(dict.fromkeys(arm.partition("@")[i] for arm in arms)) for i in (0, 2))
    figure = Figure(figsize=(3.6 * len(DRAWN), 4.6), layout="constrained")
    for axes, (words, column, may_be_log) in zip(figure.subplots(1, len(DRAWN)), DRAWN, strict=True):
        seen: list[float] = []
        for arm in arms:
            method, _, rate = arm.partition("@")
            some = [run for run in drawn if named(run) == arm]
            found = [plots.curve_points(run["curve"], 0, column, 1 / run["steps_an_epoch"]) for run in some]
            seen += [float(value) for points in found for value in points[:, 1]]
            before = len(axes.lines)
            plots.plot_curves(axes, found, arm, _colour(methods.index(method), len(methods)))
            axes.lines[before].set_linestyle(LINES[rates.index(rate) % len(LINES)])
        axes.set(xlabel="epoch", ylabel=words)
        axes.grid(alpha=0.3)
        if may_be_log and seen and max(seen) > DECADE * min(seen) > 0:
            axes.set_yscale("log")
    figure.suptitle(title)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(7, len(names)))
    return plots.save(figure, path)


def draw_rates(runs: Sequence[Run], path: Path, title: str) -> Path | None:
    """Final test accuracy and training loss against learning rate, a line a method; None if no arm names two rates.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    rated = [run for run in runs if "@" in named(run)]
    methods = list(dict.fromkeys(named(run).partition("@")[0] for run in rated))
    if len({named(run).partition("@")[2] for run in rated}) < 2:
        return None
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    for axes, (words, part, name) in zip(
        figure.subplots(1, 2),
        (("test accuracy [%]", "test", "accuracy"), ("training loss", "fit", "loss")),
        strict=True,
    ):
        for i, method in enumerate(methods):
            some = [run for run in rated if named(run).partition("@")[0] == method]
            found = [
                plots.curve_points(
                    sorted((float(named(run).partition("@")[2]), run[part][name]) for run in of_seed), 0, 1
                )
                for of_seed in _by_seed(some)
            ]
            plots.plot_curves(axes, found, method, _colour(i, len(methods)))
        axes.set(xlabel="learning rate", ylabel=words, xscale="log")
        axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(title)
    return plots.save(figure, path)


def _by_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that share a seed, seed by seed; of seeds that have as many as any."""
    found: dict[int, list[Run]] = {}
    for run in runs:
        found.setdefault(run["seed"], []).append(run)
    most = max(map(len, found.values()))
    return [some for some in found.values() if len(some) == most]


def _colour(number: int, among: int) -> Any:
    from matplotlib import colormaps

    palette = colormaps["tab10" if among <= 10 else "tab20"]
    return palette(number % palette.N)
