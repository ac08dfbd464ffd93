"""Reading and writing images and videos."""

import gc
import os
import re
import struct
import subprocess
import weakref
import zlib

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin

from enerf.core import files, image_files, images
from enerf.core.errors import InputError
from tests.grids import once

H, W = 12, 16


def _sentence(caught) -> str:
    """The message, after checking that it is one sentence and hides the error behind it."""
    text = str(caught.value)
    assert "\n" not in text
    assert ". " not in text
    assert "\n" not in text
    assert "expected" in text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return text


def _noise(channels=3, dtype=np.uint8, seed=0):
    high = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, high, (H, W, channels)).astype(dtype)


def _png_16(path, pixels):
    """Write a 16-bit PNG of 1 … 4 channels from its definition, with no image library."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    color = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _tiff_16(path, pixels, orientation=1):
    """Write an uncompressed 16-bit RGB TIFF from its definition."""
    data, bits = pixels.astype("<u2").tobytes(), struct.pack("<3H", 16, 16, 16)
    height, width, _ = pixels.shape
    end = 8 + len(data) + len(bits)
    tags = [(256, width), (257, height), (258, None), (259, 1), (262, 2), (273, None), (274, orientation)]
    tags += [(277, 3), (278, height), (279, None), (284, 1)]
    long = {258: (3, 3, 8 + len(data)), 273: (4, 1, 8), 279: (4, 1, len(data))}
    entries = [
        struct.pack("<HHII", tag, *long[tag]) if value is None else struct.pack("<HHIHH", tag, 3, 1, value, 0)
        for tag, value in tags
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, end) + data + bits + directory)


def test_only_visible_pictures_are_listed_by_name(tmp_path):
    for name in (
        "b.PNG",
        "a.jpg",
        "c.JPEG",
        "d.webp",
        "e.tif",
        "._a.jpg",
        ".DS_Store",
        "notes.txt",
        "Thumbs.db",
    ):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [file.name for file in image_files.list_images(tmp_path)] == [
        "a.jpg",
        "b.PNG",
        "c.JPEG",
        "d.webp",
        "e.tif",
    ]


def test_listing_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(InputError) as caught:
        image_files.list_images(tmp_path / "images")
    assert "images cannot be listed (no such file or directory)" in _sentence(caught)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "RGBA", "LA"])
def test_every_color_model_gives_what_a_viewer_shows(mode, tmp_path):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    wanted = "RGBA" if mode in ("RGBA", "LA") else "RGB"
    picture = Image.fromarray(_noise(len(wanted))).convert(mode)
    picture.save(path)
    assert np.array_equal(images.read(path), np.asarray(picture.convert(wanted), np.float32) / np.float32(255))


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_a_transparent_color_becomes_alpha(mode, tmp_path):
    picture = Image.fromarray(_noise(1)[..., 0] // 64).convert(mode)
    key = {"P": 2, "L": 2, "RGB": (2, 2, 2)}[mode]
    picture.save(tmp_path / "a.png", transparency=key)
    index = np.asarray(picture)[..., 0] if mode == "RGB" else np.asarray(picture)
    assert np.array_equal(images.read(tmp_path / "a.png")[..., 3] == 0, index == 2)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_16_bit_png_keeps_its_16_bits(channels, tmp_path):
    pixels = _noise(channels, np.uint16)
    _png_16(tmp_path / "a.png", pixels)
    spread = {1: [0, 0, 0], 2: [0, 0, 0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    assert np.array_equal(np.round(images.read(tmp_path / "a.png") * 65535), pixels[..., spread])


def test_a_16_bit_tiff_keeps_its_16_bits(tmp_path):
    pixels = _noise(3, np.uint16)
    _tiff_16(tmp_path / "a.tif", pixels)
    assert np.array_equal(np.round(images.read(tmp_path / "a.tif") * 65535), pixels)


def test_a_mask_is_where_some_color_is_not_zero(tmp_path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 1, 2], pixels[1, 0, 0], pixels[1, 2] = 1, 255, (0, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert images.read_mask(tmp_path / "a.png").tolist() == [[False, True, False], [True, False, False]]
    Image.fromarray(np.uint8([[0, 1]])).save(tmp_path / "b.png")
    assert images.read_mask(tmp_path / "b.png").tolist() == [[False, True]]


def test_32_bit_pixels_are_refused(tmp_path):
    Image.fromarray(np.ones((H, W), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError) as caught:
        images.read(tmp_path / "a.tif")
    assert "32 bits" in _sentence(caught)


@pytest.mark.parametrize(("orientation", "suffix"), once(range(1, 9), ["png", "webp", "tif"]))
def test_all_exif_orientations_are_applied_or_left(orientation, suffix, tmp_path):
    raw, path = Image.fromarray(_noise()), tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    raw.save(path, exif=exif, lossless=True)
    tagged = raw.copy()
    tagged.getexif()[274] = orientation
    upright = np.asarray(ImageOps.exif_transpose(tagged))
    assert np.array_equal(images.to_uint8(images.read(path)), upright)
    assert np.array_equal(images.to_uint8(images.read(path, rotate=False)), np.asarray(raw))
    assert images.size(path) == (W, H, orientation >= 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_exif_orientations_of_a_16_bit_tiff(orientation, tmp_path):
    raw = _noise(3, np.uint16)
    _tiff_16(tmp_path / "a.tif", raw, orientation)
    _tiff_16(tmp_path / "raw.tif", raw)
    assert np.array_equal(images.read(tmp_path / "a.tif", rotate=False), images.read(tmp_path / "raw.tif"))
    with Image.open(tmp_path / "a.tif") as picture:
        upright = np.asarray(picture)
    assert np.abs(images.read(tmp_path / "a.tif") * 255 - upright).max() < 1
    assert images.size(tmp_path / "a.tif") == (W, H, orientation >= 5)


@pytest.mark.parametrize("place", ["exif", "raw profile", "xmp", "none"])
def test_the_size_of_a_png_is_read_with_its_orientation_but_without_its_pixels(place, tmp_path, monkeypatch):
    exif, info = Image.Exif(), PngImagePlugin.PngInfo()
    exif[274] = 6
    if place == "raw profile":
        text = exif.tobytes()
        info.add_text("Raw profile type exif", f"\nexif\n{len(text):8d}\n{text.hex()}\n", zip=True)
    if place == "xmp":
        info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=info, **({"exif": exif} if place == "exif" else {}))
    swaps = images.read(tmp_path / "a.png").shape[0] == 400
    assert swaps == (place != "none")
    assert images.size(tmp_path / "a.png") == (400, 300, swaps)
    monkeypatch.setattr(files, "read_bytes", None)
    assert images.size(tmp_path / "a.png") == (400, 300, swaps)


def test_an_impossible_orientation_counts_as_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 9
    Image.fromarray(_noise()).save(tmp_path / "a.png", exif=exif)
    assert images.size(tmp_path / "a.png") == (W, H, False)
    assert np.array_equal(images.to_uint8(images.read(tmp_path / "a.png")), _noise())


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_truncated_file_is_one_sentence(suffix, tmp_path):
    Image.fromarray(_noise()).save(tmp_path / f"whole.{suffix}")
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: int(len(data) * 0.7)])
    with pytest.raises(InputError) as caught:
        images.read(cut)
    assert f"cut.{suffix} cannot be read" in _sentence(caught)


def test_a_truncated_16_bit_png_is_not_filled_with_gray(tmp_path):
    _png_16(tmp_path / "whole.png", _noise(3, np.uint16))
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:800])
    with pytest.raises(InputError) as caught:
        images.read(tmp_path / "cut.png")
    assert "cut.png" in _sentence(caught)


@pytest.mark.parametrize("act", [images.read, images.size])
def test_what_is_no_image_is_one_sentence(act, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    for name, found in (
        ("text.png", "no image format"),
        ("empty.png", "the file is empty"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(InputError) as caught:
            act(tmp_path / name)
        assert f"{name} cannot be read ({found}" in _sentence(caught)


def test_compositing_is_nerf_pytorchs():
    rgba = np.random.default_rng(1).random((H, W, 4))
    for y, x in np.ndindex(H, W):
        r, a = rgba[y, x, :3], rgba[y, x, 3]
        assert np.allclose(images.composite(rgba, white=True)[y, x], a * r + (1 - a) * 1.0)
    assert np.array_equal(images.composite(rgba, white=False), rgba[..., :3])
    assert np.array_equal(images.composite(rgba[..., :3], white=True), rgba[..., :3])


@pytest.mark.parametrize(("channels", "to"), once([1, 3, 4], [2, 4, 3, 1, 1.7, (5, 7), (16, 6)]))
def test_a_constant_picture_stays_constant(channels, to):
    small = images.downsample(np.full((H, W, channels), 0.3, np.float32), to)
    assert small.shape[2] == channels
    assert np.abs(small - np.float32(0.3)).max() < 1e-6


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_exact_factors_average_whole_blocks(factor):
    picture = np.random.default_rng(2).random((H, W, 3), dtype=np.float32)
    small = images.downsample(picture, factor)
    assert small.shape == (H // factor, W // factor, 3)
    for y, x in np.ndindex(H // factor, W // factor):
        block = picture[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        assert np.allclose(small[y, x], block.mean((0, 1)), atol=1e-6)
    assert np.allclose(small.mean((0, 1)), picture.mean((0, 1)), atol=1e-6)


def test_an_uneven_size_weighs_pixels_by_the_area_they_cover():
    picture = np.random.default_rng(3).random((5, 7, 3), dtype=np.float32)
    fine = picture.repeat(3, axis=0).repeat(4, axis=1)  # each pixel as 3 x 4 equal parts: 15 x 28
    exact = fine.reshape(3, 5, 4, 7, 3).mean((1, 3))
    assert np.allclose(images.downsample(picture, (4, 3)), exact, atol=1e-6)


def _decoded(seed=0):
    return _noise(seed=seed).astype(np.float32) / np.float32(255)


def test_pictures_of_bytes_are_stacked_as_bytes_that_give_them_back_bit_for_bit():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=-1)
    pictures = [each.astype(np.float32) / np.float32(255) for each in (levels, levels[::-1], levels.swapaxes(0, 1))]
    stacked = images.stack(iter(pictures), (3, 16, 16, 3))
    assert stacked.dtype == np.uint8
    assert np.array_equal(stacked.astype(np.float32) / np.float32(255), pictures)


@pytest.mark.parametrize(
    ("where", "value"), once(range(4), [0.5, np.nextafter(np.float32(1), 0), 1e-30, -1e-30, 1.5, -1.0, np.nan])
)
def test_one_value_that_is_no_byte_keeps_the_floats_of_all(where, value):
    pictures = [_decoded(seed) for seed in range(4)]
    pictures[where][H - 1, 3, 1] = value
    stacked = images.stack(iter(pictures), (4, H, W, 3))
    assert stacked.dtype == np.float32
    assert np.array_equal(stacked, pictures, equal_nan=True)


@pytest.fixture
def quick_collection():
    """Garbage is looked for among what a test makes, not among all that is imported."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_pictures_are_stacked_one_by_one(quick_collection):
    alive = []

    def pictures():
        for seed in range(12):
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1
            picture = _decoded(seed) if seed < 8 else _decoded(seed) ** 2
            alive.append(weakref.ref(picture))
            yield picture
            del picture

    assert images.stack(pictures(), (12, H, W, 3)).dtype == np.float32


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, torch.float32, torch.float16, torch.float64])
def test_bytes_survive_the_way_to_floats_and_back(kind):
    levels = np.arange(256, dtype=np.uint8)
    values = torch.from_numpy(levels).to(kind) / 255 if isinstance(kind, torch.dtype) else levels.astype(kind) / 255
    assert np.array_equal(images.to_uint8(values), levels)
    assert np.array_equal(images.to_uint8(levels), levels)
    assert np.array_equal(images.to_uint8(torch.from_numpy(levels)), levels)


