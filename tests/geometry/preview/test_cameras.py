"""Tests of views: position and axes of the camera, and what is in the picture."""

import itertools
import math

import numpy as np
import pytest
import torch

from enerf.geometry.preview import cameras
from enerf.geometry.preview.cameras import View
from tests.grids import latin

CENTER = (0.3, -0.2, 0.5)
ANGLES = [(0.0, 0.0), (30.0, 20.0), (200.0, -50.0), (-75.0, 80.0)]


@pytest.mark.parametrize(("azimuth", "elevation"), ANGLES)
@pytest.mark.parametrize("up", ["y", "z"])
def test_axes_are_a_right_handed_frame_with_up_on_top(azimuth, elevation, up):
    axes = View(CENTER, 2.0, azimuth, elevation, up=up).axes
    torch.testing.assert_close(axes @ axes.T, torch.eye(3, dtype=torch.float64))
    assert math.isclose(float(torch.det(axes)), 1.0)
    right, above, back = axes
    top = torch.tensor([0.0, 1.0, 0.0] if up == "y" else [0.0, 0.0, 1.0], dtype=torch.float64)
    assert math.isclose(float(back @ top), math.sin(math.radians(elevation)), abs_tol=1e-12)
    assert abs(float(right @ top)) < 1e-12
    assert float(above @ top) > 0


def test_it_stands_in_front_of_what_is_looked_at_and_at_90_degrees_on_plus_x():
    for up, front in (("y", [0.0, 0.0, 1.0]), ("z", [0.0, -1.0, 0.0])):
        for azimuth, expected in ((0.0, front), (90.0, [1.0, 0.0, 0.0])):
            origin = View((0.0, 0.0, 0.0), 3.0, azimuth, 0.0, up=up).rays()[0][0, 0]
            np.testing.assert_allclose(origin, 3 * np.array(expected), atol=1e-12)


@pytest.mark.parametrize(("azimuth", "elevation"), ANGLES)
def test_rays_are_unit_and_the_middle_one_meets_the_center_at_the_distance(azimuth, elevation):
    view = View(CENTER, 2.5, azimuth, elevation, width=5, height=3)
    origins, directions = view.rays()
    assert origins.shape == directions.shape == (3, 5, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(3, 5, dtype=torch.float64))
    met = origins[1, 2] + 2.5 * directions[1, 2]
    torch.testing.assert_close(met, torch.tensor(CENTER, dtype=torch.float64))


def test_rows_run_downwards_columns_to_the_right_and_the_outer_rays_span_the_angle():
    view = View(CENTER, 1.0, 40.0, 10.0, width=400, height=200, fov=50.0)
    _, directions = view.rays()
    right, above, back = view.axes
    assert ((directions @ above).diff(dim=0) < 0).all()
    assert ((directions @ right).diff(dim=1) > 0).all()
    across = -(directions @ above) / (directions @ back)
    assert math.isclose(math.degrees(2 * math.atan(float(across[0].max()) * 200 / 199)), 50.0, rel_tol=1e-9)


def test_finer_rays_divide_each_pixel():
    view = View(CENTER, 1.0, width=4, height=3)
    flat = lambda rays: rays / -(rays @ view.axes[2])[..., None]  # noqa: E731
    coarse, fine = flat(view.rays()[1]), flat(view.rays(2)[1])
    mean = fine.reshape(3, 2, 4, 2, 3).mean((1, 3))
    torch.testing.assert_close(mean, coarse)


@pytest.mark.parametrize(
    ("width", "height", "azimuth", "elevation"),
    [(*size, *angles) for size, angles in latin(2, [(40, 40), (60, 20), (20, 60)], ANGLES)],
)
def test_a_view_around_a_box_holds_all_its_corners(width, height, azimuth, elevation):
    low, high = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 3.0, 2.2])
    asked = View((0.0, 0.0, 0.0), 1.0, azimuth, elevation, width=width, height=height)
    view = cameras.around(low, high, view=asked)
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
    local = (corners - view.center) @ view.axes.numpy().T - np.array([0, 0, view.distance])
    reach = math.tan(math.radians(view.fov) / 2)
    assert (np.abs(local[:, 1]) < -local[:, 2] * reach).all()
    assert (np.abs(local[:, 0]) < -local[:, 2] * reach * width / height).all()


def test_a_turn_goes_all_around_evenly_and_a_swing_comes_back():
    view = View(CENTER, 2.0, azimuth=15.0)
    full = np.array([v.azimuth for v in cameras.turn(view, 8)])
    np.testing.assert_allclose(np.diff(full), 45.0)
    assert cameras.turn(view, 8)[0] == view
    swung = [v.azimuth for v in cameras.swing(view, 12, 20.0)]
    assert swung[0] == 15.0
    assert math.isclose(max(swung), 35.0)
    assert math.isclose(min(swung), -5.0)
    assert all(v.elevation == view.elevation for v in cameras.swing(view, 12, 20.0))
