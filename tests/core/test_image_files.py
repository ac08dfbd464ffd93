"""Which files of a folder are photographs, masks, or not read, by their names."""

import os

import pytest

from enerf.core import image_files


def _folder(tmp_path, *names):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    return image_files.listing(tmp_path)


def _names(listing):
    return [path.name for path in listing.images]


@pytest.mark.parametrize(
    "mask", ["IMG_1.jpg.mask.png", "IMG_1_mask.png", "img_1-MASK.PNG", "mask_IMG_1.png", "IMG_1.jpg.png"]
)
def test_a_file_named_as_another_and_a_mask_is_a_mask(mask, tmp_path):
    found = _folder(tmp_path, "IMG_1.jpg", "IMG_2.jpg", mask)
    assert (_names(found), found.masks) == (["IMG_1.jpg", "IMG_2.jpg"], (mask,))
    assert found.set_aside() == f"{mask} (masks)"


def test_a_name_with_mask_and_no_photograph_of_its_own_is_a_photograph(tmp_path):
    names = ["carnival_mask.jpg", "mask_of_gold.png", "unmasked.png"]
    assert _names(_folder(tmp_path, *names)) == names


def test_a_converted_copy_takes_the_place_of_its_heic(tmp_path):
    found = _folder(tmp_path, "IMG_1.HEIC", "IMG_1.jpg", "IMG_2.heic", "IMG_3.avif")
    assert _names(found) == ["IMG_1.jpg", "IMG_2.heic", "IMG_3.avif"]
    assert found.copies == ("IMG_1.HEIC",)


def test_all_else_is_named_with_its_reason(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.png")
    found = _folder(tmp_path, "a.png", "a.DNG", "b.jxl", "notes.txt", "._a.png", ".DS_Store")
    assert _names(found) == ["a.png"]
    assert found.set_aside(others=True).split("; ") == [
        "a.DNG (raw photographs: develop them with the same settings to TIFF, PNG or JPEG)",
        "b.jxl (JPEG XL: convert them to PNG or JPEG)",
        "gone.jpg, loop.jpg (links to nothing)",
        "pipe.png, zero.png (named pipes, devices or sockets)",
        "._a.png (hidden files)",
        "folder.png (folders)",
        "notes.txt (not images by their suffix)",
    ]
    assert "folder" not in found.set_aside()


def test_a_link_to_a_photograph_is_a_photograph(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_bytes(b"x")
    (tmp_path / "a.png").symlink_to(tmp_path / "other" / "x")
    assert _names(image_files.listing(tmp_path)) == ["a.png"]
