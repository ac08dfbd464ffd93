"""Verification of an extraction: the field is evaluated at every sample of some or all bricks."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from enerf.geometry.isosurface import cell_bounds
from enerf.geometry.isosurface.bricks import Bricks

MAX_LOCATIONS = 5  # missed cells whose location is reported


@dataclass(frozen=True)
class Check:
    """Result of evaluating the field at every sample of some bricks.

    Attributes
    ----------
    bricks, total
        Number of bricks that were checked, and of all bricks.
    sign_changes
        Cells of the checked bricks that the surface crosses.
    missed
        Those of them that the extraction took for empty or full.
    where
        Centers of the first few missed cells.
    """

    bricks: int
    total: int
    sign_changes: int
    missed: int
    where: Float[np.ndarray, "n 3"]

    def __str__(self) -> str:
        """Summary in one line.

        >>> print(Check(1000, 1000, 5000, 0, np.zeros((0, 3))))
        checked all of the lattice: 0 of 5,000 cells on the surface were missed
        >>> print(Check(300, 1000, 5000, 2, np.array([[0.5, 0.25, 0.0]])))
        checked 30.0 % of the lattice: 2 of 5,000 cells on the surface were missed, one at (0.5, 0.25, 0)
        """
        share = "all" if self.bricks == self.total else f"{100 * self.bricks / self.total:.1f} %"
        at = ", one at ({:.6g}, {:.6g}, {:.6g})".format(*self.where[0]) if len(self.where) else ""
        return (
            f"checked {share} of the lattice: {self.missed:,} of {self.sign_changes:,} cells on the surface were "
            f"missed{at}"
        )


def check(bricks: Bricks, share: float | int, seed: int = 0) -> Check:
    """Count the missed cells in a random share (0 … 1) of all bricks."""
    lattice, side = bricks.sampler.lattice, bricks.side
    grid = -(-(np.array(lattice.counts) - 1) // side)
    total = int(grid.prod())
    chosen = np.sort(np.random.default_rng(seed).choice(total, max(1, round(share * total)), replace=False))
    sign_changes = missed = 0
    where = np.zeros((0, 3))
    for chunk in bricks.chunks(chosen):
        first = np.stack(np.unravel_index(chunk, tuple(grid)), 1) * side
        true, extracted, cells = _compare(bricks, first)
        lost = true & ~extracted
        sign_changes, missed = sign_changes + int(true.sum()), missed + int(lost.sum())
        if len(where) < MAX_LOCATIONS:
            where = np.concatenate([where, _centers(bricks, cells[lost])])[:MAX_LOCATIONS]
    return Check(len(chosen), total, sign_changes, missed, where)


def _compare(bricks: Bricks, first: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sign changes by all samples, sign changes as extracted, and cell indices, of bricks that start at ``first``."""
    steps = np.stack(np.meshgrid(*[np.arange(bricks.side + 1)] * 3, indexing="ij"), -1)
    index = first[:, None, None, None] + steps
    shape, last = index.shape[:-1], np.array(bricks.sampler.lattice.counts) - 1
    flat = np.minimum(index.reshape(-1, 3), last)
    cells = index[:, :-1, :-1, :-1]
    within = (cells < last).all(-1)
    true = cell_bounds.sign_change(bricks.sampler.values(flat).reshape(shape) >= 0) & within
    return true, cell_bounds.sign_change(bricks.at(flat).reshape(shape) >= 0) & within, cells


def _centers(bricks: Bricks, cells: np.ndarray) -> np.ndarray:
    """Centers of cells."""
    return (bricks.sampler.lattice.at(cells) + bricks.sampler.lattice.at(cells + 1)) / 2
