"""Pictures with interpolated smooth parts: exact where they differ, means of their corners where they do not."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core.types import Rays, Rendering
from enerf.rendering import interpolation, render
from enerf.rendering.render import SamplingConfig
from tests import analytic


def image_rays(height: int, width: int) -> Rays:
    """Parallel rays through the pixels of an image; origins are (x, y, 0)."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    origins = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3)
    along = torch.tensor([0.0, 0.0, -1.0]).expand_as(origins)
    return Rays(origins, along, along, torch.zeros(len(origins)), torch.ones(len(origins)))


def shown(color, depth=lambda x, y: torch.ones_like(x), seen=None):
    """A renderer of colors and depths that are functions of x and y; it counts its rays in ``seen``."""

    def guided(rays: Rays, weights):
        x, y, _ = rays.origins.unbind(-1)
        if seen is not None:
            seen.append((torch.stack([x, y], -1), weights))
        rgb = color(x, y)[:, None].expand(-1, 3)
        given = torch.stack([x, y], -1) if weights is None else weights
        return Rendering(rgb, depth(x, y), torch.ones_like(x), given, given), given

    return guided


sizes = st.integers(1, 9)
light = settings(max_examples=30, deadline=None)


@given(sizes, sizes, st.integers(1, 7))
@light
def test_every_pixel_of_a_rough_image_is_rendered_once(height, width, chunk):
    seen: list = []
    color = lambda x, y: ((x * 7 + y * 3) % 5) / 5 + 0.01 * x  # noqa: E731
    found, rendered = interpolation.picture(
        shown(color, seen=seen), image_rays(height, width), height, width, chunk, 0.0
    )
    rays = image_rays(height, width)
    exact = color(rays.origins[:, 0], rays.origins[:, 1])
    assert torch.equal(found.rgb[rendered, 0], exact[rendered])
    assert sorted(map(tuple, torch.cat([at for at, _ in seen]).tolist())) == sorted(
        map(tuple, rays.origins[rendered, :2].tolist())
    )


@given(sizes, sizes, st.floats(-0.01, 0.01), st.floats(-0.01, 0.01))
@light
def test_a_linear_image_is_interpolated_exactly_and_its_last_even_row_and_column_are_rendered(height, width, a, b):
    color, depth = (lambda x, y: 0.5 + a * x + b * y), (lambda x, y: 2 + b * x + a * y)
    found, rendered = interpolation.picture(shown(color, depth), image_rays(height, width), height, width, 100, 0.1)
    x, y, _ = image_rays(height, width).origins.unbind(-1)
    torch.testing.assert_close(found.rgb[:, 1], color(x, y), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.depth, depth(x, y), rtol=0, atol=1e-5)
    grid = rendered.reshape(height, width)
    expected = torch.zeros(height, width, dtype=torch.bool)
    expected[::2, ::2] = True
    expected[height - 1 :: 2 if height % 2 == 0 else height, :] |= height % 2 == 0
    expected[:, width - 1 :: 2 if width % 2 == 0 else width] |= width % 2 == 0
    assert torch.equal(grid, expected)


@pytest.mark.parametrize("which", ["color", "depth"])
def test_pixels_beside_an_edge_are_rendered(which):
    edge = lambda x, y: (x > 5.5).float() * 0.5 + 0.2  # noqa: E731
    flat = lambda x, y: torch.full_like(x, 0.4)  # noqa: E731
    guided = shown(edge, flat) if which == "color" else shown(flat, edge)
    found, rendered = interpolation.picture(guided, image_rays(9, 13), 9, 13, 100, 0.1)
    x, y, _ = image_rays(9, 13).origins.unbind(-1)
    torch.testing.assert_close(found.rgb[:, 0], (edge if which == "color" else flat)(x, y))
    torch.testing.assert_close(found.depth, (flat if which == "color" else edge)(x, y))
    assert rendered.reshape(9, 13)[:, 4:6].all()
    assert 0.25 < rendered.float().mean() < 0.5


def test_weights_of_proposals_are_means_of_their_corners_and_values_that_are_not_finite_are_rendered():
    seen: list = []
    bad = lambda x, y: torch.where((x == 4) & (y == 2), torch.nan, 0.3)  # noqa: E731
    _, rendered = interpolation.picture(shown(bad, seen=seen), image_rays(7, 9), 7, 9, 4, 0.1)
    assert rendered.reshape(7, 9)[0:4, 2:6].all()
    for at, weights in seen:
        if weights is not None:
            torch.testing.assert_close(weights, at)  # weights are the positions, which are linear


def test_guided_by_its_own_weights_a_rendering_is_that_of_the_reference():
    coarse, fine = analytic.Wall(-0.7, density=4.0), analytic.Wall(-0.7, density=4.0)
    rays = image_rays(3, 4)
    rays = dataclasses.replace(rays, origins=rays.origins * 0.1, far=rays.far * 2)
    config = SamplingConfig(8, 6, proposal=True)
    first, expected = render.render_rays(coarse, fine, rays, config)
    found, weights = render.render_guided(coarse, fine, rays, config)
    again, _ = render.render_guided(coarse, fine, rays, config, weights)
    assert torch.equal(weights, first.weights)
    for each in (found, again):
        assert all(torch.equal(getattr(each, name), getattr(expected, name)) for name in ("rgb", "depth", "weights"))
