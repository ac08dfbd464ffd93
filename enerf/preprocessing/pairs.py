"""Pairs of photographs that are matched: all, or neighbors in order and those with similar key points.

Similarity is that of VLAD descriptors: sums of the differences of an image's local descriptors from the nearest of a
few centers, which are found in the scene's own descriptors, so that no vocabulary has to be downloaded. Depends on
numpy alone, since the process that runs COLMAP must load no other image library.

Source: Jégou, Douze, Schmid, Pérez, Aggregating local descriptors into a compact image representation (2010).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, UInt8

MOST_EXHAUSTIVE = 80  # photographs that are matched each with each
OVERLAP = 10  # neighbors in order that a photograph is matched with, and further ones at distances 16, 32, ...
SIMILAR = 20  # photographs with the most similar key points
_CENTERS, _SAMPLED, _ROUNDS = 32, 20_000, 8

Pair = tuple[int, int]


def exhaustive(count: int) -> list[Pair]:
    """All pairs.

    >>> exhaustive(3)
    [(0, 1), (0, 2), (1, 2)]
    """
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def sequential(count: int, overlap: int = OVERLAP) -> list[Pair]:
    """Pairs of neighbors up to ``overlap`` apart, and of those a power of two apart.

    >>> sequential(6, 1)
    [(0, 1), (0, 2), (0, 4), (1, 2), (1, 3), (1, 5), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5)]
    """
    powers = [1 << k for k in range(count.bit_length())]
    steps = sorted({*range(1, overlap + 1), *powers})
    return sorted((i, i + step) for i in range(count) for step in steps if i + step < count)


def similar(descriptors: Sequence[UInt8[np.ndarray, "_ d"]], most: int = SIMILAR) -> list[Pair]:
    """Pairs of each image with the ``most`` images that have the most similar local descriptors; deterministic.

    Parameters
    ----------
    descriptors
        Local descriptors of each image, such as SIFT's; images without any are in no pair.
    most
        Number of images that each is paired with.
    """
    filled = [i for i, rows in enumerate(descriptors) if len(rows)]
    if len(filled) < 2:
        return []
    centers = _centers([descriptors[i] for i in filled])
    summaries = np.stack([_vlad(descriptors[i], centers) for i in filled])
    likeness = summaries @ summaries.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, : min(most, len(filled) - 1)]
    found = {tuple(sorted((filled[i], filled[j]))) for i, row in enumerate(nearest.tolist()) for j in row}
    return sorted((i, j) for i, j in found)


def _centers(descriptors: Sequence[UInt8[np.ndarray, "_ d"]]) -> Float32[np.ndarray, "c d"]:
    """Centers of clusters of a sample of the descriptors, by Lloyd's iterations from evenly chosen ones."""
    each = max(1, _SAMPLED // len(descriptors))
    sample = np.concatenate([_rooted(rows[:: max(1, len(rows) // each)]) for rows in descriptors])
    centers = sample[np.unique(np.linspace(0, len(sample) - 1, _CENTERS).astype(np.int64))]
    for _ in range(_ROUNDS):
        nearest = _nearest(sample, centers)
        counts = np.bincount(nearest, minlength=len(centers))
        sums = np.zeros(centers.shape, dtype=np.float32)
        np.add.at(sums, nearest, sample)
        centers = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None].astype(np.float32), centers)
    return centers


def _vlad(rows: UInt8[np.ndarray, "n d"], centers: Float32[np.ndarray, "c d"]) -> Float64[np.ndarray, " e"]:
    """Unit vector of the signed square roots of the normalized sums of differences from the nearest centers."""
    values = _rooted(rows)
    nearest = _nearest(values, centers)
    sums = np.zeros(centers.shape, dtype=np.float64)
    np.add.at(sums, nearest, values - centers[nearest])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    flat = np.sign(sums).ravel() * np.sqrt(np.abs(sums)).ravel()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-12))


def _rooted(rows: UInt8[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Descriptors of unit length."""
    values = rows.astype(np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-12)))


def _nearest(rows: Float32[np.ndarray, "n d"], centers: Float32[np.ndarray, "c d"]) -> np.ndarray:
    """Index of the nearest center of each row."""
    return np.asarray((rows @ centers.T - 0.5 * (centers**2).sum(1)).argmax(1))
