"""Estimated cost of an extraction from its coarse samples: evaluations, seconds, bytes."""

from dataclasses import dataclass

import numpy as np
import torch

from enerf.geometry.isosurface import bricks, cell_bounds
from enerf.geometry.isosurface.coarse import CoarseGrid
from enerf.geometry.isosurface.sample_grid import FieldSampler

HALVING = 10  # new samples per refined candidate cell, shared ones counted once
WORKSPACE = 60 * bricks.CHUNK_SAMPLES  # bytes of temporary arrays per thread
COARSE = 14  # bytes per coarse sample while the candidate cells are found
VERTEX = 220  # bytes per vertex and its two faces while vertices are welded


@dataclass(frozen=True)
class Plan:
    """Estimated cost; ``dense`` is exact, the rest is within a factor of about two.

    Attributes
    ----------
    cells
        Number of cells of the lattice along each axis.
    dense
        Evaluations of a dense extraction, one per sample.
    evaluations
        Estimated evaluations.
    seconds
        Estimated time of the evaluations, at the pace of those already made; marching cubes itself is not included,
        which is little for a network.
    bytes
        Estimated upper bound of the memory beyond that of the field.
    vertices
        Estimated vertices of the mesh.
    """

    cells: tuple[int, int, int]
    dense: int
    evaluations: int
    seconds: float
    bytes: int
    vertices: int

    def __str__(self) -> str:
        """Summary in one line.

        >>> print(Plan((512, 512, 512), 135_005_697, 2_400_000, 61.0, 300 << 20, 800_000))
        512×512×512 cells: about 2.4 million field evaluations (dense: 135.0 million, 56 times as many), 1.0 min,
        0.29 GiB, 0.8 million vertices
        """
        return (
            f"{'×'.join(map(str, self.cells))} cells: about {self.evaluations / 1e6:.1f} million field evaluations "
            f"(dense: {self.dense / 1e6:.1f} million, {self.dense / max(self.evaluations, 1):.0f} times as many), "
            f"{self.seconds / 60:.1f} min, {self.bytes / 2**30:.2f} GiB, {self.vertices / 1e6:.1f} million vertices"
        )


def estimate(sampler: FieldSampler, grid: CoarseGrid, side: int, seconds: float, measured: bool = False) -> Plan:
    """Estimated cost of an extraction whose coarse sampling took ``seconds``.

    ``measured``: the slope of the field is measured, not given.
    """
    first = _new_samples(grid)
    levels, grows = max(0, round(np.log2(grid.stride)) - 1), growth(grid)
    later = sum(HALVING * _candidates(grid, grid.stride >> k, measured) * grows**k for k in range(1, levels + 1))
    evaluations = sampler.evaluations + first + round(later)
    vertices = round(int(grid.sign_change.sum()) * grows ** np.log2(grid.stride))
    stored = _stored_bricks(grid, side)
    itemsize = sampler.dtype.itemsize
    memory = (
        WORKSPACE * min(torch.get_num_threads(), bricks.MAX_THREADS)
        + 100 * sampler.points_at_once
        + (COARSE - 4 + itemsize) * grid.values.size
        + stored * side**3 * (bricks.BYTES - 4 + itemsize)
        + VERTEX * vertices
    )
    return Plan(
        cells=sampler.lattice.cells,
        dense=int(np.prod([n + 1 for n in sampler.lattice.cells])),
        evaluations=evaluations,
        seconds=seconds * evaluations / max(sampler.evaluations, 1),
        bytes=memory,
        vertices=vertices,
    )


def _candidates(grid: CoarseGrid, stride: int, measured: bool) -> float:
    """Number of candidate cells in the coarse grid if they were chosen as those of a smaller stride are."""
    share = cell_bounds.safety(stride) / cell_bounds.COARSE_SAFETY if measured else 1.0
    return max(share * float(grid.candidates.sum()), float(grid.sign_change.sum()))


def growth(grid: CoarseGrid) -> float:
    """Factor by which the number of cells on the surface grows when the stride is halved, clipped to [4, 6].

    4 for a smooth surface, more for a rough one. Measured between the coarse samples and every other one of them.
    """
    fewer = int(cell_bounds.sign_change(grid.values[::2, ::2, ::2] >= 0).sum())
    return float(np.clip(int(grid.sign_change.sum()) / max(fewer, 1), 4.0, 6.0))


def _new_samples(grid: CoarseGrid) -> int:
    """Number of samples that the first refinement evaluates; counted in slabs of the first axis."""
    if grid.stride == 1:
        return 0
    cells = grid.candidates
    return sum(int(cell_bounds.halved(cells[i : i + 8]).sum()) for i in range(0, len(cells), 8)) - int(cells.sum())


def _stored_bricks(grid: CoarseGrid, side: int) -> int:
    """Number of bricks with a candidate cell, and of the bricks that follow them."""
    per = side // grid.stride
    blocks: np.ndarray = grid.candidates.reshape([n for g in grid.candidates.shape for n in (g // per, per)])
    return int(cell_bounds.corners(np.asarray(blocks.any((1, 3, 5)))).sum())
