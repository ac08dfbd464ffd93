"""Proposal sampling and its losses, against slow loops written from the paper's equations."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.rendering import proposal, sampling

SEEDS = st.integers(0, 2**31)
light = settings(max_examples=30, deadline=None)


def _f64(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _histogram(seed: int, rays: int, m: int) -> tuple[Tensor, Tensor]:
    """Edges from 1 to at most 1 + 2m, and weights of which some are 0 and whose sum is at most 1."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(np.concatenate([np.ones((rays, 1)), rng.uniform(0.1, 2, (rays, m))], -1), -1)
    weights = rng.uniform(0, 1, (rays, m)) * (rng.uniform(size=(rays, m)) < 0.7)
    return _f64(edges), _f64(weights / np.maximum(weights.sum(-1, keepdims=True), 1))


# edges


@given(near=st.floats(0.1, 3), length=st.floats(0.01, 50), n=st.integers(1, 9))
@light
def test_uniform_edges_are_even_from_near_to_far(near: float, length: float, n: int):
    found = proposal.uniform_edges(_f64([near]), _f64([near + length]), n)
    np.testing.assert_allclose(found[0], np.linspace(near, near + length, n + 1), rtol=1e-12)
    inverse = proposal.uniform_edges(_f64([near]), _f64([near + length]), n, lindisp=True)
    np.testing.assert_allclose(1 / inverse[0], np.linspace(1 / near, 1 / (near + length), n + 1), rtol=1e-12)


@given(seed=SEEDS, n=st.integers(1, 9), lindisp=st.booleans())
@light
def test_jittered_edges_increase_within_near_and_far(seed: int, n: int, lindisp: bool):
    near, far = _f64([1.0, 2.0]), _f64([3.0, 50.0])
    found = proposal.uniform_edges(near, far, n, lindisp, _generator(seed))
    assert found.shape == (2, n + 1)
    assert (found.diff(dim=-1) >= 0).all()
    assert ((found >= near[:, None]) & (found <= far[:, None])).all()


def _slow_inverse(edges: Tensor, weights: Tensor, u: float, padding: float) -> float:
    """Where the cumulated weights reach the part u of their sum, interval by interval."""
    mass = [w + padding for w in weights.tolist()]
    left = u * sum(mass)
    for i, m in enumerate(mass):
        if left <= m:
            return float(edges[i] + (edges[i + 1] - edges[i]) * left / m)
        left -= m
    return float(edges[-1])


@pytest.mark.parametrize("jittered", [False, True])
@given(seed=SEEDS, m=st.integers(1, 9), n=st.integers(1, 12))
@light
def test_resampled_edges_are_even_steps_of_the_cumulated_weights(jittered: bool, seed: int, m: int, n: int):
    edges, weights = _histogram(seed, 3, m)
    found = proposal.resample(edges, weights, n, _generator(seed) if jittered else None, padding=0.01)
    moved = torch.rand(3, 1, generator=_generator(seed), dtype=torch.float64) - 0.5
    for ray in range(3):
        jitter = moved[ray].item() if jittered else 0.0
        steps = [0.0, *((k + jitter) / n for k in range(1, n)), 1.0]
        slow = [_slow_inverse(edges[ray], weights[ray], u, 0.01) for u in steps]
        np.testing.assert_allclose(found[ray], slow, rtol=0, atol=1e-9)


def test_jittered_edges_follow_the_weights():
    edges, weights = _f64([0.0, 1.0, 2.5, 3.0, 5.0]), _f64([0.1, 0.0, 0.6, 0.3])
    rays, n = 20_000, 6
    found = proposal.resample(edges.expand(rays, 5), weights.expand(rays, 4), n, _generator())[:, 1:-1]
    share = np.histogram(found.numpy(), edges.numpy())[0] / found.numel()
    cdf = np.concatenate([[0], np.cumsum((weights.numpy() + 1e-3) / 1.004)])
    inner = np.clip(cdf, 0.5 / n, 1 - 0.5 / n)  # half a share at each end belongs to the ends
    np.testing.assert_allclose(share, np.diff(inner) / (1 - 1 / n), atol=2e-3)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_the_first_and_the_last_edge_stay(seed: int | None, n: int):
    edges, weights = _histogram(0, 5, 6)
    found = proposal.resample(edges, weights, n, None if seed is None else _generator(seed))
    assert found.shape == (5, n + 1)
    assert torch.equal(found[:, [0, -1]], edges[:, [0, -1]])


