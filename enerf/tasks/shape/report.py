"""Metrics of shape runs to a table and to curves.

A run is what ``metrics.json`` holds: ``shape``, ``method``, ``model``, ``steps``, ``seed``, ``seconds`` with ``train``;
of a mesh ``field`` and, if one was extracted, ``mesh``; of a picture ``picture``; and ``curve``: rows ``[step, seconds,
IoU, IoU near]`` of a mesh, ``[step, seconds, PSNR, PSNR of held-out pixels]`` of a picture. Whatever is missing leaves
a dash.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from enerf.reporting import plots

Run = dict[str, Any]

# heading, part, name, decimals
_OF_SHAPES = (
    ("IoU", "field", "iou", 4),
    ("near IoU", "field", "iou_near", 4),
    ("near F1", "field", "sign_f1_near", 4),
    ("Chamfer L1 [%]", "mesh", "chamfer_l1_percent", 3),
    ("NC", "mesh", "normal_consistency", 4),
    ("F 0.5 %", "mesh", "fscore_0.5", 4),
    ("Hausdorff [%]", "mesh", "hausdorff_percent", 2),
)
_OF_PICTURES = (("PSNR [dB]", "picture", "psnr", 2), ("held out [dB]", "picture", "psnr_heldout", 2))
_CURVES = {"field": (("IoU", 2), ("IoU near the surface", 3)), "picture": (("PSNR [dB]", 2), ("held-out PSNR [dB]", 3))}


def table(runs: Sequence[Run]) -> list[list[str]]:
    """Rows as text: one for each shape and method, runs that differ in their seed averaged, ± their deviation.

    Chamfer and Hausdorff distances are in percent of the side of the box; "near" is the shell of the protocol. Shapes
    and pictures have columns of their own, left out where no run has one.
    """
    columns = [c for c in (*_OF_SHAPES, *_OF_PICTURES) if any(_value(run, *c[1:3]) is not None for run in runs)]
    rows = [["shape", "method", *(heading for heading, *_ in columns), "steps", "train [s]", "seeds"]]
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run["shape"], label(run)), []).append(run)
    for (shape, method), some in groups.items():
        cells = [
            plots.mean_and_std([_value(run, part, name) for run in some], digits) for _, part, name, digits in columns
        ]
        steps = sorted({int(run["steps"]) for run in some})
        seconds = [_value(run, "seconds", "train") for run in some]
        length = plots.DASH.join(map(str, steps if len(steps) < 2 else (steps[0], steps[-1])))
        rows.append([shape, method, *cells, length, plots.mean_and_std(seconds, 0), str(len(some))])
    return rows


def label(run: Run) -> str:
    """Method and model in one cell.

    >>> label({"method": "plain", "model": "8×256 relu"}), label({"method": "plain"})
    ('plain, 8×256 relu', 'plain')
    """
    return f"{run['method']}, {run['model']}" if run.get("model") else str(run["method"])


def draw_curves(runs: Sequence[Run], path: Path, title: str, named: Callable[[Run], str] = label) -> Path | None:
    """Both figures of the curves against steps and against seconds, a row a shape, a colour a method; None without any.

    Lines are means over seeds, shades lie between their extremes. Seeds are brought to the same seconds between their
    points; where one has ended, the mean ends.

    Parameters
    ----------
    runs
        Of any shapes and methods; all of meshes, or all of pictures.
    path
        The PNG to be written.
    title
        Above all.
    named
        What a run's line is called.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    drawn = [run for run in runs if len(run.get("curve") or ()) > 1]
    if not drawn:
        return None
    shapes, methods = list(dict.fromkeys(r["shape"] for r in drawn)), list(dict.fromkeys(map(named, drawn)))
    known = _CURVES["picture" if "picture" in drawn[0] else "field"]
    wanted = [w for w in known if all(len(row) > w[1] for run in drawn for row in run["curve"])]
    figure = Figure(figsize=(4.4 * 2 * len(wanted), 3.3 * len(shapes) + 0.8), layout="constrained")
    grid = figure.subplots(len(shapes), 2 * len(wanted), squeeze=False)
    for axes_of_shape, shape in zip(grid, shapes, strict=True):
        places = [(words, column, x) for words, column in wanted for x in (0, 1)]
        for axes, (words, column, x) in zip(axes_of_shape, places, strict=True):
            for i, method in enumerate(methods):
                some = [run["curve"] for run in drawn if run["shape"] == shape and named(run) == method]
                plots.plot_curves(axes, [plots.curve_points(curve, x, column) for curve in some], method, f"C{i}")
            axes.set(xlabel=("step", "seconds of training")[x], ylabel=words, title=shape)
            axes.grid(alpha=0.3)
    figure.suptitle(title)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
    return plots.save(figure, path)


def _value(run: Run, part: str, name: str) -> float | None:
    """A number of a run, None if it is missing."""
    return (run.get(part) or {}).get(name)
