"""Blocks: which are drawn, which texels they close, which are left out first."""

from dataclasses import replace

import torch

from enerf.core.types import Camera
from enerf.rendering.planes import blocks
from enerf.rendering.planes.stack import CELLS, PlaneStack, assemble
from tests.rendering.planes import stacks

CAMERA = Camera(2 * CELLS, 2 * CELLS, 40.0, 40.0, float(CELLS), float(CELLS))


def opaque(d: int = 1) -> PlaneStack:
    """Planes of 2 x 2 tiles, with the pixels of ``CAMERA`` between the centers of their texels."""
    tiles, index = assemble(
        torch.full((d, 2 * CELLS + 1, 2 * CELLS + 1, 4), 255, dtype=torch.uint8), torch.ones(d, 2, 2, dtype=torch.bool)
    )
    grid = Camera(2 * CELLS + 1, 2 * CELLS + 1, 40.0, 40.0, CELLS + 0.5, CELLS + 0.5)
    return PlaneStack(stacks.POSE, grid, torch.linspace(0.2, 0.9, d, dtype=torch.float64), tiles, index)


def test_a_block_is_drawn_if_the_corner_of_a_cell_is_visible():
    stack = opaque()
    stack.tiles[..., 3] = 0
    stack.tiles[0, 8, 8, 3] = 1  # of the cells on both sides
    stack.tiles[3, 31, 20, 3] = 1
    found = blocks.visible(stack)
    assert found[0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert found[3].nonzero().tolist() == [[3, 2]]
    assert not found[1:3].any()


def test_blocks_cover_the_pixels_of_the_frame():
    area = blocks.areas(opaque(), CAMERA)
    assert area.sum() == CAMERA.width * CAMERA.height
    assert area[0].tolist()[0] == [64.0, 64.0, 64.0, 56.0]
    assert area[0, 3, 3] == 49.0


def test_closed_texels_are_the_corners_of_cells_that_are_not_drawn_in_all_tiles():
    stack, drawn = opaque(), torch.ones(4, 4, 4, dtype=torch.bool)
    drawn[0, 3, 3] = False
    closed = blocks.closed_texels(stack, drawn)
    assert closed[0].sum() == 64
    assert closed[0, 24:, 24:].all()
    assert closed[1].nonzero().tolist() == [[y, 0] for y in range(24, 32)]  # the copies beside it
    assert closed[2].nonzero().tolist() == [[0, x] for x in range(24, 32)]
    assert closed[3].nonzero().tolist() == [[0, 0]]


def test_texels_at_a_tile_that_is_left_out_are_closed():
    stack = opaque().only(torch.tensor([True, False, True, True]))
    closed = blocks.closed_texels(stack, torch.ones(3, 4, 4, dtype=torch.bool))
    assert closed[0, :, 31].all()
    assert closed[2, 0].all()
    assert not closed[1, 1:].any()


def test_where_closed_texels_are_transparent_no_other_block_is_visible():
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        stack = opaque(2)
        drawn = torch.rand(8, 4, 4, generator=random) < 0.6
        tiles = stack.tiles.clone()
        tiles[..., 3] *= ~blocks.closed_texels(stack, drawn)
        assert not (blocks.visible(replace(stack, tiles=tiles)) & ~drawn).any()


def test_the_least_seen_blocks_are_left_out_until_few_enough_are_drawn():
    stack = opaque(2)
    weights = torch.rand(8, 32, 32, generator=torch.Generator().manual_seed(0))
    weights[1, 24:] = 0.0
    drawn = torch.ones(8, 4, 4, dtype=torch.bool)
    area = float(blocks.areas(stack, CAMERA)[1, 3].sum()) / CAMERA.width**2
    left = blocks.fewer(stack, drawn, weights, CAMERA, 2 - 0.9 * area)
    assert (~left).nonzero().tolist() == [[1, 3, x] for x in range(4)]
    assert torch.equal(blocks.fewer(stack, drawn, weights, CAMERA, 2.0), drawn)
    assert blocks.layers(stack, blocks.fewer(stack, drawn, weights, CAMERA, 0.5), CAMERA) <= 0.5
