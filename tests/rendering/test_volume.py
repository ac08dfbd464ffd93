"""Volume rendering, against a loop along the ray."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.core.types import FieldOutput
from enerf.rendering import volume

SEEDS = st.integers(0, 2**31)
light = settings(max_examples=30, deadline=None)
MAGNITUDES = [0.0, 1e-30, 1e-10, 1e-3, 1.0, 1e3, 1e10, 1e30]


def _f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _ray(seed: int, n_rays: int = 2, s: int = 6) -> tuple[FieldOutput, Tensor, Tensor]:
    """A field's answers along some rays, their t values and directions."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    t_vals = (uniform(n_rays, s) + 0.01).cumsum(-1)
    density = 4 * uniform(n_rays, s) * (uniform(n_rays, s) > 0.2)
    return FieldOutput(density, uniform(n_rays, s, 3)), t_vals, uniform(n_rays, 3) - 0.5


# weights


@given(seed=SEEDS, s=st.integers(1, 20))
@light
def test_weights_sum_to_one_minus_the_transmittance_of_all(seed: int, s: int):
    field, t_vals, _ = _ray(seed, s=s)
    found = volume.weights(field.density, t_vals)
    expected = -torch.expm1(-(field.density * t_vals).sum(-1))
    torch.testing.assert_close(found.sum(-1), expected, rtol=0, atol=1e-12)


def test_thin_rays_keep_their_relative_precision():
    found = volume.weights(torch.full((4,), 1e-20), torch.ones(4))
    torch.testing.assert_close(found, torch.full((4,), 1e-20), rtol=1e-6, atol=0)  # 1 − exp(−x) rounds to 0


@given(densities=st.lists(st.sampled_from(MAGNITUDES), min_size=1, max_size=8), delta=st.floats(0, 1e3))
@light
def test_weights_and_their_sum_lie_between_zero_and_one(densities: list[float], delta: float):
    found = volume.weights(torch.tensor(densities), torch.full((len(densities),), delta))
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert found.sum() <= 1 + 1e-6


@given(seed=SEEDS, k=st.integers(0, 5), share=st.floats(0.01, 0.99))
@light
def test_splitting_an_interval_keeps_the_pixel(seed: int, k: int, share: float):
    field, lengths, _ = _ray(seed, n_rays=1)
    density, rgb, delta = field.density[0], field.rgb[0], lengths[0]
    twice = torch.arange(6).repeat_interleave(torch.where(torch.arange(6) == k, 2, 1))
    split = delta[twice].clone()
    split[k], split[k + 1] = share * delta[k], (1 - share) * delta[k]
    whole, halves = volume.weights(density, delta), volume.weights(density[twice], split)
    torch.testing.assert_close(halves @ rgb[twice], whole @ rgb, rtol=0, atol=1e-12)
    torch.testing.assert_close(halves[k] + halves[k + 1], whole[k], rtol=0, atol=1e-12)


@given(density=st.floats(1e-6, 30), s=st.integers(1, 12))
@light
def test_homogeneous_fog_thins_exponentially(density: float, s: int):
    delta = torch.linspace(0.1, 0.9, s, dtype=torch.float64)
    reached = volume.weights(torch.full_like(delta, density), delta).cumsum(-1)
    expected = [1 - math.exp(-density * float(delta[: k + 1].sum())) for k in range(s)]
    torch.testing.assert_close(reached, _f64(*expected), rtol=0, atol=1e-12)


def test_gradients_of_weights_are_right():
    field, t_vals, _ = _ray(0)
    inputs = (field.density + 0.1, t_vals)
    assert torch.autograd.gradcheck(volume.weights, tuple(v.clone().requires_grad_() for v in inputs))


# deltas


def test_deltas_are_lengths_in_scene_units():
    t_vals, directions = _f64(1.0, 1.5, 4.0)[None], _f64(2.0, -3.0, 6.0)[None]
    assert volume.deltas(t_vals, directions).tolist() == [[3.5, 17.5, 7e10]]


@given(seed=SEEDS, scale=st.floats(0.01, 100))
@light
def test_units_of_t_do_not_matter(seed: int, scale: float):
    field, t_vals, directions = _ray(seed)
    one = volume.composite(field, t_vals, directions)
    other = volume.composite(field, t_vals / scale, directions * scale)
    torch.testing.assert_close(other.weights[:, :-1], one.weights[:, :-1], rtol=0, atol=1e-12)
    torch.testing.assert_close(other.depth * scale, one.depth, rtol=1e-12, atol=1e-12)


