"""Photographs of any sizes and orientations, downsampled once into a folder that is read again."""

import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enerf.core import images
from enerf.core.errors import InputError
from enerf.datasets.scenes import image_folder, resized_files
from tests.contents import refusal

SIZES = {"a.png": (12, 8), "b.jpg": (24, 16), "left/a.png": (12, 8), "right/a.jpg": (9, 12)}
NAMES = ("a.png", "left/a.png", "left/b.png")


def _pixels(seed: int, width: int, height: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _write(folder: Path, names=NAMES, size=(12, 8), orientation: int | None = None, channels: int = 3) -> list[Path]:
    files = [folder / "images" / name for name in names]
    for i, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if orientation is not None:
            exif[274] = orientation
        Image.fromarray(_pixels(i, *size, channels)).save(file, exif=exif)
    return files


def _photos(folder: Path, files: list[Path], factor: int, stated=(12, 8), **options):
    options = {"by_alpha": False, **options}
    return resized_files.photos_of(files, folder, [stated] * len(files), factor, **options)


def _bytes(photos, by_alpha: bool = False) -> list[np.ndarray]:
    return [images.to_uint8(photo.read(by_alpha=by_alpha)) for photo in photos]


def _listing(folder: Path) -> dict[str, int]:
    """Files and folders, with the times of their changes."""
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@given(st.lists(st.tuples(st.integers(1, 60_000), st.integers(1, 60_000)), min_size=1, max_size=4))
def test_the_automatic_factor_is_the_least_power_of_two_that_is_enough(sizes):
    factor = resized_files.automatic_factor(sizes)
    longest = max(max(size) for size in sizes)
    assert longest <= 800 * factor
    assert factor == 1 or longest > 400 * factor
    assert factor & (factor - 1) == 0


def test_full_size_reads_the_files_and_writes_nothing(tmp_path):
    files = _write(tmp_path)
    before = _listing(tmp_path)
    for factor in (0, 1):
        photos, found = _photos(tmp_path, files, factor)
        assert ([photo.file for photo in photos], found) == (files, 1)
        assert all(np.array_equal(a, _pixels(i, 12, 8)) for i, a in enumerate(_bytes(photos)))
    assert _listing(tmp_path) == before


def test_a_folder_of_downsampled_images_is_created_once_and_read_again(tmp_path):
    files = _write(tmp_path)
    wanted = [images.to_uint8(images.downsample(images.read(file), 2)) for file in files]
    photos, factor = _photos(tmp_path, files, 2)
    assert factor == 2
    assert [photo.file for photo in photos] == [tmp_path / "images_2" / name for name in NAMES]
    assert all(np.array_equal(a, b) for a, b in zip(_bytes(photos), wanted, strict=True))
    before = _listing(tmp_path)
    assert [name for name in before if name.startswith("images_2")] == [
        *("images_2", "images_2/a.png", "images_2/left", "images_2/left/a.png", "images_2/left/b.png")
    ]
    again, _ = _photos(tmp_path, files, 2)
    assert again == photos
    assert _listing(tmp_path) == before


def test_nothing_is_created_on_request_and_what_is_read_is_the_same(tmp_path):
    files = _write(tmp_path)
    before = _listing(tmp_path)
    in_memory, _ = _photos(tmp_path, files, 2, create=False)
    found = _bytes(in_memory)
    assert _listing(tmp_path) == before
    stored, _ = _photos(tmp_path, files, 2)
    assert stored != in_memory
    assert all(np.array_equal(a, b) for a, b in zip(found, _bytes(stored), strict=True))


def test_photographs_beside_the_file_of_cameras_are_resized_in_memory(tmp_path):
    files = [file.rename(tmp_path / file.name) for file in _write(tmp_path, ("a.png", "b.png"))]
    photos, _ = _photos(tmp_path, files, 2)
    assert [(photo.file, photo.width, photo.height) for photo in photos] == [(file, 6, 4) for file in files]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "images"]


def test_files_that_differ_in_their_suffix_only_stay_apart(tmp_path):
    files = _write(tmp_path, ("a.png", "a.bmp"))
    photos, _ = _photos(tmp_path, files, 4)
    assert [photo.file.name for photo in photos] == ["a.png.png", "a.bmp.png"]
    assert not np.array_equal(*_bytes(photos))
    assert _photos(tmp_path, files, 4)[0] == photos


