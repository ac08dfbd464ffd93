"""Plane stacks are rendered as by hand, and the kernel does what its reference implementation does."""

import math

import pytest
import torch

from enerf.core.types import Rays
from enerf.rendering.planes import kernel, reference
from enerf.rendering.planes.stack import neighbors
from tests.rendering.planes import stacks


def _rays(n: int = 24, seed: int = 0, spread: float = 0.2) -> Rays:
    """Rays of an image of a camera beside the reference, row by row, of which a few look backwards."""
    camera, generator = stacks.CAMERA, torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-3, 34, n), torch.linspace(-4, 66, n), indexing="ij")
    down = torch.stack([(x - camera.cx) / camera.fx, (camera.cy - y) / camera.fy, -torch.ones_like(x)], -1)
    turned = torch.linalg.matrix_exp(spread * torch.tensor([[0.0, -1, 0.3], [1, 0, 0.1], [-0.3, -0.1, 0]]))
    directions = (down @ turned.T).reshape(-1, 3)
    directions[:3, 2] *= -1
    origins = (spread * torch.randn(3, generator=generator)).expand(n * n, 3)
    zero = torch.zeros(n * n)
    return Rays(origins, directions, directions / directions.norm(dim=1, keepdim=True), zero, zero + 1)


def _constant(colors, t_vals):
    """A stack of planes of one color each."""
    textures = torch.tensor(colors)[:, None, None].expand(-1, 32, 63, 4)
    return stacks.of_textures(textures, t_vals)


def _along(origin, direction) -> Rays:
    o, d = torch.tensor([origin]), torch.tensor([direction])
    zero = torch.zeros(1)
    return Rays(o, d, d, zero, zero + 1)


@pytest.mark.parametrize("render", [reference.render, kernel.render])
def test_two_planes_are_composited_as_by_hand(render):
    stack = _constant([[1.0, 0.0, 0.2, 0.4], [0.0, 1.0, 0.2, 0.6]], [0.5, 0.75])
    found = render(stack, _along([0.0, 0.0, 0.0], [0.0, 0.0, -1.0]))
    assert found.rgb[0].tolist() == pytest.approx([0.4, 0.36, 0.08 + 0.072], abs=1e-6)
    assert float(found.opacity) == pytest.approx(0.76, abs=1e-6)
    assert float(found.depth) == pytest.approx(0.4 * 0.5 + 0.36 * 0.75, abs=1e-6)


@pytest.mark.parametrize("render", [reference.render, kernel.render])
@pytest.mark.parametrize(("origin", "left"), [([0.0, 0.0, -1.9], 0.4), ([0.0, 0.0, -2.1], 0.0), ([0.0, 0.0, 0.5], 0.4)])
def test_a_plane_behind_the_origin_is_left_out(render, origin, left):
    stack = _constant([[1.0, 0.0, 0.0, 0.4], [0.0, 1.0, 0.0, 1.0]], [0.5, 0.75])  # at depths 2 and 4
    assert float(render(stack, _along(origin, [0.0, 0.0, -1.0])).rgb[0, 0]) == pytest.approx(left, abs=1e-6)


@pytest.mark.parametrize("render", [reference.render, kernel.render])
@pytest.mark.parametrize("t", [0.5, 0.9, 1.0])
def test_one_plane_is_where_a_ray_cast_by_hand_meets_it(render, t):
    ramp = torch.linspace(0, 1, 63)[None, :, None].expand(32, -1, 4).clone()
    ramp[..., 3] = 1
    stack = stacks.of_textures(ramp[None], [t])
    origin, direction = [0.1, 0.05, 0.2], [0.2, -0.1, -1.5]
    camera, disparity = stacks.CAMERA, 1 - t
    if disparity:
        s = (1 / disparity + origin[2]) / 1.5
        point = [o + s * d for o, d in zip(origin, direction, strict=True)]
        x = camera.cx - 0.5 + camera.fx * point[0] / -point[2]
    else:
        x = camera.cx - 0.5 + camera.fx * direction[0] / 1.5
    assert float(render(stack, _along(origin, direction)).rgb[0, 0]) == pytest.approx(x / 62, abs=2e-3)


def test_rays_that_do_not_look_forward_see_the_background():
    stack = stacks.random()
    for render in (reference.render, kernel.render):
        found = render(stack, _along([0.0, 0.0, 0.0], [0.1, 0.0, 1.0]))
        assert (found.rgb.sum(), found.opacity.sum(), found.depth.sum()) == (0, 0, 0)


