"""Masked pixels and transparent ones, in scenes of one and of several sizes and orientations."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enerf.core import images, rng
from enerf.datasets.scenes import formats, transparency
from enerf.datasets.scenes import masks as scene_masks
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.on_demand_images import OnDemandImages
from enerf.datasets.scenes.packed_images import PackedImages
from enerf.datasets.scenes.resized_files import Photo
from enerf.datasets.scenes.settings import SceneSettings
from enerf.datasets.scenes.storage import Limits
from tests.contents import refusal
from tests.datasets.scenes import photographed
from tests.datasets.scenes.photographed import OFF_CENTER, OPENCV, PLAIN

N = 4
FULL = SceneSettings(factor=1, llffhold=2, pose_check=False, near=2.0, far=20.0)


def _scene(folder, cameras, masks, kind="transforms"):
    """A scene with masks: arrays of booleans, or None."""
    posed = photographed.described(folder, cameras, photographed.forward(len(cameras)), n_points=3)
    files = []
    for i, mask in enumerate(masks):
        files.append(None if mask is None else folder / "masks" / f"{i}.png")
        if mask is not None:
            images.write_png(files[-1], (mask * 255).astype(np.uint8))
    photographed.write(replace(posed, masks=tuple(files)), kind)
    return folder


def _load(folder, kind="transforms", **options):
    return formats.load(kind, folder, replace(FULL, **options))


def _blobs(seed, width, height):
    rng_ = np.random.default_rng(seed)
    return np.hypot(*np.meshgrid(np.arange(width) - rng_.uniform(0, width), np.arange(height) - 5)) > 4


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("factor", [1, 2])
def test_masks_are_those_of_the_files_and_nothing_masked_is_drawn(several, factor, tmp_path):
    cameras = photographed.of_sizes(OFF_CENTER, N) if several else (OFF_CENTER,) * N
    masks = [None if i == 1 else _blobs(i, camera.width, camera.height) for i, camera in enumerate(cameras)]
    scene = _load(_scene(tmp_path, cameras, masks), factor=factor)
    assert isinstance(scene.masks, PackedImages) == several
    for view, mask in enumerate(masks):
        height, width = scene.size(view)
        found = scenes_pixels.view_mask(scene, view).numpy()
        assert found.shape == (height, width)
        if mask is None:
            assert found.all()
            continue
        covered = -images.downsample(-mask[..., None].astype(np.float32), (width, height))[..., 0]
        assert np.array_equal(found, covered > 1 - 1e-4)  # no part of the pixel is masked
    for one_view in (False, True):
        drawn = scenes_pixels.PixelSampler(scene, scene.train).draw(2000, rng.generator_for(0, 0), one_view)
        assert scene.masks[drawn.view, drawn.y, drawn.x].all()
    assert _load(tmp_path, factor=factor, use_masks=False).masks is None


@pytest.mark.parametrize("factor", [1, 2])
def test_white_is_ignored_in_masks_of_instant_ngp(factor, tmp_path):
    masks = [None if i == 1 else _blobs(i, 24, 18) for i in range(N)]
    wanted = _load(_scene(tmp_path / "named", (PLAIN,) * N, masks), factor=factor)
    folder = _scene(tmp_path / "beside", (PLAIN,) * N, [None] * N)
    for i, mask in enumerate(masks):
        if mask is not None:
            images.write_png(folder / "images" / f"dynamic_mask_{i:02d}.png", (~mask * 3).astype(np.uint8))
    found = _load(folder, factor=factor)
    assert torch.equal(found.masks, wanted.masks)
    assert not found.masks.all()
    assert _load(folder, factor=factor, use_masks=False).masks is None
    listed = [path.name for path in formats.input_files("transforms", folder, replace(FULL, factor=factor))]
    assert "dynamic_mask_00.png" in listed


@pytest.mark.parametrize("factor", [1, 2])
def test_pixels_beyond_the_picture_of_a_fisheye_are_masked(factor, tmp_path):
    folder = _scene(tmp_path, (photographed.FISHEYE,) * N, [None] * N)
    content = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").write_text(json.dumps({**content, "fisheye_crop_radius": 8}))
    scene = _load(folder, factor=factor)
    x, y = np.meshgrid(np.arange(22 // factor) + 0.5 - 11 / factor, np.arange(20 // factor) + 0.5 - 10 / factor)
    assert np.array_equal(scenes_pixels.view_mask(scene, 1).numpy(), np.hypot(x, y) < 8 / factor)
    assert _load(folder, use_masks=False).masks is None


@pytest.mark.parametrize("kind", ["mapped", "on demand"])
@pytest.mark.parametrize("source", ["files", "sizes", "cameras"])
def test_masks_that_do_not_fit_in_memory_are_the_same(source, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("ENERF_CACHE", str(tmp_path / "cache"))
    folded = replace(OPENCV, coefficients=(-0.9, 0.0, 0.0, 0.0))  # without rays in its corners
    cameras = {"files": (PLAIN,) * N, "sizes": photographed.of_sizes(OFF_CENTER, N), "cameras": (folded, PLAIN) * 2}
    masks = [
        _blobs(i, c.width, c.height) if source != "cameras" and i != 1 else None for i, c in enumerate(cameras[source])
    ]
    folder = _scene(tmp_path / "scene", cameras[source], masks)
    wanted = _load(folder).masks
    if kind == "on demand":
        monkeypatch.setattr("enerf.datasets.scenes.storage.HEADROOM", 1 << 60)
    found = _load(folder, limits=Limits(0, 10**9 if kind == "mapped" else 1)).masks
    assert isinstance(found, OnDemandImages) == (kind == "on demand" and source != "cameras")
    assert source != "cameras" or len(found.pixels) == 2 * PLAIN.width * PLAIN.height
    for view in range(N):
        assert found[view].dtype == torch.bool
        assert torch.equal(found[view], wanted[view])
        y, x = (torch.arange(side) for side in wanted[view].shape[:2])
        at = torch.meshgrid(y, x, indexing="ij")
        assert torch.equal(found[torch.full_like(at[0], view), *at], wanted[view])


@given(data=st.data())
def test_a_mask_of_any_size_excludes_at_least_what_it_masks(data, tmp_path_factory):
    width, height = 2 * data.draw(st.integers(1, 6)), 2 * data.draw(st.integers(1, 6))
    scale = data.draw(st.sampled_from([0.5, 1, 2, 3]))
    wide, tall = max(1, round(width * scale)), max(1, round(height * scale))
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((tall, wide)) < 0.7
    file = tmp_path_factory.getbasetemp() / "mask.png"
    images.write_png(file, (mask * data.draw(st.sampled_from([1, 255]))).astype(np.uint8))
    found = scene_masks.of_file(file, Photo(file, width, height, rotate=False))
    assert found.shape == (height, width)
    rows, columns = np.arange(height), np.arange(width)
    for y in rows:
        for x in columns:
            if wide >= width:
                top, left = int(y * tall / height + 1e-9), int(x * wide / width + 1e-9)
                bottom, right = (
                    int(np.ceil((y + 1) * tall / height - 1e-9)),
                    int(np.ceil((x + 1) * wide / width - 1e-9)),
                )
                assert found[y, x] == mask[top:bottom, left:right].all()
            else:
                assert found[y, x] == mask[int((y + 0.5) * tall / height), int((x + 0.5) * wide / width)]


@pytest.mark.parametrize("on_demand", [False, True])
def test_views_of_which_all_is_masked_are_neither_trained_on_nor_scored(on_demand, tmp_path, caplog, monkeypatch):
    masks = [np.zeros((18, 24), bool) if i in (2, 3) else None for i in range(5)]
    limits = Limits()
    if on_demand:
        monkeypatch.setattr("enerf.datasets.scenes.storage.HEADROOM", 1 << 60)
        limits = Limits(0, 1)
    scene = _load(_scene(tmp_path, (PLAIN,) * 5, masks), limits=limits)
    assert isinstance(scene.masks, OnDemandImages) == on_demand
    assert (scene.train, scene.test) == ((1,), (0, 4))
    assert "neither trained on nor scored: images/02.png, images/03.png" in caplog.text
    text = refusal(_load, tmp_path, test_views="02,03")
    assert "masks exclude every pixel of the test views, expected some left" in text
    assert "of the training views" in refusal(_load, tmp_path, test_views="00,01,04")


def test_masks_of_another_shape_are_one_sentence(tmp_path):
    folder = _scene(tmp_path, (PLAIN,) * N, [None, np.ones((24, 18), bool), None, None])
    text = refusal(_load, folder)
    assert text.startswith(
        f"{folder / 'masks' / '1.png'} has 18x24 pixels, expected the shape of its photograph, 24x18"
    )


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_masks_lie_on_raw_pixels_as_their_photographs_do(orientation, tmp_path):
    masks = [_blobs(i, 24, 18) for i in range(N)]
    folder = _scene(tmp_path, (PLAIN,) * N, masks)
    for file in sorted((folder / "images").glob("*.png")):
        pixels, exif = images.to_uint8(images.read(file)), Image.Exif()
        exif[274] = orientation
        Image.fromarray(pixels).save(file, exif=exif)
    for factor in (1, 2, 2):
        scene = _load(folder, factor=factor)
        for view, (mask, pose) in enumerate(zip(masks, photographed.forward(N), strict=True)):
            assert scene.size(view) == (18 // factor, 24 // factor)
            if factor == 1:
                assert np.array_equal(scenes_pixels.view_mask(scene, view).numpy(), mask)
                assert np.array_equal(scene.images[view].numpy(), photographed.photograph(PLAIN, pose))


def test_pixels_without_a_ray_are_masked_with_and_without_masks(tmp_path):
    folded = replace(OPENCV, coefficients=(-0.9, 0.0, 0.0, 0.0))
    mask = _blobs(0, 24, 18)
    folder = _scene(tmp_path, (folded,) * N, [mask, *[None] * (N - 1)])
    found = photographed.world_rays(folded, photographed.forward(1)[0])[2].reshape(18, 24)
    assert not found.all()
    for pixel_centers in (0.5, 0.0):
        scene = _load(folder, pixel_centers=pixel_centers)
        drawn = scenes_pixels.fixed_pixels(scene, 1, 0)
        assert scenes_pixels.rays_of(scene, drawn, pixel_centers).directions.isfinite().all()
    for use in (True, False):
        scene = _load(folder, use_masks=use)
        assert np.array_equal(scenes_pixels.view_mask(scene, 1).numpy(), found)
        assert np.array_equal(scenes_pixels.view_mask(scene, 0).numpy(), found & mask if use else found)
        drawn = scenes_pixels.PixelSampler(scene, range(N)).draw(5000, rng.generator_for(0, 0))
        assert scenes_pixels.rays_of(scene, drawn, 0.5).directions.isfinite().all()


# transparent pixels


def _transparent(folder, cameras):
    """A scene whose odd photographs are transparent on their left."""
    posed = photographed.described(folder, cameras, photographed.around(len(cameras)))
    photographed.write(replace(posed, points=None), "transforms")
    for i, file in enumerate(posed.files):
        if i % 2:
            rgb = images.to_uint8(images.read(file))
            alpha = np.where(np.arange(rgb.shape[1]) < rgb.shape[1] // 2, 0, 255).astype(np.uint8)
            images.write_png(file, np.concatenate([rgb, np.broadcast_to(alpha[:, None], (*rgb.shape[:2], 1))], -1))
    return folder


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("white", [False, True])
def test_transparent_photographs_keep_alpha_or_are_flattened(several, white, tmp_path):
    cameras = photographed.of_sizes(PLAIN, N) if several else (PLAIN,) * N
    folder = _transparent(tmp_path, cameras)
    options = {"near": 0.0, "far": 0.0, "white_bkgd": white}
    kept, flat = (_load(folder, keep_alpha=keep, **options) for keep in (True, False))
    assert (kept.has_alpha, flat.has_alpha) == (True, False)
    for view in range(N):
        raw = images.read(folder / kept.image_names[view])
        wanted = images.composite(raw, white=True) if white else raw[..., :3] * (raw[..., 3:] if view % 2 else 1)
        assert np.allclose(scenes_pixels.view_image(kept, view).numpy(), wanted, atol=1e-6)
        stored = wanted if white else raw[..., :3]
        assert np.allclose(scenes_pixels.view_image(flat, view).numpy(), stored, atol=1e-6)
        pixels = scenes_pixels.fixed_pixels(kept, view, 0)
        colors = scenes_pixels.colors_of(kept, pixels)
        assert torch.equal(colors, scenes_pixels.view_image(kept, view).reshape(-1, 3))
    depth = kept.c2w[:, :, 3].norm(dim=-1)[:, None]
    assert torch.allclose(kept.bounds, depth * torch.tensor([0.5, 1.5]), rtol=0.05)  # an object without background


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from(["rgb", "rgba", "deep"])), min_size=1))
def test_packed_pixels_are_the_stacked_ones_whatever_their_kinds(pictures):
    generator = np.random.default_rng(len(pictures))
    made = []
    for height, width, kind in pictures:
        picture = generator.integers(0, 256, (height, width, 4)).astype(np.float32) / np.float32(255)
        picture = picture + np.float32(1e-3) if kind == "deep" else picture
        made.append(picture.clip(0, 1) if kind == "rgba" else picture[..., :3].clip(0, 1))
    total = sum(picture.shape[0] * picture.shape[1] for picture in made)
    found = images.pack(iter(made), total)
    assert (found.dtype == np.uint8) == all(
        np.array_equal(images.to_uint8(picture).astype(np.float32) / np.float32(255), picture) for picture in made
    )
    assert found.shape == (total, max(picture.shape[-1] for picture in made))
    start = 0
    for picture in made:
        row = images.stack([picture.reshape(1, -1, picture.shape[-1])], (1, 1, picture.shape[0] * picture.shape[1], 3))
        part = found[start : start + row.shape[2]]
        start += row.shape[2]
        values = part.astype(np.float32) / np.float32(255) if part.dtype == np.uint8 else part
        flat = picture.reshape(-1, picture.shape[-1])
        assert np.array_equal(values[:, : flat.shape[1]], flat)
        assert flat.shape[1] == found.shape[1] or (values[:, 3] == 1).all()


def test_more_pixels_than_memory_are_one_sentence(tmp_path):
    text = refusal(transparency.packed, iter([]), 1 << 60, tmp_path, white=False, keep_alpha=True)
    assert text.startswith(f"{tmp_path}: images of {1 << 60} pixels in all: needs")
