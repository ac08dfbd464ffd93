"""What an extraction will cost, foretold from the coarse samples: evaluations, seconds, bytes."""

from dataclasses import dataclass

import numpy as np
import torch

from enerf.geometry.isosurface import bricks, cell_bounds
from enerf.geometry.isosurface.coarse import Coarse
from enerf.geometry.isosurface.sample_grid import Asking

HALVING = 10  # new samples where a suspicious cell is halved, neighbours' shares taken off
WORKSPACE = 60 * bricks.AT_ONCE  # bytes of what one thread works on together
COARSE = 14  # bytes of a coarse sample, while the suspicious cells are found
VERTEX = 220  # bytes of a vertex and its two faces, while they are welded


@dataclass(frozen=True)
class Plan:
    """What is foretold; exact for ``dense``, the rest within a factor of about two.

    Attributes
    ----------
    cells
        Of the lattice, along each axis.
    dense
        Evaluations that asking at every sample would take.
    evaluations
        Those that are foretold.
    seconds
        What they take, by the pace of those already made; the marching itself comes on top, for a network little.
    bytes
        Memory beyond that of the field, at the most.
    vertices
        Of the mesh.
    """

    cells: tuple[int, int, int]
    dense: int
    evaluations: int
    seconds: float
    bytes: int
    vertices: int

    def __str__(self) -> str:
        """One line to print.

        >>> print(Plan((512, 512, 512), 135_005_697, 2_400_000, 61.0, 300 << 20, 800_000))
        512×512×512 cells: about 2.4 million field evaluations (dense: 135.0 million, 56 times as many), 1.0 min,
        0.29 GiB, 0.8 million vertices
        """
        return (
            f"{'×'.join(map(str, self.cells))} cells: about {self.evaluations / 1e6:.1f} million field evaluations "
            f"(dense: {self.dense / 1e6:.1f} million, {self.dense / max(self.evaluations, 1):.0f} times as many), "
            f"{self.seconds / 60:.1f} min, {self.bytes / 2**30:.2f} GiB, {self.vertices / 1e6:.1f} million vertices"
        )


def foretell(asking: Asking, seen: Coarse, side: int, seconds: float) -> Plan:
    """The plan of an extraction whose coarse samples were seen in so many seconds."""
    first = _new_samples(seen)
    levels, grows = max(0, round(np.log2(seen.stride)) - 1), growth(seen)
    later = sum(HALVING * int(seen.suspicious.sum()) * grows**k for k in range(1, levels + 1))
    evaluations = asking.evaluations + first + round(later)
    vertices = round(int(seen.mixed.sum()) * grows ** np.log2(seen.stride))
    stored = _stored_bricks(seen, side)
    itemsize = asking.dtype.itemsize
    memory = (
        WORKSPACE * min(torch.get_num_threads(), bricks.MOST_THREADS)
        + 100 * asking.points_at_once
        + (COARSE - 4 + itemsize) * seen.values.size
        + stored * side**3 * (bricks.BYTES - 4 + itemsize)
        + VERTEX * vertices
    )
    return Plan(
        cells=asking.lattice.cells,
        dense=int(np.prod([n + 1 for n in asking.lattice.cells])),
        evaluations=evaluations,
        seconds=seconds * evaluations / max(asking.evaluations, 1),
        bytes=memory,
        vertices=vertices,
    )


def growth(seen: Coarse) -> float:
    """How many times more cells a surface goes through if their sides are halved: 4 if it is smooth, up to 8 if rough.

    Told by the cells of the coarse samples and of every other one of them.
    """
    fewer = int(cell_bounds.mixed(seen.values[::2, ::2, ::2] >= 0).sum())
    return float(np.clip(int(seen.mixed.sum()) / max(fewer, 1), 4.0, 6.0))


def _new_samples(seen: Coarse) -> int:
    """Samples that the first halving asks for; counted in ranges of the first axis."""
    if seen.stride == 1:
        return 0
    cells = seen.suspicious
    return sum(int(cell_bounds.halved(cells[i : i + 8]).sum()) for i in range(0, len(cells), 8)) - int(cells.sum())


def _stored_bricks(seen: Coarse, side: int) -> int:
    """Bricks that hold a suspicious cell or lie after one that does."""
    per = side // seen.stride
    blocks: np.ndarray = seen.suspicious.reshape([n for g in seen.suspicious.shape for n in (g // per, per)])
    return int(cell_bounds.corners(np.asarray(blocks.any((1, 3, 5)))).sum())
