"""Figures of several seeds: mean and deviation in a cell, mean and extremes as a line with its shade."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core import io

DASH = "–"


def spread(values: Sequence[float | None], digits: int) -> str:
    """Mean ± standard deviation (of the sample); no spread for one value, a dash if one is missing.

    >>> spread([1.0, 2.0], 1), spread([1.0], 2), spread([1.0, None], 2)
    ('1.5 ± 0.7', '1.00', '–')
    """
    present = [float(value) for value in values if value is not None]
    if not present or len(present) < len(values):
        return DASH
    text = f"{np.mean(present):.{digits}f}"
    return text if len(present) == 1 else f"{text} ± {np.std(present, ddof=1):.{digits}f}"


def together(curves: Sequence[np.ndarray], n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Places, and the values of each curve there: their own if all have the same, else ``n`` that all of them cover.

    Curves are arrays of places and values, ``m 2`` each, in growing order of places; values are interpolated.

    >>> x, y = together([np.array([[0, 0], [4, 4.0]]), np.array([[1, 1], [3, 3.0]])], n=3)
    >>> x.tolist(), y.tolist()
    ([1.0, 2.0, 3.0], [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    """
    places = curves[0][:, 0]
    if any(not np.array_equal(curve[:, 0], places) for curve in curves):
        low, high = max(curve[0, 0] for curve in curves), min(curve[-1, 0] for curve in curves)
        places = np.linspace(low, max(low, high), n)
    return places, np.stack([np.interp(places, curve[:, 0], curve[:, 1]) for curve in curves])


def points(curve: Sequence[Sequence[Any]], x: int, column: int, scale: float | int = 1.0) -> Float64[np.ndarray, "m 2"]:
    """Places, times ``scale``, and values of a curve's rows, where it has values."""
    found = [(row[x] * scale, row[column]) for row in curve if row[column] is not None]
    return np.array(found, dtype=float).reshape(-1, 2)


def line(axes: Any, curves: Sequence[np.ndarray], name: str, colour: Any) -> None:
    """One method's line, the mean, and its shade, between the extremes; nothing but the name if it has no curve."""
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        axes.plot([], [], label=name, color=colour)
        return
    places, values = together(curves)
    axes.plot(places, values.mean(0), label=name, color=colour, marker="." if len(places) < 40 else None)
    if len(values) > 1:
        axes.fill_between(places, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with io.replacing(path) as temporary, io.blaming(path):
        figure.savefig(temporary, format="png", dpi=110)
    return path
