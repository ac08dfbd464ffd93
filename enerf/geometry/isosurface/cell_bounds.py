"""Candidate cells: tests whether a cell can contain part of the surface. Pure functions of values at corners.

Arrays end in three axes of samples (m+1 of them) or of cells (m). Terms are defined in ``sample_grid``.

Known slope
-----------
A field whose values change by at most ``slope`` per unit length, and which is 0 at some point p of a cell, has corner
values with |v| ≤ slope · |p − corner|. For two opposite corners c, c′ around the center m the parallelogram law gives

    |p − c|² + |p − c′|² = 2 |p − m|² + 2 |m − c|² ≤ diagonal²,

so v² + v′² ≤ (slope · diagonal)² for each of the four pairs. A cell that violates this for one pair contains no part
of the surface, so nothing is missed. For a plane this keeps the cells whose centers lie within 0.87 to 1.12 cells of
it; the simpler test |v| ≤ slope · diagonal / 2 at the nearest corner would keep 1.4 to 1.7.

Measured slope
--------------
Without a bound the slope of a cell is estimated from the differences along its edges: the maximum over the cell and
the cells that touch it, times ``safety`` of the stride, or ``COARSE_SAFETY`` in the coarse grid. ``extract`` describes
what can be missed.
"""

import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

ROUNDING = 1.0 + 1e-5  # relative tolerance of the bound
# Slope assumed inside a cell over the measured slope, by stride; COARSE_SAFETY for others and in the coarse grid.
# What a cell of stride 2 or 4 can hide is that small.
SAFETY = {2: 0.5, 4: 1.0}
COARSE_SAFETY = 1.5


def safety(stride: int) -> float:
    """Slope assumed inside a cell of a stride, over the measured slope.

    >>> [safety(stride) for stride in (2, 4, 8, 16)]
    [0.5, 1.0, 1.5, 1.5]
    """
    return SAFETY.get(stride, COARSE_SAFETY)


def sign_change(inside: Bool[np.ndarray, "*b x y z"]) -> Bool[np.ndarray, "*b u v w"]:
    """Whether cells have corners on both sides of the surface.

    >>> inside = np.zeros((2, 2, 3), bool)
    >>> inside[0, 0, 0] = True
    >>> sign_change(inside).tolist()
    [[[True, False]]]
    """
    return of_corners(inside, np.logical_or) & ~of_corners(inside, np.logical_and)


def of_corners(samples: np.ndarray, combine: np.ufunc) -> np.ndarray:
    """Reduce the eight corners of each cell with a binary ufunc, axis by axis.

    >>> of_corners(np.arange(8).reshape(2, 2, 2), np.maximum).tolist()
    [[[7]]]
    """
    for axis in (-1, -2, -3):
        samples = combine(*_neighbours(samples, axis))
    return samples


