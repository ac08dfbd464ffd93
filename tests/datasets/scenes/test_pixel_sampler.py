"""Random pixels of views of several sizes, with masks and crops: uniform over exactly those that may be drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core import rng
from enerf.core.types import Camera
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes import poses
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.packed_images import PackedImages
from enerf.datasets.scenes.pixels import PixelSampler
from enerf.datasets.scenes.scene import Scene
from tests.contents import refusal

SIZES = [(5, 7), (4, 4), (6, 3), (5, 7)]  # height, width


def _coded(view: int, height: int, width: int) -> torch.Tensor:
    """An image whose colors are its view, column and row."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.full_like(x, view), x, y], -1).float()


def _scene(sizes=SIZES, masks=None, *, packed: bool = True) -> Scene:
    n = len(sizes)
    coded = [_coded(view, *size) for view, size in enumerate(sizes)]
    table = Cameras([Camera(width, height, 9.0, 8.0, width / 2, height / 2) for height, width in sizes])
    if masks is not None:
        masks = [mask[..., None] for mask in masks]
        masks = PackedImages.of(masks) if packed else torch.stack(masks)
    return Scene(
        name="toy",
        images=PackedImages.of(coded) if packed else torch.stack(coded),
        c2w=torch.from_numpy(poses.blender_circle(n)),
        camera=table.camera(0),
        bounds=torch.tensor([[1.0, 5.0]]).repeat(n, 1),
        image_names=tuple(f"{i}.png" for i in range(n)),
        train=tuple(range(n)),
        test=(),
        near=2.0,
        far=6.0,
        ndc=False,
        forward_facing=False,
        world_to_scene=torch.eye(4),
        view_cameras=table,
        masks=masks,
    )


def _masks(seed: int, sizes=SIZES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(size, generator=generator) < 0.4 for size in sizes]


def _central(size: tuple[int, int], crop: float) -> torch.Tensor:
    inside = torch.zeros(size, dtype=torch.bool)
    (tall, wide) = (max(1, int(side * crop)) for side in size)
    top, left = (size[0] - tall) // 2, (size[1] - wide) // 2
    inside[top : top + tall, left : left + wide] = True
    return inside


def _counts(pixels, sizes=SIZES) -> list[torch.Tensor]:
    """How often each pixel of each view was drawn."""
    counts = [torch.zeros(size, dtype=torch.int64) for size in sizes]
    for view, count in enumerate(counts):
        here = pixels.view == view
        count.index_put_((pixels.y[here], pixels.x[here]), torch.tensor(1), accumulate=True)
    return counts


@pytest.mark.parametrize("crop", [1.0, 0.6])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_all_pixels_that_may_be_drawn_are_equally_likely_and_no_others_are_drawn(seed, crop):
    masks = None if seed is None else _masks(seed)
    views = (0, 1, 2)
    allowed = [_central(size, crop) for size in SIZES[:3]]
    allowed = allowed if masks is None else [a & m for a, m in zip(allowed, masks, strict=False)]
    total, expected = sum(int(a.sum()) for a in allowed), 300
    drawn = PixelSampler(_scene(masks=masks), views, crop).draw(expected * total, rng.generator_for(3, 0))
    counts = _counts(drawn)
    assert int(counts[3].sum()) == 0
    assert all(int(count[~a].sum()) == 0 for count, a in zip(counts, allowed, strict=False))
    values = torch.cat([count[a] for count, a in zip(counts, allowed, strict=False)])
    chi2, freedom = float(((values - expected) ** 2 / expected).sum()), total - 1
    assert abs(chi2 - freedom) < 4.5 * np.sqrt(2 * freedom)  # and a grid would have 0


@pytest.mark.parametrize("masked", [False, True])
def test_one_view_is_one_view_a_step_each_as_likely_and_its_pixels_are_equally_likely(masked):
    masks = _masks(5) if masked else None
    sampler, steps, n = PixelSampler(_scene(masks=masks), range(4)), 400, 60
    drawn = [sampler.draw(n, rng.generator_for(0, step), one_view=True) for step in range(steps)]
    assert all(len(pixels.view.unique()) == 1 for pixels in drawn)
    views = torch.bincount(torch.stack([pixels.view[0] for pixels in drawn]), minlength=4)
    assert float(((views - steps / 4) ** 2 / (steps / 4)).sum()) < 20  # 3 degrees of freedom
    for view, size in enumerate(SIZES):
        allowed = torch.ones(size, dtype=torch.bool) if masks is None else masks[view]
        count = sum(_counts(pixels)[view] for pixels in drawn)
        assert int(count[~allowed].sum()) == 0
        values = count[allowed].double()
        chi2, freedom = float(((values - values.mean()) ** 2 / values.mean()).sum()), len(values) - 1
        assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 50), one_view=st.booleans(), crop=st.sampled_from([1.0, 0.5, 1e-9]))
