"""Poses from matched key points: exact and wrong matches, what no match determines, pictures, masks."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core import images
from enerf.core.types import Camera
from enerf.datasets.scenes import alignment, key_points, matched_poses, rigid_motions, synthetic
from enerf.datasets.scenes.cameras import Cameras
from tests.datasets.scenes.test_bounds import ahead, drawn, inwards, scene

light = settings(max_examples=10, deadline=None)
LAYOUTS = {"ahead": ahead, "around": inwards}
FOCAL = 400.0
CAMERA = synthetic.camera(160, 120)


def small_motions(seed: int, n: int, size: float) -> torch.Tensor:
    return size * (2 * drawn(seed, n, 6) - 1)


def exact_matches(c2w: torch.Tensor, seed: int, n: int = 40, wrong: float = 0.0) -> list:
    """Directions to points that all views see, for each pair; a share of them to other points."""
    center = torch.tensor([0.0, 0, -6 if c2w[:, 2, 2].min() > 0.5 else 0]).double()
    points = center + 3 * (drawn(seed + 1, n, 3) - 0.5)
    local = torch.einsum("vji,vnj->vni", c2w[:, :, :3], points - c2w[:, None, :, 3])
    rays = torch.nn.functional.normalize(local, dim=-1)
    rng, found = np.random.default_rng(seed), []
    for i, j in itertools.combinations(range(len(c2w)), 2):
        other = np.arange(n)
        other[: int(wrong * n)] = rng.permutation(n)[: int(wrong * n)]
        found.append((i, j, rays[i], rays[j][other]))
    return found


def errors(found: torch.Tensor, true: torch.Tensor) -> tuple[float, float]:
    """Mean angle in degrees and mean distance after alignment."""
    angles, distances = alignment.residuals(found.numpy(), true.numpy())
    return float(angles.mean()), float(distances.mean())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("layout", "wrong"), [("ahead", 0.0), ("around", 0.0), ("around", 0.2)])
def test_exact_matches_give_the_cameras_back_up_to_a_similarity_though_some_are_wrong(seed, layout, wrong):
    true = LAYOUTS[layout](seed)
    given_poses = rigid_motions.applied(small_motions(seed, len(true), 0.01), true)
    basis = torch.eye(6).double().expand(len(true), 6, 6)
    z = matched_poses.motions(given_poses, basis, exact_matches(true, seed, wrong=wrong), FOCAL)
    before, after = (errors(each, true) for each in (given_poses, rigid_motions.applied(z, given_poses)))
    assert before[0] > 0.1
    assert after[0] < (0.002 if wrong == 0 else 0.02) * before[0]


@given(st.integers(0, 1000))
@light
def test_cameras_that_agree_already_and_cameras_without_matches_do_not_move(seed):
    true = inwards(seed)
    basis = torch.eye(6).double().expand(len(true), 6, 6)
    matches = exact_matches(true, seed)
    assert matched_poses.motions(true, basis, matches, FOCAL).abs().max() < 1e-9
    moved = rigid_motions.applied(small_motions(seed, len(true), 0.01), true)
    alone = [each for each in matches if 2 not in each[:2]]
    assert matched_poses.motions(moved, basis, alone, FOCAL)[2].abs().max() == 0


def test_the_error_of_a_match_is_the_angle_that_one_ray_is_off_shared_by_both():
    c2w = torch.eye(3, 4).double().repeat(2, 1, 1)
    c2w[1, 0, 3] = 1.0
    a = torch.nn.functional.normalize(torch.tensor([[0.5, 0.0, -5.0]]).double(), dim=1)
    b = torch.nn.functional.normalize(torch.tensor([[-0.5, 5e-4, -5.0]]).double(), dim=1)  # 1e-4 rad above its plane
    basis = torch.eye(6).double().expand(2, 6, 6)
    problem = matched_poses._Problem(c2w, basis, torch.tensor([0]), torch.tensor([1]), a, b, FOCAL)
    zero = torch.zeros(1, 6).double()
    expected = 1e-4 * FOCAL / matched_poses.SCALE / np.sqrt(2)
    assert abs(float(problem.errors(zero, zero))) == pytest.approx(expected, rel=0.02)


def test_pairs_are_neighbors_that_look_in_similar_directions():
    circle = inwards(0, 40)
    found = matched_poses.pairs_of(circle.numpy(), range(0, 40, 2))
    assert all(i < j and i % 2 == j % 2 == 0 for i, j in found)
    assert len(found) <= 20 * matched_poses.NEIGHBORS
    cosines = [float(circle[i, :, 2] @ circle[j, :, 2]) for i, j in found]
    assert min(cosines) > 0.5


@pytest.fixture(scope="module")
def captured():
    """A scene of the synthetic pictures."""
    c2w = torch.from_numpy(synthetic.poses(8))
    pictures = [torch.from_numpy(images.to_uint8(synthetic.render(CAMERA, pose.numpy(), 1)[0])) for pose in c2w]
    made = scene(c2w, 1.0, 10.0, forward_facing=True)
    return replace(made, images=torch.stack(pictures), c2w=c2w, camera=CAMERA)


def test_cameras_of_pictures_are_found_from_their_key_points(captured):
    views = list(range(8))
    moved = rigid_motions.applied(small_motions(3, 8, 0.01), captured.c2w)
    made = replace(captured, c2w=moved)
    matches = matched_poses.matches_of(made, views)
    assert max(len(each.points_i) for each in matches) <= matched_poses.MATCHES
    z = matched_poses.of_scene(made, views, torch.eye(6).double().expand(8, 6, 6), matches)
    before, after = (errors(each, captured.c2w) for each in (moved, rigid_motions.applied(z, moved)))
    assert after[0] < 0.5 * before[0]


def test_key_points_lie_in_used_pixels(captured):
    masks = torch.ones(8, CAMERA.height, CAMERA.width, 1, dtype=torch.bool)
    masks[:, :, CAMERA.width // 2 :] = False
    all_of_it, left = (matched_poses.matches_of(replace(captured, masks=each), [0, 1, 2]) for each in (None, masks))
    assert max(each.points_i[:, 0].max() for each in all_of_it) > 0.1
    assert max(each.points_i[:, 0].max() for each in left) < 0.01


def test_a_pair_for_which_opencv_finds_no_model_is_left_out(captured, monkeypatch):
    def fail(*_):
        raise cv2.error("Assertion failed")

    monkeypatch.setattr(cv2, "findFundamentalMat", fail)
    assert matched_poses.matches_of(captured, [0, 1, 2]) == []


def test_pictures_of_any_size_give_the_same_directions():
    camera = Camera(400, 300, 350.0, 350.0, 190.0, 160.0)
    at = np.array([[10.0, 20.0], [55.5, 70.25]])
    small = key_points._in_plane(Cameras([camera]), 0, np.zeros((150, 200), np.uint8), at)
    expected = ((at + 0.5) * 2 - (190, 160)) / 350
    np.testing.assert_allclose(small, expected, atol=1e-12)