@pytest.mark.parametrize("white", [False, True])
def test_the_kernel_renders_what_the_reference_implementation_does(white, two_threads):
    made = stacks.random(5)
    stack = type(made)(**{**vars(made), "white": white})
    found, expected = (render(stack, _rays()) for render in (kernel.render, reference.render))
    for name in ("rgb", "depth", "opacity"):
        assert float((getattr(found, name) - getattr(expected, name)).abs().max()) < 1 / 255
    assert float(expected.opacity.mean()) > 0.5


def test_the_kernels_gradient_is_that_of_the_reference_implementation(two_threads):
    stack, rays = stacks.random(4, seed=2), _rays(40)
    tiles = stack.tiles.float() / 255 * 0.9
    generator = torch.Generator().manual_seed(3)
    target, share = torch.rand(1600, 3, generator=generator), torch.rand(1600, generator=generator)
    found, expected = torch.zeros_like(tiles), torch.zeros_like(tiles)
    loss = kernel.descend(stack, tiles, rays, 40, target, share, found)
    assert loss == pytest.approx(kernel._descend(stack, tiles, rays, target, share, expected), rel=1e-4)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    assert float(expected.abs().max()) > 1


def test_gradients_do_not_depend_on_the_number_of_threads(two_threads):
    stack, rays = stacks.random(4, seed=2), _rays(40)
    tiles, share = stack.tiles.float() / 255, torch.ones(1600)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(torch.zeros_like(tiles))
        kernel.descend(stack, tiles, rays, 40, torch.zeros(1600, 3), share, results[-1])
    assert torch.equal(*results)


def test_weights_of_texels_are_those_of_the_reference_implementation():
    stack, rays = stacks.random(4, seed=5), _rays()
    tiles = stack.tiles.float() / 255
    found, expected = torch.zeros(tiles.shape[:3]), torch.zeros(tiles.shape[:3])
    kernel.splat(stack, tiles, rays, 24, found)
    reference.splat(stack, tiles, rays, expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1 / 1024)
    assert float(found.max()) > 0.5


def test_steps_and_regularization_are_the_same_without_a_compiler(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    results = []
    begun, slope = torch.rand(3, 32, 32, 4, generator=generator), torch.randn(3, 32, 32, 4, generator=generator)
    for missing in (False, True):
        if missing:
            monkeypatch.setattr(kernel.cpu_build, "library", lambda source: None)
        tiles, gradient = begun.clone(), slope.clone()
        moments = (torch.zeros_like(tiles), torch.zeros_like(tiles))
        kernel.regularize(tiles, gradient, 0.3, 0.2, 0.1)
        changed = gradient.clone()
        for step in (1, 2):
            kernel.adam(tiles, gradient, moments, 0.05, step)
        results.append((changed, tiles))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_texels_that_tiles_share_are_summed_with_and_without_a_compiler(monkeypatch):
    index = torch.arange(4, dtype=torch.int32).reshape(1, 2, 2)
    begun = torch.rand(4, 32, 32, 4, generator=torch.Generator().manual_seed(5))
    found, expected = begun.clone(), begun.clone()
    kernel.join(found, neighbors(index))
    monkeypatch.setattr(kernel.cpu_build, "library", lambda source: None)
    kernel.join(expected, neighbors(index))
    torch.testing.assert_close(found, expected)
    middle = begun[0, -1, -1] + begun[1, -1, 0] + begun[2, 0, -1] + begun[3, 0, 0]
    for tile, y, x in ((0, -1, -1), (1, -1, 0), (2, 0, -1), (3, 0, 0)):
        torch.testing.assert_close(found[tile, y, x], middle)
    torch.testing.assert_close(found[0, 3, -1], begun[0, 3, -1] + begun[1, 3, 0])
    assert torch.equal(found[0, :-1, :-1], begun[0, :-1, :-1])


def test_everything_is_computed_without_a_compiler(monkeypatch):
    monkeypatch.setattr(kernel.cpu_build, "library", lambda source: None)
    stack, rays = stacks.random(), _rays()
    expected = reference.render(stack, rays)
    assert torch.equal(kernel.render(stack, rays).rgb, expected.rgb)
    tiles = stack.tiles.float() / 255
    gradient, largest = torch.zeros_like(tiles), torch.zeros(tiles.shape[:3])
    kernel.splat(stack, tiles, rays, 24, largest)
    assert math.isfinite(kernel.descend(stack, tiles, rays, 24, expected.rgb + 1, torch.ones(576), gradient))
    assert float(gradient.abs().max()) > 0
