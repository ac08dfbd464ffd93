"""The first look at a field: a dense lattice of large stride, halved where the surface can be, down to bricks.

``lattice`` fixes the words.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from enerf.geometry.isosurface import cell_bounds
from enerf.geometry.isosurface.sample_grid import Asking

AT_ONCE = 1 << 21  # samples that are worked on together


@dataclass
class Coarse:
    """Samples ``stride`` apart, all over the lattice and beyond it up to whole cells of the first stride.

    Attributes
    ----------
    values
        Those of samples that are not known are a corner's of the cell that was not looked into.
    known
        Which samples the field was asked at.
    steep
        The slope, squared, that is granted to each cell.
    suspicious, mixed
        The cells that must be looked into, and those of them with corners on both sides.
    """

    stride: int
    values: Float[np.ndarray, "x y z"]
    known: Bool[np.ndarray, "x y z"]
    steep: Float[np.ndarray, "u v w"]
    suspicious: Bool[np.ndarray, "u v w"]
    mixed: Bool[np.ndarray, "u v w"]


def first_stride(cells: int, wanted: int) -> int:
    """The power of two that divides so many cells into nearest to the wanted number.

    >>> [first_stride(cells, 64) for cells in (64, 100, 512, 1000, 1024)]
    [1, 2, 8, 16, 16]
    """
    return int(2 ** max(0, round(math.log2(cells / wanted))))


def survey(asking: Asking, stride: int, side: int, slope: float | int | None) -> Coarse:
    """What is seen of a field with samples ``stride`` apart, or ``side`` apart near its surface if that is closer."""
    last, step = min(stride, side), stride // min(stride, side)
    unit = max(stride, side)
    shape = tuple(-(-(count - 1) // unit) * unit // last + 1 for count in asking.lattice.counts)
    cells = tuple((n - 1) // step for n in shape)
    steep = np.full(cells, 0.0 if slope is None else float(slope) ** 2, dtype=np.float32)
    none = np.zeros(cells, dtype=bool)
    seen = Coarse(last, np.zeros(shape, asking.dtype), np.zeros(shape, dtype=bool), steep, none, none)
    wanted = np.zeros(shape, dtype=bool)
    wanted[::step, ::step, ::step] = True
    while True:
        _ask(asking, seen, wanted)
        _suspect(asking, seen, step, slope)
        if step == 1:
            return seen
        seen.values = cell_bounds.spread(seen.values, seen.known, step)
        step //= 2
        wanted = np.zeros(shape, dtype=bool)
        wanted[::step, ::step, ::step] = cell_bounds.halved(seen.suspicious)
        for axis in range(3):
            seen.steep = seen.steep.repeat(2, axis)


def _ask(asking: Asking, seen: Coarse, wanted: Bool[np.ndarray, "x y z"]) -> None:
    """Ask for what is wanted and not known yet."""
    for part in slabs(wanted.shape, 0):
        new = wanted[part] & ~seen.known[part]
        index = np.argwhere(new)
        index[:, 0] += part.start
        seen.values[part][new] = asking.values(index * seen.stride)
        seen.known[part] |= new


def _suspect(asking: Asking, seen: Coarse, step: int, slope: float | int | None) -> None:
    """Find the suspicious cells of ``step`` samples among those that begin on the lattice and have known corners."""
    values, known = seen.values[::step, ::step, ::step], seen.known[::step, ::step, ::step]
    stride = step * seen.stride
    sides = asking.lattice.spacing * stride
    judged = cell_bounds.of_corners(known, np.logical_and)
    for axis, count in enumerate(asking.lattice.counts):
        judged[(slice(None),) * axis + (slice(-(-(count - 1) // stride), None),)] = False
    parts = [(part, slice(part.start, part.stop - 1)) for part in slabs(values.shape, 1)]
    seen.mixed = np.concatenate([cell_bounds.mixed(values[part] >= 0) for part, _ in parts]) & judged
    seen.suspicious = seen.mixed
    if stride == 1:
        return
    if slope is None:
        measured = np.concatenate([cell_bounds.squared_slope(values[part], sides) for part, _ in parts])
        seen.steep = np.maximum(seen.steep, cell_bounds.granted(np.where(judged, measured, 0)))
    near = [cell_bounds.within_reach(values[part], sides, seen.steep[cells]) for part, cells in parts]
    seen.suspicious = np.concatenate(near) & judged


def slabs(shape: tuple[int, ...], shared: int) -> Iterator[slice]:
    """Ranges of the first axis that hold some samples each and ``shared`` layers of the next range.

    >>> [(part.start, part.stop) for part in slabs((5, 1024, 1024), 1)]
    [(0, 3), (2, 5)]
    """
    thick = max(1, AT_ONCE // (shape[1] * shape[2]))
    for start in range(0, shape[0] - shared, thick):
        yield slice(start, min(start + thick + shared, shape[0]))
