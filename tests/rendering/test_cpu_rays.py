"""The kernel of operations on rays against its reference: values, gradients, NaN, and where it applies."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.core.types import FeatureOutput, FieldOutput, Rays
from enerf.fields import hash_space
from enerf.fields.backends import cpu_density
from enerf.rendering import cpu_rays, render
from enerf.rendering.ray_functions import COMPILED, REFERENCE
from enerf.rendering.render import SamplingConfig
from tests import analytic

pytestmark = pytest.mark.skipif(not cpu_rays.available(), reason="no C++ compiler made the kernel")
light = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 2**31)
BOTH = (COMPILED, REFERENCE)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _rays(n: int, seed: int) -> Rays:
    g = _generator(seed)
    directions = torch.randn(n, 3, generator=g)
    near = torch.rand(n, generator=g)
    viewdirs = directions / directions.norm(dim=-1, keepdim=True)
    return Rays(torch.randn(n, 3, generator=g), directions, viewdirs, near, near + 4 * torch.rand(n, generator=g))


def _edges(n: int, s: int, g: torch.Generator) -> Tensor:
    """Edges of which a fifth are repeated."""
    steps = torch.rand(n, s + 1, generator=g) * (torch.rand(n, s + 1, generator=g) < 0.8)
    return steps.cumsum(-1)


def _densities(n: int, s: int, g: torch.Generator) -> Tensor:
    """Densities of all magnitudes, a third of them 0."""
    magnitude = 10 ** (torch.rand(n, s, generator=g) * 16 - 6)
    return magnitude * (torch.rand(n, s, generator=g) < 0.67)


def _same(found: Tensor, expected: Tensor, rtol: float = 2e-5, atol: float = 1e-6) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, equal_nan=True)


def _composited(density: Tensor, values: Tensor, edges: Tensor, rays: Rays) -> list[Tensor]:
    """All sums of ``composite``, and the gradients of a random linear function of them."""
    density, values = density.clone().requires_grad_(), values.clone().requires_grad_()
    t_vals = 0.3 * edges[:, 1:] + 0.7 * edges[:, :-1]
    outputs = cpu_rays.composite(density, values, edges, rays.directions, t_vals)
    g = _generator(7)
    loss = sum((out * torch.randn(out.shape, generator=g)).sum() for out in outputs)
    return [x.detach() for x in (*outputs, *torch.autograd.grad(loss, (density, values)))]


def _double(rays: Rays) -> Rays:
    return Rays(**{name: value.double() for name, value in vars(rays).items()})


@given(n=st.integers(0, 5), s=st.integers(1, 40), channels=st.integers(1, 20), seed=SEEDS)
@example(n=5, s=33, channels=3, seed=0)
@example(n=5, s=24, channels=16, seed=0)
@example(n=2, s=cpu_rays.MAX_SAMPLES, channels=cpu_rays.MAX_CHANNELS, seed=0)
@light
def test_compositing_equals_the_reference_in_float64_with_all_gradients(n, s, channels, seed):
    g, rays = _generator(seed), _rays(n, seed)
    density, edges = _densities(n, s, g), _edges(n, s, g)
    values = torch.randn(n, s, channels, generator=g)
    found = _composited(density, values, edges, rays)
    exact = _composited(density.double(), values.double(), edges.double(), _double(rays))
    for a, b in zip(found, exact, strict=True):
        scale = float(b.abs().max()) if b.numel() else 0.0  # gradients reach the length of the last interval, 1e10
        _same(a, b.float(), atol=1e-5 + 1e-6 * scale)


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("features", [0, 5, 16])
def test_pixels_are_those_of_the_reference(white, features):
    rays, g = _rays(5, 0), _generator(0)
    density, values = _densities(5, 9, g), torch.rand(5, 9, features or 3, generator=g)
    density[1] = 0  # an empty ray
    decode = lambda mean, viewdirs: torch.sigmoid(mean[:, :3] + viewdirs)  # noqa: E731
    field = FeatureOutput(density, values, decode) if features else FieldOutput(density, values)
    edges = _edges(5, 9, _generator(1))
    found, expected = (
        use.composite_intervals(field, edges, rays.directions, white, None, rays.viewdirs) for use in BOTH
    )
    for a, b in zip(vars(found).values(), vars(expected).values(), strict=True):
        _same(a, b)


@given(n=st.integers(1, 5), s=st.integers(1, 40), seed=SEEDS)
@light
def test_weights_equal_the_reference_even_where_they_are_tiny(n, s, seed):
    g, rays = _generator(seed), _rays(n, seed)
    edges, found = _edges(n, s, g), []
    given_density, upstream = _densities(n, s, g), torch.randn(n, s, generator=g)
    for use, dtype in zip(BOTH, (torch.float32, torch.float64), strict=True):
        density = given_density.to(dtype).requires_grad_()
        weights = use.weights(density, edges.to(dtype), rays.directions.to(dtype))
        found.append((weights.detach(), *torch.autograd.grad((weights * upstream.to(dtype)).sum(), density)))
    (weights, grad), (weights_exact, grad_exact) = found
    normal = weights_exact > 1e-30
    assert torch.allclose(weights[normal].double(), weights_exact[normal], rtol=3e-5, atol=0)
    assert (weights[~normal] <= 1e-29).all()
    _same(grad, grad_exact.float(), atol=1e-5 + 1e-6 * float(grad_exact.abs().max()))


@pytest.mark.parametrize("density", [0.0, 1e-38, 1e20, 3e38])
def test_extreme_densities_have_finite_weights_and_gradients(density):
    edges, directions = torch.tensor([[0.0, 1.0, 1.0, 2.0]]), torch.tensor([[0.0, 0.0, 3.0]])
    given_density = torch.full((1, 3), density, requires_grad=True)
    weights = COMPILED.weights(given_density, edges, directions)
    (grad,) = torch.autograd.grad(weights.sum(), given_density)
    assert torch.isfinite(weights).all()
    assert torch.isfinite(grad).all()
    _same(weights, REFERENCE.weights(given_density, edges, directions))


@pytest.mark.parametrize("jittered", [False, True])
@given(n=st.integers(0, 5), m=st.integers(1, 40), count=st.integers(1, 40), seed=SEEDS)
@example(n=2, m=cpu_rays.MAX_SAMPLES, count=cpu_rays.MAX_SAMPLES, seed=0)
@light
def test_resampled_edges_equal_the_reference_with_the_same_random_numbers(jittered, n, m, count, seed):
    g = _generator(seed)
    edges = _edges(n, m, g)
    weights = torch.rand(n, m, generator=g) ** 8 * (torch.rand(n, m, generator=g) < 0.7)
    generators = [_generator(1) if jittered else None for _ in BOTH]
    found = [use.resample(edges, weights, count, each) for use, each in zip(BOTH, generators, strict=True)]
    # where the cumulated weights are flat, their rounding is multiplied by 1 / PADDING
    _same(*found, rtol=1e-4, atol=1e-4 * max(1.0, float(edges.max()) if n else 0.0))
    assert (found[0].diff(dim=-1) >= -1e-5).all()
    if jittered:
        assert torch.equal(torch.rand(3, generator=generators[0]), torch.rand(3, generator=generators[1]))


@given(n=st.integers(1, 5), fine=st.integers(1, 40), m=st.integers(1, 40), seed=SEEDS, shared=st.booleans())
@example(n=2, fine=cpu_rays.MAX_SAMPLES, m=cpu_rays.MAX_SAMPLES, seed=0, shared=False)
@example(n=1, fine=23, m=4, seed=17654, shared=False)
@light
def test_the_interlevel_loss_and_its_gradient_equal_the_reference(n, fine, m, seed, shared):
    g = _generator(seed)
    edges = _edges(n, m, g)
    edges_fine = edges.clone() if shared else _edges(n, fine, g)
    w_fine = torch.rand(n, edges_fine.shape[1] - 1, generator=g) * (torch.rand(n, 1, generator=g) < 0.7)
    given_weights, found = torch.rand(n, m, generator=g) / m, []
    for use, dtype in zip(BOTH, (torch.float32, torch.float64), strict=True):
        weights = given_weights.to(dtype).requires_grad_()
        loss = use.interlevel_loss(edges_fine.to(dtype), w_fine.to(dtype), edges.to(dtype), weights)
        found.append((loss.detach(), *torch.autograd.grad(3 * loss, weights)))
    (loss, grad), (expected, expected_grad) = found
    _same(loss, expected.float())
    _same(grad, expected_grad.float(), atol=1e-5 * max(1.0, m / 64))  # long sums along a ray


@given(n=st.integers(1, 5), s=st.integers(1, 40), seed=SEEDS)
@light
def test_edges_and_points_equal_the_reference(n, s, seed):
    rays = _rays(n, seed)
    found = [use.uniform_edges(rays.near, rays.far, s, generator=_generator(3)) for use in BOTH]
    _same(*found)
    (t_vals, points), (t_expected, expected) = (use.at_middles(rays, found[1]) for use in BOTH)
    _same(t_vals, t_expected)
    _same(points, expected)


def test_exponential_densities_equal_the_reference_over_all_magnitudes_with_gradients():
    raw = torch.cat([torch.linspace(-120, 60, 4001), torch.tensor([16.0, 16.0001, 1e30, -math.inf])])
    found = []
    for use in (cpu_density.to_density, hash_space.to_density):
        x = raw.clone().requires_grad_()
        density = use(x, "exp")
        found.append((density.detach(), *torch.autograd.grad(density.sum(), x)))
    for a, b in zip(*found, strict=True):
        _same(a, b, rtol=1e-6, atol=1e-37)
    assert cpu_density.to_density(raw.double(), "exp").dtype == torch.float64
    assert cpu_density.to_density(torch.tensor([math.nan]), "exp").isnan()


def test_a_nan_density_reaches_every_output_and_the_loss():
    rays, g = _rays(2, 0), _generator(0)
    edges, values = _edges(2, 4, g), torch.rand(2, 4, 3, generator=g)
    density = torch.ones(2, 4)
    density[1, 2] = math.nan
    found = _composited(density, values, edges, rays)
    expected = _composited(density.double(), values.double(), edges.double(), _double(rays))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.isnan(), b.isnan())
    assert all(found[i][1].isnan().any() for i in range(4))
    weights = COMPILED.weights(density, edges, rays.directions)
    sample_edges = COMPILED.resample(edges, weights, 5, _generator())
    assert sample_edges[1].isnan().any()
    assert COMPILED.interlevel_loss(sample_edges, weights[:, :1].expand(2, 5), edges, weights).isnan()


def test_results_are_the_same_for_any_number_of_threads():
    def run() -> list[Tensor]:
        g, rays = _generator(0), _rays(257, 0)
        edges = COMPILED.uniform_edges(rays.near, rays.far, 19, generator=g)
        density, values = _densities(257, 19, g), torch.rand(257, 19, 3, generator=g)
        parts = _composited(density, values, edges, rays)
        fine = COMPILED.resample(edges, parts[0], 13, g)
        loss = COMPILED.interlevel_loss(fine, torch.rand(257, 13, generator=g), edges, parts[0])
        raw = torch.randn(997, generator=g)
        return [*parts, fine, loss, *COMPILED.at_middles(rays, fine), cpu_density.to_density(raw, "exp")]

    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(run())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for others in found[1:] for a, b in zip(found[0], others, strict=True))


def test_where_the_kernel_does_not_apply_the_reference_is_called(monkeypatch):
    monkeypatch.setattr(cpu_rays, "_call", lambda *args: pytest.fail("the kernel was called"))
    rays, g = _rays(3, 0), _generator(0)
    edges, density = _edges(3, 4, g), _densities(3, 4, g)
    moved = rays.directions.clone().requires_grad_()
    assert COMPILED.weights(density, edges, moved).requires_grad
    assert COMPILED.weights(density.double(), edges.double(), rays.directions.double()).dtype == torch.float64
    assert COMPILED.weights(density[None], edges[None], rays.directions[None]).shape == (1, 3, 4)
    assert COMPILED.weights(density[0], edges[0], rays.directions[0]).shape == (4,)
    assert COMPILED.resample(edges, density, 5, knee=1.0).shape == (3, 6)
    assert COMPILED.uniform_edges(rays.near, rays.far, 4).shape == (3, 5)
    assert COMPILED.at_middles(replace(rays, directions=moved), edges)[1].requires_grad
    wide = torch.zeros(3, 4, cpu_rays.MAX_CHANNELS + 1)
    assert cpu_rays.composite(density, wide, edges, rays.directions, density)[1].shape == (3, wide.shape[-1])


def test_arrays_that_do_not_belong_together_never_reach_the_kernel():
    rays, g = _rays(3, 0), _generator(0)
    edges, density = _edges(3, 4, g), _densities(3, 4, g)
    for wrong in (edges[:, :-2], edges[:2], torch.cat([edges, edges])):
        with pytest.raises((RuntimeError, TypeError)):
            COMPILED.weights(density, wrong, rays.directions)
        with pytest.raises((RuntimeError, TypeError, IndexError)):
            COMPILED.interlevel_loss(wrong, density, edges, density)


def test_second_derivatives_are_refused():
    rays, g = _rays(2, 0), _generator(0)
    density = torch.rand(2, 4, generator=g, requires_grad=True)
    weights = COMPILED.weights(density, _edges(2, 4, g), rays.directions)
    (slope,) = torch.autograd.grad(weights.square().sum(), density, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        slope.sum().backward()


class _Fog(torch.nn.Module):
    """A soft ball of a trainable density."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, points: Tensor, viewdirs: Tensor) -> FieldOutput:
        out = analytic.SoftBall()(points, viewdirs)
        return FieldOutput(self.scale * out.density, out.rgb)


