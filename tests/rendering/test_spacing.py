"""Piecewise spacing of samples: even in t before the knee, in 1/t beyond; half of infinity lies on each side."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core.types import Rays
from enerf.rendering import empty_space, proposal, render, sampling, volume
from enerf.rendering.render import SamplingConfig
from tests import analytic

light = settings(max_examples=30, deadline=None)
KNEES, SEEDS = st.floats(0.1, 10), st.integers(0, 2**31)


def _f64(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _rays(near: float = 0.1, far: float = 1e6, n: int = 5, dtype: torch.dtype = torch.float64) -> Rays:
    origins = torch.zeros(n, 3, dtype=dtype)
    across = torch.linspace(-0.3, 0.3, n, dtype=dtype)
    directions = torch.stack([across, 0.1 * across, -torch.ones(n, dtype=dtype)], -1)
    ends = torch.full((n,), 1.0, dtype=dtype)
    return Rays(origins, directions, torch.nn.functional.normalize(directions, dim=-1), near * ends, far * ends)


@given(t=st.floats(0, 1e8), knee=KNEES)
@light
def test_the_complement_is_undone(t: float, knee: float):
    c = sampling.complement(_f64([t]), knee)
    assert 0 < float(c) <= 1
    assert (float(c) > 0.5) == (t < knee) or float(c) == 0.5
    np.testing.assert_allclose(sampling.from_complement(c, knee), [t], rtol=1e-9, atol=1e-12 * knee)


@given(near=st.floats(0, 1), length=st.floats(0.01, 1e6), knee=KNEES, n=st.integers(2, 40))
@light
def test_samples_are_even_in_the_complement(near: float, length: float, knee: float, n: int):
    found = sampling.stratified(_f64([near]), _f64([near + length]), n, knee=knee)
    steps = sampling.complement(found, knee).diff(dim=-1)
    np.testing.assert_allclose(steps, steps.mean(-1, keepdim=True).expand_as(steps), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found[0, [0, -1]], [near, near + length], rtol=1e-9, atol=1e-9)


@given(near=st.floats(0.1, 1), length=st.floats(0.01, 3), seed=SEEDS)
@light
def test_a_knee_beyond_far_is_linear(near: float, length: float, seed: int):
    ends = _f64([near]), _f64([near + length])
    piecewise, linear = (
        sampling.stratified(*ends, 9, generator=_generator(seed), knee=knee) for knee in (near + length + 1, 0.0)
    )
    np.testing.assert_allclose(piecewise, linear, rtol=1e-12, atol=1e-12)


@given(seed=SEEDS, far=st.sampled_from([1.0, 100.0, 1e6, 1e30]))
@light
def test_jittered_edges_increase_and_single_precision_holds(seed: int, far: float):
    near, far_end = torch.full((4,), 0.1), torch.full((4,), far)
    edges = proposal.uniform_edges(near, far_end, 64, generator=_generator(seed), knee=2.0)
    weights = torch.rand(4, 64, generator=_generator(seed))
    fine = proposal.resample(edges, weights, 32, _generator(seed), knee=2.0)
    middles = sampling.middles(fine, 2.0)
    for values in (edges, fine):
        assert values.isfinite().all()
        assert (values.diff(dim=-1) >= 0).all()
        assert (values >= 0.0999).all()
        assert (values <= far * 1.0001).all()
    assert ((middles >= fine[:, :-1] * 0.9999) & (middles <= fine[:, 1:] * 1.0001)).all()


def test_half_of_the_samples_lie_before_the_knee():
    t_vals = sampling.stratified(_f64([0.0]), _f64([1e9]), 101, knee=3.0)
    assert int((t_vals < 2.999).sum()) == 50


@given(seed=SEEDS)
@light
def test_fine_samples_follow_the_weights_in_the_spacing(seed: int):
    t_vals = sampling.stratified(_f64([0.1]), _f64([1e6]), 40, knee=2.0)
    weights = torch.rand(1, 40, generator=_generator(seed), dtype=torch.float64)
    found = sampling.importance(t_vals, weights, 25, knee=2.0)
    spaced = sampling.importance(-sampling.complement(t_vals, 2.0), weights, 25)
    np.testing.assert_allclose(-sampling.complement(found, 2.0), spaced, rtol=1e-9, atol=1e-12)
    assert (found.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("config", [SamplingConfig(64, 32, proposal=True, knee=2.0), SamplingConfig(64, 32, knee=2.0)])
@pytest.mark.parametrize("distance", [1.0, 8.0, 100.0])
def test_a_wall_is_found_at_any_distance(config: SamplingConfig, distance: float):
    wall, rays = analytic.Wall(-distance, density=1e4), _rays()
    _, seen = render.render_rays(wall, wall, rays, config)
    torch.testing.assert_close(seen.opacity, torch.ones(5, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    spaced = sampling.complement(seen.depth, 2.0) - sampling.complement(_f64([distance]), 2.0)
    assert spaced.abs().max() < 1.5 / 64


@pytest.mark.parametrize("proposed", [True, False])
def test_values_and_gradients_are_finite_to_a_million_times_near(proposed: bool):
    rays, raw = _rays(0.05, 5e4, dtype=torch.float32), torch.zeros((), requires_grad=True)

    def fog(points: torch.Tensor, viewdirs: torch.Tensor):
        return analytic.Fog(1.0)(points, viewdirs).__class__(
            torch.exp(raw).expand(points.shape[:-1]), torch.ones_like(points) * torch.sigmoid(raw)
        )

    _, seen = render.render_rays(fog, fog, rays, SamplingConfig(32, 16, proposal=proposed, knee=2.0))
    (seen.rgb.sum() + seen.depth.sum()).backward()
    assert raw.grad.isfinite()
    assert seen.depth.isfinite().all()


def test_skipping_of_empty_space_uses_the_same_samples():
    ball, rays = analytic.SoftBall((0.0, 0.0, -3.0), 0.5, 30.0), _rays()
    config = SamplingConfig(64, 32, knee=2.0)
    exact = render.render_rays(ball, ball, rays, config)[1].rgb
    torch.testing.assert_close(empty_space.render_rays(ball, ball, rays, config, 1e-4).rgb, exact, rtol=0, atol=2e-3)


def test_widths_of_piecewise_intervals_are_those_of_their_edges():
    rays = _rays()
    edges = proposal.uniform_edges(rays.near, rays.far, 16, knee=2.0)
    widths = volume.widths(edges, rays.directions)[:, :-1]
    expected = edges.diff(dim=-1)[:, :-1] * rays.directions.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(widths, expected)
