"""Polygons to triangles.

A polygon whose fan about its first corner has no inverted triangle is split into that fan; of other quads the other
diagonal is taken; all remaining polygons are concave, and mapbox-earcut triangulates them in their mean plane. No
corner is dropped, so that edges keep their neighbors.

Source: the normal of a polygon that is not planar is Newell's: Sutherland, Sproull, Schumacker, A characterization of
ten hidden-surface algorithms (1974), section 3.
"""

import logging
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int64

from enerf.core.errors import InputError

log = logging.getLogger("enerf")

_EXACT, _ROUNDED = 1e-12, 1e-6  # inverted area of a fan that is neglected, with mapbox-earcut and without
_TANGLED = 1e-6  # relative difference of areas above which a polygon intersects itself

_Rows = Int64[np.ndarray, "m k"]
_Triangles = Int64[np.ndarray, "*m 3"]


@dataclass(frozen=True)
class Polygons:
    """Faces with any number of corners: the vertex indices of all, face after face, and the corners of each."""

    corners: Int64[np.ndarray, " c"]
    counts: Int64[np.ndarray, " p"]


def triangles(vertices: Float64[np.ndarray, "v 3"], polygons: Polygons, source: str) -> Int64[np.ndarray, "f 3"]:
    """Triangles with the area and orientation of polygons, in their order; vertex indices must be valid.

    Polygons of fewer than three corners are dropped, and what intersects itself is approximated, with a warning.

    Raises
    ------
    InputError
        If a polygon is concave and mapbox-earcut is not installed.
    """
    counts = polygons.counts
    starts = np.cumsum(counts) - counts
    found, order, tangled = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)], 0
    for k in np.unique(counts[counts > 2]):
        which = np.flatnonzero(counts == k)
        rows = polygons.corners[starts[which, None] + np.arange(k)]
        split, bad = (rows[:, None], 0) if k == 3 else _split(vertices, rows, source)
        found.append(split.reshape(-1, 3))
        order.append(np.repeat(which, k - 2))
        tangled += bad
    if dropped := int((counts < 3).sum()):
        log.warning("%s: %d faces of fewer than three corners were dropped", source, dropped)
    if tangled:
        log.warning("%s: %d polygons intersect themselves; their triangles are approximate", source, tangled)
    return np.concatenate(found)[np.argsort(np.concatenate(order), kind="stable")]


def _split(vertices: Float64[np.ndarray, "v 3"], rows: _Rows, source: str) -> tuple[Int64[np.ndarray, "m t 3"], int]:
    """Triangles of polygons with the same number of corners, and how many of these intersect themselves."""
    inverted = _inverted(vertices, rows)
    split = _fan(rows)
    bad = inverted > _EXACT
    if rows.shape[1] == 4 and bad.any():
        rolled = np.roll(rows[bad], -1, axis=1)
        split[bad] = _fan(rolled)
        return split, int((_inverted(vertices, rolled) > _TANGLED).sum())
    clip = _clipper()
    if clip is None:
        if (inverted > _ROUNDED).any():
            raise InputError(
                f"{source}: found a concave polygon of {rows.shape[1]} corners, which needs the package mapbox-earcut, "
                "expected it (pip install 'enerf[app]') or a triangulated file"
            )
        return split, 0
    tangled = 0
    for i in np.flatnonzero(bad):
        local, whole = clip(vertices[rows[i]])
        tangled += not whole
        split[i] = rows[i][local]
    return split, tangled


def _fan(rows: _Rows) -> Int64[np.ndarray, "m t 3"]:
    """Triangles between the first corner and each side that it is not part of."""
    first = np.broadcast_to(rows[:, :1], (len(rows), rows.shape[1] - 2))
    return np.stack([first, rows[:, 1:-1], rows[:, 2:]], axis=-1)


