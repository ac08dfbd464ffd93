"""Vectorized marching cubes: triangles of cells with a sign change, with welded vertices on the lattice's edges.

The triangles of a cell depend on the signs of its eight corners only: a table of the 256 cases is built once with
libigl's marching cubes. On ambiguous faces (two diagonal corners inside) the inside is connected, so that thin parts
stay connected; both cells at the face agree, so the mesh has no cracks. A vertex lies where the linear interpolation
between both ends of its edge is 0, in double precision.

A vertex is identified by its edge, which welds bricks together. One within ``WELD`` of an edge's end is moved there and
identified by the sample, so that it merges with its neighbors: single-precision files could not distinguish them, and
programs that merge such vertices without dropping degenerate faces would tear the mesh.

Source: Lorensen and Cline, Marching cubes (1987); the cases are those of libigl 2.6.
"""

import functools
import itertools
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from enerf.core.errors import InputError
from enerf.geometry.isosurface.sample_grid import Lattice

MAX_FACES = 5  # per cell
WELD = 1e-4  # share of an edge: with 1024 cells, the single precision of coordinates


@functools.cache
def cases() -> tuple[np.ndarray, np.ndarray]:
    """Marching cubes table: for each of 256 cases the number of faces, and ``(x, y, z, axis)`` of each corner's edge.

    Bit 4x + 2y + z of a case is set if the corner (x, y, z) of the cell is inside; an edge starts at (x, y, z) and
    runs along ``axis``. Faces are counter-clockwise seen from outside.

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
    places = np.array(list(itertools.product(range(2), repeat=3)), dtype=np.float64)  # in libigl x varies fastest
    order = np.lexsort((places[:, 0], places[:, 1], places[:, 2]))
    counts, edges = np.zeros(256, dtype=np.int64), np.zeros((256, MAX_FACES, 3, 4), dtype=np.int64)
    for case in range(1, 255):
        inside = (case >> np.arange(8)) & 1
        vertices, faces, _ = igl.marching_cubes(1.0 - 2.0 * inside[order], places[order], 2, 2, 2, 0.0)
        doubled = np.rint(2 * vertices).astype(np.int64)  # the midpoint of an edge has one odd coordinate
        named = np.concatenate([doubled // 2, (doubled % 2).argmax(1)[:, None]], 1)
        counts[case] = len(faces)
        edges[case, : len(faces)] = named[_rotated(faces.astype(np.int64))]
    return counts, edges


def _rotated(faces: Int[np.ndarray, "m 3"]) -> Int[np.ndarray, "m 3"]:
    """Faces rotated to start with their lowest vertex."""
    turned = (faces.argmin(1)[:, None] + np.arange(3)) % 3
    return np.take_along_axis(faces, turned, 1)


@dataclass
class MeshBuilder:
    """Collects triangles of cells chunk by chunk and welds them into one mesh."""

    lattice: Lattice
    keys: list[np.ndarray] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    faces: list[np.ndarray] = field(default_factory=list)
    vertices: int = 0

    def add(
        self,
        values: Float[np.ndarray, "n x y z"],
        first: Int[np.ndarray, "n 3"],
        within: Bool[np.ndarray, "n u v w"],
    ) -> None:
        """Add the triangles of cells marked ``within`` of n blocks of samples that start at the indices ``first``."""
        inside = values >= 0
        case = _case(inside)
        case[~within] = 0
        faces = _faces(case)
        crossed = np.zeros((*values.shape, 3), dtype=bool)
        crossed.ravel()[faces.ravel()] = True
        edges = np.flatnonzero(crossed)
        number = np.empty(crossed.size, dtype=np.int32)
        number[edges] = np.arange(self.vertices, self.vertices + len(edges))
        block, x, y, z, axis = np.unravel_index(edges, crossed.shape)
        start = np.stack([x, y, z], 1)
        end = start + np.eye(3, dtype=np.int64)[axis]
        keys, positions = self._vertices(
            first[block] + start,
            axis,
            values[block, x, y, z].astype(np.float64),
            values[(block, *end.T)].astype(np.float64),
        )
        self.faces.append(number[faces])
        self.keys.append(keys)
        self.positions.append(positions)
        self.vertices += len(keys)

    def _vertices(
        self,
        start: Int[np.ndarray, "n 3"],
        axis: Int[np.ndarray, " n"],
        low: Float[np.ndarray, " n"],
        high: Float[np.ndarray, " n"],
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
        """Keys and positions of the vertices on edges, given the values at both ends."""
        end = start + np.eye(3, dtype=np.int64)[axis]
        a, b = self.lattice.at(start), self.lattice.at(end)
        share = low / (low - high)
        positions, keys = a + share[:, None] * (b - a), 4 * self._linear(start) + axis
        on_start = (share <= WELD) | (a == b).all(1)
        for on, sample, at in ((on_start, start, a), (~on_start & (share >= 1 - WELD), end, b)):
            positions[on], keys[on] = at[on], 4 * self._linear(self.lattice.nearest(sample[on])) + 3
        return keys, positions

    def _linear(self, index: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
        """Row-major index of samples."""
        _, ny, nz = self.lattice.counts
        return (index[:, 0] * ny + index[:, 1]) * nz + index[:, 2]

    def welded(self) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
        """Unique vertices in the order of the lattice, and faces without degenerate ones.

        The collected triangles are freed to save memory.
        """
        if not self.faces:
            return np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)
        _, chosen, number = np.unique(_concatenated(self.keys), return_index=True, return_inverse=True)
        vertices = _concatenated(self.positions)[chosen]
        faces = number.astype(np.int64)[_concatenated(self.faces)]
        a, b, c = faces.T
        whole = (a != b) & (b != c) & (c != a)
        return vertices, faces if whole.all() else faces[whole]


def _concatenated(chunks: list[np.ndarray]) -> np.ndarray:
    """Concatenated arrays; empties the list."""
    whole = np.concatenate(chunks)
    chunks.clear()
    return whole


def _case(inside: Bool[np.ndarray, "n x y z"]) -> np.ndarray:
    """Return the marching-cubes case of each cell: an 8-bit number with one bit per corner that is inside."""
    n, x, y, z = inside.shape
    case = np.zeros((n, x - 1, y - 1, z - 1), dtype=np.uint8)
    for bit, (i, j, k) in enumerate(itertools.product(range(2), repeat=3)):
        case |= inside[:, i : i + x - 1, j : j + y - 1, k : k + z - 1].view(np.uint8) << np.uint8(bit)
    return case


def _faces(case: np.ndarray) -> Int[np.ndarray, "m 3"]:
    """Faces of all cells; corners are the row-major index of ``(block, x, y, z, axis)`` of their edge."""
    counts, edges = cases()
    _, x, y, z = case.shape
    cell = np.flatnonzero((case != 0) & (case != 255))
    which = case.ravel()[cell]
    index = np.stack(np.unravel_index(cell, case.shape), 1)
    steps = np.array([(x + 1) * (y + 1) * (z + 1), (y + 1) * (z + 1), z + 1, 1])
    local = (edges[..., :3] @ steps[1:]) * 3 + edges[..., 3]
    chosen = np.arange(MAX_FACES) < counts[which][:, None]
    return ((index @ steps * 3)[:, None, None] + local[which])[chosen]


def dense(
    values: Float[np.ndarray, "x y z"], lattice: Lattice
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
    """Vertices and faces from the values of a whole lattice; the reference implementation of ``extract``.

    >>> cube = np.pad(np.ones((1, 1, 1)), 1, constant_values=-1.0)
    >>> import torch
    >>> vertices, faces = dense(cube, Lattice(torch.tensor([[0.0] * 3, [2.0] * 3]), (2, 2, 2)))
    >>> vertices.shape, faces.shape
    ((6, 3), (8, 3))
    """
    builder = MeshBuilder(lattice)
    builder.add(
        values[None], np.zeros((1, 3), dtype=np.int64), np.ones((1, *(s - 1 for s in values.shape)), dtype=bool)
    )
    return builder.welded()
