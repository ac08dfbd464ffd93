"""Orientation of the normals of a point cloud: a check by winding numbers, and repairs.

Across a closed surface with outward normals the winding number of the cloud falls from 1 to 0. If all normals point
inwards it falls from 0 to −1; if their signs are random it stays near 0. So the *score* of an orientation is the share
of points with a winding number above 1/2 behind them and below 1/2 in front of them. Where it is low, three
orientations are compared: as given, with connected parts turned over, and propagated from neighbor to neighbor along a
minimum spanning tree.

Sources: Hoppe, DeRose, Duchamp, McDonald, Stuetzle, Surface reconstruction from unorganized points (1992), section 3.3,
for the tree; Xie, Wang, Hua, Qin, Kaufman, Piecewise C1 continuous surface reconstruction of noisy point clouds via
local implicit quadric regression (2003), for normals that agree on both sides of an edge.
"""

from dataclasses import dataclass

import igl
import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from enerf.core.errors import InputError

NEIGHBORS = 8  # from which the area of a point's disc is estimated, and to which orientations are propagated
FEWEST = 32  # points below which an orientation is not judged
GOOD = 0.97  # score above which an orientation is kept without a comparison
BETTER = 0.05  # by which the score of another orientation has to exceed that of the given one
POOR = 0.5  # score below which the normals enclose little
_INWARD = -0.2  # mean sum of the winding numbers on both sides below which a part is turned over: −1 if it is closed
_DISAGREE = 0.25  # share of neighbors with contrary normals above which no orientation was found
_SOURCES = 10_000  # points whose winding number is evaluated, at most
_PROBES = 2000  # points where it is evaluated, at most, and at least in each part
_PROBES_OF_PART = 8
_REACH = 4.0  # distance of the probes in radii of a point's disc: winding numbers are unreliable nearer
_DOUBT = "by its normals the cloud encloses little: they may be wrong, or it is an open sheet"

_Rows = Float64[np.ndarray, "n 3"]


@dataclass(frozen=True)
class _Cloud:
    """Points, the surface area of each, and those whose winding number is evaluated, with the areas for all."""

    points: _Rows
    areas: Float64[np.ndarray, " n"]
    sources: Int64[np.ndarray, " s"]


@dataclass(frozen=True)
class _Graph:
    """Neighboring points, and the connected part of each point."""

    start: Int64[np.ndarray, " e"]
    end: Int64[np.ndarray, " e"]
    part: Int64[np.ndarray, " n"]


def areas(rows: _Rows) -> Float64[np.ndarray, " n"]:
    """Surface area that each point represents, from the distance to its ``NEIGHBORS``-th neighbor.

    >>> round(float(areas(np.stack([*np.mgrid[:20, :20], np.zeros((20, 20))], -1).reshape(-1, 3))[210]), 2)
    0.79
    """
    k = min(NEIGHBORS, len(rows) - 1)
    if k < 1:
        return np.ones(len(rows))
    reach = cKDTree(rows).query(rows, k + 1)[0][:, -1]
    return np.asarray(np.pi * reach**2 / k)


def oriented_outwards(points: _Rows, normals: _Rows, source: str) -> tuple[_Rows, list[str]]:
    """Unit normals oriented outwards as far as that can be told, and notes on what was turned over or is doubtful.

    Raises
    ------
    InputError
        If neighboring normals contradict each other and no consistent orientation is found.
    """
    if len(points) < FEWEST:
        return normals, []
    shuffled = np.random.default_rng(0).permutation(len(points)).astype(np.int64)
    some, sources = shuffled[:_PROBES], shuffled[:_SOURCES]
    cloud = _Cloud(points, areas(points) * (len(points) / len(sources)), sources)
    given = _score(_sides(cloud, normals, some))
    if given >= GOOD:
        return normals, []
    graph = _graph(points)
    parts, turned = _parts_outwards(cloud, normals, some, graph)
    if turned >= GOOD:
        return parts, _notes(normals, parts, graph, whole_parts=True)
    spread, propagated = _parts_outwards(cloud, _propagated(points, normals, graph), some, graph)
    best = max(given, turned, propagated)
    if best < POOR and np.mean(_agreement(points, normals, graph) < 0) > _DISAGREE:
        raise InputError(
            f"{source}: its normals contradict those of their neighbors, and no consistent orientation was found, "
            "expected normals that point outwards, on a shape that is thicker than the spacing of its points"
        )
    doubt = [_DOUBT] if best < POOR else []
    if given >= best - BETTER:
        return normals, doubt
    if turned >= best - BETTER:
        return parts, _notes(normals, parts, graph, whole_parts=True) + doubt
    return spread, _notes(normals, spread, graph, whole_parts=False) + doubt


