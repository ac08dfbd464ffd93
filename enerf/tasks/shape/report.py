"""Tables and curves of the metrics of shape runs.

A run is the content of its ``metrics.json``: ``shape``, ``method``, ``model``, ``steps``, ``seed``, ``seconds`` with
``train``; for a mesh ``field`` and, if one was extracted, ``mesh``; for an image ``picture``; and ``curve``: rows
``[step, seconds, IoU, IoU near]`` for a mesh, ``[step, seconds, PSNR, PSNR of held-out pixels]`` for an image. Missing
values are shown as a dash.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from enerf.reporting import grouping, plots

Run = dict[str, Any]

# heading, part, name, decimals
_SHAPE_COLUMNS = (
    ("IoU", "field", "iou", 4),
    ("near IoU", "field", "iou_near", 4),
    ("near F1", "field", "sign_f1_near", 4),
    ("Chamfer L1 [%]", "mesh", "chamfer_l1_percent", 3),
    ("NC", "mesh", "normal_consistency", 4),
    ("normal error [°]", "mesh", "normal_error_degrees", 2),
    ("F 0.5 %", "mesh", "fscore_0.5", 4),
    ("Hausdorff [%]", "mesh", "hausdorff_percent", 2),
    ("parts", "mesh", "parts", 0),
    ("dropped", "mesh", "parts_dropped", 0),
)
_PICTURE_COLUMNS = (("PSNR [dB]", "picture", "psnr", 2), ("held out [dB]", "picture", "psnr_heldout", 2))
_CURVES = {"field": (("IoU", 2), ("IoU near the surface", 3)), "picture": (("PSNR [dB]", 2), ("held-out PSNR [dB]", 3))}


def table(runs: Sequence[Run]) -> list[list[str]]:
    """Return rows of text, the header first: one row per shape and method, with mean ± standard deviation over seeds.

    Chamfer and Hausdorff distances are in percent of the side of the box; "near" refers to the shell of
    ``eval_points``. Columns without a value in any run are omitted.
    """
    columns = [c for c in (*_SHAPE_COLUMNS, *_PICTURE_COLUMNS) if any(_value(run, *c[1:3]) is not None for run in runs)]
    rows = [["shape", "method", *(heading for heading, *_ in columns), "steps", "train [s]", "seeds"]]
    groups: dict[tuple[str, str], list[Run]] = {}
    special = grouping.distinctions(runs, lambda run: (run["shape"], label(run)))
    for run, options in zip(runs, special, strict=True):
        groups.setdefault((run["shape"], label(run) + (f", {options}" if options else "")), []).append(run)
    for (shape, method), some in groups.items():
        cells = [
            plots.mean_and_std([_value(run, part, name) for run in some], digits) for _, part, name, digits in columns
        ]
        steps = sorted({int(run["steps"]) for run in some})
        seconds = [_value(run, "seconds", "train") for run in some]
        length = plots.DASH.join(map(str, steps if len(steps) < 2 else (steps[0], steps[-1])))
        rows.append([shape, method, *cells, length, plots.mean_and_std(seconds, 0), str(grouping.seeds(some))])
    return rows


def label(run: Run) -> str:
    """Return method and model of a run as the text of one table cell.

    >>> label({"method": "plain", "model": "8×256 relu"}), label({"method": "plain"})
    ('plain, 8×256 relu', 'plain')
    """
    return f"{run['method']}, {run['model']}" if run.get("model") else str(run["method"])


def draw_curves(runs: Sequence[Run], path: Path, title: str, label_of: Callable[[Run], str] = label) -> Path | None:
    """Plot the curves against steps and seconds, one row per shape, one color per method; None if there are none.

    Lines are means over seeds, shaded areas their range. Curves are interpolated to common abscissae; the mean ends
    with the shortest of them.

    Parameters
    ----------
    runs
        Metrics of runs, all of meshes or all of images.
    path
        PNG file to write.
    title
        Title of the figure.
    label_of
        Maps a run to its label in the legend.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from matplotlib.figure import Figure

    drawn = [run for run in runs if len(run.get("curve") or ()) > 1]
    if not drawn:
        return None
    shapes, methods = list(dict.fromkeys(r["shape"] for r in drawn)), list(dict.fromkeys(map(label_of, drawn)))
    known = _CURVES["picture" if "picture" in drawn[0] else "field"]
    wanted = [w for w in known if all(len(row) > w[1] for run in drawn for row in run["curve"])]
    figure = Figure(figsize=(4.4 * 2 * len(wanted), 3.3 * len(shapes) + 0.8), layout="constrained")
    grid = figure.subplots(len(shapes), 2 * len(wanted), squeeze=False)
    for axes_of_shape, shape in zip(grid, shapes, strict=True):
        places = [(words, column, x) for words, column in wanted for x in (0, 1)]
        for axes, (words, column, x) in zip(axes_of_shape, places, strict=True):
            for i, method in enumerate(methods):
                some = [run["curve"] for run in drawn if run["shape"] == shape and label_of(run) == method]
                plots.plot_curves(axes, [plots.curve_points(curve, x, column) for curve in some], method, f"C{i}")
            axes.set(xlabel=("step", "seconds of training")[x], ylabel=words, title=shape)
            axes.grid(alpha=0.3)
    figure.suptitle(title)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
    return plots.save(figure, path)


def _value(run: Run, part: str, name: str) -> float | None:
    """Return a value of a run, None if it is missing."""
    value = (run.get(part) or {}).get(name)
    return None if value is None else float(value)
