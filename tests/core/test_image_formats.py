"""Formats that need a decoder, limits of size, and files that are no pictures."""

import importlib
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from enerf.core import files, image_formats, images
from enerf.core.errors import InputError
from tests.core.test_images import _noise

H, W = 12, 16


def _refusal(path, read=images.read):
    with pytest.raises(InputError) as caught:
        read(path)
    return str(caught.value)


def _png(width, height, rows, depth=8, interlace=0):
    """An RGB PNG that declares a size and holds some rows, from its definition."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, interlace)
    value = b"\0" if interlace else b"\7"  # only zeros are valid rows of every interlacing pass
    body = zlib.compress((b"\0" + value * (3 * width * depth // 8)) * rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_heic_is_read_upright(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif writes the test picture")
    picture, path = Image.fromarray(_noise()).resize((64, 48)), tmp_path / "a.heic"
    exif = Image.Exif()
    exif[274] = 6
    heif.from_pillow(picture).save(path, quality=100, chroma=444, exif=exif.tobytes())
    assert images.size(path) == (48, 64, False)
    upright = np.asarray(picture.transpose(Image.Transpose.ROTATE_270), np.float32) / 255
    assert np.abs(images.read(path) - upright).mean() < 0.02
    assert np.array_equal(images.read(path), images.read(path, rotate=False))
    path.write_bytes(path.read_bytes()[:-500])
    assert "cannot be read" in _refusal(path)


def test_heic_without_its_decoder_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    image_formats._heif_is_registered.cache_clear()
    try:
        for read in (images.read, images.size):
            assert "HEIC is read with the extra heic: pip install 'enerf[heic]'" in _refusal(tmp_path / "a.heic", read)
    finally:
        image_formats._heif_is_registered.cache_clear()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("orientation", [1, 6])
def test_avif_is_read_and_turned(orientation, tmp_path):
    picture, exif = Image.fromarray(_noise()).resize((64, 48)), Image.Exif()
    exif[274] = orientation
    picture.save(tmp_path / "a.avif", quality=100, subsampling="4:4:4", exif=exif)
    turned = picture if orientation == 1 else picture.transpose(Image.Transpose.ROTATE_270)
    assert np.abs(images.read(tmp_path / "a.avif") - np.asarray(turned, np.float32) / 255).mean() < 0.02


def test_formats_that_are_not_read_say_what_to_do(tmp_path):
    (tmp_path / "a.dng").write_bytes(b"no image")
    assert "raw photographs: develop them" in _refusal(tmp_path / "a.dng")
    (tmp_path / "b.png").write_bytes(b"\xff\x0a" + bytes(20))
    assert "it is JPEG XL, which is not read" in _refusal(tmp_path / "b.png")


@pytest.mark.parametrize("read", [images.read, images.size])
def test_pipes_and_devices_are_refused_at_once(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    assert "found a named pipe, expected a file" in _refusal(tmp_path / "pipe.png", read)
    assert "found a character device, expected a file" in _refusal(tmp_path / "zero.png", read)


def test_declared_sizes_are_checked_before_anything_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(_png(30_000, 30_000, 1))
    assert "declares more than 178,956,970 pixels" in _refusal(path)
    path.write_bytes(_png(12_000, 12_000, 1))  # Pillow's warning is for such sizes
    monkeypatch.setattr(files, "available_memory", lambda: 2**30)
    assert "a.png: an image of 12000x12000 pixels: needs 3.2 GiB of memory, found 1.0 GiB" in _refusal(path)


@pytest.mark.parametrize(("depth", "interlace"), [(8, 0), (16, 0), (8, 1)])
def test_a_png_with_too_few_rows_is_refused(depth, interlace, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(_png(W, H, H - 4, depth, interlace))
    assert "a.png cannot be read" in _refusal(path)
    if not interlace:
        path.write_bytes(_png(W, H, H - 1, depth))
        assert "a.png cannot be read" in _refusal(path)
        path.write_bytes(_png(W, H, H, depth))
        assert images.read(path).shape == (H, W, 3)


def test_a_png_with_a_changed_bit_is_refused(tmp_path):
    Image.fromarray(_noise()).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for place in np.random.default_rng(0).integers(whole.index(b"IDAT") + 4, len(whole) - 16, 20):
        (tmp_path / "a.png").write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert "a.png cannot be read" in _refusal(tmp_path / "a.png")


def test_the_orientation_of_a_png_is_found_behind_its_pixels(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(_noise()).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4])]
    (tmp_path / "a.png").write_bytes(data.replace(chunk, b"").replace(data[-12:], chunk + data[-12:]))
    assert images.size(tmp_path / "a.png") == (W, H, True)
    assert images.read(tmp_path / "a.png").shape == (W, H, 3)


def test_a_black_png_is_whole(tmp_path):
    Image.new("RGBA", (W, H)).save(tmp_path / "a.png")
    assert not images.read(tmp_path / "a.png").any()


@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "tif"])
def test_the_first_frame_of_an_animation_is_read_with_a_warning(suffix, tmp_path, caplog):
    frames = [Image.new("RGB", (W, H), color) for color in ("white", "black")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert images.read(tmp_path / f"a.{suffix}").min() == 1
    assert f"a.{suffix}: found 2 frames or pages; the first is read" in caplog.text


def test_a_name_that_is_not_utf_8_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b"b\xe4ume.png")
    Image.fromarray(_noise()).save(path)
    assert images.read(path).shape == (H, W, 3)


def test_colors_weighted_by_alpha_do_not_mix_with_hidden_ones():
    rng = np.random.default_rng(0)
    rgba = rng.random((8, 12, 4), dtype=np.float32)
    rgba[:4, :4, 3] = 0  # two whole blocks, and half of one more
    rgba[4:6, :4, 3] = 0
    other = rgba.copy()
    other[..., :3][rgba[..., 3] == 0] = rng.random(3, dtype=np.float32)
    small, again = (images.downsample(x, 4, by_alpha=True) for x in (rgba, other))
    seen = small[..., 3] > 0
    assert np.array_equal(small[seen], again[seen])
    for color in (0.0, 0.3, 1.0):
        over = rgba[..., :3] * rgba[..., 3:] + color * (1 - rgba[..., 3:])
        wanted = over.reshape(2, 4, 3, 4, 3).mean((1, 3))
        assert np.allclose(small[..., :3] * small[..., 3:] + color * (1 - small[..., 3:]), wanted, atol=1e-6)
    rgba[..., 3] = 1
    assert np.array_equal(images.downsample(rgba, 4, by_alpha=True), images.downsample(rgba, 4))


def test_images_with_and_without_alpha_are_stacked_as_one():
    rgb, rgba, deep = (np.zeros((1, 1, c), np.float32) + v for c, v in ((3, 1), (4, 0), (3, 0.123)))
    for pictures, dtype in (([rgb, rgba, rgb], np.uint8), ([rgb, rgba, deep], np.float32), ([deep, rgba], np.float32)):
        found = images.stack(iter(pictures), (len(pictures), 1, 1, 3))
        assert (found.dtype, found.shape) == (dtype, (len(pictures), 1, 1, 4))
        values = found / np.float32(255 if dtype == np.uint8 else 1)
        for value, picture in zip(values, pictures, strict=True):
            assert np.array_equal(
                value, picture if picture.shape[-1] == 4 else np.append(picture, 1).reshape(1, 1, 4).astype(np.float32)
            )