@pytest.mark.parametrize("stored", ["a.jpg", "a.png", "a.jpg.png"])
def test_downsampled_images_of_other_programs_are_read(stored, tmp_path):
    files = _write(tmp_path, ("a.jpg",))
    images.write_png(tmp_path / "images_2" / "x.png", _pixels(5, 6, 4))
    (tmp_path / "images_2" / "x.png").rename(tmp_path / "images_2" / stored)  # by their content
    photos, _ = _photos(tmp_path, files, 2)
    assert photos[0].file.name == stored
    assert np.array_equal(_bytes(photos)[0], _pixels(5, 6, 4))


@pytest.mark.parametrize("damage", ["missing", "other shape", "no image", "no folder"])
def test_folders_that_do_not_fit_are_logged_left_alone_and_not_used(damage, tmp_path, caplog):
    files = _write(tmp_path)
    wanted = _bytes(_photos(tmp_path, files, 2)[0])
    victim = tmp_path / "images_2" / "left" / "b.png"
    victim.unlink()
    if damage == "other shape":
        images.write_png(victim, _pixels(0, 4, 6))
    if damage == "no image":
        victim.write_text("none")
    if damage == "no folder":
        os.rename(tmp_path / "images_2", tmp_path / "elsewhere")
        (tmp_path / "images_2").write_text("a file")
    before = _listing(tmp_path)
    photos, _ = _photos(tmp_path, files, 2)
    assert [photo.file for photo in photos] == files
    assert all(np.array_equal(a, b) for a, b in zip(_bytes(photos), wanted, strict=True))
    assert "images are resized in memory" in caplog.text
    assert _listing(tmp_path) == before


def test_images_of_another_size_than_the_factor_says_are_read_and_logged(tmp_path, caplog):
    files = _write(tmp_path, size=(48, 32))
    for name in NAMES:
        images.write_png(tmp_path / "images_8" / name, _pixels(3, 12, 8))
    photos, factor = _photos(tmp_path, files, 8, (48, 32))
    assert factor == 8
    assert all((photo.width, photo.height) == (12, 8) for photo in photos)
    assert "images_8: 3 of 3 images have another size than expected, a.png 12x8 instead of 6x4" in caplog.text


def test_a_folder_that_cannot_be_created_is_logged(tmp_path, caplog, monkeypatch):
    def read_only(self, *of, **named):
        raise OSError(30, "Read-only file system")

    files = _write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", read_only)
        photos, _ = _photos(tmp_path, files, 2)
        assert [photo.file for photo in photos] == files
    assert "images_2 cannot be created (Read-only file system): images are resized in memory" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_a_disk_that_is_full_when_a_subfolder_is_made_is_one_sentence(tmp_path, monkeypatch):
    files, mkdir = _write(tmp_path), Path.mkdir

    def full(self, *of, **named):
        if self.name == "left":
            raise OSError(28, "No space left on device")
        mkdir(self, *of, **named)

    monkeypatch.setattr(Path, "mkdir", full)
    assert "No space left on device" in refusal(_photos, tmp_path, files, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_a_damaged_photograph_leaves_no_folder(tmp_path):
    files = _write(tmp_path)
    content = files[1].read_bytes()
    files[1].write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match=f"^{re.escape(str(files[1]))} cannot be read"):
        _photos(tmp_path, files, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 0), (6, 0), (6, -1), (8, 0), (8, 1)])