def _inverted(vertices: Float64[np.ndarray, "v 3"], rows: _Rows) -> Float64[np.ndarray, " m"]:
    """Largest area of a triangle of the fan that faces against the polygon, relative to the polygon; at least 0."""
    with np.errstate(all="ignore"):  # non-finite vertices are dropped later
        sides = vertices[rows[:, 1:]] - vertices[rows[:, :1]]
        sides /= np.abs(sides).max(axis=(1, 2), keepdims=True)
        across = np.cross(sides[:, :-1], sides[:, 1:])
        normal = across.sum(axis=1)
        cosine = (across * normal[:, None]).sum(-1) / (normal * normal).sum(-1)[:, None]
    return np.nan_to_num(-cosine.min(axis=1).clip(max=0), nan=0.0)


def _clipper():  # type: ignore[no-untyped-def]
    """``_clip`` with mapbox-earcut, or None where that is not installed."""
    try:
        from mapbox_earcut import triangulate_float64
    except ImportError:
        return None
    return lambda points: _clip(points, triangulate_float64)


def _clip(points: Float64[np.ndarray, "k 3"], earcut) -> tuple[Int64[np.ndarray, "t 3"], bool]:  # type: ignore[no-untyped-def]
    """The k − 2 triangles of one polygon, and whether they cover it exactly; a fan where they cannot be found."""
    k = len(points)
    fan = _fan(np.arange(k)[None])[0]
    flat = _in_plane(points)
    found = earcut(flat, np.array([k], np.uint32)).reshape(-1, 3).astype(np.int64)
    if not len(found):
        return fan, False
    area = _signed(flat, found)
    found = _with_every_corner(found[:, ::-1] if area.sum() < 0 else found, k)
    whole = _signed(flat, fan).sum()
    exact = len(found) == k - 2 and abs(np.abs(area).sum() - whole) <= _TANGLED * whole
    return (found if len(found) == k - 2 else fan), bool(exact)


def _in_plane(points: Float64[np.ndarray, "k 3"]) -> Float64[np.ndarray, "k 2"]:
    """Points projected along the normal of their polygon, which is counter-clockwise there; scaled to the unit size."""
    sides = points - points[0]
    sides = sides / np.abs(sides).max()
    normal = np.cross(sides[1:-1], sides[2:]).sum(axis=0)
    normal /= np.linalg.norm(normal)
    first = np.eye(3)[np.argmin(np.abs(normal))]
    first = first - normal * (first @ normal)
    first /= np.linalg.norm(first)
    return np.ascontiguousarray(sides @ np.stack([first, np.cross(normal, first)], axis=1))


def _signed(flat: Float64[np.ndarray, "k 2"], found: _Triangles) -> Float64[np.ndarray, " t"]:
    """Twice the areas of triangles in the plane, positive if counter-clockwise."""
    a, b, c = flat[found].transpose(1, 0, 2)
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    return ux * vy - uy * vx


def _with_every_corner(found: _Triangles, k: int) -> _Triangles:
    """Triangles in which corners that were skipped, since they lie on a straight side, are inserted in that side."""
    made = [tuple(map(int, one)) for one in found]
    owner = {(t[i], t[i - 2]): n for n, t in enumerate(made) for i in range(3)}
    used = sorted({corner for one in made for corner in one})
    for p, q in zip(used, [*used[1:], used[0] + k], strict=True):
        run = [i % k for i in range(p, q + 1)]
        if len(run) == 2 or (n := owner.get((run[0], run[-1]))) is None:
            continue
        r = next(corner for corner in made[n] if corner not in (run[0], run[-1]))
        pieces = [(a, b, r) for a, b in pairwise(run)]
        owner[run[-1], r] = len(made) + len(pieces) - 2
        made[n], made[len(made) :] = pieces[0], pieces[1:]
    return np.array(made, np.int64)


def check_indices(corners: Int64[np.ndarray, "*c"], n: int, source: str, first: int = 0) -> None:
    """Check that vertex indices are those of ``n`` vertices; ``first`` is the number of the first one in the file.

    Raises
    ------
    InputError
        If not.
    """
    outside: Bool[np.ndarray, "*c"] = (corners < 0) | (corners >= n)
    if outside.any():
        bad = int(corners[outside][0])
        raise InputError(
            f"{source}: a face names vertex {bad + first}, expected those of its {n} vertices, which are numbered from "
            f"{first}"
        )
