"""Faces to edges, parts and holes, and which way is out.

Words of this file:

- A *half-edge* is a side of a face, from one vertex to the next as the face is wound.
- A *boundary* edge has one face, a *non-manifold* edge more than two; an edge is *inconsistent* if its two faces run
  along it the same way, so that one of them looks in where the other looks out.
- A *part* is what hangs together by shared vertices; it is *open* if it has boundary edges.
- A *cap* is the fan that closes a hole: triangles from its edges to the mean of its vertices.
- A *cavity* is a closed part that lies in an odd number of others and rightly faces into itself.
"""

from dataclasses import dataclass

import igl
import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse
from scipy.sparse import csgraph

Faces = Int64[np.ndarray, "f 3"]
Vertices = Float64[np.ndarray, "v 3"]

FLAT = 1e-6  # a part whose volume is less than this, compared with a ball of its area, has no outside to be told
VAGUE = 0.02  # the same for an open part, whose volume is partly invented
_PER_AREA = (36 * np.pi) ** (-1 / 3)  # (area · this)^1.5 is the volume of a ball of that area


@dataclass(frozen=True)
class Edges:
    """Half-edges of faces, and how many faces each of them shares its edge with."""

    start: Int64[np.ndarray, " e"]
    end: Int64[np.ndarray, " e"]
    shared: Int64[np.ndarray, " e"]  # faces at the edge
    against: Int64[np.ndarray, " e"]  # half-edges the one way less those the other way, of the whole edge

    @property
    def boundary(self) -> Bool[np.ndarray, " e"]:
        """Half-edges whose edge has one face."""
        return self.shared == 1

    @property
    def inconsistent(self) -> int:
        """How many edges have two faces that run along them the same way."""
        return int(((self.shared == 2) & (self.against != 0)).sum()) // 2

    @property
    def non_manifold(self) -> int:
        """How many edges have more than two faces."""
        many = self.shared > 2
        return round(float((1 / self.shared[many]).sum()))

    @property
    def count(self) -> int:
        """How many edges there are."""
        return round(float((1 / self.shared).sum()))


def edges(faces: Faces) -> Edges:
    """Half-edges in the order of ``faces.ravel()``: the k-th side of face i at 3 i + k."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    key = np.minimum(start, end) * (int(faces.max(initial=0)) + 1) + np.maximum(start, end)
    _, index, counts = np.unique(key, return_inverse=True, return_counts=True)
    sums = np.bincount(index, weights=np.where(start < end, 1.0, -1.0), minlength=len(counts)).astype(np.int64)
    return Edges(start, end, counts[index], np.abs(sums)[index])


def parts(faces: Faces) -> tuple[int, Int64[np.ndarray, " f"]]:
    """How many parts there are, and the part of each face, numbered in the order of their first faces."""
    start, end = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    n = int(faces.max(initial=-1)) + 1
    graph = sparse.coo_array((np.ones(len(start), bool), (start, end)), shape=(n, n))
    labels = csgraph.connected_components(graph, directed=False)[1][faces[:, 0]]
    _, first, index = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return len(first), rank[index]


def without_repeats(faces: Faces) -> tuple[Int64[np.ndarray, "g 3"], int]:
    """Faces without copies, and how many were left out.

    Two faces on the same three vertices that face opposite ways bound nothing (the wall between two boxes that touch):
    both go, which changes no winding number. Of copies that face the same way one stays.
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
    """Generalised winding numbers of points: the solid angles of all triangles as seen from there, over 4π.

    1 inside a closed surface that looks outwards, 0 outside, and in between near the holes of an open one. Exact, and
    slow: the readable twin of the fast ones in ``inside``.

    Sources: Jacobson, Kavan, Sorkine-Hornung, Robust inside-outside segmentation using generalized winding numbers
    (2013), equation 5; Van Oosterom and Strackee, The solid angle of a plane triangle (1983), equation 8.

    >>> square = np.array([[[1, 1, 0], [-1, 1, 0], [-1, -1, 0]], [[1, 1, 0], [-1, -1, 0], [1, -1, 0.0]]])
    >>> winding_sum(square, np.array([[0, 0, -1.0]])).round(12)  # a side of a cube, seen from the middle
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
    """Triangles that close the holes, and the face that each of them leans on."""
    found = edges(faces)
    leaning = np.flatnonzero(found.boundary)
    start, end = found.start[leaning], found.end[leaning]
    graph = sparse.coo_array((np.ones(len(start), bool), (start, end)), shape=(len(vertices), len(vertices)))
    hole = csgraph.connected_components(graph, directed=False)[1][start]
    n = int(hole.max(initial=-1)) + 1
    counts = np.maximum(np.bincount(hole, minlength=n), 1)
    middle = np.stack([np.bincount(hole, vertices[start, axis], n) / counts for axis in range(3)], axis=1)
    return np.stack([vertices[end], vertices[start], middle[hole]], axis=1), leaning // 3


def volumes(
    vertices: Vertices, faces: Faces, part: Int64[np.ndarray, " f"], n: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Signed volume of each of ``n`` parts with its holes capped, and its area without the caps."""
    cap, leaning = caps(vertices, faces)
    triangles = np.concatenate([vertices[faces], cap])
    label = np.concatenate([part, part[leaning]])
    sums = np.stack([np.bincount(label, triangles[:, :, axis].mean(1), n) for axis in range(3)], axis=1)
    centre = sums / np.bincount(label, minlength=n)[:, None]
    a, b, c = (triangles - centre[label][:, None]).transpose(1, 0, 2)
    volume = np.bincount(label, (a * np.cross(b, c)).sum(-1) / 6, n)
    return volume, np.bincount(part, areas(vertices, faces), n)


