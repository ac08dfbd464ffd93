"""Pictures of the generated scene from known poses, and errors of estimated poses after a similarity alignment."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from enerf.core import images
from enerf.datasets.scenes import alignment, synthetic

# Not importorskip: pycolmap crashes OpenCV in the same process, so that only processes of its own import it.
needs_pycolmap = pytest.mark.skipif(
    importlib.util.find_spec("pycolmap") is None, reason="pycolmap is not installed (extra sfm)"
)
CENTER = np.array([0.0, 0.0, -6.0])


def look_at(position, target, roll=0.0):
    return synthetic.look_at(np.array(position, dtype=float), np.array(target, dtype=float), roll)


def arc(views: int, half_angle: float, seed: int = 0) -> np.ndarray:
    """Poses on an arc about the middle of the scene, moved and turned at random."""
    rng = np.random.default_rng(seed)
    found = []
    for k, angle in enumerate(np.linspace(-half_angle, half_angle, views)):
        center = np.array([6 * np.sin(angle), 0.4 * np.sin(2.4 * k), -6 + 6 * np.cos(angle)])
        target = CENTER + rng.uniform(-0.3, 0.3, 3)
        found.append(look_at(center + rng.uniform(-0.1, 0.1, 3), target, float(rng.uniform(-0.05, 0.05))))
    return np.array(found)


def turned(views: int, half_angle: float) -> np.ndarray:
    """Poses at one point, turned about the vertical."""
    angles = np.linspace(-half_angle, half_angle, views)
    return np.array([look_at([0, 0, 0], [np.sin(a), 0, -np.cos(a)]) for a in angles])


def pictures(poses, width=320, height=240, supersample=1):
    lens = synthetic.camera(width, height)
    for pose in poses:
        yield images.to_uint8(synthetic.render(lens, pose, supersample)[0])


def write(folder: Path, poses, **size) -> Path:
    for i, picture in enumerate(pictures(poses, **size)):
        images.write_png(folder / f"{i:02d}.png", picture)
    return folder


def errors(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Root-mean-square error of the centers, as a part of their spread, and the largest error of a rotation in degrees.

    They are compared after the similarity between them.
    """
    angles, distances = alignment.residuals(found, true)
    return float(np.sqrt((distances**2).mean())) / alignment.spread(true), float(angles.max())
