"""Pixels of masked views drawn by counts of segments are those drawn by lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core import rng
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes import usable_pixels
from enerf.datasets.scenes.pixels import PixelSampler
from tests.datasets.scenes.test_pixel_sampler import SIZES, _masks, _scene


@given(
    seed=st.integers(0, 2**31),
    one_view=st.booleans(),
    crop=st.sampled_from([1.0, 0.6]),
    packed=st.booleans(),
    width=st.sampled_from([1, 2, 4, 64]),
)
@settings(max_examples=25, deadline=None)
def test_counts_of_segments_find_the_same_pixels_as_lists(seed, one_view, crop, packed, width):
    sizes = SIZES if packed else [(5, 7)] * 4
    masks = _masks(seed, sizes)
    masks[1] &= False
    masks[0][2, 2] = masks[3][2, 2] = True
    scene = _scene(sizes, masks, packed=packed)
    with pytest.MonkeyPatch.context() as patch:
        listed = PixelSampler(scene, scene.train, crop)
        patch.setattr(scenes_pixels, "LISTED", 0)
        patch.setattr(usable_pixels, "_NARROWEST", width)
        counted = PixelSampler(scene, scene.train, crop)
    a, b = (each.draw(700, rng.generator_for(seed, 1), one_view) for each in (listed, counted))
    assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("view", "x", "y"))
    assert scene.masks[b.view, b.y, b.x].all()