@settings(max_examples=50)
def test_drawn_pixels_exist_and_have_their_colors_and_no_masked_one_is_drawn(seed, n, one_view, crop):
    generator = np.random.default_rng(seed)
    sizes = [tuple(generator.integers(1, 7, 2).tolist()) for _ in range(int(generator.integers(1, 5)))]
    masks = None if seed % 2 else _masks(seed, sizes)
    scene = _scene(sizes, masks)
    usable = sum(int((_central(s, crop) & (masks[i] if masks else True)).sum()) for i, s in enumerate(sizes))
    if not usable:
        assert "masks exclude every pixel of the training views" in refusal(
            PixelSampler, scene, range(len(sizes)), crop
        )
        return
    drawn = PixelSampler(scene, range(len(sizes)), crop).draw(n, rng.generator_for(seed, 0), one_view)
    colors = scenes_pixels.colors_of(scene, drawn)
    assert torch.equal(colors, torch.stack([drawn.view, drawn.x, drawn.y], -1).float())
    assert all(drawn.x < scene.cameras.sizes[drawn.view, 0]), drawn
    assert masks is None or all(masks[v][y, x] for v, y, x in zip(drawn.view, drawn.y, drawn.x, strict=True))
    assert len(drawn.view) == n


def test_views_of_one_size_without_masks_are_drawn_as_always_whatever_holds_their_pixels():
    sizes = [(5, 7)] * 4
    scenes = [_scene(sizes, packed=packed) for packed in (True, False)]
    for crop, one_view in ((1.0, False), (1.0, True), (0.5, True)):
        for scene in scenes:
            drawn = PixelSampler(scene, (0, 2, 3), crop).draw(40, rng.generator_for(9, 1), one_view)
            wanted = scenes_pixels.random_pixels(
                torch.tensor([0, 2, 3]), (5, 7), 40, rng.generator_for(9, 1), one_view, crop
            )
            assert all(torch.equal(getattr(drawn, name), value) for name, value in vars(wanted).items())


def test_a_step_of_one_size_draws_views_then_columns_then_rows_as_runs_of_earlier_versions_did():
    generator = torch.Generator().manual_seed(1234)
    view = torch.randint(3, (6,), generator=generator)
    x = 2 + torch.randint(3, (6,), generator=generator)  # central 3 of 7
    y = 1 + torch.randint(2, (6,), generator=generator)  # central 2 of 5
    scene = _scene([(5, 7)] * 3, packed=False)
    drawn = PixelSampler(scene, range(3), 0.5).draw(6, torch.Generator().manual_seed(1234))
    assert torch.equal(torch.stack([drawn.view, drawn.x, drawn.y]), torch.stack([view, x, y]))


def test_a_mask_of_all_pixels_draws_what_no_mask_would_allow():
    ones = [torch.ones(size, dtype=torch.bool) for size in SIZES]
    masked, free = _scene(masks=ones), _scene()
    for one_view in (False, True):
        a, b = (PixelSampler(s, range(4), 0.7).draw(99, rng.generator_for(0, 7), one_view) for s in (masked, free))
        assert all(torch.equal(getattr(a, name), value) for name, value in vars(b).items())


def test_views_without_pixels_are_left_out_and_none_at_all_is_one_sentence():
    masks = _masks(0)
    masks[0][:], masks[1][:] = False, False
    scene = _scene(masks=masks)
    drawn = PixelSampler(scene, range(4)).draw(200, rng.generator_for(0, 0))
    assert set(drawn.view.tolist()) == {2, 3}
    text = refusal(PixelSampler, scene, (0, 1), 0.5)
    assert text.startswith("toy: masks exclude every pixel of the training views in the central 0.5 of their width")
    assert "central" not in refusal(PixelSampler, scene, (0, 1))


@pytest.mark.parametrize("packed", [True, False])
def test_fixed_pixels_are_some_or_all_of_those_that_are_not_masked(packed):
    sizes = SIZES if packed else [(5, 7)] * 3
    masks = _masks(2, sizes)
    scene = _scene(sizes, masks, packed=packed)
    for view, mask in enumerate(masks):
        allowed = mask.flatten().nonzero()[:, 0].tolist()
        for n in (0, len(allowed), 99):
            every = scenes_pixels.fixed_pixels(scene, view, n)
            assert (every.y * sizes[view][1] + every.x).tolist() == allowed
        some = scenes_pixels.fixed_pixels(scene, view, 2)
        flat = (some.y * sizes[view][1] + some.x).tolist()
        assert len(set(flat)) == min(2, len(allowed))
        assert set(flat) <= set(allowed)
    nothing = replace(scene, masks=PackedImages.of([~m[..., None] & m[..., None] for m in masks]))
    assert len(scenes_pixels.fixed_pixels(nothing, 0, 5).view) == 0


def test_the_mask_of_a_view_is_that_of_its_pixels():
    masks = _masks(1)
    scene = _scene(masks=masks)
    assert all(torch.equal(scenes_pixels.view_mask(scene, view), mask) for view, mask in enumerate(masks))
    assert scenes_pixels.view_mask(_scene(), 0) is None
