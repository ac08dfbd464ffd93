"""How a task presents its runs in a report: curves, figures, published results and pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Figure:
    """A value of ``metrics.json``: its heading, the names that lead to it, and the number of decimals."""

    heading: str
    path: tuple[str, ...]
    digits: int


@dataclass(frozen=True)
class Curve:
    """Values over the steps of a run: their name in the journal, a title with unit, whether the axis is logarithmic.

    ``is_detail`` for curves that are of interest only where something went wrong.
    """

    key: str
    title: str
    logarithmic: bool = False
    is_detail: bool = False


@dataclass(frozen=True)
class PictureOf:
    """A picture of a run beside its reference, both in [0, 1] and of one size.

    Attributes
    ----------
    name
        What is shown, such as the file name of a photograph; pictures of several runs with one name are compared.
    picture
        What the run makes.
    reference
        What it should be; None if it is not available.
    reference_name
        What the reference is, such as ``photograph``.
    caption
        Figures of this picture.
    mask
        Pixels that count; None: all.
    has_error
        Whether the difference to the reference means something.
    """

    name: str
    picture: Float[np.ndarray, "h w 3"]
    reference: Float[np.ndarray, "h w 3"] | None
    reference_name: str
    caption: str
    mask: Bool[np.ndarray, "h w"] | None = None
    has_error: bool = True


# Folder, saved options, metrics or None, new path of the data or "", number of pictures -> pictures, what is missing.
Pictures = Callable[[Path, dict[str, Any], dict[str, Any] | None, str, int], tuple[list[PictureOf], list[str]]]


@dataclass(frozen=True)
class Presentation:
    """How a task presents its runs.

    Attributes
    ----------
    figures
        Values of ``metrics.json`` in the table of runs; the first one decides in sweeps.
    curves
        Curves of the journal, in this order.
    seconds_column
        Column of the seconds in rows of ``curve``; None if it has none.
    published
        Metrics of several runs -> rows of a table of published results, the header first; None if ``table`` of the task
        contains them, or there are none.
    differences
        Metrics of a run -> in what its protocol or data differ from those of published results, as sentences; empty if
        there are no results to be compared with.
    pictures
        Pictures of a run.
    note
        A sentence about published results where there are none.
    """

    figures: tuple[Figure, ...]
    curves: tuple[Curve, ...]
    seconds_column: int | None = None
    published: Callable[[Sequence[dict[str, Any]]], list[list[str]]] | None = None
    differences: Callable[[dict[str, Any]], list[str]] | None = None
    pictures: Pictures | None = None
    note: str = ""


def value(metrics: dict[str, Any] | None, path: Sequence[str]) -> float | None:
    """Return a number of metrics; None if it is missing or no number.

    >>> value({"mean": {"psnr": 20.0}}, ["mean", "psnr"]), value({"mean": None}, ["mean", "psnr"]), value(None, ["a"])
    (20.0, None, None)
    """
    found: Any = metrics
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    try:
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
    except OverflowError:  # an integer of hundreds of digits
        return None
