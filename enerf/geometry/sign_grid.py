"""Cells of the box that a solid fills completely or not at all: where inside and outside are known without a query.

The box is divided into n³ cells. A cell is *decided* if the surface does not enter it, so that all its points
have one label. They are found with an octree: a cell whose center is farther from the surface than its corners are from
the center is decided; others are divided, down to the cells of the grid.

The winding number of an open surface passes through 1/2 in the films over its holes, away from all faces. For surfaces
that are not watertight a cell is decided only if its center is twice as far from the surface, and its winding number
farther than ``FILM`` from 1/2; the winding number is harmonic away from the faces, so it varies little in such a cell.
"""

import base64
import itertools
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int8, Int64
from torch import Tensor

from enerf.geometry import samples
from enerf.geometry.isosurface.surface_cells import SurfaceCells
from enerf.geometry.solid import Solid, morton_order

MAX_CELLS = 256  # along each side of the box
OUTSIDE, UNDECIDED, INSIDE = -1, 0, 1
FILM = 0.375
_FIRST = 8  # cells along each side in the first step
_ROUNDING = 1 + 1e-6

Rows = Float64[np.ndarray, "n 3"]


@dataclass(frozen=True)
class SignGrid:
    """States of the cells of a regular division of the box [-1, 1]³: ``OUTSIDE``, ``UNDECIDED`` or ``INSIDE``."""

    cells: Int8[np.ndarray, "n n n"]

    def at(self, points: Rows) -> Int8[np.ndarray, " n"]:
        """The states of the cells that contain points; points outside the box are outside."""
        n = len(self.cells)
        index = np.floor((points + 1) * (n / 2)).astype(np.int64).clip(0, n - 1)
        return np.where((np.abs(points) <= 1).all(1), self.cells[tuple(index.T)], OUTSIDE).astype(np.int8)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Float32[Tensor, "n 3"], Float32[Tensor, " n"]]:
        """Draw points uniformly from the box; returns them and the states of their cells, 1, −1 or 0."""
        points = torch.from_numpy(samples.uniform(n, generator)).float()
        return points, torch.from_numpy(self.at(points.double().numpy())).float()

    def surface_cells(self) -> SurfaceCells:
        """The undecided cells, which the surface may enter."""
        return SurfaceCells(np.argwhere(self.cells == UNDECIDED), len(self.cells))

    def to_text(self) -> str:
        """The grid as compressed text (about 100 kB for 256³ cells), for a checkpoint; ``from_text`` reads it."""
        masks = [np.packbits(self.cells == state).tobytes() for state in (OUTSIDE, INSIDE)]
        return f"{len(self.cells)}:{base64.b64encode(zlib.compress(b''.join(masks))).decode()}"

    @classmethod
    def from_text(cls, text: str) -> "SignGrid":
        """The grid of ``to_text``.

        Raises
        ------
        ValueError
            If the text is not that of a grid.
        """
        count, _, content = text.partition(":")
        try:
            n, unpacker = int(count), zlib.decompressobj()
            if not 0 < n <= MAX_CELLS:
                raise ValueError
            size = -(-(n**3) // 8)
            masks = unpacker.decompress(base64.b64decode(content, validate=True), 2 * size)
            outside, inside = np.unpackbits(np.frombuffer(masks, np.uint8).reshape(2, size), axis=1)[:, : n**3]
        except (ValueError, zlib.error):
            raise ValueError(f"found {text[:20]!r}, expected the text of a grid of cells") from None
        return cls((INSIDE * inside.astype(np.int8) + OUTSIDE * outside.astype(np.int8)).reshape(n, n, n))


def of_solid(solid: Solid, cells_per_side: int = MAX_CELLS) -> SignGrid:
    """Compute the grid of a solid; the number of cells along a side is 8 times a power of two."""
    cells = np.zeros((_FIRST,) * 3, np.int8)
    undecided = np.argwhere(cells == UNDECIDED)
    while True:
        states = _states(solid, undecided, len(cells))
        cells[tuple(undecided.T)] = states
        undecided = undecided[states == UNDECIDED]
        if len(cells) >= cells_per_side:
            return SignGrid(cells)
        for axis in range(3):
            cells = cells.repeat(2, axis)
        undecided = (2 * undecided[:, None] + np.array(list(itertools.product((0, 1), repeat=3)))).reshape(-1, 3)


def _states(solid: Solid, index: Int64[np.ndarray, "m 3"], n: int) -> Int8[np.ndarray, " m"]:
    """The states of some cells of a division into ``n``³."""
    centers = (index + 0.5) * (2 / n) - 1
    order, distances = morton_order(centers), np.empty(len(centers))
    distances[order] = solid.nearest(np.ascontiguousarray(centers[order])).distances
    watertight = solid.mesh.report.watertight
    far = distances > (1 if watertight else 2) * _ROUNDING * np.sqrt(3) / n
    states = np.zeros(len(index), np.int8)
    if watertight:
        states[far] = np.where(solid.occupancy(centers[far]).numpy(), INSIDE, OUTSIDE)
    else:
        winding = solid.winding(centers[far]).numpy()
        states[far] = np.where(winding > 0.5 + FILM, INSIDE, np.where(winding < 0.5 - FILM, OUTSIDE, UNDECIDED))
    return states