def _neighbours(samples: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Views without the last and without the first element along an axis."""
    return samples[_along(slice(-1), axis)], samples[_along(slice(1, None), axis)]


def _along(part: slice, axis: int) -> Any:
    """Index that applies a slice to one of the last three axes."""
    return (..., part, *(slice(None),) * (-1 - axis))


def candidates(
    values: Float[np.ndarray, "*b x y z"], sides: Float[np.ndarray, " 3"], squared: Float[np.ndarray, "*#b #u #v #w"]
) -> Bool[np.ndarray, "*b u v w"]:
    """Candidate cells: with a sign change, or where a field of this squared slope may be 0; ``sides`` of a cell."""
    squares = np.square(np.clip(values, -1e18, 1e18))
    return (_opposite(squares) <= squares.dtype.type(limit(sides)) * squared) | sign_change(values >= 0)


def limit(sides: Float[np.ndarray, " 3"]) -> float:
    """The squared diagonal of a cell, with a tolerance for rounding."""
    return float(ROUNDING * np.square(sides).sum())


def _opposite(squares: Float[np.ndarray, "*b x y z"]) -> Float[np.ndarray, "*b u v w"]:
    """Maximum over the four pairs of opposite corners of each cell of the pair's sum."""
    first, last = slice(None, -1), slice(1, None)
    sums = None
    for y, z in itertools.product((first, last), repeat=2):
        across = squares[..., first, y, z] + squares[..., last, _other(y), _other(z)]
        sums = across if sums is None else np.maximum(sums, across, out=sums)
    assert sums is not None
    return sums


def _other(end: slice) -> slice:
    return slice(1, None) if end == slice(None, -1) else slice(None, -1)


def squared_slope(
    values: Float[np.ndarray, "*b x y z"], sides: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "*b u v w"]:
    """Squared slope of each cell: mean difference of its four edges along each axis, squared and summed.

    >>> float(squared_slope(np.arange(8.0).reshape(2, 2, 2), np.array([1.0, 1.0, 2.0])).item())
    20.25
    """
    total = np.zeros(1, values.dtype)
    for axis, side in zip((-3, -2, -1), sides, strict=True):
        low, high = _neighbours(values, axis)
        rise = high - low
        for other in sorted({-3, -2, -1} - {axis}):
            rise = np.add(*_neighbours(rise, other))
        total = total + np.square(rise / values.dtype.type(4 * side))
    return total


def slope_bound(squared: Float[np.ndarray, "*b u v w"], factor: float | int) -> Float[np.ndarray, "*b u v w"]:
    """Squared slope assumed in each cell, from the measured ones: neighborhood maximum times ``factor``²."""
    return np.asarray(np.float32(factor**2) * widened(squared))


def widened(cells: np.ndarray) -> np.ndarray:
    """Maximum over each cell and the cells that touch it (dilation for boolean arrays).

    >>> int(widened(np.pad(np.ones((1, 1, 1), bool), 2)).sum())
    27
    """
    for axis in (-1, -2, -3):
        wide = cells.copy()
        low, high = _along(slice(-1), axis), _along(slice(1, None), axis)
        np.maximum(wide[low], cells[high], out=wide[low])
        np.maximum(wide[high], cells[low], out=wide[high])
        cells = wide
    return cells


def halved(cells: Bool[np.ndarray, "*b u v w"]) -> Bool[np.ndarray, "*b x y z"]:
    """The samples of half the stride in marked cells: 2m+1 along an axis, 27 per cell.

    >>> halved(np.ones((1, 1, 2), bool)).shape
    (3, 3, 5)
    """
    for axis in (-3, -2, -1):
        cells = _between(cells, axis, 2)
    return cells


def corners(cells: Bool[np.ndarray, "*b u v w"]) -> Bool[np.ndarray, "*b x y z"]:
    """The corners of marked cells.

    >>> int(corners(np.ones((1, 1, 2), bool)).sum())
    12
    """
    for axis in (-3, -2, -1):
        cells = _between(cells, axis, 1)
    return cells


def _between(cells: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Samples of marked cells along one axis: both ends, ``step`` apart, and the samples between."""
    m = cells.shape[axis]
    samples = np.zeros((*cells.shape[:axis], step * m + 1, *cells.shape[axis:][1:]), dtype=bool)
    samples[_along(slice(0, step * m, step), axis)] = cells
    samples[_along(slice(step, None, step), axis)] |= cells
    if step == 2:
        samples[_along(slice(1, None, 2), axis)] = cells
    return samples


def spread(
    values: Float[np.ndarray, "*b x y z"], known: Bool[np.ndarray, "*b x y z"], stride: int
) -> Float[np.ndarray, "*b x y z"]:
    """Values with unknown ones replaced by the value at their index rounded down to ``stride``.

    An unknown sample lies in a cell that was not refined, all of whose corners are on one side; applied from coarse to
    fine, this assigns it that side. Indices count from the array's first sample.
    """
    x, y, z = values.shape[-3:]
    coarse = values[..., ::stride, ::stride, ::stride]
    for axis, length in zip((-3, -2, -1), (x, y, z), strict=True):
        coarse = coarse.repeat(stride, axis)[_along(slice(length), axis)]
    return np.where(known, values, coarse)