@pytest.mark.parametrize("weight", [0.0, 0.2])
@pytest.mark.parametrize("m", [1, 5])
def test_an_empty_ray_is_sampled_as_evenly_as_one_of_equal_weights(weight: float, m: int):
    edges = torch.linspace(2.0, 6.0, m + 1, dtype=torch.float64)
    found = proposal.resample(edges, torch.full((m,), weight, dtype=torch.float64), 7)
    np.testing.assert_allclose(found, 2 + 4 * np.arange(8) / 7, rtol=1e-12)


@pytest.mark.parametrize("k", [0, 3, 6])
def test_edges_gather_in_the_one_interval_that_has_all_the_weight(k: int):
    weights = torch.nn.functional.one_hot(torch.tensor(k), 7).double()
    found = proposal.resample(torch.arange(8.0, dtype=torch.float64), weights, 20)
    inner = found[1:-1]
    assert ((inner >= k) & (inner <= k + 1)).all()
    np.testing.assert_allclose(inner.diff(), 1.007 / 1.001 / 20, rtol=1e-9)


@given(exponents=st.lists(st.sampled_from([-45, -10, 0, 10, 30]), min_size=1, max_size=12), seeded=st.booleans())
@light
def test_resampled_edges_are_finite_increasing_and_within_the_ray(exponents: list[int], seeded: bool):
    weights = torch.tensor([10.0**e for e in exponents], dtype=torch.float32)
    edges = torch.linspace(2.0, 6.0, len(exponents) + 1)
    found = proposal.resample(edges, weights, 16, _generator() if seeded else None)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert (found.diff() >= -1e-5).all()
    assert (found >= 2).all()
    assert (found <= 6 + 1e-5).all()


def test_intervals_of_no_length_are_no_obstacle():
    edges = _f64([0.0, 1.0, 1.0, 1.0, 2.0])
    found = proposal.resample(edges, _f64([0.5, 0.0, 0.0, 0.5]), 9)
    assert (found.diff() >= 0).all()
    assert proposal.weight_bound(found, edges, _f64([0.5, 0.0, 0.0, 0.5])).isfinite().all()


