"""Normalization of world coordinates: by how cameras stand, and the same in every world that is similar."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.datasets.scenes import normalization, poses, synthetic
from tests.contents import refusal
from tests.datasets.scenes import models

SEEDS = st.integers(0, 2**31)


def _bounds(c2w: np.ndarray, near: float = 2.0) -> np.ndarray:
    return np.stack([np.linspace(near, 2 * near, len(c2w)), np.linspace(5 * near, 6 * near, len(c2w))], axis=1)


def _layouts() -> dict[str, np.ndarray]:
    outwards = poses.blender_circle(9)
    outwards[:, :, [0, 2]] *= -1
    walk = synthetic.poses(9)
    walk[:, :, :3] = walk[:1, :, :3]
    street = np.concatenate([walk, walk])
    street[9:, :, [0, 2]] *= -1  # back again
    street[:, 2, 3] = np.linspace(0, -40, 18)
    return {"forward": synthetic.poses(9), "around": poses.blender_circle(9), "outwards": outwards, "street": street}


LAYOUTS = _layouts()
EXPECTED = {"forward": "forward", "around": "around", "outwards": "free", "street": "free"}


def _similar(c2w: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Poses in a world that is rotated, shifted and scaled at random, and its scale."""
    rng = np.random.default_rng(seed)
    other, scale = models.random_poses(rng, 1)[0], float(10.0 ** rng.uniform(-4, 4))
    centers = (c2w[:, :, 3] @ other[:, :3].T + other[:, 3]) * scale
    return np.concatenate([other[:, :3] @ c2w[:, :, :3], centers[:, :, None]], axis=-1), scale


def _distances(c2w: np.ndarray) -> np.ndarray:
    return np.linalg.norm(c2w[:, None, :, 3] - c2w[None, :, :, 3], axis=-1)


@given(kind=st.sampled_from(sorted(LAYOUTS)), seed=SEEDS)
@settings(max_examples=60)
def test_how_cameras_stand_and_how_far_apart_is_the_same_in_every_similar_world(kind, seed):
    c2w = LAYOUTS[kind]
    bounds = _bounds(c2w)
    other, scale = _similar(c2w, seed)
    assert normalization.layout_of(c2w) == normalization.layout_of(other) == EXPECTED[kind]
    plain = normalization.normalize(c2w, bounds, EXPECTED[kind])
    moved = normalization.normalize(other, bounds * scale, EXPECTED[kind])
    np.testing.assert_allclose(_distances(moved.c2w), _distances(plain.c2w), atol=1e-8)
    np.testing.assert_allclose(moved.bounds, plain.bounds, rtol=1e-9)
    assert moved.is_beyond_plane() == plain.is_beyond_plane()
    if EXPECTED[kind] == "forward":  # the average pose decides all axes
        np.testing.assert_allclose(moved.c2w, plain.c2w, atol=1e-7)


@given(kind=st.sampled_from(sorted(LAYOUTS)), seed=SEEDS)
@settings(max_examples=40)
def test_the_similarity_takes_the_worlds_cameras_to_the_scenes(kind, seed):
    c2w, scale = _similar(LAYOUTS[kind], seed)
    found = normalization.normalize(c2w, _bounds(c2w, 2 * scale), EXPECTED[kind])
    matrix = found.world_to_scene
    linear = matrix[:3, :3]
    unit = float(np.cbrt(np.linalg.det(linear)))
    np.testing.assert_allclose(linear @ linear.T / unit**2, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(c2w[:, :, 3] @ linear.T + matrix[:3, 3], found.c2w[:, :, 3], atol=1e-7)
    np.testing.assert_allclose(linear @ c2w[:, :, :3] / unit, found.c2w[:, :, :3], atol=1e-9)
    np.testing.assert_allclose(found.bounds, _bounds(c2w, 2 * scale) * unit, rtol=1e-9)
    np.testing.assert_allclose(matrix[3], [0, 0, 0, 1])
    if EXPECTED[kind] == "around":
        assert np.isclose((found.c2w[:, :, 3] ** 2).sum(1).mean(), 1)
        np.testing.assert_allclose(poses.meeting_point(found.c2w), 0, atol=1e-7)
    else:
        assert np.isclose(found.bounds[:, 0].min(), 1 / 0.75)
        np.testing.assert_allclose(found.c2w[:, :, 3].mean(0), 0, atol=1e-7)


def test_forward_cameras_are_within_20_degrees_of_their_mean():
    def fan(degrees: float) -> np.ndarray:
        angles = np.deg2rad(np.linspace(-degrees, degrees, 7))
        back = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=1)
        right = np.stack([np.cos(angles), 0 * angles, -np.sin(angles)], axis=1)
        up = np.tile([0.0, 1, 0], (7, 1))
        return np.stack([right, up, back, np.random.default_rng(0).normal(size=(7, 3)) * 30], axis=-1)

    assert normalization.layout_of(fan(19.9)) == "forward"
    assert normalization.layout_of(fan(20.1)) != "forward"