def areas(vertices: Vertices, faces: Faces) -> Float64[np.ndarray, " f"]:
    """Areas of faces."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2


def agree(faces: Faces) -> Faces:
    """Faces turned so that neighbours agree on what is out, each patch as most of its faces had it.

    A one-sided surface (a Möbius strip) keeps inconsistent edges.
    """
    turned, patch = (found.astype(np.int64) for found in igl.bfs_orient(faces))
    same = _same_way(turned, faces)
    n = int(patch.max()) + 1
    outvoted = np.bincount(patch, np.where(same, 1.0, -1.0), n) < 0
    return np.where((same ^ outvoted[patch])[:, None], faces, faces[:, ::-1])


def _same_way(a: Faces, b: Faces) -> Bool[np.ndarray, " f"]:
    """Whether faces on the same vertices are wound the same way."""
    first = np.argmax(b == a[:, :1], axis=1)
    return np.take_along_axis(b, ((first + 1) % 3)[:, None], axis=1)[:, 0] == a[:, 1]


def outwards(vertices: Vertices, faces: Faces) -> tuple[Faces, list[str]]:
    """Faces turned to look out of what they enclose, and sentences about what was turned and what could not be told.

    Neighbours are made to agree; then the whole, and then each part, is turned if the volume it encloses (with its
    holes capped) is negative, unless it is a cavity.
    """
    said = []
    if wrong := edges(faces).inconsistent:
        before, faces = faces, agree(faces)
        turned = int((~_same_way(before, faces)).sum())
        said.append(f"{wrong} edges joined faces of opposite winding: {turned} faces were turned")
        if left := edges(faces).inconsistent:
            said.append(f"{left} edges still do, because the surface is one-sided there")
    n, part = parts(faces)
    volume, area = volumes(vertices, faces, part, n)
    if volume.sum() < -VAGUE * (area.sum() * _PER_AREA) ** 1.5:
        faces, volume = faces[:, ::-1], -volume
        said.append("all faces looked inwards and were turned")
    opened = np.bincount(part[np.flatnonzero(edges(faces).boundary) // 3], minlength=n) > 0
    clear = np.abs(volume) > np.where(opened, VAGUE, FLAT) * (area * _PER_AREA) ** 1.5
    negative = [int(i) for i in np.flatnonzero((volume < 0) & clear)]
    inside_out = [i for i in negative if opened[i] or _depth(i, vertices, faces, part, volume) % 2 == 0]
    if inside_out:
        faces = np.where(np.isin(part, inside_out)[:, None], faces[:, ::-1], faces)
        said.append(f"{len(inside_out)} of {n} parts looked inwards and were turned")
    if vague := int((~clear).sum()):
        said.append(f"{vague} of {n} parts enclose next to nothing: their winding was taken as it is")
    return np.ascontiguousarray(faces), said


def _depth(
    i: int, vertices: Vertices, faces: Faces, part: Int64[np.ndarray, " f"], volume: Float64[np.ndarray, " n"]
) -> int:
    """How many other parts a part lies in, each of them taken to look outwards."""
    others = part != i
    triangles = np.where((volume[part[others]] < 0)[:, None], faces[others][:, ::-1], faces[others])
    point = vertices[faces[np.argmax(part == i), 0]]
    return round(float(winding_sum(vertices[triangles], point[None])[0]))
