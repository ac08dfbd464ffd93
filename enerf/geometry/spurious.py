"""Parts of an extracted mesh that the reference solid does not have.

A learned field has small errors of its sign far from the surface (hash collisions): marching cubes turns each into a
loose part, or into a cavity inside the shape. A ``SignGrid`` of the solid tells them from small parts that are real:

- An outer part is *spurious* if most of its vertices lie in cells that are wholly outside of the solid, and it contains
  no center of another cell. A real part has its vertices near the solid's surface, in undecided cells; one that is
  learned so badly that they are elsewhere still contains cells that are not outside.
- A cavity is spurious if the same holds with inside for outside.
- A part within a spurious one, such as the cavity of a loose part, is dropped with it.

So what is dropped has no counterpart in the solid. Parts in undecided cells, which are within ``reach`` of the surface,
are not judged.
"""

from dataclasses import dataclass

import igl
import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from enerf.geometry import topology
from enerf.geometry.sign_grid import INSIDE, OUTSIDE, SignGrid

_MAX_CENTERS = 1 << 14  # cell centers that are tested in one part
Vertices = Float64[np.ndarray, "v 3"]
Faces = Int64[np.ndarray, "f 3"]


@dataclass(frozen=True)
class Dropped:
    """What was removed from a mesh.

    Attributes
    ----------
    parts
        Number of connected parts before.
    spurious
        Number of parts that were dropped.
    volume
        Sum of the absolute volumes that they enclosed.
    vertices
        Their vertices.
    none_left
        Every part is spurious: nothing was dropped.
    """

    parts: int
    spurious: int
    volume: float
    vertices: Vertices
    none_left: bool = False

    def __str__(self) -> str:
        what = f"{self.spurious:,} of {self.parts:,} parts"
        if self.none_left:
            return f"none of the {self.parts:,} parts of the mesh is where the shape is: all are kept"
        return f"dropped {what} of the mesh that the shape does not have (volume {self.volume:.2g} of the box's 8)"


def reach(grid: SignGrid) -> float:
    """Distance from the surface, in the box, beyond which every spurious part is dropped: √3 sides of a cell."""
    return float(2 * np.sqrt(3) / len(grid.cells))


def drop(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], grid: SignGrid
) -> tuple[Float[np.ndarray, "w 3"], Int[np.ndarray, "g 3"], Dropped]:
    """Remove the spurious parts of a mesh in the box; returns its vertices and faces, and what was removed.

    If all parts are spurious the mesh is returned as it is.
    """
    places, triangles = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    n, part = topology.parts(triangles)
    volume = topology.volumes(places, triangles, part, n)[0] if n else np.zeros(0)
    spurious = _spurious(places, triangles, part, volume, grid)
    if not spurious.any() or spurious.all():
        return vertices, faces, Dropped(n, 0, 0.0, np.zeros((0, 3)), bool(n and spurious.all()))
    gone = np.zeros(len(places), bool)
    gone[triangles[spurious[part]]] = True
    kept = np.zeros(len(places), bool)
    kept[triangles[~spurious[part]]] = True
    dropped = Dropped(n, int(spurious.sum()), float(np.abs(volume[spurious]).sum()), places[gone])
    return vertices[kept], (np.cumsum(kept) - 1)[faces[~spurious[part]]], dropped


def _spurious(
    vertices: Vertices, faces: Faces, part: Int64[np.ndarray, " f"], volume: Float64[np.ndarray, " p"], grid: SignGrid
) -> Bool[np.ndarray, " p"]:
    """Which parts are spurious."""
    n = len(volume)
    states = grid.at(vertices[faces[:, 0]])  # one vertex of each face stands for its face
    faces_of = np.bincount(part, minlength=n)
    outside, inside = (2 * np.bincount(part, states == state, n) > faces_of for state in (OUTSIDE, INSIDE))
    wrong = np.where(volume > 0, outside, inside)
    spurious = np.zeros(n, bool)
    order, ends = np.argsort(part, kind="stable"), np.cumsum(faces_of)  # the faces of a part are order[start:end]
    for i in np.flatnonzero(wrong):
        own = faces[order[ends[i] - faces_of[i] : ends[i]]]
        spurious[i] = not _contains_other(vertices, own, grid, OUTSIDE if outside[i] else INSIDE)
    within = faces[spurious[part]]
    for i in np.flatnonzero(~wrong & (outside | inside)) if len(within) else ():
        point = vertices[faces[order[ends[i] - faces_of[i]], 0]]
        spurious[i] = abs(float(topology.winding_sum(vertices[within], point[None])[0])) > 0.5
    return spurious


def _contains_other(vertices: Vertices, faces: Faces, grid: SignGrid, state: int) -> bool:
    """Whether a part contains the center of a cell whose state is another."""
    n = len(grid.cells)
    corners, own = np.unique(faces, return_inverse=True)  # of all vertices only these: libigl copies what it is given
    used = vertices[corners]
    low, high = (np.floor((end + 1) * (n / 2)).astype(int).clip(0, n - 1) for end in (used.min(0), used.max(0)))
    cells = grid.cells[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
    others = np.argwhere(cells != state)
    if not len(others):
        return False
    centers = (others[:: -(-len(others) // _MAX_CENTERS)] + low + 0.5) * (2 / n) - 1
    winding = igl.fast_winding_number(used, own.reshape(-1, 3).astype(np.int64), np.ascontiguousarray(centers))
    return bool((np.abs(winding) > 0.5).any())
