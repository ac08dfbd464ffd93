"""Epipolar errors of poses in each convention of axes."""

import os
from pathlib import Path

import numpy as np
import pytest

from enerf.core import image_files, images
from enerf.core.types import Camera
from enerf.datasets.scenes import blender, pose_check, poses, synthetic
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.pose_check import Finding, Match
from tests.datasets.scenes.axes import to_axes

CAMERA = synthetic.camera(160, 120)


def _rotation(rng, size):
    """A rotation by a small random angle (Cayley's formula)."""
    x, y, z = rng.normal(size=3) * size
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.linalg.solve(np.eye(3) + skew, np.eye(3) - skew)


def _project(c2w, points):
    """Points at unit depth (x right, y down) and depths, by the definition of a pinhole camera."""
    local = (points - c2w[:, 3]) @ c2w[:, :3]
    return local[:, :2] / -local[:, 2:] * (1, -1), -local[:, 2]


@pytest.fixture(scope="module")
def views():
    """Pictures of the synthetic scene as bytes, and their poses."""
    c2w = synthetic.poses(8)
    return [images.to_uint8(synthetic.render(CAMERA, pose, 1)[0]) for pose in c2w], c2w


def _examine(views, axes_of_file, read_as):
    pictures, c2w = views
    matrices = to_axes(c2w, axes_of_file)
    return pose_check.examine(lambda view: pictures[view], matrices, read_as, Cameras([CAMERA] * len(c2w)))


def test_points_seen_by_two_cameras_have_no_error_and_others_their_distance_from_the_line():
    rng = np.random.default_rng(0)
    c2w = np.stack([np.column_stack([_rotation(rng, 0.1), rng.normal(size=3) * 0.3]) for _ in range(2)])
    points = rng.uniform(-1, 1, (50, 3)) * (2, 2, 3) + (0, 0, -8)
    (a, _), (b, _) = (_project(pose, points) for pose in c2w)
    assert pose_check.epipolar_errors(Match(0, 1, a, b), c2w).max() < 1e-12
    # a dense sampling of the ray is the reference
    moved = b + rng.normal(size=b.shape) * 0.05
    depths = np.geomspace(0.05, 1e6, 20_001)
    for k in range(5):
        direction = c2w[0, :, :3] @ (a[k, 0], -a[k, 1], -1.0)
        line, depth = _project(c2w[1], c2w[0, :, 3] + depths[:, None] * direction)
        nearest = np.linalg.norm(line[depth > 0] - moved[k], axis=1).min()
        found = pose_check._one_way(c2w[0], c2w[1], a[k : k + 1], moved[k : k + 1])[0]
        assert found == pytest.approx(nearest, abs=2e-4)


def test_points_behind_a_camera_are_errors_though_they_are_on_the_epipolar_line():
    c2w = np.tile(np.eye(4)[:3], (2, 1, 1))
    c2w[1, 0, 3] = 1.0
    points = np.array([[0.3, 0.2, -2.0], [-0.4, 0.1, -3.0]])
    (a, _), (b, _) = (_project(pose, points) for pose in c2w)
    assert pose_check.epipolar_errors(Match(0, 1, a, b), c2w).max() < 1e-12
    swapped = pose_check.epipolar_errors(Match(0, 1, b, a), c2w)  # lines meet behind the cameras
    assert np.allclose(swapped, np.abs(a - b)[:, 0])
    away = c2w.copy()
    away[1, :, 0], away[1, :, 2] = -away[1, :, 0], -away[1, :, 2]  # looks the other way
    away[1, 2, 3] = 1.0
    assert np.isinf(pose_check.epipolar_errors(Match(0, 1, a * 0, a * 0), away)).all()


@pytest.mark.parametrize("axes", poses.AXES)
def test_every_convention_is_recognized_and_none_is_advised_against_itself(axes, views):
    for read_as in {axes, "llff" if axes != "llff" else "opencv_w2c"}:
        finding = _examine(views, axes, read_as)
        assert min(finding.errors, key=finding.errors.get) == axes
        assert finding.errors[axes] < 0.5
        advice = finding.advice(read_as)
        assert (advice is None) if read_as == axes else f"give --pose_axes {axes}" in advice


def test_the_result_is_deterministic(views):
    assert _examine(views, "opengl", "llff") == _examine(views, "opengl", "llff")