def test_cameras_of_raw_pixels_get_raw_pixels_and_those_of_upright_ones_upright_ones(
    orientation, quarters, factor, tmp_path
):
    files = _write(tmp_path, orientation=orientation)
    stated = (8, 12) if quarters else (12, 8)
    for create in (False, True, True):
        photos, _ = _photos(tmp_path, files, factor, stated, create=create)
        for i, found in enumerate(_bytes(photos)):
            whole = np.rot90(_pixels(i, 12, 8), quarters).astype(np.float32) / np.float32(255)
            assert np.array_equal(found, images.to_uint8(images.downsample(whole, factor)))
            assert found.shape[:2] == (stated[1] // factor, stated[0] // factor)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("size", [(24, 18), (18, 18)])
def test_folders_that_llff_and_other_scenes_share_are_turned_for_neither(orientation, size, tmp_path, caplog):
    files = _write(tmp_path, ("a.png", "b.png"), size, orientation)
    wanted = _bytes(_photos(tmp_path, files, 2, size, create=False)[0])
    upright = size[::-1] if orientation >= 5 else size

    def of_llff():
        return image_folder.read(image_folder.find(tmp_path, 2, 2, upright), white=False)[0]

    first = of_llff()  # makes the folder
    assert all(np.array_equal(a, b) for a, b in zip(_bytes(_photos(tmp_path, files, 2, size)[0]), wanted, strict=True))
    assert ("images are resized in memory" in caplog.text) == (orientation != 1)
    shutil.rmtree(tmp_path / "images_2")
    assert all(np.array_equal(a, b) for a, b in zip(_bytes(_photos(tmp_path, files, 2, size)[0]), wanted, strict=True))
    assert (tmp_path / "images_2").is_dir()
    assert np.array_equal(of_llff(), first)


def test_a_square_photograph_is_raw(tmp_path):
    files = _write(tmp_path, ("a.png",), (8, 8), orientation=6)
    photos, _ = _photos(tmp_path, files, 1, (16, 16))
    assert np.array_equal(_bytes(photos)[0], _pixels(0, 8, 8))


def test_each_photograph_keeps_its_size(tmp_path):
    files = [tmp_path / "images" / name for name in SIZES]
    for i, (file, size) in enumerate(zip(files, SIZES.values(), strict=True)):
        images.write_png(file, _pixels(i, *size))
    stated = [(120, 80), (12, 8), (24, 16), (90, 120)]  # of the same shapes
    photos, _ = resized_files.photos_of(files, tmp_path, stated, 3, by_alpha=False)
    assert [(photo.width, photo.height) for photo in photos] == [(4, 3), (8, 5), (4, 3), (3, 4)]
    assert [found.shape[:2] for found in _bytes(photos)] == [(3, 4), (5, 8), (3, 4), (4, 3)]


@pytest.mark.parametrize(
    ("stated", "found"),
    [((8, 12), "has 12x8 pixels, expected the shape of its camera's 8x12"), ((12, 12), "camera's 12x12")],
)
def test_photographs_of_another_shape_than_their_cameras_are_one_sentence(stated, found, tmp_path):
    files = _write(tmp_path)
    text = refusal(_photos, tmp_path, files, 1, stated)
    assert text.startswith(f"{files[0]} has")
    assert found in text


def test_missing_and_empty_files_are_one_sentence(tmp_path):
    files = _write(tmp_path)
    for damage in (lambda: files[2].write_bytes(b""), files[2].unlink):
        damage()
        with pytest.raises(InputError, match=f"^{re.escape(str(files[2]))} cannot be read"):
            _photos(tmp_path, files, 2)


def test_hidden_colors_of_transparent_pixels_stay_out_of_downsampled_ones(tmp_path):
    files = _write(tmp_path, ("a.png",), channels=4)
    picture = _pixels(0, 12, 8, 4)
    picture[..., 3] = np.where(np.arange(12) % 2, 0, 255)
    Image.fromarray(picture).save(files[0])
    for by_alpha in (True, False):
        photos, _ = _photos(tmp_path, files, 2, by_alpha=by_alpha, create=False)
        found = photos[0].read(by_alpha=by_alpha)
        visible = picture[:, ::2, :3].astype(float).reshape(4, 2, 6, 3).mean(1) / 255
        assert (np.abs(found[..., :3] - visible).max() < 1.01 / 255) == by_alpha
        assert np.abs(found[..., 3] - 0.5).max() < 1.01 / 255


def test_images_of_16_bits_are_downsampled_to_bytes_as_they_are_stored(tmp_path):
    (tmp_path / "images").mkdir()
    deep = np.random.default_rng(0).integers(0, 65536, (8, 12, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "images" / "a.png"), deep)
    files = [tmp_path / "images" / "a.png"]
    in_memory, stored = (_photos(tmp_path, files, 2, create=create)[0][0] for create in (False, True))
    assert np.array_equal(in_memory.read(by_alpha=False), stored.read(by_alpha=False))
