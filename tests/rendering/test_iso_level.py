"""The chosen iso value gives the surface at the rays' median depth, whatever the unit of density."""

import pytest
import torch

from enerf.rendering import iso_level

DOWN = torch.tensor([[0.0, 0.0, -2.0]], dtype=torch.float64)


def rays(n: int = 64, samples: int = 401, seed: int = 0):
    """Positions on [1, 3], and where each ray meets a surface."""
    generator = torch.Generator().manual_seed(seed)
    t_vals = torch.linspace(1, 3, samples, dtype=torch.float64).expand(n, samples)
    return t_vals, 1.5 + torch.rand(n, 1, generator=generator, dtype=torch.float64), DOWN.expand(n, 3)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_of_a_hard_surface_any_level_below_its_density_will_do(unit):
    t_vals, at, directions = rays()
    found = iso_level.iso_value_from_rays(500.0 * unit * (t_vals >= at), t_vals, directions / unit)
    assert 0 < found.density < 500 * unit
    assert (found.opaque_share, found.reached_share) == (1.0, 1.0)
    assert found.median_offset < 0.005


def test_fog_before_the_surface_lies_below_the_level():
    t_vals, at, directions = rays()
    density = torch.where(t_vals >= at, 60.0, 0.05)  # the fog stops a tenth of the light
    assert 0.05 < iso_level.iso_value_from_rays(density, t_vals, directions).density <= 60


def test_of_a_soft_surface_the_level_is_reached_where_half_of_the_light_is_stopped():
    t_vals, at, directions = rays()
    density = 50 * torch.sigmoid((t_vals - at) / 0.02)
    found = iso_level.iso_value_from_rays(density, t_vals, directions)
    thickness = (density * 2 * 2 / 400).cumsum(-1)
    there = density.gather(-1, (thickness >= torch.tensor(2.0).log()).int().argmax(-1, keepdim=True))
    assert found.density == pytest.approx(float(there.median()), rel=0.3)
    assert found.median_offset < 0.01


def test_rays_that_see_through_say_nothing():
    t_vals, at, directions = rays()
    density = 500.0 * (t_vals >= at)
    with_holes = torch.cat([density, torch.zeros_like(density)])
    alone = iso_level.iso_value_from_rays(density, t_vals, directions)
    found = iso_level.iso_value_from_rays(with_holes, torch.cat([t_vals] * 2), torch.cat([directions] * 2))
    assert found.density == alone.density
    assert (found.opaque_share, found.n_rays) == (0.5, 128)
    assert iso_level.iso_value_from_rays(torch.zeros_like(density), t_vals, directions) is None
    assert "50 %" in str(found)
