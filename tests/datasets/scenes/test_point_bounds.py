"""Near and far of views from points: exact percentiles, and what misplaced points may change."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enerf.core.types import Camera
from enerf.datasets.scenes import colmap, point_bounds
from enerf.datasets.scenes.posed_images import Points, PosedImages
from tests.contents import refusal
from tests.datasets.scenes import models, photographed
from tests.memory import least_peak


def _scene(depths, cameras=None, seed=0) -> PosedImages:
    """A scene whose views see points of their own at the given depths, one sequence of depths for each view."""
    rng = np.random.default_rng(seed)
    c2w = models.random_poses(rng, len(depths))
    xyz, view = [], []
    for i, (pose, of_view) in enumerate(zip(c2w, depths, strict=True)):
        z = np.asarray(of_view, dtype=float)
        in_camera = np.stack([*rng.uniform(-0.4, 0.4, (2, len(z))) * z, -z], axis=1)
        xyz.append(in_camera @ pose[:, :3].T + pose[:, 3])
        view += [i] * len(z)
    positions = np.concatenate(xyz) if view else np.zeros((0, 3))
    points = Points(positions, None, np.arange(len(view)), np.array(view, dtype=np.int64))
    names = tuple(f"{i:03}.png" for i in range(len(depths)))
    cameras = cameras or (Camera(100, 100, 100.0, 100.0, 50.0, 50.0),) * len(depths)
    return PosedImages(Path("scene"), names, tuple(map(Path, names)), cameras, c2w, points=points)


def _usual(rng, views=20, n=900, near=10.0, far=40.0):
    return [rng.uniform(near, far, n) * rng.uniform(0.8, 1.2) for _ in range(views)]


def test_without_outliers_bounds_are_the_percentiles_of_each_view():
    depths = _usual(np.random.default_rng(0))
    found = point_bounds.depth_bounds(_scene(depths), 1, 99)
    np.testing.assert_allclose(found, [np.percentile(each, [1, 99]) for each in depths], rtol=1e-9)
    assert (found[:, 0] > [each.min() for each in depths]).all()


@given(seed=st.integers(0, 1000), per_view=st.integers(1, 30))
def test_misplaced_points_move_bounds_by_a_bounded_factor(seed, per_view):
    """Up to 30 of 900 points of each third view lie anywhere: bounds stay within a factor of 2.5."""
    rng = np.random.default_rng(seed)
    depths = _usual(rng)
    clean = point_bounds.depth_bounds(_scene(depths))
    for i in range(0, 20, 3):
        depths[i][:per_view] *= 10.0 ** rng.uniform(-3, 3, per_view)
    found = point_bounds.depth_bounds(_scene(depths))
    assert (found[:, 0] > clean[:, 0] / 2.5).all()
    assert (found[:, 1] < clean[:, 1] * 2.5).all()
    np.testing.assert_allclose(found[1::3], clean[1::3], rtol=1e-9)


def test_a_near_object_that_many_points_show_is_kept():
    depths = _usual(np.random.default_rng(1))
    depths[3][:90] = np.linspace(0.5, 0.6, 90)  # a tenth of the view's points, at a twentieth of the depth
    found = point_bounds.depth_bounds(_scene(depths))
    assert 0.5 <= found[3, 0] < 0.51


def test_the_factor_holds_for_single_points():
    depths = [np.linspace(10, 30, 101)] * 5
    depths[2] = np.concatenate([depths[2], [0.01], [1e6]])
    found = point_bounds.depth_bounds(_scene(depths), 0, 100)
    np.testing.assert_allclose(found[[0, 1, 3, 4]], [[10, 30]] * 4)
    np.testing.assert_allclose(found[2], [10 / 1.5, 30 * 1.5])


def test_points_behind_a_camera_are_ignored():
    depths = _usual(np.random.default_rng(2))
    clean = point_bounds.depth_bounds(_scene(depths))
    for_views = [np.concatenate([each, -each]) for each in depths]
    np.testing.assert_allclose(point_bounds.depth_bounds(_scene(for_views)), clean, rtol=1e-9)


def test_views_that_see_few_points_get_the_medians_of_the_others():
    depths = [*_usual(np.random.default_rng(3), views=9), [], [1e-3, 1e5], [-1.0] * 50]
    found = point_bounds.depth_bounds(_scene(depths))
    np.testing.assert_array_equal(found[9:], [np.median(found[:9], axis=0)] * 3)
    few = point_bounds.depth_bounds(_scene([[2.0, 3.0, 4.0], [], [5.0]]), 0, 100)
    np.testing.assert_allclose(few, [[2, 4]] * 3)


def test_depth_is_distance_for_cameras_of_unit_directions():
    depths = [np.linspace(-3, 3, 50)] * 2
    for model in ("EQUIRECTANGULAR", "OPENCV_FISHEYE", "EUCM"):
        camera = models.random_camera(np.random.default_rng(0), model)
        scene = _scene(depths, (camera,) * 2)
        distances = np.linalg.norm(scene.points.xyz - scene.c2w[scene.points.view, :, 3], axis=1)
        expected = [np.percentile(distances[scene.points.view == i], [40, 60]) for i in range(2)]
        np.testing.assert_allclose(point_bounds.depth_bounds(scene, 40, 60), expected, rtol=1e-9)


def test_without_observations_the_points_inside_an_image_count():
    scene = _scene(_usual(np.random.default_rng(4), views=1))
    inside = point_bounds.depth_bounds(scene)
    none = np.zeros(0, dtype=np.int64)
    points = replace(scene.points, point=none, view=none)
    np.testing.assert_allclose(point_bounds.depth_bounds(replace(scene, points=points)), inside, rtol=1e-9)
    # as many points outside of the image, much nearer, change nothing
    near = np.array([[5.0, 0, -1], [-5, 0, -1], [0, 5, -1], [0, -5, -1]] * 200) @ scene.c2w[0, :, :3].T
    xyz = np.concatenate([points.xyz, near + scene.c2w[0, :, 3]])
    more = replace(scene, points=replace(points, xyz=xyz))
    np.testing.assert_allclose(point_bounds.depth_bounds(more), inside, rtol=1e-9)


@pytest.mark.parametrize("panorama", [False, True])
def test_many_points_without_observations_take_bounded_work(panorama):
    scene = _scene(_usual(np.random.default_rng(5), views=3, n=30_000))
    none = np.zeros(0, dtype=np.int64)
    camera = Camera(100, 50, 15.9, 15.9, 50.0, 25.0, "EQUIRECTANGULAR") if panorama else scene.cameras[0]
    scene = replace(scene, cameras=(camera,) * 3, points=replace(scene.points, point=none, view=none))
    found = point_bounds.depth_bounds(scene)
    assert (found[:, 0] > 0).all()
    assert (found[:, 0] < found[:, 1]).all()


def test_scenes_without_points_in_front_of_a_camera_are_refused():
    scene = _scene([[1.0, 2.0]])
    assert "scene: found no points" in refusal(point_bounds.depth_bounds, replace(scene, points=None))
    behind = _scene([[-1.0, -2.0]])
    assert "found no point in front of a camera" in refusal(point_bounds.depth_bounds, behind)


@pytest.mark.data
def test_bounds_of_a_real_model_contain_the_points_that_its_views_see():
    folder = Path(os.environ.get("ENERF_DATA", "")) / "colmap" / "canclip"
    if "ENERF_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("ENERF_DATA names no folder with colmap/canclip")
    posed = colmap.read(folder)
    bounds = point_bounds.depth_bounds(posed)
    view = posed.points.view
    depths = -np.einsum("ki,ki->k", posed.points.xyz[posed.points.point] - posed.c2w[view, :, 3], posed.c2w[view, :, 2])
    inside = (bounds[view, 0] <= depths) & (depths <= bounds[view, 1])
    assert 0.98 < inside.mean() < 1
    assert bounds[:, 1].max() / bounds[:, 0].min() < 3


def test_points_that_many_views_may_see_take_little_memory():
    n, none = 30_000, np.zeros(0, np.int64)
    xyz = photographed.TARGET + np.random.default_rng(0).normal(size=(n, 3)) * 0.1
    posed = photographed.described(Path("made"), (photographed.PLAIN,) * 40, photographed.around(40), 1)
    posed = replace(posed, points=Points(xyz, None, none, none))
    assert least_peak(lambda: point_bounds.depth_bounds(posed), 1) < 12_000_000