def test_cameras_whose_axes_pass_far_from_one_point_do_not_look_at_it():
    for share, is_target in ((0.1, True), (0.6, False)):
        c2w = poses.blender_circle(12, 4.0)
        c2w[:, :, 3] += share * 4.0 * np.where(np.arange(12) % 2, 1, -1)[:, None] * c2w[:, :, 0]
        found = normalization.looked_at(c2w)
        assert (found is not None) == is_target
    np.testing.assert_allclose(normalization.looked_at(poses.blender_circle(5)), 0, atol=1e-12)


@pytest.mark.parametrize(("is_object", "low", "high"), [(True, 0.5, 1.5), (False, 0.1, 10.0)])
def test_bounds_of_cameras_around_a_point_are_shares_of_its_depth(is_object, low, high):
    c2w = poses.blender_circle(8, 4.0)
    c2w[:, :, 3] *= np.linspace(1, 1.5, 8)[:, None]
    depths = np.linalg.norm(c2w[:, :, 3], axis=1)
    found = normalization.geometric_bounds(c2w, is_object)
    np.testing.assert_allclose(found, depths[:, None] * [low, high], rtol=1e-6)
    assert normalization.geometric_bounds(LAYOUTS["outwards"], is_object) is None
    parallel = np.tile(np.eye(4)[:3], (3, 1, 1))
    parallel[:, 0, 3] = range(3)
    assert normalization.geometric_bounds(parallel, is_object) is None


@pytest.mark.parametrize(("advance", "fits"), [(0.1, True), (6.0, False)])
def test_cameras_that_advance_see_what_is_before_the_near_plane_of_ndc(advance, fits):
    c2w = synthetic.poses(9)
    c2w[:, 2, 3] = -np.linspace(0, advance, 9)
    distance = 9 + c2w[:, 2, 3]  # of the wall
    bounds = np.stack([0.2 * distance if not fits else 0.6 * distance, distance], axis=1)
    found = normalization.normalize(c2w, bounds, normalization.layout_of(c2w))
    assert found.layout == "forward"
    assert found.is_beyond_plane() == fits
    on_axis = found.c2w[:, :, 3] - found.bounds[:, :1] * found.c2w[:, :, 2]
    assert (on_axis[:, 2].max() <= -1) == fits


def test_far_bounds_stay_finite_in_single_precision():
    c2w = LAYOUTS["forward"]
    bounds = _bounds(c2w)
    bounds[2, 1] = 1e200
    found = normalization.normalize(c2w, bounds, "forward")
    assert np.isfinite(found.bounds.astype(np.float32)).all()


def test_cameras_around_nothing_are_one_sentence():
    parallel = np.tile(np.eye(4)[:3], (3, 1, 1))
    parallel[:, 0, 3] = range(3)
    text = refusal(normalization.normalize, parallel, _bounds(parallel), "around")
    assert text == "option --spherify: all cameras look the same way, expected them around an object"
