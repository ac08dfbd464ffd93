"""Where a surface can be: the rules by which cells are looked at more closely. Pure functions of values at corners.

Arrays end in three axes of samples (m+1 of them) or of cells (m); ``lattice`` fixes the words.

The rule of the known slope
---------------------------
A field whose values change by at most ``slope`` per unit length, and which is 0 at some point p of a cell, has corner
values with |v| ≤ slope · |p − corner|. For two opposite corners c, c′ around the centre m the parallelogram law says

    |p − c|² + |p − c′|² = 2 |p − m|² + 2 |m − c|² ≤ diagonal²,

so v² + v′² ≤ (slope · diagonal)² for each of the four pairs. A cell that breaks this for one pair holds no part of
the surface: nothing is lost. Of a plane it keeps the cells whose centres lie within 0.87 to 1.12 cells of it, where
|v| ≤ slope · diagonal / 2 at the nearest corner would keep 1.4 to 1.7.

The rule of the measured slope
------------------------------
Without a bound the slope is measured: that of a cell by the rise along its edges, but no less than that of the cells
that touch it or of the larger cells that it is a part of, times ``SAFETY``. What this can miss is said in ``marching``.
"""

import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

ROUNDING = 1.0 + 1e-5  # on a bound that a field may reach
SAFETY = 1.5  # how much steeper a field may be inside a cell than it was measured


def mixed(inside: Bool[np.ndarray, "*b x y z"]) -> Bool[np.ndarray, "*b u v w"]:
    """Cells with corners on both sides.

    >>> inside = np.zeros((2, 2, 3), bool)
    >>> inside[0, 0, 0] = True
    >>> mixed(inside).tolist()
    [[[True, False]]]
    """
    return of_corners(inside, np.logical_or) & ~of_corners(inside, np.logical_and)


def of_corners(samples: np.ndarray, combine: np.ufunc) -> np.ndarray:
    """What the eight corners of each cell combine to, an axis at a time.

    >>> of_corners(np.arange(8).reshape(2, 2, 2), np.maximum).tolist()
    [[[7]]]
    """
    for axis in (-1, -2, -3):
        samples = combine(*_neighbours(samples, axis))
    return samples


def _neighbours(samples: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """All but the last and all but the first along an axis."""
    return samples[_along(slice(-1), axis)], samples[_along(slice(1, None), axis)]


def _along(part: slice, axis: int) -> Any:
    """The index of a part of one of the last three axes."""
    return (..., part, *(slice(None),) * (-1 - axis))


def within_reach(
    values: Float[np.ndarray, "*b x y z"], sides: Float[np.ndarray, " 3"], squared: Float[np.ndarray, "*#b #u #v #w"]
) -> Bool[np.ndarray, "*b u v w"]:
    """Cells that are mixed, or that a field of this slope, squared, may be 0 in; ``sides`` are the cells'."""
    squares = np.square(np.clip(values, -1e18, 1e18))
    return (_opposite(squares) <= ROUNDING * np.square(sides).sum() * squared) | mixed(values >= 0)


def _opposite(squares: Float[np.ndarray, "*b x y z"]) -> Float[np.ndarray, "*b u v w"]:
    """The greatest of the four sums over opposite corners of each cell."""
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
    """How steep each cell is: the mean difference of its four edges along each axis, squared and added.

    >>> float(squared_slope(np.arange(8.0).reshape(2, 2, 2), np.array([1.0, 1.0, 2.0])).item())
    20.25
    """
    total = np.zeros(1, values.dtype)
    for axis, side in zip((-3, -2, -1), sides, strict=True):
        low, high = _neighbours(values, axis)
        rise = high - low
        for other in {-3, -2, -1} - {axis}:
            rise = np.add(*_neighbours(rise, other))
        total = total + np.square(rise / values.dtype.type(4 * side))
    return total


def granted(squared: Float[np.ndarray, "*b u v w"]) -> Float[np.ndarray, "*b u v w"]:
    """The slope, squared, that is granted to each cell where these were measured."""
    return np.asarray(np.float32(SAFETY**2) * widened(squared))


def widened(cells: np.ndarray) -> np.ndarray:
    """The greatest of each cell and those of the array that touch it; whether any is marked.

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
    """The samples of half the stride that marked cells are made of: 2m+1 along an axis, 27 a cell.

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
    """The samples of marked cells along one axis: the ends of each, ``step`` apart, and what lies between."""
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
    """Values with each unknown one taken from the sample that ``stride`` rounds its indices down to.

    An unknown sample lies in a cell that was not looked into, all of whose corners are on one side: this gives it that
    side, if applied from coarse to fine. The array's first sample lies on the stride.
    """
    x, y, z = values.shape[-3:]
    coarse = values[..., ::stride, ::stride, ::stride]
    for axis, length in zip((-3, -2, -1), (x, y, z), strict=True):
        coarse = coarse.repeat(stride, axis)[_along(slice(length), axis)]
    return np.where(known, values, coarse)
