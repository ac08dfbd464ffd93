"""Parts of an extracted mesh that the reference solid does not have.

A learned field has small errors of its sign far from the surface (hash collisions): marching cubes turns each into a
loose part, or into a cavity inside the shape. A ``SignGrid`` of the solid tells them from small parts that are real:

- An outer part is *spurious* if most of its vertices lie in cells that are wholly outside of the solid, and it contains
  no center of another cell. A real part has its vertices near the solid's surface, in undecided cells; one that is
  learned so badly that they are elsewhere still contains cells that are not outside.
- A cavity is spurious if the same holds with inside for outside.
- A part that is open, since the box cuts it, is spurious in both cases: the volume does not tell what it is.
- A part within a spurious one, such as the cavity of a loose part, is dropped with it.

The cells do not decide about a part that is neither spurious nor contains the center of a cell that confirms it: it is
small, and within ``reach`` of the surface. If the solid itself is at hand it is asked: such an outer part is spurious
if none of some points within it is inside of the solid, such a cavity if all are. Otherwise these parts stay, and are
counted. So what is dropped has no counterpart in the solid.
"""

from collections.abc import Callable
from dataclasses import dataclass

import igl
import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from enerf.geometry import topology
from enerf.geometry.sign_grid import INSIDE, OUTSIDE, UNDECIDED, SignGrid
from enerf.geometry.solid import Solid

