"""Poses in the conventions of other programs, for tests."""

import numpy as np


def to_axes(c2w: np.ndarray, axes: str) -> np.ndarray:
    """Matrices n × 3 × 4 in a convention of ``poses.AXES``, of camera-to-world poses with OpenGL axes."""
    right, up, back = np.moveaxis(c2w[:, :, :3], -1, 0)
    columns = {"opengl": (right, up, back), "llff": (-up, right, back), "opencv": (right, -up, -back)}
    rotation, center = np.stack(columns[axes.removesuffix("_w2c")], axis=-1), c2w[:, :, 3:]
    if axes.endswith("_w2c"):
        rotation = rotation.transpose(0, 2, 1)
        center = -rotation @ center
    return np.concatenate([rotation, center], axis=-1)
