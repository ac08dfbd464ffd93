"""Summaries over several seeds: mean ± standard deviation as text, curves of mean and range as figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core import io

DASH = "–"


def mean_and_std(values: Sequence[float | None], digits: int) -> str:
    """Mean ± sample standard deviation as text; the mean alone for one value, a dash if any value is missing.

    >>> mean_and_std([1.0, 2.0], 1), mean_and_std([1.0], 2), mean_and_std([1.0, None], 2)
    ('1.5 ± 0.7', '1.00', '–')
    """
    present = [float(value) for value in values if value is not None]
    if not present or len(present) < len(values):
        return DASH
    text = f"{np.mean(present):.{digits}f}"
    return text if len(present) == 1 else f"{text} ± {np.std(present, ddof=1):.{digits}f}"


def align_curves(curves: Sequence[np.ndarray], n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Common x values of several curves, and the y values of each there, interpolated.

    Curves are arrays ``m 2`` of x and y, with increasing x. The common x values are the curves' own if all have the
    same, else ``n`` evenly spaced ones in the range that all curves cover.

    >>> x, y = align_curves([np.array([[0, 0], [4, 4.0]]), np.array([[1, 1], [3, 3.0]])], n=3)
    >>> x.tolist(), y.tolist()
    ([1.0, 2.0, 3.0], [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    """
    common = curves[0][:, 0]
    if any(not np.array_equal(curve[:, 0], common) for curve in curves):
        low, high = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
        common = np.linspace(low, max(low, high), n)
    return common, np.stack([np.interp(common, curve[:, 0], curve[:, 1]) for curve in curves])


def curve_points(
    rows: Sequence[Sequence[Any]], x: int, column: int, scale: float | int = 1.0
) -> Float64[np.ndarray, "m 2"]:
    """Curve of two columns of ``rows``: ``x``, times ``scale``, and ``column``; rows without a value are left out."""
    found = [(row[x] * scale, row[column]) for row in rows if row[column] is not None]
    return np.array(found, dtype=float).reshape(-1, 2)


def plot_curves(axes: Any, curves: Sequence[np.ndarray], name: str, color: Any) -> None:
    """Plot the mean of one method's curves, and shade the range between their extremes; only a legend entry if none."""
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        axes.plot([], [], label=name, color=color)
        return
    x, y = align_curves(curves)
    axes.plot(x, y.mean(0), label=name, color=color, marker="." if len(x) < 40 else None)
    if len(y) > 1:
        axes.fill_between(x, y.min(0), y.max(0), color=color, alpha=0.2, linewidth=0)


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, atomically.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with io.atomic_path(path) as temporary, io.os_errors_as_input_errors(path):
        figure.savefig(temporary, format="png", dpi=110)
    return path
