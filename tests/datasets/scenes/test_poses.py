"""Camera poses."""

import numpy as np
import pytest
import torch

from enerf.datasets.scenes import poses
from tests.datasets.scenes import models
from tests.datasets.scenes.axes import to_axes

SEEDS = range(4)


def _rotation(rng):
    """A random rotation, by Gram and Schmidt."""
    x, y = rng.normal(size=(2, 3))
    x /= np.linalg.norm(x)
    y -= (x @ y) * x
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _random(seed, n=7):
    rng = np.random.default_rng(seed)
    return np.stack([np.concatenate([_rotation(rng), rng.normal(size=(3, 1))], axis=1) for _ in range(n)])


def _towards(target, centers, seed=0):
    """Cameras at the centers that look at the target, rolled at random."""
    rng = np.random.default_rng(seed)
    made = []
    for center in centers:
        z = (center - target) / np.linalg.norm(center - target)
        x = np.cross(rng.normal(size=3), z)
        x /= np.linalg.norm(x)
        made.append(np.stack([x, np.cross(z, x), z, center], axis=1))
    return np.stack(made)


def _inward(seed, n=9):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=3)
    return target, _towards(target, target + rng.normal(size=(n, 3)) + [0, 0, 3], seed)


def _square(c2w):
    return np.concatenate([c2w, np.broadcast_to([[[0.0, 0, 0, 1]]], (len(c2w), 1, 4))], axis=1)


def _assert_rotations(c2w):
    for pose in c2w:
        assert np.allclose(pose[:, :3].T @ pose[:, :3], np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:, :3]) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_llff_axes_come_out_right_up_back_and_right_handed(seed):
    wanted = _random(seed)
    x, y, z = wanted[:, :, 0], wanted[:, :, 1], wanted[:, :, 2]
    llff = np.stack([-y, x, z, wanted[:, :, 3]], axis=-1)  # down, right, backwards
    assert np.array_equal(poses.from_llff_axes(llff), wanted)
    _assert_rotations(poses.from_llff_axes(llff))


def test_mirrored_sheared_and_singular_matrices_are_no_rotations():
    c2w = _random(0, 5)
    c2w[1, :, 0] *= -1
    c2w[2, :, 0] += 0.1 * c2w[2, :, 1]
    c2w[3, :, 2] = 0
    c2w[4, :, :3] *= 2.5
    assert poses.are_rotations(c2w).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("seed", SEEDS)
def test_orthonormalizing_undoes_scale_and_small_noise(seed):
    c2w = _random(seed)
    noisy = c2w.copy()
    noisy[:, :, :3] = 3 * noisy[:, :, :3] + 1e-4 * np.random.default_rng(seed).normal(size=(7, 3, 3))
    clean = poses.orthonormalize(noisy)
    _assert_rotations(clean)
    assert np.allclose(clean, c2w, atol=1e-3)
    assert np.array_equal(clean[:, :, 3], noisy[:, :, 3])
    assert np.allclose(poses.orthonormalize(clean), clean)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_average_is_what_its_definition_says(seed):
    c2w = _random(seed)
    right, up, back, center = poses.average(c2w).T
    summed_back, summed_up = sum(c2w[:, :, 2]), sum(c2w[:, :, 1])
    assert np.allclose(center, sum(c2w[:, :, 3]) / len(c2w))
    assert np.allclose(back, summed_back / np.sqrt(summed_back @ summed_back))
    assert abs(right @ summed_up) < 1e-12
    assert up @ summed_up > 0
    _assert_rotations(poses.average(c2w)[None])


def test_a_symmetric_ring_still_has_an_average():
    ring = poses.blender_circle(4)
    _assert_rotations(poses.average(ring)[None])
    moved, _ = poses.recenter(ring)
    assert np.allclose(poses.average(moved), np.eye(4)[:3], atol=1e-12)
    back_to_back = ring[[0, 0]]
    back_to_back[1, :, 1:3] *= -1
    _assert_rotations(poses.average(back_to_back)[None])


