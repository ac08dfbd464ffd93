"""Camera paths: the default for each kind of scene, and their poses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import camera_paths, poses
from enerf.datasets.scenes.scene import Scene
from tests.grids import pairs

FRAMES = 6


def _around(distance: float = 4.0, n: int = 9) -> np.ndarray:
    """Cameras around an object at the origin, at several heights."""
    c2w = poses.blender_circle(n)
    c2w[:, :, 3] *= distance / 4 * np.linspace(0.8, 1.2, n)[:, None]
    return c2w


def _forward(n: int = 9) -> np.ndarray:
    """Cameras that look down −z, on average exactly."""
    c2w = np.tile(np.eye(4)[:3], (n, 1, 1))
    c2w[:, :, 3] = np.random.default_rng(0).normal(size=(n, 3)) * (1.0, 0.5, 0.1)
    return poses.recenter(c2w)[0]


def _scene(c2w: np.ndarray, forward_facing: bool, dtype: torch.dtype = torch.float32) -> Scene:
    n = len(c2w)
    return Scene(
        name="toy",
        images=torch.zeros(n, 3, 4, 3),
        c2w=torch.from_numpy(c2w).to(dtype),
        camera=Camera(4, 3, 4.0, 4.0, 2.0, 1.5),
        bounds=torch.tensor([[1.3, 8.0]]).repeat(n, 1),
        image_names=tuple(map(str, range(n))),
        train=tuple(i for i in range(n) if i % 4),
        test=tuple(range(0, n, 4)),
        near=0,
        far=1,
        ndc=forward_facing,
        forward_facing=forward_facing,
        world_to_scene=torch.eye(4),
    )


def _spherified() -> np.ndarray:
    c2w = _around(11.0)
    c2w[:, :, 3] += (3.0, -1.0, 2.0)
    return poses.spherify(c2w, np.full((len(c2w), 2), (2.0, 9.0)))[0]


def test_a_path_of_test_views_needs_test_views():
    scene = replace(_scene(_forward(), forward_facing=True), test=())
    with pytest.raises(InputError, match="option --path: found test, but no test views of toy, expected another path"):
        camera_paths.camera_path(scene, "test", FRAMES)


def test_forward_facing_scenes_are_shown_on_a_spiral():
    assert camera_paths.default_kind(_scene(_forward(), forward_facing=True)) == "spiral"


def test_spherified_scenes_are_shown_on_a_circle_at_their_cameras_distance():
    scene = _scene(_spherified(), forward_facing=False)
    assert camera_paths.default_kind(scene) == "circle"
    distances = camera_paths.camera_path(scene, "circle", FRAMES)[:, :, 3].norm(dim=-1)
    torch.testing.assert_close(distances, torch.ones(FRAMES))


def test_synthetic_objects_are_shown_on_a_turntable_four_away():
    scene = _scene(_around(4.03), forward_facing=False)
    assert camera_paths.default_kind(scene) == "turntable"
    path = camera_paths.camera_path(scene, "turntable", FRAMES)
    assert torch.equal(path, torch.from_numpy(poses.blender_circle(FRAMES)).float())


def test_the_names_of_kinds_can_be_relied_on():
    assert {"spiral", "circle", "interpolate", "test"} < set(camera_paths.KINDS)


@pytest.mark.parametrize(
    ("kind", "dtype", "forward_facing"), pairs(camera_paths.KINDS, [torch.float32, torch.float64], [True, False])
)
def test_every_kind_gives_right_handed_poses_in_the_scenes_precision(
    kind: str, dtype: torch.dtype, forward_facing: bool
):
    c2w = _forward() if forward_facing else _around()
    path = camera_paths.camera_path(_scene(c2w, forward_facing, dtype), kind, FRAMES)
    assert path.dtype == dtype
    assert len(path) == (3 if kind == "test" else FRAMES)
    rotations = path[:, :, :3].double()
    eye = torch.eye(3, dtype=torch.float64).expand(len(path), 3, 3)
    torch.testing.assert_close(rotations @ rotations.mT, eye, rtol=0, atol=1e-6)
    assert (torch.linalg.det(rotations) > 0).all()


def test_spiral_and_circle_run_where_the_cameras_are():
    c2w, bounds = _forward(), np.tile([[1.3, 8.0]], (9, 1))
    spiral = camera_paths.camera_path(_scene(c2w, True, torch.float64), "spiral", FRAMES)
    np.testing.assert_allclose(spiral.numpy(), poses.spiral(c2w, bounds, FRAMES), atol=1e-6)
    circle = camera_paths.camera_path(_scene(_around(), False, torch.float64), "circle", FRAMES)
    np.testing.assert_allclose(circle.numpy(), poses.circle(_around(), FRAMES), atol=1e-12)


def test_interpolation_goes_from_the_first_training_view_to_the_last():
    scene = _scene(_around(), False, torch.float64)
    path = camera_paths.camera_path(scene, "interpolate", len(scene.train))
    torch.testing.assert_close(path, scene.c2w[list(scene.train)], rtol=0, atol=1e-12)


def test_the_test_path_shows_the_test_views_whatever_the_frames():
    scene = _scene(_around(), False)
    assert torch.equal(camera_paths.camera_path(scene, "test", 100), scene.c2w[list(scene.test)])


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"--path: found 'loop', expected one of spiral, circle, turntable"):
        camera_paths.camera_path(_scene(_around(), False), "loop", FRAMES)