# pixels


@pytest.mark.parametrize("white_bkgd", [False, True])
@given(seed=SEEDS)
@light
def test_a_pixel_is_what_a_loop_along_its_ray_sees(white_bkgd: bool, seed: int):
    field, t_vals, directions = _ray(seed)
    field = FieldOutput(field.density * (torch.arange(6) < 5), field.rgb)  # the last reaches infinitely far
    found = volume.composite(field, t_vals, directions, white_bkgd)
    for i in range(2):
        left, rgb, depth = 1.0, [0.0] * 3, 0.0
        length = math.sqrt(sum(v * v for v in directions[i].tolist()))
        for k in range(5):
            step = float(t_vals[i, k + 1] - t_vals[i, k]) * length
            seen = left * (1 - math.exp(-float(field.density[i, k]) * step))
            assert math.isclose(found.weights[i, k], seen, abs_tol=1e-12)
            rgb = [value + seen * c for value, c in zip(rgb, field.rgb[i, k].tolist(), strict=True)]
            depth += seen * float(t_vals[i, k])
            left -= seen
        assert found.rgb[i].tolist() == pytest.approx([v + left * white_bkgd for v in rgb], abs=1e-12)
        assert math.isclose(found.depth[i], depth, abs_tol=1e-12)
        assert math.isclose(found.opacity[i], 1 - left, abs_tol=1e-12)
    assert torch.equal(found.t_vals, t_vals)


@given(seed=SEEDS, k=st.integers(0, 5))
@light
def test_an_opaque_sample_gives_its_own_depth_and_color(seed: int, k: int):
    field, t_vals, directions = _ray(seed)
    density = field.density * (torch.arange(6) > k) + 1e12 * (torch.arange(6) == k)
    found = volume.composite(FieldOutput(density, field.rgb), t_vals, directions)
    torch.testing.assert_close(found.depth, t_vals[:, k], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.rgb, field.rgb[:, k], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.opacity, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("white_bkgd", "color"), [(False, 0.0), (True, 1.0)])
def test_nothing_is_transparent_and_shows_the_background(white_bkgd: bool, color: float):
    field, t_vals, directions = _ray(0)
    empty = FieldOutput(torch.zeros_like(field.density), field.rgb)
    found = volume.composite(empty, t_vals, directions, white_bkgd)
    assert (found.rgb == color).all()
    assert (found.opacity == 0).all()
    assert (found.depth == 0).all()


def test_any_density_at_the_end_closes_the_ray():
    field = FieldOutput(_f64(0.0, 0.0, 1e-3)[None], torch.ones(1, 3, 3, dtype=torch.float64))
    found = volume.composite(field, _f64(1.0, 2.0, 3.0)[None], _f64(0.0, 0.0, -1.0)[None])
    assert found.opacity.tolist() == [1.0]
    assert found.depth.tolist() == [3.0]


