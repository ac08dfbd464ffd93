"""Whether an extraction missed something: the field asked at every sample of some bricks, or of all."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from enerf.geometry.isosurface import cell_bounds
from enerf.geometry.isosurface.bricks import Bricks

WHERE = 5  # missed cells that are named


@dataclass(frozen=True)
class Check:
    """What was found where every sample was asked for.

    Attributes
    ----------
    bricks, of
        How many bricks of the lattice were looked at, and how many there are.
    mixed
        Their cells that the surface goes through, by all samples.
    missed
        Those of them that the extraction takes for empty or full.
    where
        The middles of the first few that were missed.
    """

    bricks: int
    of: int
    mixed: int
    missed: int
    where: Float[np.ndarray, "n 3"]

    def __str__(self) -> str:
        """One line to print.

        >>> print(Check(1000, 1000, 5000, 0, np.zeros((0, 3))))
        checked all of the lattice: 0 of 5,000 cells on the surface were missed
        >>> print(Check(300, 1000, 5000, 2, np.array([[0.5, 0.25, 0.0]])))
        checked 30.0 % of the lattice: 2 of 5,000 cells on the surface were missed, one at (0.5, 0.25, 0)
        """
        share = "all" if self.bricks == self.of else f"{100 * self.bricks / self.of:.1f} %"
        at = ", one at ({:.6g}, {:.6g}, {:.6g})".format(*self.where[0]) if len(self.where) else ""
        return f"checked {share} of the lattice: {self.missed:,} of {self.mixed:,} cells on the surface were missed{at}"


def check(found: Bricks, share: float | int, seed: int = 0) -> Check:
    """What was missed in a random share (0 … 1) of the bricks, or in all of them."""
    lattice, side = found.asking.lattice, found.side
    grid = -(-(np.array(lattice.counts) - 1) // side)
    every = int(grid.prod())
    chosen = np.sort(np.random.default_rng(seed).choice(every, max(1, round(share * every)), replace=False))
    mixed = missed = 0
    where = np.zeros((0, 3))
    for part in found.parts(chosen):
        first = np.stack(np.unravel_index(part, tuple(grid)), 1) * side
        true, seen, cells = _both(found, first)
        lost = true & ~seen
        mixed, missed = mixed + int(true.sum()), missed + int(lost.sum())
        if len(where) < WHERE:
            where = np.concatenate([where, _middles(found, cells[lost])])[:WHERE]
    return Check(len(chosen), every, mixed, missed, where)


def _both(found: Bricks, first: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which cells are mixed, of bricks that begin at these samples: in truth and as extracted; and their indices."""
    steps = np.stack(np.meshgrid(*[np.arange(found.side + 1)] * 3, indexing="ij"), -1)
    index = first[:, None, None, None] + steps
    shape, last = index.shape[:-1], np.array(found.asking.lattice.counts) - 1
    flat = np.minimum(index.reshape(-1, 3), last)
    cells = index[:, :-1, :-1, :-1]
    within = (cells < last).all(-1)
    true = cell_bounds.mixed(found.asking.values(flat).reshape(shape) >= 0) & within
    return true, cell_bounds.mixed(found.at(flat).reshape(shape) >= 0) & within, cells


def _middles(found: Bricks, cells: np.ndarray) -> np.ndarray:
    """The middles of cells."""
    return (found.asking.lattice.at(cells) + found.asking.lattice.at(cells + 1)) / 2
