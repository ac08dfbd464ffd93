"""Batches: reproducible, uniform, small, and each ray has the color of its pixel."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from enerf.core import rng
from enerf.core.types import Camera
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes import poses, rays
from enerf.datasets.scenes.pixels import Pixels
from enerf.datasets.scenes.scene import Scene

N, H, W = 3, 5, 7
CAMERA = Camera(W, H, 9.0, 6.5, 2.75, 3.1)
VIEWS = torch.arange(N)


def _scene(images: torch.Tensor, ndc: bool = False) -> Scene:
    """Pictures of a ring of cameras that look outwards, or down −z for NDC."""
    n, h, w, _ = images.shape
    ring = torch.from_numpy(poses.blender_circle(n))
    forward = torch.eye(4, dtype=torch.float64)[:3].repeat(n, 1, 1)
    forward[:, 0, 3] = torch.arange(n)
    return Scene(
        name="toy",
        images=images,
        c2w=forward if ndc else ring,
        camera=dataclasses.replace(CAMERA, width=w, height=h),
        bounds=torch.tensor([[1.0, 5.0]]).repeat(n, 1),
        image_names=tuple(f"{i}.png" for i in range(n)),
        train=tuple(range(n)),
        test=(),
        near=0 if ndc else 2.0,
        far=1 if ndc else 6.0,
        ndc=ndc,
        forward_facing=ndc,
        world_to_scene=torch.eye(4),
    )


def _coded_images() -> torch.Tensor:
    """Colors that spell (view, x, y)."""
    view, y, x = torch.meshgrid(torch.arange(N), torch.arange(H), torch.arange(W), indexing="ij")
    return torch.stack([view / N, x / W, y / H], -1)


SCENE = _scene(_coded_images())


def _draw(step: int = 0, seed: int = 0, n: int = 64, one_view: bool = False, crop: float = 1.0) -> Pixels:
    generator = rng.generator_for(seed, step)
    return scenes_pixels.random_pixels(VIEWS, (H, W), n, generator, one_view, crop)


def _same(a: Pixels, b: Pixels) -> bool:
    return all(torch.equal(getattr(a, name), values) for name, values in vars(b).items())


def _flat(pixels: Pixels) -> torch.Tensor:
    return (pixels.view * H + pixels.y) * W + pixels.x


# which pixels


def test_a_step_of_a_seed_has_the_same_pixels_whatever_was_drawn_before():
    first = _draw(step=5)
    torch.rand(3)
    assert _same(_draw(step=5), first)


def test_steps_and_seeds_have_streams_of_their_own():
    streams = [(seed, step) for seed in range(12) for step in range(12)]
    seen = {tuple(_flat(_draw(step, seed, n=8)).tolist()) for seed, step in streams}
    assert len(seen) == len(streams)


def test_seed_and_step_are_not_interchangeable():
    assert not _same(_draw(seed=1, step=2), _draw(seed=2, step=1))


def test_every_pixel_is_as_likely_as_any_other():
    expected = 200
    counts = torch.bincount(_flat(_draw(n=expected * N * H * W)), minlength=N * H * W)
    assert len(counts) == N * H * W
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert 50 < chi2 < 180  # 104 degrees of freedom: 104 ± 14; a grid would have 0


def test_only_the_given_views_are_drawn():
    pixels = scenes_pixels.random_pixels(torch.tensor([1, 6]), (H, W), 200, rng.generator_for(0, 0), one_view=False)
    assert set(pixels.view.tolist()) == {1, 6}


def test_one_view_is_one_view_a_step_and_every_view_in_time():
    drawn = [set(_draw(step=step, one_view=True).view.tolist()) for step in range(30)]
    assert all(len(views) == 1 for views in drawn)
    assert set.union(*drawn) == set(range(N))


def test_the_pixels_of_one_view_still_vary():
    assert len(_flat(_draw(one_view=True, n=500)).unique()) == H * W


@pytest.mark.parametrize("crop", [0.9, 0.5, 0.3, 1e-6, 1])
def test_a_crop_is_central_and_reached_to_its_edges(crop: float):
    pixels = _draw(n=2000, crop=crop)
    for values, size in ((pixels.x, W), (pixels.y, H)):
        before, after = int(values.min()), size - 1 - int(values.max())
        assert len(values.unique()) == max(1, int(size * crop)) == size - before - after
        assert 0 <= after - before <= 1


# their rays and colors


@pytest.mark.parametrize("ndc", [False, True])
def test_a_pixel_has_its_ray_of_the_whole_picture(ndc: bool):
    scene, pixels = _scene(_coded_images(), ndc), _draw()
    made = scenes_pixels.rays_of(scene, pixels, 0.5)
    for view in range(N):
        whole = rays.of_image(scene.camera, scene.c2w[view], scene.near, scene.far)
        whole = rays.to_ndc(whole, scene.camera) if ndc else whole
        here = pixels.view == view
        index = (pixels.y * W + pixels.x)[here]
        for name, values in vars(made).items():
            assert torch.equal(values[here], getattr(whole, name)[index]), name


def test_pixel_centers_reach_the_rays():
    scene, pixels = _scene(_coded_images()), _draw()
    corner, center = (scenes_pixels.rays_of(scene, pixels, at).directions for at in (0, 0.5))
    assert not torch.allclose(corner, center)


def test_a_pixel_has_the_color_that_was_photographed_there():
    pixels = _draw()
    view, x, y = (scenes_pixels.colors_of(_scene(_coded_images()), pixels) * torch.tensor([N, W, H])).unbind(-1)
    assert torch.equal(view.round().long(), pixels.view)
    assert torch.equal(x.round().long(), pixels.x)
    assert torch.equal(y.round().long(), pixels.y)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def _levels() -> torch.Tensor:
    """Two pictures of 16 x 16 pixels in which each channel has every byte."""
    ramp = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    return torch.stack([torch.stack([ramp, ramp.flip(0), ramp.T], -1), torch.stack([ramp.T, ramp.flip(1), ramp], -1)])


@pytest.mark.parametrize("device", DEVICES)
def test_bytes_are_the_decoders_floats_bit_for_bit(device: str):
    images = _levels()
    scene = _scene(images.to(device))
    wanted = images.numpy().astype(np.float32) / np.float32(255)
    for view in range(2):
        pixels = scenes_pixels.fixed_pixels(scene, view, 0)
        seen = (scenes_pixels.view_image(scene, view), scenes_pixels.colors_of(scene, pixels).reshape(16, 16, 3))
        assert all(colors.device.type == device and colors.dtype == torch.float32 for colors in seen)
        assert all(np.array_equal(colors.cpu().numpy(), wanted[view]) for colors in seen)


def test_floats_are_as_they_are():
    images = torch.rand(N, H, W, 3, generator=rng.generator_for(0, 0))
    assert torch.equal(scenes_pixels.view_image(_scene(images), 1), images[1])
    assert torch.equal(
        scenes_pixels.colors_of(_scene(images), scenes_pixels.fixed_pixels(_scene(images), 2, 0)),
        images[2].reshape(-1, 3),
    )


class _Sizes(TorchFunctionMode):
    """Notes the size of every tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        parts = result if isinstance(result, tuple | list) else [result]
        sizes = [part.numel() for part in parts if isinstance(part, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return result


@pytest.mark.parametrize("kind", [torch.float32, torch.uint8])
def test_nothing_of_the_size_of_all_rays_is_made(kind: torch.dtype):
    n = 16
    images = torch.zeros(1, dtype=kind).expand(50, 300, 400, 3)  # 18 million values, none of them in memory
    scene = _scene(images, ndc=True)
    with _Sizes() as sizes:
        pixels = scenes_pixels.PixelSampler(scene, range(50)).draw(n, rng.generator_for(0, 0))
        made = scenes_pixels.rays_of(scene, pixels, 0.5)
        colors = scenes_pixels.colors_of(scene, pixels)
    assert len(made) == len(colors) == n
    assert n * 3 <= sizes.largest <= n * 12  # a pose a pixel is the largest


# fixed pixels


def test_fixed_pixels_never_change_and_never_repeat():
    pixels = scenes_pixels.fixed_pixels(SCENE, 1, 20)
    assert _same(scenes_pixels.fixed_pixels(SCENE, 1, 20), pixels)
    assert len(_flat(pixels).unique()) == 20
    assert (pixels.view == 1).all()
    assert _flat(pixels).max() < 2 * H * W


def test_fixed_pixels_of_large_views_are_uniform_and_never_repeat(monkeypatch):
    monkeypatch.setattr(scenes_pixels, "SHUFFLED", 10)
    images = torch.zeros(N, 40, 50, 3)
    scene, counts = _scene(images), torch.zeros(2000)
    for seed in range(400):
        pixels = scenes_pixels.fixed_pixels(scene, 1, 100, seed)
        assert _same(scenes_pixels.fixed_pixels(scene, 1, 100, seed), pixels)
        counts += torch.bincount(pixels.y * 50 + pixels.x, minlength=2000)
        assert len((pixels.y * 50 + pixels.x).unique()) == 100
    quarters = counts.reshape(2, 20, 2, 25).sum((1, 3)) / 400  # 25 expected in each
    assert (quarters - 25).abs().max() < 1


def test_views_and_seeds_have_fixed_pixels_of_their_own():
    chosen = [scenes_pixels.fixed_pixels(SCENE, view, 20, seed) for view in range(2) for seed in range(2)]
    assert len({tuple((p.y * W + p.x).tolist()) for p in chosen}) == 4


@pytest.mark.parametrize("n", [0, H * W, 10 * H * W])
def test_none_or_too_many_means_all_pixels_row_by_row(n: int):
    pixels = scenes_pixels.fixed_pixels(SCENE, 2, n)
    assert (pixels.y * W + pixels.x).tolist() == list(range(H * W))
    assert (pixels.view == 2).all()
