"""Known depths of points and depth maps: rays through them reach the points; damaged files are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from enerf.core import images
from enerf.core.types import Camera
from enerf.datasets.scenes import coordinates, pixels, rays, sparse_depths, synthetic_around, transforms_file
from enerf.datasets.scenes.assembly import assemble
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.packed_images import PackedImages
from enerf.datasets.scenes.posed_images import Points, PosedImages
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.settings import SceneSettings
from tests.contents import refusal
from tests.datasets.scenes.models import random_poses
from tests.memory import least_peak

CAMERAS = (
    Camera(40, 30, 35.0, 36.0, 19.0, 16.0),
    Camera(50, 20, 30.0, 30.0, 25.0, 10.0, "OPENCV", (0.02, -0.01, 0.001, -0.002)),
    Camera(40, 40, 15.0, 15.0, 20.0, 20.0, "OPENCV_FISHEYE", (0.01, 0.0, 0.0, 0.0)),
)


def seen_points(seed: int, n: int = 12) -> PosedImages:
    """Points that project into the images of three views of different cameras, and observations of all of them."""
    rng = np.random.default_rng(seed)
    c2w, view = random_poses(rng, 3), np.arange(n) % 3
    x, y = (rng.uniform(2, 18, n) for _ in range(2))
    directions = Cameras(CAMERAS).directions(
        torch.from_numpy(view), torch.from_numpy(x), torch.from_numpy(y), 0, torch.float64
    )
    local = directions.numpy() * rng.uniform(1, 20, (n, 1))
    xyz = np.einsum("nij,nj->ni", c2w[view, :, :3], local) + c2w[view, :, 3]
    names = tuple("abc")
    files = tuple(map(Path, names))
    points = Points(xyz, None, np.arange(n), view.astype(np.int64))
    return PosedImages(Path("made"), names, files, CAMERAS, c2w, points=points)


def scene_of(posed: PosedImages, scale: float) -> Scene:
    """The scene of the poses, moved and scaled."""
    table, n = Cameras(posed.cameras), len(posed.names)
    c2w = posed.c2w.copy()
    c2w[:, :, 3] *= scale
    world_to_scene = np.diag([scale, scale, scale, 1.0])
    return Scene(
        "made", torch.zeros(n, 40, 50, 3), torch.from_numpy(c2w), posed.cameras[0], torch.tensor([[0.1, 9.0]] * n),
        posed.names, tuple(range(n)), (), 0.1, 9.0, False, False, torch.from_numpy(world_to_scene), view_cameras=table,
    )  # fmt: skip


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
@settings(max_examples=15, deadline=None)
def test_rays_reach_the_points_at_their_depths(seed, scale):
    posed = seen_points(seed)
    found = sparse_depths.find(posed, posed.c2w, Cameras(posed.cameras), scale)
    assert len(found) == len(posed.points.xyz)
    scene = scene_of(posed, scale)
    through, t = pixels.depth_rays(scene, found)
    reached = through.at(t.double()[:, None])[:, 0]
    expected = coordinates.apply_transform(scene.world_to_scene.numpy(), posed.points.xyz)
    np.testing.assert_allclose(reached.numpy(), expected, rtol=1e-4, atol=1e-4 * scale)


def test_points_behind_a_camera_or_outside_of_its_image_are_left_out():
    posed = seen_points(0)
    behind = 2 * posed.c2w[posed.points.view, :, 3] - posed.points.xyz
    only = replace(posed, points=replace(posed.points, xyz=behind))
    found = sparse_depths.find(only, only.c2w, Cameras(only.cameras), 1.0)
    perspective = found is None or not torch.isin(found.view, torch.tensor([0, 1])).any()
    assert perspective  # a fisheye camera may see behind itself
    assert sparse_depths.find(replace(posed, points=None), posed.c2w, Cameras(posed.cameras), 1.0) is None
    unseen = Points(posed.points.xyz, None, *(np.zeros(0, np.int64) for _ in range(2)))
    assert sparse_depths.find(replace(posed, points=unseen), posed.c2w, Cameras(posed.cameras), 1.0) is None


def test_depths_in_ndc_are_of_the_same_points():
    down = torch.tensor([[0.1, -0.2, -1.0], [0.3, 0.1, -1.2]], dtype=torch.float64)
    origins = torch.tensor([[0.0, 0.1, 0.2], [-0.1, 0.0, -0.3]], dtype=torch.float64)
    ends = torch.ones(2, dtype=torch.float64)
    given_rays = rays.Rays(origins, down, down, ends, 9 * ends)
    t = torch.tensor([2.5, 40.0], dtype=torch.float64)
    camera = Camera(8, 6, 5.0, 6.0, 4.5, 3.0)
    ndc = rays.to_ndc(given_rays, camera)
    expected = rays.point_to_ndc(given_rays.at(t[:, None])[:, 0], camera)
    torch.testing.assert_close(ndc.at(rays.t_in_ndc(given_rays, t)[:, None])[:, 0], expected)


@pytest.fixture(scope="module")
def around(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "around"
    return synthetic_around.write_scene(folder, views=4, width=24, height=18, supersample=1, progress=False)


def test_depth_maps_are_read_in_scene_units(around):
    """The rays reach the surfaces that the ray tracer hits."""
    scene = assemble(transforms_file.read(around), SceneSettings(depths=True, pose_check=False), around)
    assert len(scene.depths) == 4 * 24 * 18
    through, t = pixels.depth_rays(scene, scene.depths)
    at = through.at(t[:, None])[:, 0].double().numpy()
    world = coordinates.apply_transform(np.linalg.inv(scene.world_to_scene.numpy()), at)
    on_floor = np.abs(world[:, 1]) < 0.01
    on_horizon = np.abs(np.linalg.norm(world, axis=1) - synthetic_around.HORIZON) < 0.05
    on_ball = np.abs(np.linalg.norm(world - [0, 0.55, 0], axis=1) - 0.55) < 0.01
    assert (on_floor | on_horizon | on_ball).mean() > 0.8
    assert on_ball.sum() > 50
    without = assemble(transforms_file.read(around), SceneSettings(pose_check=False), around)
    assert without.depths is None


@pytest.mark.parametrize("several", [False, True])
def test_depths_of_masked_pixels_are_not_known(several):
    posed = seen_points(3)
    posed = posed if several else replace(posed, cameras=(CAMERAS[0],) * 3)
    table = Cameras(posed.cameras)
    every = sparse_depths.find(posed, posed.c2w, table, 1.0)
    seen = [torch.ones(height, width, 1, dtype=torch.bool) for width, height in table.sizes.tolist()]
    for view, (x, y) in zip(every.view[::2].tolist(), every.xy[::2].long().tolist(), strict=True):
        seen[view][y, x] = False
    masks = PackedImages.of(seen) if several else torch.stack(seen)
    found = sparse_depths.find(posed, posed.c2w, table, 1.0, masks)
    kept = torch.tensor([bool(seen[view][int(y), int(x)]) for view, (x, y) in zip(every.view, every.xy, strict=True)])
    assert torch.equal(found.depth, every.depth[kept])
    assert 0 < len(found) < len(every)
    nothing = torch.zeros(3, 40, 50, 1, dtype=torch.bool)
    assert sparse_depths.find(posed, posed.c2w, table, 1.0, nothing) is None


def test_a_scene_has_no_depths_where_its_masks_exclude_pixels(around, tmp_path):
    posed = transforms_file.read(around)
    images.write_png(tmp_path / "left.png", np.repeat(np.uint8([[0, 255]]), 18, 0).repeat(12, 1))
    masked = replace(posed, masks=(tmp_path / "left.png",) * 4)
    for use, least in ((True, 12), (False, 0)):
        scene = assemble(masked, SceneSettings(depths=True, pose_check=False, use_masks=use), around)
        assert int(scene.depths.xy[:, 0].min()) == least


def test_many_observations_take_little_memory(around):
    posed, rng = transforms_file.read(around), np.random.default_rng(0)
    n, table = 1_000_000, Cameras(posed.cameras)
    points = Points(rng.normal(size=(n, 3)), None, np.arange(n), rng.integers(0, 4, n))
    posed = replace(posed, points=points, depths=())
    assert least_peak(lambda: sparse_depths.find(posed, posed.c2w, table, 1.0), 1) < 60 * n


def test_a_large_map_is_thinned_and_unknown_depths_are_left_out(around, tmp_path):
    posed = transforms_file.read(around)
    depth = np.full((90, 120), 3.0, np.float32)
    depth[:, ::2] = 0
    depth[0] = np.inf
    np.save(tmp_path / "d.npy", depth)
    one = replace(posed, depths=(tmp_path / "d.npy", None, None, None), depth_unit=2.0)
    found = sparse_depths.find(one, one.c2w, Cameras(one.cameras), 0.5)
    assert len(found) == sparse_depths.PER_MAP
    assert set(found.depth.tolist()) == {3.0}
    assert ((found.xy[:, 0] * 5 - 0.5).round() % 2 == 1).all()  # 120 columns over 24 pixels: odd ones are known


def test_a_map_of_another_shape_is_refused(around, tmp_path):
    posed = transforms_file.read(around)
    np.save(tmp_path / "d.npy", np.ones((90, 100), np.float32))
    one = replace(posed, depths=(tmp_path / "d.npy", None, None, None))
    told = refusal(sparse_depths.find, one, one.c2w, Cameras(one.cameras), 0.5)
    assert told.startswith(f"{tmp_path / 'd.npy'}: found a depth map of 100x90 pixels, expected the shape of its image")


def test_what_is_no_depth_map_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "color.png")
    (tmp_path / "text.png").write_text("no picture")
    np.save(tmp_path / "three.npy", np.zeros((2, 2, 2)))
    assert "one channel" in refusal(sparse_depths.read_map, tmp_path / "color.png")
    assert "one channel" in refusal(sparse_depths.read_map, tmp_path / "three.npy")
    for name in ("text.png", "absent.png", "absent.npy"):
        assert str(tmp_path / name) in refusal(sparse_depths.read_map, tmp_path / name)
