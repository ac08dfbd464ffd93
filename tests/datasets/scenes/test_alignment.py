"""Similarities between sets of poses: found exactly where there is one, undefined directions included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.datasets.scenes import alignment
from enerf.datasets.scenes.alignment import Similarity
from tests.datasets.scenes.models import random_poses

SEEDS = st.integers(0, 10_000)
light = settings(max_examples=30, deadline=None)


def similarity(seed: int) -> Similarity:
    rng = np.random.default_rng(seed)
    return Similarity(float(rng.uniform(0.1, 10)), random_poses(rng, 1)[0, :, :3], rng.normal(size=3))


@given(SEEDS, st.integers(2, 9))
@light
def test_a_similarity_is_found_exactly(seed, n):
    c2w, expected = random_poses(np.random.default_rng(seed), n), similarity(seed + 1)
    found = alignment.between(c2w, expected.apply(c2w))
    assert found.scale == pytest.approx(expected.scale)
    np.testing.assert_allclose(found.rotation, expected.rotation, atol=1e-9)
    angles, distances = alignment.differences(found.apply(c2w), expected.apply(c2w))
    assert angles.max() < 1e-5
    assert distances.max() < 1e-9 * expected.scale + 1e-9


@given(SEEDS)
@light
def test_centers_on_a_line_or_at_one_point_do_not_matter(seed):
    c2w, expected = random_poses(np.random.default_rng(seed), 5), similarity(seed + 1)
    c2w[:, :, 3] = np.arange(5)[:, None] * [0.3, -0.2, 0.5]
    np.testing.assert_allclose(alignment.between(c2w, expected.apply(c2w)).rotation, expected.rotation, atol=1e-9)
    c2w[:, :, 3] = [1.0, 2.0, 3.0]
    found = alignment.between(c2w, expected.apply(c2w))
    assert found.scale == 1
    np.testing.assert_allclose(found.apply(c2w)[:, :, 3], expected.apply(c2w)[:, :, 3], atol=1e-9)


@given(SEEDS, st.floats(0, 179))
@light
def test_differences_are_angles_and_distances(seed, degrees):
    rng = np.random.default_rng(seed)
    c2w = random_poses(rng, 4)
    turn, angle = c2w.copy(), np.deg2rad(degrees)
    cross = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 0.0]])
    turn[:, :, :3] = c2w[:, :, :3] @ (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
    turn[:, :, 3] += [0.0, 3.0, 4.0]
    angles, distances = alignment.differences(c2w, turn)
    np.testing.assert_allclose(angles, degrees, atol=1e-6)
    np.testing.assert_allclose(distances, 5.0)
    assert alignment.spread(c2w) == pytest.approx(alignment.spread(turn))
