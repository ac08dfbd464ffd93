"""Marching cubes on many cells at once: triangles of mixed cells, welded, with their vertices on the lattice's edges.

What becomes of a cell depends on the sides of its eight corners alone: libigl's marching cubes is asked once for each
of the 256 cases, and its answers are looked up after that. Where two diagonal corners of a face are inside and the
other two are not, the inside is joined, so that thin parts stay whole; both cells at the face see it alike, so the mesh
never gapes. A vertex divides its edge where linear interpolation of the values of both ends is 0, in double precision.

A vertex is named by its edge: that is what welds bricks together. One that comes within ``WELD`` of an edge's end is
put there and named by the sample, so that it is one with its neighbours there: files in single precision could not tell
them apart, and what merges such vertices without dropping their faces tears the mesh.

Source: Lorensen and Cline, Marching cubes (1987); the cases are those of libigl 2.6.
"""

import functools
import itertools
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from enerf.core.errors import InputError
from enerf.geometry.isosurface.sample_grid import Lattice

MOST_FACES = 5  # of one cell
WELD = 1e-4  # of an edge: at 1024 cells, the single precision of coordinates


@functools.cache
def cases() -> tuple[np.ndarray, np.ndarray]:
    """For each of 256 cases the number of faces, and for each of their corners ``(x, y, z, axis)`` of its edge.

    A case has the bit 4x + 2y + z set if the corner (x, y, z) of the cell is inside; an edge starts at (x, y, z) and
    runs along the axis. Faces turn counter-clockwise, seen from outside the shape.

    >>> counts, edges = cases()
    >>> int(counts[0]), int(counts[1]), edges[1, 0].tolist()
    (0, 1, [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]])

    Raises
    ------
    InputError
        If libigl is missing.
    """
    try:
        import igl
    except ImportError:
        raise InputError("meshes cannot be extracted: libigl is missing, `pip install libigl` brings it") from None
    places = np.array(list(itertools.product(range(2), repeat=3)), dtype=np.float64)  # libigl has x run fastest
    order = np.lexsort((places[:, 0], places[:, 1], places[:, 2]))
    counts, edges = np.zeros(256, dtype=np.int64), np.zeros((256, MOST_FACES, 3, 4), dtype=np.int64)
    for case in range(1, 255):
        inside = (case >> np.arange(8)) & 1
        vertices, faces, _ = igl.marching_cubes(1.0 - 2.0 * inside[order], places[order], 2, 2, 2, 0.0)
        doubled = np.rint(2 * vertices).astype(np.int64)  # the middle of an edge has one odd coordinate
        named = np.concatenate([doubled // 2, (doubled % 2).argmax(1)[:, None]], 1)
        counts[case] = len(faces)
        edges[case, : len(faces)] = named[_first_least(faces.astype(np.int64))]
    return counts, edges


def _first_least(faces: Int[np.ndarray, "m 3"]) -> Int[np.ndarray, "m 3"]:
    """The same faces, each starting with its least vertex."""
    turned = (faces.argmin(1)[:, None] + np.arange(3)) % 3
    return np.take_along_axis(faces, turned, 1)


@dataclass
class Pieces:
    """Triangles of some cells after others, to be welded in the end."""

    lattice: Lattice
    names: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    faces: list[np.ndarray] = field(default_factory=list)
    vertices: int = 0

    def add(
        self,
        values: Float[np.ndarray, "n x y z"],
        first: Int[np.ndarray, "n 3"],
        within: Bool[np.ndarray, "n u v w"],
    ) -> None:
        """Add the triangles of cells that are within, of n arrays of samples that start at the index ``first``."""
        inside = values >= 0
        case = _case(inside)
        case[~within] = 0
        faces = _faces(case)
        crossed = np.zeros((*values.shape, 3), dtype=bool)
        crossed.ravel()[faces.ravel()] = True
        edges = np.flatnonzero(crossed)
        number = np.empty(crossed.size, dtype=np.int32)
        number[edges] = np.arange(self.vertices, self.vertices + len(edges))
        brick, x, y, z, axis = np.unravel_index(edges, crossed.shape)
        start = np.stack([x, y, z], 1)
        end = start + np.eye(3, dtype=np.int64)[axis]
        names, places = self._named(
            first[brick] + start,
            axis,
            values[brick, x, y, z].astype(np.float64),
            values[(brick, *end.T)].astype(np.float64),
        )
        self.faces.append(number[faces])
        self.names.append(names)
        self.places.append(places)
        self.vertices += len(names)

    def _named(
        self,
        start: Int[np.ndarray, "n 3"],
        axis: Int[np.ndarray, " n"],
        low: Float[np.ndarray, " n"],
        high: Float[np.ndarray, " n"],
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
        """Names and places of the vertices on edges with these values at their ends."""
        end = start + np.eye(3, dtype=np.int64)[axis]
        a, b = self.lattice.at(start), self.lattice.at(end)
        share = low / (low - high)
        places, names = a + share[:, None] * (b - a), 4 * self._linear(start) + axis
        on_start = (share <= WELD) | (a == b).all(1)
        for on, sample, at in ((on_start, start, a), (~on_start & (share >= 1 - WELD), end, b)):
            places[on], names[on] = at[on], 4 * self._linear(self.lattice.nearest(sample[on])) + 3
        return names, places

    def _linear(self, index: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
        """One number a sample."""
        _, ny, nz = self.lattice.counts
        return (index[:, 0] * ny + index[:, 1]) * nz + index[:, 2]

    def welded(self) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
        """Vertices, each once, in the order of the lattice, and faces without those that have no area left.

        The pieces are used up: memory is short here.
        """
        if not self.faces:
            return np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)
        _, chosen, number = np.unique(_taken(self.names), return_index=True, return_inverse=True)
        vertices = _taken(self.places)[chosen]
        faces = number.astype(np.int64)[_taken(self.faces)]
        a, b, c = faces.T
        whole = (a != b) & (b != c) & (c != a)
        return vertices, faces if whole.all() else faces[whole]


def _taken(pieces: list[np.ndarray]) -> np.ndarray:
    """Arrays put together; the list is empty then."""
    whole = np.concatenate(pieces)
    pieces.clear()
    return whole


def _case(inside: Bool[np.ndarray, "n x y z"]) -> np.ndarray:
    """Which of the 256 cases each cell is."""
    n, x, y, z = inside.shape
    case = np.zeros((n, x - 1, y - 1, z - 1), dtype=np.uint8)
    for bit, (i, j, k) in enumerate(itertools.product(range(2), repeat=3)):
        case |= inside[:, i : i + x - 1, j : j + y - 1, k : k + z - 1].view(np.uint8) << np.uint8(bit)
    return case


def _faces(case: np.ndarray) -> Int[np.ndarray, "m 3"]:
    """Faces of all cells, whose corners number the edges: ``((brick, x, y, z) of its start, axis)`` as one index."""
    counts, edges = cases()
    _, x, y, z = case.shape
    cell = np.flatnonzero((case != 0) & (case != 255))
    which = case.ravel()[cell]
    index = np.stack(np.unravel_index(cell, case.shape), 1)
    steps = np.array([(x + 1) * (y + 1) * (z + 1), (y + 1) * (z + 1), z + 1, 1])
    local = (edges[..., :3] @ steps[1:]) * 3 + edges[..., 3]
    chosen = np.arange(MOST_FACES) < counts[which][:, None]
    return ((index @ steps * 3)[:, None, None] + local[which])[chosen]


def dense(
    values: Float[np.ndarray, "x y z"], lattice: Lattice
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
    """Vertices and faces of a whole lattice's values: what extraction must equal.

    >>> cube = np.pad(np.ones((1, 1, 1)), 1, constant_values=-1.0)
    >>> import torch
    >>> vertices, faces = dense(cube, Lattice(torch.tensor([[0.0] * 3, [2.0] * 3]), (2, 2, 2)))
    >>> vertices.shape, faces.shape
    ((6, 3), (8, 3))
    """
    pieces = Pieces(lattice)
    pieces.add(values[None], np.zeros((1, 3), dtype=np.int64), np.ones((1, *(s - 1 for s in values.shape)), dtype=bool))
    return pieces.welded()
