"""Similarity between two sets of poses of the same cameras, and what of their difference it leaves."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

Poses = Float64[np.ndarray, "n 3 4"]


@dataclass(frozen=True)
class Similarity:
    """The map x → scale · rotation · x + shift."""

    scale: float
    rotation: Float64[np.ndarray, "3 3"]
    shift: Float64[np.ndarray, "3"]

    def apply(self, c2w: Poses) -> Poses:
        """Poses of cameras that are moved by the similarity; their rotations stay orthonormal."""
        centers = self.scale * c2w[:, :, 3] @ self.rotation.T + self.shift
        return np.concatenate([self.rotation @ c2w[:, :, :3], centers[:, :, None]], axis=-1)


def between(first: Poses, second: Poses) -> Similarity:
    """The similarity from some poses to others: the mean of the cameras' rotations, then least squares of the centers.

    The rotation is taken from the cameras' axes, so that centers on a line or at one point determine it too; then
    the scale is 1 for centers at one point.
    """
    left, _, right = np.linalg.svd(np.einsum("nij,nkj->ik", second[:, :, :3], first[:, :, :3]))
    rotation = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    a, b = (each[:, :, 3] - each[:, :, 3].mean(0) for each in (first, second))
    turned, extent = a @ rotation.T, float((a**2).sum())
    scale = float((turned * b).sum()) / extent if extent > 0 else 1.0
    scale = scale if scale > 0 else 1.0
    return Similarity(scale, rotation, second[:, :, 3].mean(0) - scale * rotation @ first[:, :, 3].mean(0))


def differences(first: Poses, second: Poses) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Angle in degrees and distance of centers between poses of the same cameras, without alignment."""
    relative = np.einsum("nji,njk->nik", first[:, :, :3], second[:, :, :3])
    skew = np.stack([relative[:, i, j] - relative[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], -1)
    angles = np.arctan2(np.linalg.norm(skew, axis=-1), np.trace(relative, axis1=1, axis2=2) - 1)
    return np.degrees(angles), np.linalg.norm(first[:, :, 3] - second[:, :, 3], axis=-1)


def residuals(first: Poses, second: Poses) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Angle in degrees and distance of centers that remain after ``first`` is moved by the similarity to ``second``."""
    return differences(between(first, second).apply(first), second)


def spread(c2w: Poses) -> float:
    """Root-mean-square distance of the cameras from their mean center."""
    return float(np.sqrt(((c2w[:, :, 3] - c2w[:, :, 3].mean(0)) ** 2).sum(1).mean()))
