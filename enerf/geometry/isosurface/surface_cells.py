"""Cells that the surface is known or supposed to enter: they are refined in any case, so that small parts are found.

Coarse samples find a separate part for sure only if one of them lies in it. Where a field was fitted to a shape, the
cells near that shape's surface say where its small parts are.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from enerf.geometry.isosurface.sample_grid import Lattice

_ROUNDING = 1e-6


@dataclass(frozen=True)
class SurfaceCells:
    """Some cells of a division of the box [−1, 1]³ into ``n``³: their indices."""

    index: Int[np.ndarray, "m 3"]
    n: int

    def mask(self, lattice: Lattice, stride: int, shape: tuple[int, ...]) -> Bool[np.ndarray, "u v w"] | None:
        """Which cells of a stride of a lattice overlap these cells; None if those of the lattice are smaller.

        ``shape`` is the number of cells of the stride along each axis.
        """
        side, spacing = 2 / self.n, lattice.spacing
        if (stride * spacing < side * (1 - _ROUNDING)).any():
            return None
        low = lattice.box[0].double().cpu().numpy()
        first = (self.index * side - 1 - low) / spacing + int(lattice.closed)
        ends = [np.floor((first + shift * side / spacing) / stride).astype(int) for shift in (_ROUNDING, 1 - _ROUNDING)]
        found = np.zeros(shape, bool)
        for corner in itertools.product((0, 1), repeat=3):
            cells = np.stack([ends[end][:, axis] for axis, end in enumerate(corner)], 1)
            found[tuple(cells[((cells >= 0) & (cells < shape)).all(1)].T)] = True
        return found
