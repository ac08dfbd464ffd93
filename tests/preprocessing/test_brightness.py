"""Brightness of photographs against one another: known gains are found, whatever is clipped or shines."""

import numpy as np
import pytest

from enerf.core import images
from enerf.core.types import Camera
from enerf.datasets.scenes.posed_images import Points, PosedImages
from enerf.preprocessing import brightness

CAMERA = Camera(64, 48, 60.0, 60.0, 32.0, 24.0)


def posed(folder, gains: np.ndarray, seed: int = 0) -> PosedImages:
    """Photographs from one place with gains; each point is seen by two thirds of them; some have highlights."""
    rng = np.random.default_rng(seed)
    smooth = np.kron(rng.uniform(0.15, 0.6, (6, 8, 3)), np.ones((8, 8, 1)))
    names = tuple(f"{i}.png" for i in range(len(gains)))
    for name, gain in zip(names, gains, strict=True):
        shown = smooth * gain
        shown[8 * rng.integers(6) :][:8] = 0.9  # a highlight
        images.write_png(folder / name, np.clip(shown, 0, 1))
    xy = np.stack(np.meshgrid(np.arange(8), np.arange(6)), -1).reshape(-1, 2) * 8 + 4
    xyz = np.concatenate([(xy - (32, 24)) / 60 * (1, -1), -np.ones((48, 1))], axis=1)
    view, point = np.nonzero(rng.random((len(gains), 48)) < 0.67)
    c2w = np.repeat(np.eye(4)[None, :3], len(gains), axis=0)
    files = tuple(folder / name for name in names)
    return PosedImages(folder, names, files, (CAMERA,) * len(gains), c2w, points=Points(xyz, None, point, view))


def test_gains_of_photographs_are_found(tmp_path):
    gains = np.exp(np.random.default_rng(1).normal(0, 0.15, (9, 3)))
    found = brightness.log_gains(posed(tmp_path, gains))
    expected = np.log(gains) - np.log(gains).mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert brightness.spread(found) > brightness.UNEVEN


def test_equal_photographs_are_even(tmp_path):
    found = brightness.log_gains(posed(tmp_path, np.ones((6, 3))))
    assert brightness.spread(found) < brightness.UNEVEN / 4


def test_without_observations_nothing_is_known(tmp_path):
    scene = posed(tmp_path, np.ones((3, 3)))
    assert scene.points is not None
    empty = np.zeros(0, dtype=np.int64)
    blind = PosedImages(**vars(scene) | {"points": Points(scene.points.xyz, None, empty, empty)})
    assert brightness.spread(brightness.log_gains(blind)) == 0


@pytest.mark.parametrize("side", [0, 1])
def test_a_photograph_without_points_has_the_mean_gain(tmp_path, side):
    scene = posed(tmp_path, np.array([[1.2] * 3, [1.0] * 3, [0.8] * 3]))
    points = scene.points
    assert points is not None
    kept = points.view != side
    fewer = Points(points.xyz, None, points.point[kept], points.view[kept])
    found = brightness.log_gains(PosedImages(**vars(scene) | {"points": fewer}))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