@pytest.mark.parametrize("seed", [None, 5])
def test_renderings_and_gradients_of_fields_equal_those_of_the_reference(seed):
    found = []
    for compiled in (True, False):
        coarse, fine, config = _Fog(), _Fog(), SamplingConfig(24, 16, proposal=True, compiled=compiled)
        first, seen = render.render_rays(coarse, fine, _rays(9, 1), config, None if seed is None else _generator(seed))
        loss = first.weights.square().sum() + seen.rgb.sum() + seen.depth.sum()
        grads = torch.autograd.grad(loss, [coarse.scale, fine.scale])
        found.append([*vars(first).values(), *vars(seen).values(), *grads])
    for a, b in zip(*found, strict=True):
        _same(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", ["meta", None])
def test_the_default_device_of_the_process_does_not_matter(device):
    rays, edges = _rays(4, 0), _edges(4, 6, _generator(1))
    weights = torch.rand(4, 6, generator=_generator(2))
    expected = COMPILED.uniform_edges(rays.near, rays.far, 5, generator=_generator(3))
    resampled = COMPILED.resample(edges, weights, 3, _generator(4))
    torch.set_default_device(device)
    try:
        found = COMPILED.uniform_edges(rays.near, rays.far, 5, generator=_generator(3))
        again = COMPILED.resample(edges, weights, 3, _generator(4))
    finally:
        torch.set_default_device(None)
    assert torch.equal(found, expected)
    assert torch.equal(again, resampled)
