"""Edges, connected components, holes and orientation of triangle meshes.

Terms:

- A *half-edge* is a side of a face, from one vertex to the next in the order of the face.
- A *boundary* edge has one face, a *non-manifold* edge more than two; an edge is *inconsistent* if its two faces
  traverse it in the same direction, so that their orientations are opposite.
- A *part* is a connected component by shared vertices; it is *open* if it has boundary edges.
- A *cap* is the fan that closes a hole: triangles from its edges to the mean of its vertices.
- A *cavity* is a closed part inside an odd number of others, which is correctly oriented inwards.
"""

from dataclasses import dataclass

import igl
import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse
from scipy.sparse import csgraph

Faces = Int64[np.ndarray, "f 3"]
Vertices = Float64[np.ndarray, "v 3"]

FLAT = 1e-6  # a part has no orientation if its volume, relative to a ball of its area, is below this
FLAT_OPEN = 0.02  # the same for an open part, whose volume depends on its caps
_PER_AREA = (36 * np.pi) ** (-1 / 3)  # (area · this)^1.5 is the volume of a ball of that area


@dataclass(frozen=True)
class Edges:
    """Half-edges of faces, and the number of faces at each edge."""

    start: Int64[np.ndarray, " e"]
    end: Int64[np.ndarray, " e"]
    shared: Int64[np.ndarray, " e"]  # faces at the edge
    imbalance: Int64[np.ndarray, " e"]  # absolute difference of the half-edges in both directions of the edge

    @property
    def boundary(self) -> Bool[np.ndarray, " e"]:
        """Whether each half-edge is a boundary edge."""
        return self.shared == 1

    @property
    def inconsistent(self) -> int:
        """Number of inconsistent edges."""
        return int(((self.shared == 2) & (self.imbalance != 0)).sum()) // 2

    @property
    def non_manifold(self) -> int:
        """Number of non-manifold edges."""
        many = self.shared > 2
        return round(float((1 / self.shared[many]).sum()))

    @property
    def count(self) -> int:
        """Number of edges."""
        return round(float((1 / self.shared).sum()))


def edges(faces: Faces) -> Edges:
    """Half-edges in the order of ``faces.ravel()``: the k-th side of face i at 3 i + k."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    key = np.minimum(start, end) * (int(faces.max(initial=0)) + 1) + np.maximum(start, end)
    _, index, counts = np.unique(key, return_inverse=True, return_counts=True)
    sums = np.bincount(index, weights=np.where(start < end, 1.0, -1.0), minlength=len(counts)).astype(np.int64)
    return Edges(start, end, counts[index], np.abs(sums)[index])


def parts(faces: Faces) -> tuple[int, Int64[np.ndarray, " f"]]:
    """Number of connected components, and the component of each face, numbered by their first faces."""
    start, end = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    n = int(faces.max(initial=-1)) + 1
    graph = sparse.coo_array((np.ones(len(start), bool), (start, end)), shape=(n, n))
    labels = csgraph.connected_components(graph, directed=False)[1][faces[:, 0]]
    _, first, index = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return len(first), rank[index]


def without_repeats(faces: Faces) -> tuple[Int64[np.ndarray, "g 3"], int]:
    """Faces without duplicates, and the number of removed faces.

    Two faces on the same vertices with opposite orientation bound nothing (the wall between two touching boxes): both
    are removed, which changes no winding number. Of duplicates with the same orientation one is kept.
    """
    ordered = np.sort(faces, axis=1)
    n = int(faces.max(initial=0)) + 1
    even = (faces[:, 1] > faces[:, 0]).astype(int) + (faces[:, 2] > faces[:, 1]) + (faces[:, 0] > faces[:, 2]) == 2
    pair, third = np.unique(ordered[:, 0] * n + ordered[:, 1], return_inverse=True)[1], ordered[:, 2]
    _, index, counts = np.unique(pair * n + third, return_inverse=True, return_counts=True)
    if not len(faces) or counts.max() == 1:
        return faces, 0
    net = np.bincount(index, weights=np.where(even, 1.0, -1.0))
    candidate = np.flatnonzero(np.where(even, 1.0, -1.0) * net[index] > 0)
    kept = candidate[np.sort(np.unique(index[candidate], return_index=True)[1])]
    return faces[kept], len(faces) - len(kept)


def winding_sum(
    triangles: Float64[np.ndarray, "f 3 3"], points: Float64[np.ndarray, "n 3"], chunk: int = 1 << 20
) -> Float64[np.ndarray, " n"]:
    """Generalized winding numbers of points: the solid angles of all triangles as seen from there, over 4π.

    1 inside a closed, outward-oriented surface, 0 outside, and in between near the holes of an open one. Exact and
    slow: the reference implementation of the fast ones in ``solid``.

    Sources: Jacobson, Kavan, Sorkine-Hornung, Robust inside-outside segmentation using generalized winding numbers
    (2013), equation 5; Van Oosterom and Strackee, The solid angle of a plane triangle (1983), equation 8.

    >>> square = np.array([[[1, 1, 0], [-1, 1, 0], [-1, -1, 0]], [[1, 1, 0], [-1, -1, 0], [1, -1, 0.0]]])
    >>> winding_sum(square, np.array([[0, 0, -1.0]])).round(12)  # a side of a cube, seen from its center
    array([0.16666667])
    """
    found = [np.zeros(0)]
    for some in np.split(points, range(0, len(points), max(1, chunk // max(1, len(triangles))))):
        a, b, c = (triangles[None, :, i] - some[:, None] for i in range(3))
        la, lb, lc = (np.sqrt((side * side).sum(-1)) for side in (a, b, c))
        volume = (a * np.cross(b, c)).sum(-1)
        spread = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
        found.append(np.arctan2(volume, spread).sum(-1) / (2 * np.pi))
    return np.concatenate(found)


def caps(vertices: Vertices, faces: Faces) -> tuple[Float64[np.ndarray, "k 3 3"], Int64[np.ndarray, " k"]]:
    """Triangles that close the holes, and the face next to each of them."""
    found = edges(faces)
    border = np.flatnonzero(found.boundary)
    start, end = found.start[border], found.end[border]
    graph = sparse.coo_array((np.ones(len(start), bool), (start, end)), shape=(len(vertices), len(vertices)))
    hole = csgraph.connected_components(graph, directed=False)[1][start]
    n = int(hole.max(initial=-1)) + 1
    counts = np.maximum(np.bincount(hole, minlength=n), 1)
    center = np.stack([np.bincount(hole, vertices[start, axis], n) / counts for axis in range(3)], axis=1)
    return np.stack([vertices[end], vertices[start], center[hole]], axis=1), border // 3


def volumes(
    vertices: Vertices, faces: Faces, part: Int64[np.ndarray, " f"], n: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Signed volume of each of ``n`` components with holes capped, and surface area without the caps."""
    cap, neighbor = caps(vertices, faces)
    triangles = np.concatenate([vertices[faces], cap])
    label = np.concatenate([part, part[neighbor]])
    sums = np.stack([np.bincount(label, triangles[:, :, axis].mean(1), n) for axis in range(3)], axis=1)
    center = sums / np.bincount(label, minlength=n)[:, None]
    a, b, c = (triangles - center[label][:, None]).transpose(1, 0, 2)
    volume = np.bincount(label, (a * np.cross(b, c)).sum(-1) / 6, n)
    return volume, np.bincount(part, areas(vertices, faces), n)


