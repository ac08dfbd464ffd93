"""Coarse sampling of a field: a dense grid of large stride, refined near the surface down to the size of bricks.

Terms are defined in ``sample_grid``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from enerf.geometry.isosurface import cell_bounds
from enerf.geometry.isosurface.sample_grid import FieldSampler
from enerf.geometry.isosurface.surface_cells import SurfaceCells

CHUNK_SAMPLES = 1 << 21  # processed at once


@dataclass
class CoarseGrid:
    """Samples ``stride`` apart that cover the lattice, padded to whole cells of the first stride.

    Attributes
    ----------
    values
        Samples that are not known have the value of a corner of the unrefined cell that contains them.
    known
        Whether the field was evaluated at each sample.
    slope_squared
        Squared bound of the slope assumed in each cell.
    candidates, sign_change
        The cells that are refined, and whether each cell has corners on both sides.
    surface_cells
        Cells that are refined in any case, or None.
    """

    stride: int
    values: Float[np.ndarray, "x y z"]
    known: Bool[np.ndarray, "x y z"]
    slope_squared: Float[np.ndarray, "u v w"]
    candidates: Bool[np.ndarray, "u v w"]
    sign_change: Bool[np.ndarray, "u v w"]
    surface_cells: SurfaceCells | None = None


def first_stride(cells: int, target: int) -> int:
    """The power of two that divides ``cells`` into the number of coarse cells nearest to ``target``.

    >>> [first_stride(cells, 64) for cells in (64, 100, 512, 1000, 1024)]
    [1, 2, 8, 16, 16]
    """
    return int(2 ** max(0, round(math.log2(cells / target))))


def sample(
    sampler: FieldSampler,
    stride: int,
    side: int,
    slope: float | int | None,
    surface_cells: SurfaceCells | None = None,
) -> CoarseGrid:
    """Sample a field at ``stride``, and at ``min(stride, side)`` near its surface."""
    last, step = min(stride, side), stride // min(stride, side)
    unit = max(stride, side)
    shape = tuple(-(-(count - 1) // unit) * unit // last + 1 for count in sampler.lattice.counts)
    cells = tuple((n - 1) // step for n in shape)
    squared = np.full(cells, 0.0 if slope is None else float(slope) ** 2, dtype=np.float32)
    none = np.zeros(cells, dtype=bool)
    grid = CoarseGrid(
        last, np.zeros(shape, sampler.dtype), np.zeros(shape, dtype=bool), squared, none, none, surface_cells
    )
    requested = np.zeros(shape, dtype=bool)
    requested[::step, ::step, ::step] = True
    while True:
        _evaluate(sampler, grid, requested)
        _find_candidates(sampler, grid, step, slope)
        if step == 1:
            return grid
        grid.values = cell_bounds.spread(grid.values, grid.known, step)
        step //= 2
        requested = np.zeros(shape, dtype=bool)
        requested[::step, ::step, ::step] = cell_bounds.halved(grid.candidates)
        for axis in range(3):
            grid.slope_squared = grid.slope_squared.repeat(2, axis)


def _evaluate(sampler: FieldSampler, grid: CoarseGrid, requested: Bool[np.ndarray, "x y z"]) -> None:
    """Evaluate the field at requested samples that are not known."""
    for part in slabs(requested.shape, 0):
        new = requested[part] & ~grid.known[part]
        index = np.argwhere(new)
        index[:, 0] += part.start
        grid.values[part][new] = sampler.values(index * grid.stride)
        grid.known[part] |= new


def _find_candidates(sampler: FieldSampler, grid: CoarseGrid, step: int, slope: float | int | None) -> None:
    """Find the candidates among cells of ``step`` samples that begin on the lattice and have known corners."""
    values, known = grid.values[::step, ::step, ::step], grid.known[::step, ::step, ::step]
    stride = step * grid.stride
    sides = sampler.lattice.spacing * stride
    valid = cell_bounds.of_corners(known, np.logical_and)
    for axis, count in enumerate(sampler.lattice.counts):
        valid[(slice(None),) * axis + (slice(-(-(count - 1) // stride), None),)] = False
    parts = [(part, slice(part.start, part.stop - 1)) for part in slabs(values.shape, 1)]
    grid.sign_change = np.concatenate([cell_bounds.sign_change(values[part] >= 0) for part, _ in parts]) & valid
    grid.candidates = grid.sign_change
    if stride == 1:
        return
    if slope is None:
        measured = np.concatenate([cell_bounds.squared_slope(values[part], sides) for part, _ in parts])
        grid.slope_squared = cell_bounds.slope_bound(np.where(valid, measured, 0), cell_bounds.COARSE_SAFETY)
    near = [cell_bounds.candidates(values[part], sides, grid.slope_squared[cells]) for part, cells in parts]
    grid.candidates = np.concatenate(near)
    if grid.surface_cells is not None:
        known_cells = grid.surface_cells.mask(sampler.lattice, stride, grid.candidates.shape)
        grid.candidates |= False if known_cells is None else known_cells
    grid.candidates &= valid


def slabs(shape: tuple[int, ...], shared: int) -> Iterator[slice]:
    """Ranges of the first axis of at most ``CHUNK_SAMPLES`` samples, each overlapping the next by ``shared`` layers.

    >>> [(part.start, part.stop) for part in slabs((5, 1024, 1024), 1)]
    [(0, 3), (2, 5)]
    """
    thickness = max(1, CHUNK_SAMPLES // (shape[1] * shape[2]))
    for start in range(0, shape[0] - shared, thickness):
        yield slice(start, min(start + thickness + shared, shape[0]))
