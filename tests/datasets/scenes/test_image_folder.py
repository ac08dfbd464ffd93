"""The image folders of an LLFF scene."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enerf.core import images
from enerf.core.errors import InputError
from enerf.datasets.scenes import image_folder, transparency
from enerf.datasets.scenes import pixels as scenes_pixels

N, W, H = 5, 32, 24


def _picture(index, width=W, height=H, channels=3):
    return np.random.default_rng(index).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _fill(folder, *, n=N, width=W, height=H, suffix="png", channels=3):
    folder.mkdir()
    for i in range(n):
        Image.fromarray(_picture(i, width, height, channels)).save(folder / f"IMG_{i}.{suffix}", quality=95)
    return folder


def _find(scene, factor=4, count=N, recorded=(W, H)):
    return image_folder.find(scene, factor, count, recorded)


def _read(photos, white):
    """Colors as floats, and names."""
    found, names = image_folder.read(photos, white)
    return scenes_pixels._floats(found).numpy(), names


def _listing(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def _refusal(act, scene):
    """The one sentence an action gives, after checking that nothing in the scene was touched."""
    before = _listing(scene)
    with pytest.raises(InputError) as caught:
        act()
    assert _listing(scene) == before
    text = str(caught.value)
    assert "\n" not in text
    assert ". " not in text
    assert "expected" in text
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return text


def test_a_missing_folder_is_made_once_by_averaging_areas(tmp_path):
    _fill(tmp_path / "images")
    pixels, names = _read(_find(tmp_path), white=False)
    assert names == tuple(f"IMG_{i}.png" for i in range(N))
    for i in range(N):
        mean = (_picture(i) / 255).reshape(H // 4, 4, W // 4, 4, 3).mean((1, 3))
        assert np.abs(pixels[i] - mean).max() <= 0.5001 / 255
    made = _listing(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["images", "images_4"]
    again, same = _read(_find(tmp_path), white=False)
    assert np.array_equal(again, pixels)
    assert (same, _listing(tmp_path)) == (names, made)


def test_finding_changes_nothing(tmp_path):
    _fill(tmp_path / "images")
    before = _listing(tmp_path)
    photos = _find(tmp_path)
    assert (photos.width, photos.height, photos.output_folder) == (8, 6, tmp_path / "images_4")
    assert _listing(tmp_path) == before


def test_without_originals_the_finest_smaller_folder_with_a_dividing_factor_serves(tmp_path):
    _fill(tmp_path / "images_2", width=16, height=12)
    _fill(tmp_path / "images_3", width=11, height=8)
    pixels, _ = _read(_find(tmp_path), white=False)
    mean = (_picture(0, 16, 12) / 255).reshape(6, 2, 8, 2, 3).mean((1, 3))
    assert np.abs(pixels[0] - mean).max() <= 0.5001 / 255
    assert (tmp_path / "images_4").is_dir()


def test_transparency_survives_a_made_folder(tmp_path):
    _fill(tmp_path / "images", channels=4)
    _read(_find(tmp_path), white=True)
    assert images.read(tmp_path / "images_4" / "IMG_0.png").shape[2] == 4


def _read_only(self, *args, **kwargs):
    raise OSError(30, "Read-only file system")


def test_a_read_only_scene_is_averaged_in_memory_to_the_same_bytes(tmp_path, monkeypatch, caplog):
    _fill(tmp_path / "images", channels=4)
    before = _listing(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", _read_only)
        in_memory, _ = _read(_find(tmp_path), white=True)
    assert _listing(tmp_path) == before
    assert "images_4 cannot be created (Read-only file system)" in caplog.text
    stored, _ = _read(_find(tmp_path), white=True)
    assert np.array_equal(in_memory, stored)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_run_leaves_no_folder(interruption, tmp_path, monkeypatch):
    _fill(tmp_path / "images")
    before, read = _listing(tmp_path), images.read_stored

    def tired(path, rotate=True):
        if path.stem == "IMG_3":
            raise interruption
        return read(path, rotate)

    with monkeypatch.context() as patch:
        patch.setattr(images, "read_stored", tired)
        with pytest.raises(interruption):
            _read(_find(tmp_path), white=False)
    assert _listing(tmp_path) == before
    assert len(_read(_find(tmp_path), white=False)[0]) == N


def test_a_full_disk_is_one_sentence_and_leaves_no_folder(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    photos = _find(_fill(tmp_path / "images").parent)
    monkeypatch.setattr(Image.Image, "save", full)
    assert "No space left" in _refusal(lambda: _read(photos, white=False), tmp_path)


def test_a_damaged_photograph_is_named_and_leaves_no_folder(tmp_path):
    damaged = _fill(tmp_path / "images", suffix="jpg") / "IMG_3.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    text = _refusal(lambda: _read(_find(tmp_path), white=False), tmp_path)
    assert "IMG_3.jpg cannot be read" in text


def test_a_folder_that_another_run_made_meanwhile_is_used(tmp_path, monkeypatch):
    _fill(tmp_path / "images")
    rename = os.rename

    def beaten(source, target):
        rename(source, target)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(os, "rename", beaten)
    assert len(_read(_find(tmp_path), white=False)[0]) == N
    assert sorted(os.listdir(tmp_path)) == ["images", "images_4"]


def test_a_folder_that_cannot_be_renamed_is_one_sentence(tmp_path, monkeypatch):
    _fill(tmp_path / "images")
    monkeypatch.setattr(os, "rename", _read_only)
    text = _refusal(lambda: _read(_find(tmp_path), white=False), tmp_path)
    assert "images_4 cannot be created (Read-only file system), expected a writable folder" in text


def test_stray_files_do_not_count(tmp_path):
    _fill(tmp_path / "images")
    for name in ("._IMG_0.png", ".DS_Store", "Thumbs.db", "view_imgs.txt"):
        (tmp_path / "images" / name).write_text("x")
    pixels, _ = _read(_find(tmp_path), white=False)
    assert len(pixels) == N
    (tmp_path / "images_4" / "._IMG_0.png").write_text("x")
    assert len(_read(_find(tmp_path), white=False)[0]) == N


def test_a_half_made_folder_is_neither_trusted_nor_deleted(tmp_path):
    _fill(tmp_path / "images")
    _fill(tmp_path / "images_4", n=3, width=8, height=6)
    text = _refusal(lambda: _find(tmp_path), tmp_path)
    assert f"{tmp_path / 'images_4'} holds 3 images (missing IMG_3, IMG_4) while {tmp_path / 'images'} holds 5" in text
    assert "delete images_4 and it will be created again" in text


def test_a_folder_with_leftover_originals_is_not_trusted(tmp_path):
    _fill(tmp_path / "images", suffix="jpg")
    _fill(tmp_path / "images_4", suffix="jpg")
    Image.fromarray(_picture(0, 8, 6)).save(tmp_path / "images_4" / "IMG_0.png")
    text = _refusal(lambda: _find(tmp_path), tmp_path)
    assert "images_4 holds 6 images while" in text


@pytest.mark.parametrize(
    ("there", "factor", "found"),
    [
        (
            [],
            4,
            "images_4 does not exist and cannot be created: found no image folder, expected images/ or images_k",
        ),
        (
            ["images_3", "images_8"],
            4,
            "found images_3, images_8, expected images/ or images_k with k dividing 4",
        ),
        (
            ["images_4"],
            1,
            "images does not exist and cannot be created: found images_4, expected images/ or another",
        ),
    ],
)
def test_a_factor_that_cannot_be_made_is_one_sentence(there, factor, found, tmp_path):
    for name in there:
        _fill(tmp_path / name)
    assert found in _refusal(lambda: _find(tmp_path, factor), tmp_path)


@pytest.mark.parametrize("factor", [1, 4])
def test_empty_folders_and_other_counts_are_one_sentence(factor, tmp_path):
    (tmp_path / "images").mkdir()
    text = _refusal(lambda: _find(tmp_path, factor), tmp_path)
    assert f"images holds 0 images (none) while {tmp_path / 'poses_bounds.npy'} has 5 rows, expected one image" in text


def test_slightly_different_sizes_are_fitted_to_the_most_common(tmp_path, caplog):
    _fill(tmp_path / "images", width=400, height=300)
    Image.fromarray(_picture(2, 404, 302)).save(tmp_path / "images" / "IMG_2.png")
    pixels, _ = _read(_find(tmp_path, 1), white=False)
    assert pixels.shape == (N, 300, 400, 3)
    assert "IMG_2.png differ from 400x300 and are resized" in caplog.text
    assert _read(_find(tmp_path, 4), white=False)[0].shape == (N, 75, 100, 3)


def test_pictures_of_another_shape_are_named(tmp_path):
    _fill(tmp_path / "images")
    Image.fromarray(_picture(3, 24, 32)).save(tmp_path / "images" / "IMG_3.png")
    text = _refusal(lambda: _find(tmp_path), tmp_path)
    assert "images holds IMG_3.png (24x32), expected 32x24 as the other images" in text


def test_pictures_turned_by_exif_count_as_turned(tmp_path):
    _fill(tmp_path / "images")
    exif = Image.Exif()
    exif[274] = 8
    Image.fromarray(_picture(3, 24, 32)).save(tmp_path / "images" / "IMG_3.png", exif=exif)
    pixels, _ = _read(_find(tmp_path, 1), white=False)
    assert np.array_equal(images.to_uint8(pixels[3]), np.rot90(_picture(3, 24, 32)))


def test_names_that_would_collide_keep_their_suffix(tmp_path):
    _fill(tmp_path / "images", n=2)
    Image.fromarray(_picture(9)).save(tmp_path / "images" / "IMG_1.bmp")
    pixels, names = _read(_find(tmp_path, 4, count=3), white=False)
    assert names == ("IMG_0.png.png", "IMG_1.bmp.png", "IMG_1.png.png")
    wanted = images.downsample(np.float32(_picture(9) / 255), 4)
    assert np.abs(pixels[1] - wanted).max() < 1 / 255


def test_masks_and_unread_files_are_set_aside_and_logged(tmp_path, caplog):
    caplog.set_level("INFO", "enerf")
    folder = _fill(tmp_path / "images", suffix="jpg")
    for i in range(N):
        Image.new("L", (W, H)).save(folder / f"IMG_{i}.jpg.mask.png")
        (folder / f"IMG_{i}.DNG").write_bytes(b"raw")
    assert [file.name for file in _find(tmp_path, 1).files] == [f"IMG_{i}.jpg" for i in range(N)]
    assert "not taken as photographs: IMG_0.jpg.mask.png, IMG_1.jpg.mask.png" in caplog.text
    assert "IMG_4.DNG (raw photographs" in caplog.text


def test_a_wrong_count_names_what_was_not_counted(tmp_path):
    folder = _fill(tmp_path / "images", n=3)
    (folder / "IMG_3.png").symlink_to(tmp_path / "nowhere")
    (folder / "IMG_4.jxl").write_bytes(b"x")
    text = _refusal(lambda: _find(tmp_path, 1), tmp_path)
    assert "holds 3 images (IMG_0.png, IMG_1.png, IMG_2.png) while" in text
    assert "not counted: IMG_3.png (links to nothing); IMG_4.jxl (JPEG XL: convert them to PNG or JPEG)" in text


def test_images_that_do_not_fit_in_memory_are_refused_before_any_is_read():
    def act():
        return transparency.stacked(iter(()), (10**6, 3000, 4000), Path("images"), white=False, keep_alpha=True)

    with pytest.raises(InputError, match=r"images: 1000000 images of 4000x3000 pixels: needs 32.7 TiB of memory"):
        act()


@pytest.mark.parametrize("keep_alpha", [True, False])
def test_alpha_is_kept_if_some_pixel_is_transparent(keep_alpha, caplog):
    opaque = np.append(_picture(0) / np.float32(255), np.ones((H, W, 1), np.float32), -1)
    clear = opaque * np.array([1, 1, 1, 0], np.float32)
    for pictures, channels in (([opaque, opaque], 3), ([opaque, clear], 4 if keep_alpha else 3)):
        size, folder = (len(pictures), H, W), Path("images")
        found = transparency.stacked(pictures, size, folder, white=False, keep_alpha=keep_alpha)
        assert found.dtype == np.uint8
        assert found.shape == (2, H, W, channels)
        assert np.array_equal(found[..., :3], [_picture(0)] * 2)
    warned = "images: 1 of 2 images have transparent pixels, whose stored colors are learned"
    assert (warned in caplog.text) == (not keep_alpha)
