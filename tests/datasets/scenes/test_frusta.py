"""Camera frusta: visibility agrees with projections, boxes contain them, directions are those of cameras."""

import dataclasses

import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import blender, coordinates, formats, frusta, llff, rays, synthetic
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.settings import SceneSettings
from tests.datasets.scenes import photographed, test_bounds

CAMERA = Camera(12, 9, 11.0, 13.0, 5.0, 4.0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("scenes") / "demo"
    return llff.load(synthetic.write_scene(folder, views=6, width=40, height=30, supersample=1, progress=False), 1)


def around(n: int = 8) -> Scene:
    """Cameras all around the origin, 4 away, of an object between 2 and 6."""
    return test_bounds.scene(test_bounds.inwards(3, n), 2.0, 6.0)


def test_points_are_seen_by_the_cameras_whose_pictures_hold_their_projection(demo):
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-6, 6, 3000), rng.uniform(-5, 5, 3000), rng.uniform(-9, 3, 3000)], 1)
    c2w = synthetic.poses(6)[list(demo.train)]
    expected = np.zeros(len(points), dtype=int)
    for pose in c2w:
        x, y, z = ((points - pose[:, 3]) @ pose[:, :3]).T
        with np.errstate(divide="ignore"):
            u, v = demo.camera.fx * x / -z + demo.camera.cx, -demo.camera.fy * y / -z + demo.camera.cy
        expected += (z < 0) & (u >= 0) & (u <= demo.camera.width) & (v >= 0) & (v <= demo.camera.height)
    found = frusta.count_views(demo, points)
    assert (found != expected).mean() < 2e-3  # poses of the scene are single precision
    assert set(np.unique(found)) == set(range(len(demo.train) + 1))


def test_what_lies_on_training_rays_is_seen_and_lies_in_the_box(demo):
    box = frusta.surface_box(demo)
    low, high = box
    bounds = demo.bounds[list(demo.train)]
    for view in demo.train:
        made = rays.of_image(demo.camera, demo.c2w[view], demo.near, demo.far)
        t_vals = torch.linspace(float(bounds.min()) * 0.91, float(bounds.max()) * 0.999, 5).expand(len(made), 5)
        scene_points = made.at(t_vals).reshape(-1, 3).double().numpy()
        field = coordinates.to_ndc(scene_points, demo.camera)
        assert (frusta.count_views(demo, coordinates.to_world(demo, field)) >= 1).all()
        assert ((field >= low - 1e-6) & (field <= high + 1e-6))[:, :2].all()
        assert (field[:, 2] <= high[2] + 1e-6).all()
    assert low[2] >= -1
    assert high[2] < 1


def test_without_ndc_a_scene_that_looks_ahead_has_its_box_in_scene_coordinates(demo):
    scene = dataclasses.replace(demo, ndc=False)
    ndc = coordinates.from_ndc(np.array([[0.0, 0.0, frusta.surface_box(demo)[1, 2]]]), demo.camera)
    low, _ = frusta.surface_box(scene)
    assert low[2] == pytest.approx(ndc[0, 2], rel=1e-6)


def test_cameras_that_look_inwards_have_a_box_around_the_origin_that_holds_synthetic_objects():
    scene = around()
    low, high = frusta.surface_box(scene)
    assert (low <= -1.5).all()
    assert (high >= 1.5).all()
    assert blender._NEAR == 2.0  # the bounds that this is about


def test_a_box_of_the_world_is_held_by_that_of_the_field(demo):
    world_box = np.array([[-1.0, -0.5, -7.0], [0.5, 1.0, -5.0]])
    rng = np.random.default_rng(0)
    inside = rng.uniform(*world_box, (500, 3))
    for scene in (demo, dataclasses.replace(demo, ndc=False)):
        low, high = frusta.field_box_from_world(scene, world_box)
        found = coordinates.from_world(scene, inside)
        assert ((found >= low - 1e-9) & (found <= high + 1e-9)).all()


def test_a_box_that_reaches_behind_the_cameras_is_cut_at_the_near_plane(demo):
    low, high = frusta.field_box_from_world(demo, np.array([[-1.0, -1.0, -8.0], [1.0, 1.0, 5.0]]))
    assert low[2] == -1.0
    assert high[2] < 1
    with pytest.raises(InputError, match="option --box: all of it is nearer than the near plane"):
        frusta.field_box_from_world(demo, np.array([[-1.0, -1.0, 1.0], [1.0, 1.0, 5.0]]))


@pytest.mark.parametrize("wrong", [[[1.0, 0, 0], [0, 1, 1]], [[0, 0, np.nan], [1, 1, 1]], [[0, 0, 0], [1, 1, 0]]])
def test_a_box_without_an_inside_is_told(demo, wrong):
    with pytest.raises(InputError, match=r"option --box: found .* expected a lowest and a highest corner"):
        frusta.field_box_from_world(demo, np.array(wrong, dtype=float))


def test_surfaces_are_looked_at_by_the_camera_they_face():
    scene = around(20)
    normals = -np.asarray(scene.c2w[:, :, 2].double())  # of faces that look away from each camera, say
    points = np.zeros((20, 3))
    sights = frusta.most_frontal_directions(scene, points, -normals)
    centers = scene.c2w[:, :, 3].double().numpy()
    np.testing.assert_allclose(sights, -centers / np.linalg.norm(centers, axis=1, keepdims=True), atol=1e-5)


def test_sights_are_unit_and_those_of_cameras_that_hold_the_point(demo):
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-6, 6, 500), rng.uniform(-4, 4, 500), rng.uniform(-9, -4, 500)], 1)
    normals = rng.normal(size=(500, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    sights = frusta.most_frontal_directions(demo, points, normals)
    np.testing.assert_allclose(np.linalg.norm(sights, axis=1), 1)
    centers = demo.c2w[list(demo.train), :, 3].double().numpy()
    at = coordinates.apply_transform(demo.world_to_scene.numpy(), points)
    towards = at[:, None] - centers
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    which = (towards * sights[:, None]).sum(-1).argmax(1)
    seen = np.stack([frusta.count_views(dataclasses.replace(demo, train=(v,)), points) for v in demo.train], 1) > 0
    assert (seen[np.arange(500), which] | ~seen.any(1)).all()


def test_points_are_counted_in_the_frustum_of_each_views_own_camera(tmp_path):
    sizes = photographed.of_sizes(photographed.OFF_CENTER, 3)
    cameras = (photographed.OPENCV, *sizes, photographed.FISHEYE)
    posed = photographed.described(tmp_path, cameras, photographed.forward(5))
    photographed.write(posed, "colmap")
    scene = formats.load("colmap", tmp_path, SceneSettings(factor=1, llffhold=2, pose_check=False))
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-6, 6, 2000), rng.uniform(-5, 5, 2000), rng.uniform(-9, 3, 2000)], 1)
    expected = np.zeros(len(points), dtype=int)
    for view in scene.train:
        camera, pose = cameras[view], posed.c2w[view]
        local = torch.from_numpy((points - pose[:, 3]) @ pose[:, :3])
        at, valid = Cameras([camera]).project(torch.zeros(len(local), dtype=torch.int64), local)
        inside = (at >= 0) & (at <= torch.tensor([camera.width, camera.height]))
        expected += (valid & inside.all(-1)).numpy()
    found = frusta.count_views(scene, points)
    assert (found != expected).mean() < 2e-3  # poses of the scene are single precision
    assert set(np.unique(found)) == set(range(len(scene.train) + 1))
