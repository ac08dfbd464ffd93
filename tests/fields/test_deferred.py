"""Tests of deferred shading: the field against loops, and its renderings against those of colors at samples."""

import pytest
import torch
from torch import Tensor

from enerf.core.types import FeatureOutput, Rays
from enerf.fields.deferred import DeferredNeRF
from enerf.rendering import render, volume
from enerf.rendering.render import SamplingConfig


def _field(use_viewdirs: bool = True, depth: int = 2, multires_views: int = 1) -> DeferredNeRF:
    sizes = {"features": 5, "color_depth": 2, "color_width": 7}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = DeferredNeRF(depth, 8, 2, multires_views, use_viewdirs, density="exp", **sizes).double()
    with torch.no_grad():
        field.density_head.weight *= 5
    return field


def _uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _rays(n: int) -> Rays:
    directions = _uniform(1, n, 3) - 0.5
    near, far = torch.full((n,), 0.5, dtype=torch.float64), torch.full((n,), 2.0, dtype=torch.float64)
    return Rays(_uniform(2, n, 3), directions, directions / directions.norm(dim=-1, keepdim=True), near, far)


def _points(n: int = 4, s: int = 6) -> tuple[Tensor, Tensor]:
    viewdirs = _uniform(4, n, 3) - 0.5
    return _uniform(3, n, s, 3), viewdirs / viewdirs.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("use_viewdirs", [True, False])
@pytest.mark.parametrize("multires_views", [1, -1])
def test_the_color_of_a_ray_is_that_of_its_mean_feature(use_viewdirs: bool, multires_views: int):
    field = _field(use_viewdirs, multires_views=multires_views)
    points, viewdirs = _points()
    out = field(points, viewdirs)
    edges = _uniform(5, 4, 7).cumsum(-1)
    found = volume.composite_intervals(out, edges, viewdirs, viewdirs=viewdirs)
    for ray in range(4):
        w = found.weights[ray]
        mean = sum(w[k] * out.features[ray, k] for k in range(6)) / w.sum()
        expected = w.sum() * field.color(mean[None], viewdirs[ray][None])[0]
        torch.testing.assert_close(found.rgb[ray], expected, rtol=1e-12, atol=1e-12)


def test_on_an_opaque_surface_it_equals_the_color_of_the_point():
    field = _field()
    points, viewdirs = _points(3, 1)
    out = field(points, viewdirs)
    opaque = FeatureOutput(torch.full_like(out.density, 1e9), out.features, out.decode)
    found = volume.composite(opaque, torch.ones_like(out.density), viewdirs, viewdirs=viewdirs)
    torch.testing.assert_close(found.rgb, out.at_points(viewdirs).rgb[:, 0], rtol=1e-12, atol=0)


def test_colors_of_points_are_those_of_each_point_alone():
    field = _field()
    points, viewdirs = _points()
    found = field(points, viewdirs).at_points(viewdirs)
    for ray, sample in [(0, 0), (3, 2), (1, 5)]:
        alone = field(points[ray, sample][None, None], viewdirs[ray][None]).at_points(viewdirs[ray][None])
        torch.testing.assert_close(found.rgb[ray, sample], alone.rgb[0, 0], rtol=1e-12, atol=0)
        torch.testing.assert_close(found.density[ray, sample], alone.density[0, 0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("white", [False, True])
def test_an_empty_ray_is_background_with_finite_gradients(white: bool):
    features = _uniform(1, 2, 3, 5).requires_grad_()
    density = torch.zeros(2, 3, dtype=torch.float64).requires_grad_()
    _, viewdirs = _points(2)
    out = FeatureOutput(density, features, _field().color)
    found = volume.composite(out, _uniform(2, 2, 3).cumsum(-1), viewdirs, white, viewdirs)
    assert (found.rgb == float(white)).all()
    found.rgb.sum().backward()
    assert torch.isfinite(density.grad).all()
    assert torch.isfinite(features.grad).all()


def test_a_ray_without_batch_is_rendered_as_in_a_batch():
    field = _field()
    points, viewdirs = _points()
    t_vals = torch.arange(points.shape[1], dtype=points.dtype)
    batch = volume.composite(field(points, viewdirs), t_vals.expand(points.shape[:2]), viewdirs, False, viewdirs)
    alone = volume.composite(field(points[0], viewdirs[0]), t_vals, viewdirs[0], False, viewdirs[0])
    torch.testing.assert_close(alone.rgb, batch.rgb[0])


def test_densities_are_those_of_the_field():
    field = _field(depth=6)  # with a skip connection
    points, viewdirs = _points()
    torch.testing.assert_close(field.densities()(points[:, 0]), field(points, viewdirs).density[:, 0])


@pytest.mark.parametrize("proposal", [False, True])
def test_rays_are_rendered_by_coarse_and_fine_fields_and_by_proposals(proposal: bool):
    fields, rays = (_field(), _field(depth=3)), _rays(5)
    config = SamplingConfig(4, 6, proposal=proposal)
    first, final = render.render_rays(*fields, rays, config)
    assert final.rgb.shape == (5, 3)
    assert ((final.rgb >= 0) & (final.rgb <= final.opacity[:, None])).all()
    assert hasattr(first, "rgb") != proposal
    final.rgb.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in fields[1].parameters())