def test_bytes_are_rounded_clipped_and_finite():
    values = np.array([-np.inf, -0.1, 0.4999 / 255, 0.5001 / 255, 1.1, np.inf, np.nan])
    assert images.to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255, 0]
    assert images.to_uint8(torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True)).tolist() == [128]


@pytest.mark.parametrize("shape", [(H, W), (H, W, 1), (H, W, 3), (H, W, 4)])
def test_a_png_comes_back_as_it_went(shape, tmp_path):
    pixels = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
    images.write_png(tmp_path / "new" / "a.png", torch.from_numpy(pixels))
    back = images.to_uint8(images.read(tmp_path / "new" / "a.png"))
    gray = pixels.reshape(H, W, -1).repeat(3, axis=-1)
    assert np.array_equal(back, pixels if len(shape) == 3 and shape[2] > 1 else gray)
    assert os.listdir(tmp_path / "new") == ["a.png"]


def _full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


def _read_only(*args, **kwargs):
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize("what", ["PIL.Image.Image.save", "os.replace", "pathlib.Path.mkdir"])
@pytest.mark.parametrize(("failure", "reason"), [(_full_disk, "No space left"), (_read_only, "Read-only file system")])
def test_a_png_that_cannot_be_written_leaves_the_old_one(what, failure, reason, tmp_path, monkeypatch):
    images.write_png(tmp_path / "a.png", _noise())
    before = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(what, failure)
    with pytest.raises(InputError) as caught:
        images.write_png(tmp_path / "a.png", _noise(seed=1))
    assert f"{tmp_path / 'a.png'}: cannot be written ({reason}" in _sentence(caught)
    assert os.listdir(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_path_through_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught:
        images.write_png(tmp_path / "file" / "a.png", _noise())
    assert "a.png: cannot be written" in _sentence(caught)


def _film(path):
    """What ffmpeg says about a film, and its frames."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    words = done.stderr.decode()
    width, height = map(int, re.search(r"(\d{2,})x(\d+)", words.split("Video:")[1]).groups())
    return words, np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def _smooth(k, height, width):
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return np.stack([x, y, np.full_like(x, k / 8)], axis=-1).astype(np.float32)


def test_a_film_shows_its_frames_and_pads_odd_sides_with_their_edge(tmp_path):
    frames = [_smooth(k, 33, 47) for k in range(6)]
    images.write_mp4(tmp_path / "new" / "a.mp4", iter(frames), fps=24)
    words, back = _film(tmp_path / "new" / "a.mp4")
    assert back.shape == (6, 34, 48, 3)
    assert all(word in words for word in ("h264", "yuv420p", "24 fps"))
    for frame, seen in zip(frames, back, strict=True):
        assert np.abs(seen[:33, :47].astype(int) - images.to_uint8(frame)).mean() < 4
        assert np.abs(seen[33].astype(int) - seen[32]).mean() < 4
    assert os.listdir(tmp_path / "new") == ["a.mp4"]


def test_grey_and_transparent_frames_and_bytes_make_films(tmp_path):
    for name, frame in (
        ("gray", np.full((H, W), 0.5)),
        ("rgba", np.full((H, W, 4), 0.5)),
        ("bytes", _noise()),
    ):
        images.write_mp4(tmp_path / f"{name}.mp4", [torch.from_numpy(frame)] * 2)
        assert len(_film(tmp_path / f"{name}.mp4")[1]) == 2


def test_a_film_is_streamed(tmp_path, quick_collection):
    alive = []

    def frames():
        for k in range(12):
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 2
            frame = _smooth(k % 8, 32, 32)
            alive.append(weakref.ref(frame))
            yield frame
            del frame

    images.write_mp4(tmp_path / "a.mp4", frames())
    assert len(_film(tmp_path / "a.mp4")[1]) == 12


class _Cut(Exception):
    pass


def _cut_off():
    yield _smooth(0, 32, 32)
    yield _smooth(1, 32, 32)
    raise _Cut


def test_an_interrupted_film_leaves_the_old_one(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(_Cut):
        images.write_mp4(tmp_path / "a.mp4", _cut_off())
    with pytest.raises(ValueError, match="follows frames of shape"):
        images.write_mp4(tmp_path / "a.mp4", [_smooth(0, 32, 32), _smooth(0, 32, 30)])
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


def test_a_film_without_frames_is_one_sentence(tmp_path):
    with pytest.raises(InputError) as caught:
        images.write_mp4(tmp_path / "a.mp4", [])
    assert "no frames, expected at least one" in _sentence(caught)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("words", ["echo 'No space left on device' >&2", "true"])
def test_an_encoder_that_fails_is_one_sentence(words, tmp_path, monkeypatch):
    encoder = tmp_path / "encoder"
    encoder.write_text(f"#!/bin/sh\n{words}\nexit 1\n")
    encoder.chmod(0o755)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(encoder))
    with pytest.raises(InputError) as caught:
        images.write_mp4(tmp_path / "out" / "a.mp4", [_smooth(0, 400, 400)] * 9)
    reason = "No space left on device" if "echo" in words else "the encoder stopped"
    assert f"a.mp4: cannot be written ({reason})" in _sentence(caught)
    assert os.listdir(tmp_path / "out") == []


def test_a_missing_encoder_is_one_sentence(tmp_path, monkeypatch):
    def absent():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", absent)
    with pytest.raises(InputError) as caught:
        images.write_mp4(tmp_path / "a.mp4", [_smooth(0, 32, 32)])
    assert "imageio-ffmpeg" in _sentence(caught)
    assert os.listdir(tmp_path) == []
