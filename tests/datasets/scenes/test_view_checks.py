"""Checks of a scene's views."""

from pathlib import Path

import numpy as np
import pytest

from enerf.core.errors import InputError
from enerf.datasets.scenes import poses, view_checks

FILE = Path("poses_bounds.npy")
NAMES = [f"{i}.png" for i in range(9)]


def _bounds(seed=0):
    near = np.random.default_rng(seed).uniform(3, 6, 9)
    return np.stack([near, near * np.random.default_rng(seed + 1).uniform(2, 50, 9)], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_bounds_are_the_same_array(seed, caplog):
    bounds = _bounds(seed)
    assert view_checks.robust_bounds(FILE, bounds, NAMES) is bounds
    assert not caplog.records


@pytest.mark.parametrize("value", [0.01, 1e-300])
def test_a_near_outlier_is_replaced_by_the_least_of_the_others_and_named(value, caplog):
    bounds = _bounds()
    bounds[4, 0] = value
    others = np.delete(bounds[:, 0], 4).min()
    found = view_checks.robust_bounds(FILE, bounds, NAMES)
    assert found[:, 0].min() == found[4, 0] == others
    assert np.array_equal(np.delete(found, 4, 0), np.delete(bounds, 4, 0))
    assert f"the near bound is an outlier and replaced by the least of the others, {others:g}" in caplog.text
    assert f"view 4 (4.png): {value:g}" in caplog.text


def test_a_far_outlier_is_replaced_and_a_view_of_another_scale_keeps_its_bounds_in_order(caplog):
    bounds = _bounds()
    bounds[2, 1], bounds[5] = 1e20, (0.001, 0.002)
    found = view_checks.robust_bounds(FILE, bounds, NAMES)
    assert found[2, 1] == found[:, 1].max() == np.delete(bounds[:, 1], 2).max()
    assert (found[:, 0] < found[:, 1]).all()
    assert "view 2 (2.png): 1e+20" in caplog.text


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_cameras_need_parallax_at_any_scale(scale):
    centers = np.random.default_rng(0).normal(size=(5, 3)) * scale
    view_checks.require_parallax(FILE, centers, 4 * scale)
    view_checks.require_one_scale(FILE, centers, np.full((5, 2), (2.0, 9.0)) * scale, NAMES)
    with pytest.raises(InputError, match=r"all cameras at one point .* no depth can be learned"):
        view_checks.require_parallax(FILE, centers[:1] + 1e-6 * centers, 4 * scale)


def test_a_single_camera_is_told(caplog):
    view_checks.require_parallax(FILE, np.zeros((1, 3)), 1.0, "training cameras")
    assert "no depth can be learned from one of the training cameras" in caplog.text


@pytest.mark.parametrize("value", [1e6, 1e30, 1.7e308])
def test_a_camera_beyond_all_depths_is_named(value):
    centers = np.random.default_rng(0).normal(size=(9, 3))
    centers[3, 1] = value
    with pytest.raises(InputError, match=r"too far from the others: view 3 \(3.png\): .* between 3.* and .*same scale"):
        view_checks.require_one_scale(FILE, centers, _bounds(), NAMES)


ROUNDED = 0.8 * np.linspace(0.9995, 1.0005, 9)


def test_shapes_are_compared_with_that_of_most_views():
    aspect = np.full(9, 0.8)
    aspect[0] = 1.2
    with pytest.raises(InputError, match=r"heights .* 0.8 of the width in most of them but view 0 \(0.png\): 1.2, exp"):
        view_checks.require_one_shape(FILE, aspect, NAMES)
    view_checks.require_one_shape(FILE, ROUNDED, NAMES)


def test_focal_lengths_that_differ_by_rounding_are_one():
    assert view_checks.has_one_focal_length(ROUNDED)
    assert not view_checks.has_one_focal_length(np.array([*ROUNDED[:8], 0.8 * 1.01]))


@pytest.mark.parametrize("distance", [1.0, 4.0, 40.0])
def test_a_range_that_contains_the_point_looked_at_is_right_and_others_are_told(distance, caplog):
    c2w = poses.blender_circle(8, distance)
    view_checks.warn_of_range(FILE, c2w, distance / 2, distance * 1.5)
    assert not caplog.records
    view_checks.warn_of_range(FILE, c2w, distance * 1.1, distance * 1.5)
    assert f"--near {distance / 2:.3g} --far {distance * 1.5:.3g}" in caplog.text


def test_cameras_that_look_at_no_common_point_have_no_range_to_be_told(caplog):
    parallel = np.tile(np.eye(4)[:3], (5, 1, 1))
    parallel[:, 0, 3] = np.arange(5)
    outwards = poses.blender_circle(8)
    outwards[:, :, [0, 2]] *= -1
    scattered = poses.blender_circle(8)
    scattered[:, :, 3] = np.random.default_rng(0).normal(size=(8, 3)) * 30
    for c2w in (parallel, outwards, scattered):
        view_checks.warn_of_range(FILE, c2w, 100.0, 101.0)
    assert not caplog.records


def test_repeated_poses_are_named(caplog):
    c2w = poses.blender_circle(9)
    view_checks.warn_of_equal_poses(FILE, c2w, NAMES)
    assert not caplog.records
    c2w[[4, 7]] = c2w[1]
    view_checks.warn_of_equal_poses(FILE, c2w, NAMES)
    assert "in view 4 (4.png), view 7 (7.png)" in caplog.text
