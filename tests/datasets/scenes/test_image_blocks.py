"""Blocks of images depend on seed and step alone, hold the views that they say, and pass over all of them."""

from dataclasses import replace

import pytest
import torch

from enerf.core import rng
from enerf.core.errors import InputError
from enerf.datasets.scenes import image_blocks
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.image_blocks import ImageBlocks
from enerf.datasets.scenes.on_demand_images import OnDemandImages
from enerf.datasets.scenes.pixels import PixelSampler
from tests.datasets.scenes.test_pixel_sampler import SIZES, _masks, _scene

MANY = SIZES * 3


def _on_demand(scene, opened=None):
    """The scene with images, and masks if there are any, that are read when they are used."""
    opened = [] if opened is None else opened
    sizes = torch.tensor([scene.size(view) for view in range(len(scene.c2w))])

    def read_of(stored):
        def read(view):
            opened.append(view)
            return stored[view]

        return read

    found = replace(scene, images=OnDemandImages(read_of(scene.images), sizes, 3, scene.images.dtype))
    if scene.masks is None:
        return found
    return replace(found, masks=OnDemandImages(read_of(scene.masks), sizes, 1, torch.bool))


def _drawn(blocks, step, scene, n=300, crop=1.0):
    pixels = blocks.at(step, crop).draw(n, rng.generator_for(7, step))
    colors = scenes_pixels.colors_of(blocks.scene, pixels)
    assert torch.equal(colors, scenes_pixels.colors_of(scene, pixels))  # coded: view, column, row
    return pixels


@pytest.mark.parametrize("kind", ["in memory", "on demand", "masked", "masked on demand"])
@pytest.mark.parametrize("every", [1, 3])
def test_pixels_are_those_of_the_views_of_the_block(kind, every):
    scene = _scene(MANY, _masks(0, MANY) if "masked" in kind else None)
    source = _on_demand(scene) if "demand" in kind else scene
    blocks = ImageBlocks(source, scene.train, 4, every, 5, (1.0, 0.6))
    seen = set()
    for step in range(3 * len(MANY)):
        views = blocks.views_at(step)
        assert len(set(views)) == 4
        pixels = _drawn(blocks, step, scene, crop=0.6 if step % 5 == 0 else 1.0)
        assert set(pixels.view.tolist()) <= set(views)
        if scene.masks is not None:
            assert scene.masks[pixels.view, pixels.y, pixels.x].all()
        seen |= set(pixels.view.tolist())
    assert seen == set(range(len(MANY)))


@pytest.mark.parametrize("masked", [False, True])
def test_a_step_has_the_same_pixels_wherever_training_begins(masked):
    scene = _scene(MANY, _masks(1, MANY) if masked else None)

    def pixels_from(start):
        blocks = ImageBlocks(_on_demand(scene), scene.train, 5, 2, 3)
        return {step: _drawn(blocks, step, scene) for step in range(start, 20)}

    whole, resumed = pixels_from(0), pixels_from(11)
    for step, found in resumed.items():
        assert all(torch.equal(getattr(found, name), getattr(whole[step], name)) for name in ("view", "x", "y"))


def test_a_block_of_all_views_is_sampling_from_all_views():
    scene = _scene(MANY)
    blocks = ImageBlocks(_on_demand(scene), scene.train, len(MANY), 1, 0)
    for step in (0, 9):
        found = _drawn(blocks, step, scene)
        wanted = PixelSampler(scene, scene.train).draw(300, rng.generator_for(7, step))
        assert all(torch.equal(getattr(found, name), getattr(wanted, name)) for name in ("view", "x", "y"))


def test_the_next_images_are_read_once_and_no_others():
    opened = []
    scene = _on_demand(_scene(MANY), opened)
    blocks = ImageBlocks(scene, scene.train, 3, 10, 0)
    for step in range(20):
        blocks.at(step)
    blocks._pool.shutdown(wait=True)
    assert len(opened) == len(set(opened))
    assert 4 <= len(opened) <= 4 + blocks._ahead


def test_a_damaged_photograph_is_an_error_of_the_step_that_needs_it():
    scene = _scene(MANY)

    def read(view):
        if view == 2:
            raise InputError("2.png cannot be read.")
        return scene.images[view]

    sizes = torch.tensor(MANY)
    broken = replace(scene, images=OnDemandImages(read, sizes, 3, torch.float32))
    blocks = ImageBlocks(broken, scene.train, 2, 1, 0)
    step = 0
    while 2 not in blocks.views_at(step):
        blocks.at(step)
        step += 1
    with pytest.raises(InputError, match=r"2\.png"):
        blocks.at(step)


def test_capacity_and_pace_follow_the_sizes_of_the_images():
    scene = _scene([(1000, 1500)] * 4)
    assert image_blocks.capacity_of(scene, scene.train, 3 * 1000 * 1500 * 3 * 4) == 3
    assert image_blocks.capacity_of(scene, scene.train, 1) == 1
    assert image_blocks.capacity_of(scene, scene.train, 10**12) == 4
    assert image_blocks.steps_of(scene, scene.train, torch.device("cpu")) == 6
    assert image_blocks.steps_of(scene, scene.train, torch.device("cuda")) == 2
    assert image_blocks.steps_of(_scene(), range(4), torch.device("cpu")) == 1