_MAX_CENTERS = 1 << 14  # cell centers that are tested in one part
_MAX_FACES = 1 << 10  # faces of a part next to which points within it are tested
_MAX_SMALL = 20_000  # faces of a part above which the solid is not asked
_DEPTHS = (0.05, 0.2, 0.5, 1.0)  # of these points, in widths of their faces
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
    unchecked
        Number of parts that only the solid itself could judge.
    none_left
        Every part is spurious: nothing was dropped.
    """

    parts: int
    spurious: int
    volume: float
    vertices: Vertices
    unchecked: int = 0
    none_left: bool = False

    def __str__(self) -> str:
        what = f"{self.spurious:,} of {self.parts:,} parts"
        if self.none_left:
            return f"none of the {self.parts:,} parts of the mesh is where the shape is: all are kept"
        more = f"; {self.unchecked:,} parts at its surface are not checked" if self.unchecked else ""
        return (
            f"dropped {what} of the mesh that the shape does not have (volume {self.volume:.2g} of the box's 8){more}"
        )


def reach(grid: SignGrid) -> float:
    """Distance from the surface, in the box, beyond which the grid finds every spurious part: √3 sides of a cell."""
    return float(2 * np.sqrt(3) / len(grid.cells))


def drop(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    grid: SignGrid,
    solid: Callable[[], Solid | None] | None = None,
) -> tuple[Float[np.ndarray, "w 3"], Int[np.ndarray, "g 3"], Dropped]:
    """Remove the spurious parts of a mesh in the box; returns its vertices and faces, and what was removed.

    If all parts are spurious the mesh is returned as it is. ``solid`` opens the solid, if that is possible; it is
    called only if there are parts that the grid cannot judge.
    """
    places, triangles = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    n, part = topology.parts(triangles)
    volume = topology.volumes(places, triangles, part, n)[0] if n else np.zeros(0)
    spurious, unclear = _judge(places, triangles, part, volume, grid)
    opened = solid() if solid is not None and len(unclear) else None
    if opened is not None:
        for i in unclear:
            spurious[i] = not _confirmed(places, triangles[part == i], bool(volume[i] > 0), opened)
    spurious |= _within(places, triangles, part, spurious, volume, grid)
    unchecked = len(unclear) if opened is None else 0
    if not spurious.any() or spurious.all():
        return vertices, faces, Dropped(n, 0, 0.0, np.zeros((0, 3)), unchecked, bool(n and spurious.all()))
    gone = np.zeros(len(places), bool)
    gone[triangles[spurious[part]]] = True
    kept = np.zeros(len(places), bool)
    kept[triangles[~spurious[part]]] = True
    dropped = Dropped(n, int(spurious.sum()), float(np.abs(volume[spurious]).sum()), places[gone], unchecked)
    return vertices[kept], (np.cumsum(kept) - 1)[faces[~spurious[part]]], dropped


def _judge(
    vertices: Vertices, faces: Faces, part: Int64[np.ndarray, " f"], volume: Float64[np.ndarray, " p"], grid: SignGrid
) -> tuple[Bool[np.ndarray, " p"], Int64[np.ndarray, " q"]]:
    """Which parts are spurious by the grid, and the indices of those that it cannot judge."""
    n = len(volume)
    outside, inside = _mostly(vertices, faces, part, n, grid)
    wrong, agreeing = np.where(volume > 0, [outside, inside], [inside, outside])
    open_parts = np.bincount(part[np.flatnonzero(topology.edges(faces).boundary) // 3], minlength=n) > 0
    wrong, agreeing = np.where(open_parts, outside | inside, wrong), agreeing & ~open_parts
    spurious, unclear = np.zeros(n, bool), []
    for i, some in enumerate(_groups(faces, part, n)):
        if agreeing[i] or not (wrong[i] or len(some) <= _MAX_SMALL):
            continue
        is_outer = outside[i] if open_parts[i] else volume[i] > 0
        if _contains(vertices, some, grid, INSIDE if is_outer else OUTSIDE):
            continue
        if wrong[i] and not _contains(vertices, some, grid, UNDECIDED):
            spurious[i] = True
        else:
            unclear.append(i)
    return spurious, np.array(unclear, np.int64)


def _groups(faces: Faces, part: Int64[np.ndarray, " f"], n: int) -> list[np.ndarray]:
    """The faces of each of ``n`` parts."""
    order = np.argsort(part, kind="stable")
    return np.split(faces[order], np.cumsum(np.bincount(part, minlength=n))[:-1]) if n else []


def _mostly(
    vertices: Vertices, faces: Faces, part: Int64[np.ndarray, " f"], n: int, grid: SignGrid
) -> tuple[Bool[np.ndarray, " p"], Bool[np.ndarray, " p"]]:
    """Whether most vertices of each part are in cells outside, and inside, of the solid."""
    states = grid.at(vertices[faces[:, 0]])  # one vertex of each face stands for its face
    count = np.bincount(part, minlength=n)
    outside, inside = (2 * np.bincount(part, states == state, n) > count for state in (OUTSIDE, INSIDE))
    return outside, inside


def _within(
    vertices: Vertices,
    faces: Faces,
    part: Int64[np.ndarray, " f"],
    spurious: Bool[np.ndarray, " p"],
    volume: Float64[np.ndarray, " p"],
    grid: SignGrid,
) -> Bool[np.ndarray, " p"]:
    """Which parts that agree with the cells around them exist only because they lie within a spurious part."""
    outside, inside = _mostly(vertices, faces, part, len(volume), grid)
    agreeing = np.where(volume > 0, inside, outside) & ~spurious
    within, found = faces[spurious[part]], np.zeros(len(volume), bool)
    for i in np.flatnonzero(agreeing) if len(within) else ():
        point = vertices[faces[np.argmax(part == i), 0]]
        found[i] = abs(float(topology.winding_sum(vertices[within], point[None])[0])) > 0.5
    return found


def _confirmed(vertices: Vertices, faces: Faces, outer: bool, solid: Solid) -> bool:
    """Whether some of the points within a part have the label in the solid that they have in the mesh."""
    faces = faces[:: -(-len(faces) // _MAX_FACES)]
    a, b, c = vertices[faces].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    areas = np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)
    inwards = normals / np.sqrt(areas) * (-1 if outer else 1)  # as long as the faces are wide
    centers = (a + b + c) / 3
    points = np.concatenate([centers + share * inwards for share in _DEPTHS] + [vertices[faces].mean((0, 1))[None]])
    winding = igl.fast_winding_number(vertices, np.ascontiguousarray(faces), np.ascontiguousarray(points))
    within = points[np.abs(winding) > 0.5]
    return bool(len(within)) and bool((solid.occupancy(within).numpy() == outer).any())


def _contains(vertices: Vertices, faces: Faces, grid: SignGrid, state: int) -> bool:
    """Whether a part contains the center of a cell of a state."""
    n = len(grid.cells)
    used = vertices[np.unique(faces)]
    low, high = (np.floor((end + 1) * (n / 2)).astype(int).clip(0, n - 1) for end in (used.min(0), used.max(0)))
    cells = grid.cells[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
    others = np.argwhere(cells == state)
    if not len(others):
        return False
    centers = (others[:: -(-len(others) // _MAX_CENTERS)] + low + 0.5) * (2 / n) - 1
    winding = igl.fast_winding_number(vertices, np.ascontiguousarray(faces), np.ascontiguousarray(centers))
    return bool((np.abs(winding) > 0.5).any())