def _notes(before: _Rows, after: _Rows, graph: _Graph, whole_parts: bool) -> list[str]:
    """What was turned over."""
    changed = (before * after).sum(axis=1) < 0
    if changed.all():
        return ["all normals pointed inwards and were turned over"]
    if whole_parts:
        n = len(np.unique(graph.part[changed]))
        return [f"the normals of {n} of {graph.part.max() + 1} parts pointed inwards and were turned over"]
    return [
        f"its normals were not oriented consistently: {int(changed.sum())} of {len(changed)} were turned over so that "
        "neighbors agree and they point outwards"
    ]


def _sides(cloud: _Cloud, normals: _Rows, some: Int64[np.ndarray, " p"]) -> Float64[np.ndarray, "2 p"]:
    """Winding numbers behind and in front of some of the points."""
    step = _REACH * np.sqrt(cloud.areas[some] / np.pi)[:, None] * normals[some]
    probes = np.ascontiguousarray(np.concatenate([cloud.points[some] - step, cloud.points[some] + step]))
    here = cloud.sources
    found = igl.fast_winding_number(cloud.points[here], normals[here], cloud.areas[here], probes)
    return np.asarray(found, np.float64).reshape(2, -1)


def _score(sides: Float64[np.ndarray, "2 p"]) -> float:
    """Share of points on a surface between inside and outside, by the winding numbers behind and in front of them."""
    return float(((sides[0] > 0.5) & (sides[1] < 0.5)).mean())


def _graph(points: _Rows) -> _Graph:
    """Neighbors of all points; points at one place are joined by their order."""
    near = cKDTree(points).query(points, min(NEIGHBORS, len(points) - 1) + 1)[1][:, 1:].astype(np.int64)
    start, end = np.repeat(np.arange(len(points)), near.shape[1]), near.reshape(-1)
    n = len(points)
    joined = sparse.coo_array((np.ones(len(start), bool), (start, end)), shape=(n, n))
    part = csgraph.connected_components(joined, directed=False)[1].astype(np.int64)
    return _Graph(start, end, part)


def _agreement(points: _Rows, normals: _Rows, graph: _Graph) -> Float64[np.ndarray, " e"]:
    """Cosine between a normal and its neighbor's, mirrored at the plane between both points.

    On a sphere and around a sharp edge two outward normals have the cosine 1; two of opposite orientation −1.
    """
    along = points[graph.end] - points[graph.start]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-300)
    other = normals[graph.end]
    mirrored = other - 2 * (other * along).sum(axis=1, keepdims=True) * along
    return (normals[graph.start] * mirrored).sum(axis=1)


def _propagated(points: _Rows, normals: _Rows, graph: _Graph) -> _Rows:
    """Normals whose signs agree along a minimum spanning tree; in each part most keep their sign."""
    n = len(points)
    agree = _agreement(points, normals, graph)
    cost = 1 + 1e-6 - np.minimum(np.abs(agree), 1)
    lower, upper = np.minimum(graph.start, graph.end), np.maximum(graph.start, graph.end)
    _, once = np.unique(lower * n + upper, return_index=True)
    tree = csgraph.minimum_spanning_tree(sparse.coo_array((cost[once], (lower[once], upper[once])), shape=(n, n)))
    _, roots = np.unique(graph.part, return_index=True)
    rooted = sparse.coo_array(
        (np.ones(tree.nnz + len(roots)), (np.append(tree.tocoo().row, np.full(len(roots), n)),
                                          np.append(tree.tocoo().col, roots))), shape=(n + 1, n + 1),
    )  # fmt: skip
    order, above = csgraph.breadth_first_order(rooted.tocsr(), n, directed=False)
    inner = order[1:][above[order[1:]] != n]
    step = _Graph(above[inner].astype(np.int64), inner.astype(np.int64), graph.part)
    flip = (_agreement(points, normals, step) < 0).tolist()
    sign = [False] * (n + 1)
    for child, parent, differs in zip(step.end.tolist(), step.start.tolist(), flip, strict=True):
        sign[child] = sign[parent] ^ differs
    turned = np.array(sign[:n])
    most = np.bincount(graph.part, np.where(turned, 1.0, -1.0)) > 0
    return np.where((turned ^ most[graph.part])[:, None], -normals, normals)


def _parts_outwards(cloud: _Cloud, normals: _Rows, some: Int64[np.ndarray, " p"], graph: _Graph) -> tuple[_Rows, float]:
    """Normals with those parts turned over that are clearly oriented inwards, and their score at some points."""
    first = np.argsort(graph.part, kind="stable")
    within = np.arange(len(first)) - np.searchsorted(graph.part[first], graph.part[first])
    every = np.unique(np.concatenate([some, first[within < _PROBES_OF_PART]]))
    sides, part = _sides(cloud, normals, every), graph.part[every]
    n = int(graph.part.max()) + 1
    weight = cloud.areas[every]
    mean = np.bincount(part, weight * sides.sum(axis=0), n) / np.maximum(np.bincount(part, weight, n), 1e-300)
    inward = mean < _INWARD
    if inward.all():
        return -normals, _score(-sides[::-1])
    outward = np.where(inward[graph.part][:, None], -normals, normals)
    return outward, _score(_sides(cloud, outward, some) if inward.any() else sides)