def test_poses_of_other_photographs_fit_in_no_axes(views):
    pictures, c2w = views
    finding = pose_check.examine(lambda view: pictures[view], c2w[::-1], "opengl", Cameras([CAMERA] * len(c2w)))
    assert finding is not None
    scaled = Finding({name: 100 * error for name, error in finding.errors.items()}, 9, 500, 384)
    assert "in another order?" in scaled.advice("opengl")


def test_errors_that_are_small_everywhere_say_nothing():
    errors = dict.fromkeys(poses.AXES, 0.9) | {"opencv": 0.1}
    assert Finding(errors, 9, 500, 384).advice("llff") is None


@pytest.mark.parametrize("kind", ["black", "noise", "two views"])
def test_pictures_with_too_few_matches_say_nothing(kind, views):
    pictures, c2w = views
    rng = np.random.default_rng(0)
    if kind == "two views":
        pictures, c2w = pictures[:2], c2w[:2]
    else:
        pictures = [rng.integers(0, 256 if kind == "noise" else 1, p.shape, dtype=np.uint8) for p in pictures]
    assert pose_check.examine(lambda view: pictures[view], c2w, "llff", Cameras([CAMERA] * len(c2w))) is None


def test_pairs_look_the_same_way_and_are_spread_over_the_views():
    c2w = poses.blender_circle(72)  # 5° apart
    chosen = pose_check.pairs_of(c2w)
    assert pose_check.PAIRS - 1 <= len(chosen) <= pose_check.PAIRS
    assert all(0 < min(j - i, 72 - (j - i)) <= 4 for i, j in chosen)
    assert max(max(pair) for pair in chosen) - min(min(pair) for pair in chosen) > 50


def test_floats_are_matched_like_bytes_and_large_pictures_are_reduced(views):
    pictures, c2w = views
    large = Camera(480, 360, 432.0, 432.0, 240.0, 180.0)
    floats = [np.repeat(np.repeat(p, 3, 0), 3, 1).astype(np.float32) / np.float32(255) for p in pictures]
    finding = pose_check.examine(lambda view: floats[view], c2w, "opengl", Cameras([large] * len(c2w)))
    with_alpha = [np.concatenate([each, np.zeros_like(each[..., :1])], axis=-1) for each in floats]
    assert finding == pose_check.examine(lambda view: with_alpha[view], c2w, "opengl", Cameras([large] * len(c2w)))
    assert finding.width == pose_check.SIDE
    assert finding.errors["opengl"] < 1
    assert finding.advice("opengl") is None


def _scenes():
    root = Path(os.environ.get("ENERF_DATA", "nowhere"))
    return [p.parent for p in sorted(root.glob("llff/*/poses_bounds.npy"))]


@pytest.mark.data
def test_real_llff_scenes_are_right_and_every_rewritten_one_is_recognized():
    if not _scenes():
        pytest.skip("ENERF_DATA names no folder with llff/*")
    for scene in _scenes():
        rows = np.load(scene / "poses_bounds.npy")
        pictures = [images.to_uint8(images.read(file)) for file in image_files.list_images(scene / "images_8")]
        height, width = pictures[0].shape[:2]
        focal = rows[0, 14] * width / rows[0, 9]
        cameras = Cameras([Camera(width, height, focal, focal, width / 2, height / 2)] * len(rows))
        c2w = poses.from_llff_axes(rows[:, :15].reshape(-1, 3, 5)[:, :, :4])
        for axes in poses.AXES:
            finding = pose_check.examine(lambda view, p=pictures: p[view], to_axes(c2w, axes), "llff", cameras)
            assert finding.errors[axes] < 0.5
            advice = finding.advice("llff")
            assert (advice is None) if axes == "llff" else f"give --pose_axes {axes}" in advice


@pytest.mark.data
def test_the_real_blender_scene_is_right(caplog):
    folder = Path(os.environ.get("ENERF_DATA", "nowhere")) / "blender" / "lego_200"
    if not folder.is_dir():
        pytest.skip("ENERF_DATA names no folder with blender/lego_200")
    blender.load(folder, keep_alpha=True)
    assert not caplog.records
    blender.load(folder, pose_axes="opencv", keep_alpha=True)
    assert "give --pose_axes opengl" in caplog.text
