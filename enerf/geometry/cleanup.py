"""Post-processing of extracted meshes: removal of small components, decimation, smoothing."""

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int
from scipy import sparse

from enerf.core.errors import InputError
from enerf.geometry import topology

FEWEST_FACES = 4  # to which meshes are decimated


def keep(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], kept: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "l 3"]]:
    """The mesh restricted to faces all of whose vertices are marked; unused vertices are removed."""
    return used(vertices, faces[kept[faces].all(1)])


def largest(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], parts: int = 0, share: float | int = 0.0
) -> tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "l 3"], int, int]:
    """Remove small connected components; returns the mesh, the number of components left and the number before.

    Parameters
    ----------
    vertices, faces
        The mesh.
    parts
        Keep at most this many components, those with the most faces; 0: all.
    share
        Keep components with at least this share of the faces of the largest one.
    """
    total, part = topology.parts(np.asarray(faces, dtype=np.int64))
    sizes = np.bincount(part, minlength=total)
    stays = sizes >= share * sizes.max(initial=0)
    if parts:
        stays[np.argsort(-sizes, kind="stable")[parts:]] = False
    return (*used(vertices, faces[stays[part]]), int(stays.sum()), total)


def used(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]
) -> tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "m 3"]]:
    """The mesh without unused vertices, which keep their order."""
    kept = np.zeros(len(vertices), dtype=bool)
    kept[faces] = True
    return vertices[kept], (np.cumsum(kept) - 1)[faces]


def decimate(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], target: int, aggression: float | int = 5
) -> tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "l 3"]]:
    """Decimate a mesh to about ``target`` faces by quadric error metrics; unchanged if it has no more.

    A higher ``aggression`` (0 … 10) is faster and less accurate.

    Source: Garland and Heckbert, Surface simplification using quadric error metrics (1997), in fast-simplification.

    Raises
    ------
    InputError
        If fast-simplification is missing.
    ValueError
        If the target is below 4.
    """
    if target < FEWEST_FACES:
        raise ValueError(f"target: found {target} faces, expected at least {FEWEST_FACES}")
    if len(faces) <= target:
        return vertices, faces
    try:
        import fast_simplification
    except ImportError:
        raise InputError(
            "a mesh cannot be decimated: fast-simplification is missing, `pip install fast-simplification` brings it; "
            "all other steps work without it"
        ) from None
    low, size = vertices.min(0), max(float(np.ptp(vertices, axis=0).max()), 1e-300)
    local = np.ascontiguousarray((vertices - low) / size, dtype=np.float64)
    found, kept = fast_simplification.simplify(
        local, np.ascontiguousarray(faces, dtype=np.int32), target_count=target, agg=float(aggression)
    )[:2]
    return used(np.asarray(found, dtype=np.float64) * size + low, np.asarray(kept).astype(np.int64))


def smooth(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], rounds: int = 10
) -> Float[np.ndarray, "n 3"]:
    """Vertices after ``rounds`` of Taubin smoothing, which approximately preserves the volume.

    Source: Taubin, Curve and surface smoothing without shrinkage (1995), in trimesh.
    """
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    means = neighbor_means(len(vertices), faces)
    trimesh.smoothing.filter_taubin(mesh, lamb=0.5, nu=0.53, iterations=2 * rounds, laplacian_operator=means)
    return np.asarray(mesh.vertices, dtype=np.float64)


def neighbor_means(n: int, faces: Int[np.ndarray, "m 3"]) -> sparse.csr_array:
    """Sparse matrix that averages vertex values over neighbors; vectorized, unlike trimesh's."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    both = np.concatenate([start, end, np.arange(n)]), np.concatenate([end, start, np.arange(n)])
    touching = sparse.csr_array((np.ones(len(both[0]), np.int8), both), shape=(n, n))
    weights = (touching > 0).astype(np.float64)
    isolated = np.asarray(weights.sum(1)).ravel() == 1
    weights.setdiag(isolated * 1.0)
    weights.eliminate_zeros()
    return sparse.csr_array(sparse.diags_array(1.0 / np.asarray(weights.sum(1)).ravel()) @ weights)
