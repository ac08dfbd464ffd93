"""Textures of pages: what is drawn, how much of it, and what a browser decodes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import features

from enerf.core.types import Camera
from enerf.export import planes_page
from enerf.export.planes_page import Thinned
from enerf.rendering.planes import blocks, reference
from enerf.rendering.planes.stack import CELLS, PlaneStack, assemble
from tests.export.stacks import forward_scene, large
from tests.rendering.planes import stacks


def whole(stack: PlaneStack) -> Thinned:
    return planes_page.thinned(stack, forward_scene(), 1e6)


def layers(thin: Thinned, camera: Camera) -> float:
    return blocks.layers(thin.stack, thin.drawn, camera)


def test_few_textures_are_encoded_without_losses():
    stack = large(5, 2, 2)
    stack.tiles[..., 3].clamp_(min=planes_page.FAINTEST)
    assert torch.equal(planes_page.encode(whole(stack)).shown.stack.tiles, stack.tiles)


@pytest.mark.parametrize("has_avif", [False, True])
def test_decoded_textures_are_near_the_stored_ones(monkeypatch, has_avif):
    if has_avif and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    monkeypatch.setattr(planes_page.features, "check", lambda name: has_avif)
    stack = large(5, 2, 2)
    found = planes_page.encode(whole(stack), 95).shown.stack.tiles
    assert found.shape == stack.tiles.shape
    assert (found.float() - stack.tiles.float()).abs().mean() < (2 if has_avif else 4)


def test_transparent_blocks_are_not_drawn():
    stack = large(2, 2, 2)
    stack.tiles[0, :9, :9, 3] = 0
    stack.tiles[1, ..., 3] = 0
    thin = whole(stack)
    assert len(thin.stack.tiles) == len(stack.tiles) - 1
    assert not thin.drawn[0, 0, 0]
    assert thin.drawn.sum() == thin.drawn.numel() - 1


def test_without_blocks_left_out_the_picture_is_that_of_the_planes():
    stack = large(4, 2, 3)
    rays_of_all = planes_page.rays.of_image(Camera(50, 40, 40.0, 40.0, 25.0, 20.0), stacks.POSE.float(), 0, 1)
    found, expected = planes_page.render(whole(stack), rays_of_all), reference.render(stack, rays_of_all)
    for name in ("rgb", "depth", "opacity"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-6, rtol=0)


def test_layers_are_the_mean_number_of_textures_along_rays():
    stack = large(4, 3, 4)
    stack.tiles[5:9, :17, :, 3] = 0  # two rows of blocks; their last texels belong to the next block
    camera = Camera(48, 40, 40.0, 42.0, 20.0, 22.0)
    thin = whole(stack)
    opaque = replace(thin.stack, tiles=torch.full_like(stack.tiles, 255))
    count = torch.zeros(480 * 400)
    fine = Camera(480, 400, 400.0, 420.0, 200.0, 220.0)
    for plane in range(4):
        index = torch.where(torch.arange(4)[:, None, None] == plane, opaque.index, -1)
        only = Thinned(replace(opaque, index=index), thin.drawn)
        count += planes_page.render(only, planes_page.rays.of_image(fine, stacks.POSE.float(), 0, 1)).opacity
    assert abs(layers(thin, camera) - float(count.mean())) < 0.02


def test_thinning_leaves_the_layers_asked_for_and_what_is_seen_most():
    scene = forward_scene()
    textures = torch.zeros(6, 2 * CELLS + 1, 2 * CELLS + 1, 4, dtype=torch.uint8)
    textures[..., 3] = torch.tensor([250, 255, 9, 9, 9, 9])[:, None, None]  # the first two hide the others
    tiles, index = assemble(textures, torch.ones(6, 2, 2, dtype=torch.bool))
    grid = Camera(63, 63, 40.0, 40.0, 31.5, 31.5)
    t_vals = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
    stack = PlaneStack(stacks.POSE, grid, t_vals, tiles, index)
    thin = planes_page.thinned(stack, scene, 2.0)
    assert layers(whole(stack), scene.camera) > 5.9
    assert layers(thin, scene.camera) <= 2.0
    assert thin.stack.t_vals.tolist()[:2] == t_vals.tolist()[:2]


def test_what_cameras_look_at_stays_in_the_middle():
    positions = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0.5]])
    ahead = torch.tensor([0.0, 0, -1]).expand(4, 3)
    assert planes_page.fixed_disparity(positions, ahead) == 0
    assert abs(planes_page.fixed_disparity(positions[:3], torch.tensor([0.0, 0, -4]) - positions[:3]) - 0.25) < 1e-6


def test_the_hull_of_cameras_contains_them():
    points = np.random.default_rng(0).normal(size=(30, 2))
    hull = planes_page.hull(points)
    ends = np.roll(hull, -1, 0)
    for a, b in zip(hull, ends, strict=True):
        assert ((b - a)[0] * (points - a)[:, 1] - (b - a)[1] * (points - a)[:, 0] >= -1e-12).all()
    assert len(planes_page.hull(np.zeros((4, 2)))) == 1
    assert len(planes_page.hull(np.array([[0.0, 0], [1, 1], [2, 2]]))) == 2


def test_a_page_of_planes_has_everything_that_its_script_reads():
    stack, scene = large(3, 2, 2), forward_scene()
    made = planes_page.page(planes_page.encode(whole(stack)), scene.camera, scene.c2w, "title")
    assert set(made.data) == {"index", "blocks", "rgb_0", "alpha_0"}
    assert len(made.data["blocks"]) == 2 * len(stack.tiles)
    low, high = made.meta["range"]
    assert 0 <= low < high <= 1
