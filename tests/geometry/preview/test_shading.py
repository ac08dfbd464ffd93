"""Tests of shading: white background, brighter towards the light, back faces in their own color."""

import numpy as np
import pytest

from enerf.geometry.preview import shading
from enerf.geometry.preview.cameras import View

VIEW = View((0.0, 0.0, 0.0), 1.0, azimuth=0.0, elevation=0.0)
TOWARDS = np.array([[0.0, 0.0, -1.0]])


def lit(normal, colors=None, view=VIEW, direction=TOWARDS):
    normal = np.array([normal]) / np.linalg.norm(normal)
    return shading.shade(normal, direction, np.array([True]), view, colors)[0]


def test_nothing_is_white():
    assert (shading.shade(np.zeros((4, 3)), np.tile(TOWARDS, (4, 1)), np.zeros(4, bool), VIEW) == 1).all()


def test_colors_stay_between_black_and_white_whatever_is_seen():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(1000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for colors in (None, rng.uniform(size=(1000, 3))):
        pixels = shading.shade(normals, np.tile(TOWARDS, (1000, 1)), np.ones(1000, bool), VIEW, colors)
        assert (pixels >= 0).all()
        assert (pixels <= 1).all()


def test_what_faces_the_lamp_is_brighter_than_what_looks_away_and_above_than_below():
    assert lit(shading.LIGHT_DIRECTION).mean() > lit([0.4, -0.5, 0.3]).mean() + 0.2
    assert lit([0.0, 1.0, 0.01]).mean() > lit([0.0, -1.0, 0.01]).mean()


def test_given_colors_show_on_the_front_and_not_on_the_back():
    green = np.array([[0.0, 1.0, 0.0]])
    front, back = lit([0.0, 0.0, 1.0], green), lit([0.0, 0.0, -1.0], green)
    assert front[1] > 2 * front[0]
    np.testing.assert_allclose(back, lit([0.0, 0.0, -1.0]))
    assert back[0] > back[1]


@pytest.mark.parametrize("azimuth", [0.0, 70.0, 200.0])
def test_the_lamp_moves_with_the_camera(azimuth):
    """A surface that faces the camera looks alike from everywhere around."""
    view = View((0.0, 0.0, 0.0), 1.0, azimuth=azimuth, elevation=0.0)
    back = view.axes[2].numpy()
    np.testing.assert_allclose(lit(back, view=view, direction=-back[None]), lit([0.0, 0.0, 1.0]))


def test_smaller_keeps_the_mean():
    pixels = np.random.default_rng(0).uniform(size=(6, 9, 3))
    assert shading.downsampled(pixels, 3).shape == (2, 3, 3)
    np.testing.assert_allclose(shading.downsampled(pixels, 3).mean((0, 1)), pixels.mean((0, 1)))