@pytest.mark.parametrize("white_bkgd", [False, True])
def test_gradients_of_pixels_are_right(white_bkgd: bool):
    field, t_vals, directions = _ray(1)

    def pixel(density: Tensor, rgb: Tensor) -> tuple[Tensor, ...]:
        closed = torch.cat([density, torch.zeros_like(density[:, :1])], -1)  # finite differences of 1e10 say nothing
        seen = volume.composite(FieldOutput(closed, rgb), t_vals, directions, white_bkgd)
        return seen.rgb, seen.depth, seen.opacity

    density = (field.density[:, :-1] + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(pixel, (density, field.rgb.clone().requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(densities=st.lists(st.sampled_from(MAGNITUDES), min_size=2, max_size=8))
@light
def test_pixels_and_gradients_are_finite_for_every_density(dtype: torch.dtype, densities: list[float]):
    density = torch.tensor([densities], dtype=dtype, requires_grad=True)
    rgb = torch.full((1, len(densities), 3), 0.5, dtype=dtype, requires_grad=True)
    t_vals = torch.linspace(2, 6, len(densities), dtype=dtype)[None]
    found = volume.composite(FieldOutput(density, rgb), t_vals, torch.tensor([[0.0, 3.0, -4.0]], dtype=dtype), True)
    (found.rgb.sum() + found.depth.sum() + found.opacity.sum()).backward()
    for values in (*vars(found).values(), density.grad, rgb.grad):
        assert values is not None
        assert values.isfinite().all()
        assert values.dtype == dtype


# intervals


def _edges(t_vals: Tensor) -> Tensor:
    """Edges of as many intervals as there are samples."""
    return torch.cat([torch.zeros_like(t_vals[:, :1]), t_vals], -1)


def test_widths_are_lengths_in_scene_units_and_the_last_has_no_end():
    edges, directions = _f64(1.0, 1.5, 4.0, 5.0)[None], _f64(2.0, -3.0, 6.0)[None]
    assert volume.widths(edges, directions).tolist() == [[3.5, 17.5, 7e10]]
    assert torch.equal(volume.widths(edges, directions), volume.deltas(edges[:, :-1], directions))


@pytest.mark.parametrize("white_bkgd", [False, True])
@given(seed=SEEDS)
@light
def test_a_pixel_of_intervals_is_what_a_loop_along_its_ray_sees(white_bkgd: bool, seed: int):
    field, t_vals, directions = _ray(seed)
    edges = _edges(t_vals)
    found = volume.composite_intervals(field, edges, directions, white_bkgd)
    for i in range(2):
        left, rgb, depth = 1.0, [0.0] * 3, 0.0
        length = math.sqrt(sum(v * v for v in directions[i].tolist()))
        for k in range(6):
            width = float(edges[i, k + 1] - edges[i, k]) if k < 5 else 1e10
            seen = left * (1 - math.exp(-float(field.density[i, k]) * width * length))
            assert math.isclose(found.weights[i, k], seen, abs_tol=1e-12)
            rgb = [value + seen * c for value, c in zip(rgb, field.rgb[i, k].tolist(), strict=True)]
            depth += seen * float(edges[i, k] + edges[i, k + 1]) / 2
            left -= seen
        assert found.rgb[i].tolist() == pytest.approx([v + left * white_bkgd for v in rgb], abs=1e-12)
        assert math.isclose(found.depth[i], depth, abs_tol=1e-12)
        assert math.isclose(found.opacity[i], 1 - left, abs_tol=1e-12)
    torch.testing.assert_close(found.t_vals, (edges[:, 1:] + edges[:, :-1]) / 2, rtol=0, atol=0)


@given(seed=SEEDS, k=st.integers(0, 5), share=st.floats(0.01, 0.99))
@light
def test_a_cut_through_an_interval_keeps_color_and_opacity(seed: int, k: int, share: float):
    field, t_vals, directions = _ray(seed)
    edges = _edges(t_vals)
    cut = (1 - share) * edges[:, k : k + 1] + share * edges[:, k + 1 : k + 2]
    twice = torch.arange(6).repeat_interleave(torch.where(torch.arange(6) == k, 2, 1))
    halves = FieldOutput(field.density[:, twice], field.rgb[:, twice])
    one = volume.composite_intervals(field, edges, directions)
    two = volume.composite_intervals(halves, torch.cat([edges[:, : k + 1], cut, edges[:, k + 1 :]], -1), directions)
    torch.testing.assert_close(two.rgb, one.rgb, rtol=0, atol=1e-12)
    torch.testing.assert_close(two.opacity, one.opacity, rtol=0, atol=1e-12)


@given(seed=SEEDS, scale=st.floats(0.01, 100))
@light
def test_units_of_t_do_not_matter_to_intervals(seed: int, scale: float):
    field, t_vals, directions = _ray(seed)
    one = volume.composite_intervals(field, _edges(t_vals), directions)
    other = volume.composite_intervals(field, _edges(t_vals) / scale, directions * scale)
    torch.testing.assert_close(other.weights[:, :-1], one.weights[:, :-1], rtol=0, atol=1e-12)
    torch.testing.assert_close(other.depth * scale, one.depth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(densities=st.lists(st.sampled_from(MAGNITUDES), min_size=1, max_size=8))
@light
def test_pixels_of_intervals_and_gradients_are_finite_for_every_density(dtype: torch.dtype, densities: list[float]):
    density = torch.tensor([densities], dtype=dtype, requires_grad=True)
    rgb = torch.full((1, len(densities), 3), 0.5, dtype=dtype, requires_grad=True)
    edges = torch.linspace(2, 6, len(densities) + 1, dtype=dtype)[None]
    directions = torch.tensor([[0.0, 3.0, -4.0]], dtype=dtype)
    found = volume.composite_intervals(FieldOutput(density, rgb), edges, directions, True)
    (found.rgb.sum() + found.depth.sum() + found.opacity.sum()).backward()
    for values in (*vars(found).values(), density.grad, rgb.grad):
        assert values is not None
        assert values.isfinite().all()
        assert values.dtype == dtype