def areas(vertices: Vertices, faces: Faces) -> Float64[np.ndarray, " f"]:
    """Areas of faces."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2


def orient_consistently(faces: Faces) -> Faces:
    """Faces flipped so that neighbors agree, each patch in the orientation of most of its faces.

    A one-sided surface (a Möbius strip) keeps inconsistent edges.
    """
    oriented, patch = (found.astype(np.int64) for found in igl.bfs_orient(faces))
    same = _same_winding(oriented, faces)
    n = int(patch.max()) + 1
    outvoted = np.bincount(patch, np.where(same, 1.0, -1.0), n) < 0
    return np.where((same ^ outvoted[patch])[:, None], faces, faces[:, ::-1])


def _same_winding(a: Faces, b: Faces) -> Bool[np.ndarray, " f"]:
    """Whether faces on the same vertices have the same orientation."""
    first = np.argmax(b == a[:, :1], axis=1)
    return np.take_along_axis(b, ((first + 1) % 3)[:, None], axis=1)[:, 0] == a[:, 1]


def orient_outwards(vertices: Vertices, faces: Faces) -> tuple[Faces, list[str]]:
    """Faces oriented outwards, and notes on what was flipped and where the orientation is unknown.

    Neighbors are oriented consistently; then the whole mesh, and then each part, is flipped if the volume it encloses
    (with holes capped) is negative, unless it is a cavity.
    """
    notes = []
    if wrong := edges(faces).inconsistent:
        before, faces = faces, orient_consistently(faces)
        turned = int((~_same_winding(before, faces)).sum())
        notes.append(f"{wrong} edges joined faces of opposite orientation: {turned} faces were flipped")
        if left := edges(faces).inconsistent:
            notes.append(f"{left} edges still do, because the surface is one-sided there")
    n, part = parts(faces)
    volume, area = volumes(vertices, faces, part, n)
    if volume.sum() < -FLAT_OPEN * (area.sum() * _PER_AREA) ** 1.5:
        faces, volume = faces[:, ::-1], -volume
        notes.append("all faces were oriented inwards and were flipped")
    opened = np.bincount(part[np.flatnonzero(edges(faces).boundary) // 3], minlength=n) > 0
    clear = np.abs(volume) > np.where(opened, FLAT_OPEN, FLAT) * (area * _PER_AREA) ** 1.5
    negative = [int(i) for i in np.flatnonzero((volume < 0) & clear)]
    inside_out = [i for i in negative if opened[i] or _depth(i, vertices, faces, part, volume) % 2 == 0]
    if inside_out:
        faces = np.where(np.isin(part, inside_out)[:, None], faces[:, ::-1], faces)
        notes.append(f"{len(inside_out)} of {n} parts were oriented inwards and were flipped")
    if flat := int((~clear).sum()):
        notes.append(f"{flat} of {n} parts enclose almost no volume: their orientation was kept")
    return np.ascontiguousarray(faces), notes


def _depth(
    i: int, vertices: Vertices, faces: Faces, part: Int64[np.ndarray, " f"], volume: Float64[np.ndarray, " n"]
) -> int:
    """Number of other parts that contain a part, each assumed to be oriented outwards."""
    others = part != i
    triangles = np.where((volume[part[others]] < 0)[:, None], faces[others][:, ::-1], faces[others])
    point = vertices[faces[np.argmax(part == i), 0]]
    return round(float(winding_sum(vertices[triangles], point[None])[0]))
