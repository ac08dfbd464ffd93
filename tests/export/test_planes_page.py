"""Textures of pages: what is drawn, how much of it, and what a browser decodes."""

import numpy as np
import torch

from enerf.core.types import Camera
from enerf.export import planes_page
from enerf.rendering.planes import kernel, reference
from enerf.rendering.planes.stack import CELLS, PlaneStack, assemble
from tests.export.stacks import forward_scene, large
from tests.rendering.planes import stacks


def test_decoded_textures_are_near_the_stored_ones():
    stack = large(5, 2, 2)
    found = planes_page.encode(stack.tiles, 100).tiles
    assert found.shape == stack.tiles.shape
    assert (found.float() - stack.tiles.float()).abs().mean() < 3


def test_transparent_blocks_stay_transparent():
    tiles = large(2, 2, 2).tiles
    tiles[0, :9, :9, 3] = 0
    drawn = planes_page.drawn(tiles)
    assert not drawn[0, 0, 0]
    assert drawn.sum() == drawn.numel() - 1
    found = planes_page.encode(tiles, 50).tiles
    assert (found[0, :8, :8, 3] == 0).all()


def test_layers_are_the_mean_number_of_textures_along_rays():
    stack = large(4, 3, 4)
    stack.tiles[5:9, :17, :, 3] = 0  # two rows of blocks; their last texels belong to the next block
    camera = Camera(48, 40, 40.0, 42.0, 20.0, 22.0)
    places = torch.stack(torch.meshgrid(torch.arange(480), torch.arange(400), indexing="xy"), -1).reshape(-1, 2)
    at = (places + 0.5) / 10 - torch.tensor([camera.cx, camera.cy])
    grid = stack.camera
    x, y = at[:, 0] / camera.fx * grid.fx + grid.cx - 0.5, at[:, 1] / camera.fy * grid.fy + grid.cy - 0.5
    count = torch.zeros(len(x))
    blocks = planes_page.drawn(stack.tiles)
    for plane in range(4):
        line = torch.stack([x, y, torch.zeros_like(x), torch.zeros_like(x)], 1).double()
        found = reference.samples(stack, plane, line, torch.zeros(len(x)))
        tile, row, column = found.corner // 1024, found.corner % 1024 // 32, found.corner % 32
        count += found.drawn & blocks[tile, row // 8, column // 8]
    assert abs(planes_page.layers(stack, camera) - float(count.mean())) < 0.02


def test_thinning_leaves_the_layers_asked_for_and_what_is_seen_most():
    scene = forward_scene()
    textures = torch.zeros(6, 2 * CELLS + 1, 2 * CELLS + 1, 4, dtype=torch.uint8)
    textures[..., 3] = torch.tensor([250, 255, 9, 9, 9, 9])[:, None, None]  # the first two hide the others
    keep = torch.ones(6, 2, 2, dtype=torch.bool)
    tiles, index = assemble(textures, keep)
    grid = Camera(63, 63, 40.0, 40.0, 31.5, 31.5)
    t_vals = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
    stack = PlaneStack(stacks.POSE, grid, t_vals, tiles, index)
    thin = planes_page.thinned(stack, scene, 2.0)
    assert planes_page.layers(stack, scene.camera) > 5.9
    assert planes_page.layers(thin, scene.camera) <= 2.0
    assert thin.t_vals.tolist()[:2] == t_vals.tolist()[:2]
    assert planes_page.thinned(stack, scene, 6.0) is stack


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
    encoded = planes_page.encode(stack.tiles)
    made = planes_page.page(stack, encoded, scene.camera, scene.c2w[:, :, 3], "title")
    assert set(made.data) == {"index", "blocks", "rgb_0", "alpha_0"}
    assert len(made.data["blocks"]) == 2 * len(stack.tiles)
    low, high = made.meta["range"]
    assert 0 <= low < high <= 1
    picture = kernel.render(stack, planes_page.rays.of_image(scene.camera, stacks.POSE.float(), 0, 1))
    assert picture.opacity.mean() > 0.5
