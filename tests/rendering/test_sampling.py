"""Sample positions, against an inverse CDF written in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.rendering import sampling

SEEDS = st.integers(0, 2**31)
light = settings(max_examples=30, deadline=None)


def _f64(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# stratified


@given(near=st.floats(-3, 3), length=st.floats(0.01, 50), n=st.integers(1, 9))
@light
def test_without_a_generator_samples_are_even_from_near_to_far(near: float, length: float, n: int):
    found = sampling.stratified(_f64([near]), _f64([near + length]), n)
    np.testing.assert_allclose(found[0], np.linspace(near, near + length, n), rtol=1e-12, atol=1e-12)


@given(near=st.floats(0.01, 3), ratio=st.floats(1.01, 100), n=st.integers(2, 9))
@light
def test_lindisp_is_even_in_the_inverse_of_t(near: float, ratio: float, n: int):
    found = sampling.stratified(_f64([near]), _f64([near * ratio]), n, lindisp=True)
    np.testing.assert_allclose(1 / found[0], np.linspace(1 / near, 1 / (near * ratio), n), rtol=1e-12)


@pytest.mark.parametrize("lindisp", [False, True])
@given(seed=SEEDS, n=st.integers(1, 9))
@light
def test_a_jittered_sample_stays_in_its_bin(lindisp: bool, seed: int, n: int):
    near, far = _f64([0.5, 2.0, 1.0]), _f64([1.5, 6.0, 1e3])
    even = sampling.stratified(near, far, n, lindisp)
    found = sampling.stratified(near, far, n, lindisp, _generator(seed))
    middles = (even[:, 1:] + even[:, :-1]) / 2
    assert (found >= torch.cat([near[:, None], middles], -1)).all()
    assert (found <= torch.cat([middles, even[:, -1:]], -1)).all()
    assert (found.diff(dim=-1) >= 0).all()


def test_jitter_fills_each_bin_evenly_and_each_ray_on_its_own():
    n_rays, n = 4000, 4
    near, far = torch.full((n_rays,), 2.0, dtype=torch.float64), torch.full((n_rays,), 8.0, dtype=torch.float64)
    found = sampling.stratified(near, far, n, generator=_generator())
    edges = _f64([2.0, 3.0, 5.0, 7.0, 8.0])
    share = (found - edges[:-1]) / edges.diff()  # uniform in [0, 1] if unbiased
    np.testing.assert_allclose(share.mean(0), 0.5, atol=5 / np.sqrt(12 * n_rays))
    np.testing.assert_allclose(share.var(0), 1 / 12, rtol=0.1)
    correlations = np.corrcoef(share.T)[np.triu_indices(n, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(n_rays)
    assert len(found[:, 1].unique()) == n_rays


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_seed_repeats_and_precision_stays(dtype: torch.dtype):
    near, far = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
    draws = [sampling.stratified(near, far, 5, generator=_generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].dtype == dtype


# importance


def _slow_inverse(t_vals: np.ndarray, weights: np.ndarray, u: float) -> float:
    """Where the cumulated weights reach u, bin by bin."""
    edges = [(t_vals[i] + t_vals[i + 1]) / 2 for i in range(len(t_vals) - 1)]
    mass = [w + 1e-5 for w in weights[1:-1]]
    left = u * sum(mass)
    for i, m in enumerate(mass):
        if left <= m:
            return edges[i] + (edges[i + 1] - edges[i]) * left / m
        left -= m
    return edges[-1]


@given(seed=SEEDS, s=st.integers(3, 9), n=st.integers(1, 12))
@light
def test_without_a_generator_samples_are_even_steps_of_the_cumulated_weights(seed: int, s: int, n: int):
    rng = np.random.default_rng(seed)
    t_vals, weights = np.cumsum(rng.uniform(0.1, 2, (2, s)), -1), rng.uniform(0.01, 1, (2, s))
    found = sampling.importance(_f64(t_vals), _f64(weights), n)
    for i in range(2):
        slow = [_slow_inverse(t_vals[i], weights[i], u) for u in np.linspace(0, 1, n)]
        np.testing.assert_allclose(found[i], slow, rtol=0, atol=1e-9)


def test_random_samples_follow_the_weights():
    t_vals, weights = _f64([0.0, 1.0, 2.5, 3.0, 5.0, 6.0, 6.5]), _f64([9.0, 1.0, 0.0, 4.0, 2.0, 3.0, 9.0])
    n = 20_000
    found = np.sort(sampling.importance(t_vals, weights, n, _generator()).numpy())
    edges = np.array([0.5, 1.75, 2.75, 4.0, 5.5, 6.25])
    share = np.array([1.0, 0.0, 4.0, 2.0, 3.0]) / 10
    cdf = np.interp(found, edges, np.concatenate([[0], np.cumsum(share)]))
    furthest = np.abs(cdf - (np.arange(n) + 0.5) / n).max()  # Kolmogorov and Smirnov's distance
    assert furthest < 1.95 / np.sqrt(n)  # passed by 999 of 1000 honest samples
    counts = np.histogram(found, edges)[0]
    assert (np.abs(counts - n * share) <= 5 * np.sqrt(n * share) + 1).all()


def test_random_samples_differ_between_rays_and_repeat_with_the_seed():
    t_vals, weights = _f64([[0.0, 1.0, 2.0, 3.0]] * 2), torch.ones(2, 4, dtype=torch.float64)
    found = sampling.importance(t_vals, weights, 5, _generator())
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found, sampling.importance(t_vals, weights, 5, _generator()))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_empty_ray_is_sampled_as_evenly_as_one_of_equal_weights(weight: float):
    t_vals = torch.linspace(1.0, 4.0, 7, dtype=torch.float64)
    found = sampling.importance(t_vals, torch.full_like(t_vals, weight), 11)
    np.testing.assert_allclose(found, np.linspace(1.25, 3.75, 11), atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_samples_gather_around_one_opaque_sample(k: int):
    t_vals = torch.linspace(0.0, 7.0, 8, dtype=torch.float64)
    weights = torch.nn.functional.one_hot(torch.tensor(k), 8).double()
    even = sampling.importance(t_vals, weights, 33)
    assert (even[1:-1] - k).abs().max() <= 0.5
    assert even[1:-1].diff().max() < 1 / 30
    drawn = sampling.importance(t_vals, weights, 500, _generator())
    assert ((drawn - k).abs() <= 0.5).double().mean() > 0.99


def test_the_first_and_the_last_weight_do_not_count():
    t_vals = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    weights = torch.rand(6, generator=_generator(), dtype=torch.float64)
    ends = torch.tensor([1e3, 0, 0, 0, 0, 1e6], dtype=torch.float64)
    assert torch.equal(sampling.importance(t_vals, weights, 9), sampling.importance(t_vals, weights + ends, 9))


@pytest.mark.parametrize("seed", [None, 0])
@given(exponents=st.lists(st.sampled_from([-45, -30, -10, 0, 10, 30]), min_size=3, max_size=12))
@light
def test_samples_are_finite_and_between_the_middles_whatever_the_weights(seed: int | None, exponents: list[int]):
    weights = torch.tensor([10.0**e for e in exponents], dtype=torch.float32)
    t_vals = torch.linspace(2.0, 6.0, len(exponents))
    generator = None if seed is None else _generator(seed)
    found = sampling.importance(t_vals, weights, 16, generator)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    middles = sampling.midpoints(t_vals)
    assert (found >= middles[0] - 1e-5).all()
    assert (found <= middles[-1] + 1e-5).all()


def test_even_steps_include_the_first_and_the_last_middle_even_of_one_opaque_sample():
    t_vals, weights = torch.linspace(0.0, 5.0, 6), torch.tensor([0.0, 0.0, 1e30, 0.0, 0.0, 0.0])
    found = sampling.importance(t_vals, weights, 5)
    assert found.tolist() == [0.5, 1.75, 2.0, 2.25, 4.5]


def test_two_samples_have_one_middle():
    found = sampling.importance(_f64([1.0, 3.0]), _f64([0.3, 0.7]), 4, _generator())
    assert found.tolist() == [2.0] * 4


def test_positions_carry_no_gradient():
    t_vals = torch.linspace(0.0, 1.0, 6).requires_grad_()
    weights = torch.rand(6, generator=_generator()).requires_grad_()
    assert not sampling.importance(t_vals, weights, 4).requires_grad
    assert not sampling.importance(t_vals, weights, 4, _generator()).requires_grad


# union and middles


@given(seed=SEEDS, s=st.integers(1, 6), n=st.integers(1, 6))
@light
def test_a_union_holds_both_sets_in_order(seed: int, s: int, n: int):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, s)), rng.normal(size=(2, n))
    expected = np.sort(np.concatenate([a, b], -1), -1)
    assert np.array_equal(sampling.union(_f64(a), _f64(b)), expected)


def test_a_middle_is_as_far_from_both_neighbors():
    t_vals = _f64([[0.0, 1.0, 4.0], [2.0, 2.0, 3.0]])
    assert sampling.midpoints(t_vals).tolist() == [[0.5, 2.5], [2.0, 2.5]]