def test_a_seed_repeats_and_positions_carry_no_gradient():
    edges, weights = _histogram(0, 4, 6)
    draws = [proposal.resample(edges, weights.requires_grad_(), 5, _generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not draws[0].requires_grad


def test_any_batch_axes_are_rays():
    edges, weights = _histogram(0, 6, 5)
    found = proposal.resample(edges.reshape(2, 3, 6), weights.reshape(2, 3, 5), 4)
    assert torch.equal(found.reshape(6, 5), proposal.resample(edges, weights, 4))
    assert torch.equal(found[0, 1], proposal.resample(edges[1], weights[1], 4))


# bound and interlevel


def _slow_bound(fine: Tensor, edges: Tensor, weights: Tensor) -> list[float]:
    """Equation 12, interval by interval."""
    found = []
    for a, b in itertools.pairwise(fine):
        pairs = zip(edges[:-1], edges[1:], weights, strict=True)
        found.append(sum((w.item() for low, high, w in pairs if min(b, high) > max(a, low)), 0.0))
    return found


def _resampled(seed: int, m: int, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A proposal, and fine intervals within it whose weights are drawn by themselves."""
    edges, weights = _histogram(seed, 3, m)
    fine = proposal.resample(edges, weights, n, _generator(seed))
    return fine, _histogram(seed + 1, 3, n)[1], edges, weights


@given(seed=SEEDS, m=st.integers(1, 8), n=st.integers(1, 8))
@light
def test_the_bound_is_the_sum_over_overlapping_intervals(seed: int, m: int, n: int):
    fine, _, edges, weights = _resampled(seed, m, n)
    found = proposal.weight_bound(fine, edges, weights)
    for ray in range(3):
        np.testing.assert_allclose(found[ray], _slow_bound(fine[ray], edges[ray], weights[ray]), atol=1e-12)


@given(seed=SEEDS, keep=st.integers(0, 2**9 - 1))
@light
def test_the_bound_of_merged_intervals_is_the_sum_of_theirs(seed: int, keep: int):
    edges, weights = _histogram(seed, 1, 8)
    kept = [i for i in range(9) if keep >> i & 1] or [0]
    fine = edges[:, kept]  # every fine edge is one of the proposal's
    expected = [weights[0, a:b].sum().item() for a, b in itertools.pairwise(kept)]
    np.testing.assert_allclose(proposal.weight_bound(fine, edges, weights)[0], expected, atol=1e-12)


@given(seed=SEEDS, shift=st.floats(-3, 3))
@light
def test_fine_intervals_may_reach_beyond_the_proposal(seed: int, shift: float):
    edges, weights = _histogram(seed, 1, 5)
    fine = torch.linspace(-4, 20, 9, dtype=torch.float64)[None] + shift
    np.testing.assert_allclose(
        proposal.weight_bound(fine, edges, weights)[0], _slow_bound(fine[0], edges[0], weights[0]), atol=1e-12
    )


@given(seed=SEEDS, m=st.integers(1, 8), n=st.integers(1, 8))
@light
def test_interlevel_is_the_papers_sum(seed: int, m: int, n: int):
    fine, weights_fine, edges, weights = _resampled(seed, m, n)
    slow = 0.0
    for ray in range(3):
        allowed = _slow_bound(fine[ray], edges[ray], weights[ray])
        for w, most in zip(weights_fine[ray].tolist(), allowed, strict=True):
            slow += max(0.0, w - most) ** 2 / (w + proposal.EPSILON) / 3
    found = proposal.interlevel_loss(fine, weights_fine, edges, weights)
    np.testing.assert_allclose(found.item(), slow, rtol=1e-9, atol=1e-12)


@given(seed=SEEDS, m=st.integers(1, 8))
@light
def test_a_proposal_equal_to_the_fine_histogram_or_above_it_costs_nothing(seed: int, m: int):
    edges, weights = _histogram(seed, 3, m)
    assert proposal.interlevel_loss(edges, weights, edges, weights).item() < 1e-20
    assert proposal.interlevel_loss(edges, weights, edges, weights + 0.1).item() == 0
    whole = edges[:, [0, -1]]
    assert proposal.interlevel_loss(edges, weights, whole, weights.sum(-1, keepdim=True)).item() < 1e-20


def test_interlevel_pulls_only_where_the_bound_is_broken_and_only_at_the_proposal():
    edges, fine = _f64([0.0, 1.0, 2.0, 3.0]), _f64([0.2, 0.8, 1.1, 1.9, 2.1, 2.9])
    weights = _f64([0.1, 0.5, 0.2]).requires_grad_()
    weights_fine = _f64([0.05, 0.0, 0.3, 0.0, 0.4]).requires_grad_()
    proposal.interlevel_loss(fine, weights_fine, edges, weights).backward()
    assert weights_fine.grad is None
    assert weights.grad[:2].tolist() == [0, 0]
    np.testing.assert_allclose(weights.grad[2], -2 * (0.4 - 0.2) / 0.4, rtol=1e-6)


@given(seed=SEEDS)
@light
def test_interlevels_gradient_is_that_of_differences(seed: int):
    fine, weights_fine, edges, weights = _resampled(seed, 5, 7)
    weights_fine = weights_fine + 0.05
    excess = weights_fine - proposal.weight_bound(fine, edges, weights)
    if excess.abs().min() > 1e-4:  # the square of max(0, ·) has a kink in its second derivative
        assert torch.autograd.gradcheck(
            lambda w: proposal.interlevel_loss(fine, weights_fine, edges, w), (weights.requires_grad_(),), atol=1e-4
        )


# distortion


@given(seed=SEEDS, n=st.integers(1, 9))
@light
def test_distortion_is_the_papers_double_sum(seed: int, n: int):
    edges, weights = _histogram(seed, 3, n)
    middles, slow = sampling.midpoints(edges), 0.0
    for ray in range(3):
        for i in range(n):
            for j in range(n):
                slow += (weights[ray, i] * weights[ray, j] * (middles[ray, i] - middles[ray, j]).abs()).item() / 3
            slow += (weights[ray, i] ** 2 * (edges[ray, i + 1] - edges[ray, i])).item() / 9
    np.testing.assert_allclose(proposal.distortion_loss(edges, weights).item(), slow, rtol=1e-10, atol=1e-14)


@given(seed=SEEDS)
@light
def test_splitting_an_interval_keeps_the_distortion(seed: int):
    edges, weights = _histogram(seed, 2, 4)
    cut = torch.cat([edges, sampling.midpoints(edges)], -1).sort(-1).values
    halves = (weights / 2).repeat_interleave(2, -1)
    torch.testing.assert_close(proposal.distortion_loss(cut, halves), proposal.distortion_loss(edges, weights))


def test_distortion_is_zero_for_an_empty_ray_and_differentiable():
    edges, weights = _histogram(0, 3, 6)
    assert proposal.distortion_loss(edges, torch.zeros_like(weights)).item() == 0
    assert torch.autograd.gradcheck(proposal.distortion_loss, (edges.requires_grad_(), weights.requires_grad_()))