@pytest.mark.parametrize("seed", SEEDS)
def test_recentered_poses_average_to_the_identity(seed):
    moved, _ = poses.recenter(_random(seed))
    assert np.allclose(poses.average(moved), np.eye(4)[:3], atol=1e-12)
    again, transform = poses.recenter(moved)
    assert np.allclose(transform, np.eye(4), atol=1e-12)
    assert np.allclose(again, moved, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_recentring_keeps_relative_poses_and_tells_the_transform(seed):
    c2w = _random(seed)
    moved, transform = poses.recenter(c2w)
    before, after = _square(c2w), _square(moved)
    for a in range(len(c2w)):
        for b in range(len(c2w)):
            assert np.allclose(np.linalg.inv(after[a]) @ after[b], np.linalg.inv(before[a]) @ before[b])
    assert np.allclose(transform @ before, after)
    _assert_rotations(moved)


@pytest.mark.parametrize("seed", SEEDS)
def test_spherified_cameras_have_rms_radius_1_and_look_at_the_origin(seed):
    target, c2w = _inward(seed)
    bounds = np.random.default_rng(seed).random((len(c2w), 2))
    moved, scaled, similarity = poses.spherify(c2w, bounds)
    radii = np.linalg.norm(moved[:, :, 3], axis=-1)
    assert np.isclose(np.sqrt((radii**2).mean()), 1)
    assert np.allclose(similarity @ [*target, 1], [0, 0, 0, 1], atol=1e-9)
    assert np.allclose(moved[:, :, 2] * radii[:, None], moved[:, :, 3], atol=1e-9)
    mean = moved[:, :, 3].mean(0)
    assert np.allclose(mean[:2], 0, atol=1e-9)
    assert mean[2] > 0
    _assert_rotations(moved)
    scale = np.cbrt(np.linalg.det(similarity[:3, :3]))
    assert np.allclose(scaled, bounds * scale)
    assert np.allclose(similarity[:3, :3] @ similarity[:3, :3].T, scale**2 * np.eye(3))
    mapped = similarity @ _square(c2w)
    assert np.allclose(mapped[:, :3, 3], moved[:, :, 3])
    assert np.allclose(mapped[:, :3, :3] / scale, moved[:, :, :3])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_origin_of_a_spherified_scene_is_nearest_to_all_axes(seed):
    c2w = _random(seed)
    _, _, similarity = poses.spherify(c2w, np.ones((7, 2)))
    nearest = np.linalg.inv(similarity)[:3, 3]
    # the same point from least squares: center + depth · axis = point, one depth per camera
    rows, right = np.zeros((21, 10)), c2w[:, :, 3].reshape(-1)
    for i in range(7):
        rows[3 * i : 3 * i + 3, :3] = np.eye(3)
        rows[3 * i : 3 * i + 3, 3 + i] = -c2w[i, :, 2]
    assert np.allclose(nearest, np.linalg.lstsq(rows, right, rcond=None)[0][:3], atol=1e-8)


def test_spherify_refuses_cameras_without_a_common_point():
    same_way, one_point = _random(0), _random(1)
    same_way[:, :, :3] = same_way[0, :, :3]
    one_point[:, :, 3] = one_point[0, :, 3]
    with pytest.raises(ValueError, match="look the same way"):
        poses.spherify(same_way, np.ones((7, 2)))
    with pytest.raises(ValueError, match="stand at one point"):
        poses.spherify(one_point, np.ones((7, 2)))


def _forward(seed, n=8):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n, 3)) * [1, 0.6, 0.1]
    c2w = np.stack([np.concatenate([np.eye(3), center[:, None]], axis=1) for center in centers])
    for pose in c2w:
        tilt = np.linalg.qr(np.eye(3) + 0.05 * rng.normal(size=(3, 3)))[0]
        pose[:, :3] = tilt * np.sign(np.diag(tilt))
    return poses.recenter(c2w)[0], np.sort(rng.random((n, 2)) * 4 + 1.3, axis=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_spiral_aims_at_one_point_and_keeps_to_its_radii(seed):
    c2w, bounds = _forward(seed)
    path = poses.spiral(c2w, bounds, 24)
    _assert_rotations(path)
    depth = 1 / (0.25 / (bounds.min() * 0.9) + 0.75 / (bounds.max() * 5))
    radii = np.percentile(np.abs(c2w[:, :, 3]), 90, axis=0)
    up = sum(c2w[:, :, 1])
    for i, pose in enumerate(path):
        angle = 2 * 2 * np.pi * i / 24
        wanted = radii * [np.cos(angle), -np.sin(angle), -np.sin(angle * 0.5)]
        assert np.allclose(pose[:, 3], wanted, atol=1e-9)
        to_aim = np.array([0, 0, -depth]) - pose[:, 3]
        assert np.allclose(np.cross(to_aim, pose[:, 2]), 0, atol=1e-9)
        assert to_aim @ pose[:, 2] < 0
        assert abs(pose[:, 0] @ up) < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_a_spiral_moves_with_its_scene(seed):
    c2w, bounds = _forward(seed)
    moved = np.eye(4)
    moved[:3] = _random(seed + 10, 1)[0]
    elsewhere = poses.spiral((moved @ _square(c2w))[:, :3], bounds, 9)
    assert np.allclose(elsewhere, (moved @ _square(poses.spiral(c2w, bounds, 9)))[:, :3], atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_circle_looks_at_the_origin_from_the_cameras_height_and_distance(seed):
    _, c2w = _inward(seed)
    c2w, _, _ = poses.spherify(c2w, np.ones((9, 2)))
    path = poses.circle(c2w, 13)
    _assert_rotations(path)
    assert np.allclose(np.linalg.norm(path[:, :, 3], axis=1), 1)
    assert np.allclose(path[:, 2, 3], c2w[:, 2, 3].mean())
    assert np.allclose(path[:, :, 2], path[:, :, 3])
    assert np.allclose(path[:, 2, 0], 0)
    assert (path[:, 2, 1] > 0).all()
    assert np.allclose(path[0], path[-1])


def test_the_blender_circle_is_the_product_of_three_turns():
    for theta, pose in zip(np.linspace(-180, 180, 9)[:-1], poses.blender_circle(8), strict=True):
        phi, t = np.radians(-30), np.radians(theta)
        lifted = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4.0], [0, 0, 0, 1]])
        tilted = np.eye(4)
        tilted[1:3, 1:3] = [[np.cos(phi), -np.sin(phi)], [np.sin(phi), np.cos(phi)]]
        turned = np.eye(4)
        turned[0, 0], turned[0, 2], turned[2, 0], turned[2, 2] = np.cos(t), -np.sin(t), np.sin(t), np.cos(t)
        axes = np.array([[-1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
        assert np.allclose(pose, (axes @ turned @ tilted @ lifted)[:3], atol=1e-12)
    _assert_rotations(poses.blender_circle(5))


@pytest.mark.parametrize("seed", SEEDS)
def test_interpolation_passes_through_its_key_cameras(seed):
    c2w = _random(seed)
    path = poses.interpolate(c2w, 6 * 5 + 1)
    _assert_rotations(path)
    assert np.allclose(path[::5], c2w, atol=1e-9)


def _turned(rotation, share):
    """The rotation about the same axis by that share of its angle (Rodrigues)."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    generator = (rotation - rotation.T) / (2 * np.sin(angle))
    return np.eye(3) + np.sin(share * angle) * generator + (1 - np.cos(share * angle)) * generator @ generator


@pytest.mark.parametrize("seed", SEEDS)
def test_interpolation_turns_evenly_the_short_way_and_moves_on_straight_lines(seed):
    a, b = _random(seed, 2)
    for i, pose in enumerate(poses.interpolate(np.stack([a, b]), 11)):
        share = i / 10
        assert np.allclose(pose[:, 3], (1 - share) * a[:, 3] + share * b[:, 3])
        assert np.allclose(pose[:, :3], a[:, :3] @ _turned(a[:, :3].T @ b[:, :3], share), atol=1e-9)


def test_interpolation_of_equal_opposite_or_single_cameras_is_finite():
    a = _random(0, 1)[0]
    opposite = a.copy()
    opposite[:, [0, 2]] *= -1  # half a turn about its own up
    path = poses.interpolate(np.stack([a, a, opposite]), 9)
    _assert_rotations(path)
    assert np.allclose(path[[0, 4, 8]], [a, a, opposite], atol=1e-9)
    assert np.allclose(poses.interpolate(a[None], 3), a)
    assert np.allclose(poses.interpolate(_random(1), 1), _random(1)[:1], atol=1e-9)


def test_the_central_view_is_nearest_to_the_mean():
    c2w = _random(5)
    mean = c2w[:, :, 3].mean(0)
    distances = [np.linalg.norm(pose[:, 3] - mean) for pose in c2w]
    assert poses.central_view(c2w) == distances.index(min(distances))


@pytest.mark.parametrize("axes", poses.AXES)
def test_matrices_in_a_convention_are_those_of_the_poses_and_lead_back_to_them(axes):
    c2w = models.random_poses(np.random.default_rng(0), 20)
    matrices = poses.to_axes(c2w, axes)
    np.testing.assert_allclose(matrices, to_axes(c2w, axes), atol=1e-12)
    np.testing.assert_allclose(poses.from_axes(matrices, axes), c2w, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_rotations_of_quaternions_turn_every_axis_as_exponentials_of_matrices_do(seed):
    axis = np.random.default_rng(seed).normal(size=3)
    angle = np.linalg.norm(axis)
    matrix = np.array([np.cross(axis, e) for e in np.eye(3)]).T
    expected = torch.linalg.matrix_exp(torch.from_numpy(matrix)).numpy()
    q = np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * axis / angle])
    assert np.allclose(poses.rotation(q), expected, rtol=0, atol=1e-12)
    found = poses.quaternion(expected)
    assert np.allclose(found * np.sign(found @ q), q, rtol=0, atol=1e-12)
