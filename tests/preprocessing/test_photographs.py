"""Photographs that are found, their orientation, focal length and masks, and their upright copies."""

import numpy as np
import pytest
from PIL import Image, features

from enerf.core import images
from enerf.datasets.scenes import exif_exposure
from enerf.preprocessing import photographs, upright_copies
from tests.contents import refusal

MAKE, ORIENTATION, EXIF, FOCAL_35MM = 0x010F, 0x0112, 0x8769, 0xA405


def picture(seed: int = 0, width: int = 24, height: int = 16) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8)))


def exif(orientation: int = 1, focal: int = 0, make: str = "") -> Image.Exif:
    content = Image.Exif()
    content[ORIENTATION] = orientation
    if make:
        content[MAKE] = make
    if focal:
        content.get_ifd(EXIF)[FOCAL_35MM] = focal
    return content


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        picture(i).save(photos / f"{i}.png")
    return photos


@pytest.mark.parametrize("orientation", range(1, 9))
def test_copies_are_upright_and_only_turned_photographs_are_encoded_again(folder, tmp_path, orientation):
    path = folder / "turned.jpg"
    picture(3).save(path, exif=exif(orientation), quality=95)
    found = {photo.name: photo for photo in photographs.find(folder).photographs}
    photo = found["turned.jpg"]
    upright_copies.write(tmp_path / "scene", [photo])
    copy = tmp_path / "scene" / "images" / "turned.jpg"
    assert (copy.read_bytes() == path.read_bytes()) == (orientation == 1)
    expected = images.read(path)
    assert expected.shape[:2] == (photo.height, photo.width)
    assert images.size(copy) == (photo.width, photo.height, False)
    assert np.abs(images.read(copy) - expected).max() < 0.05


def test_copies_that_are_encoded_again_keep_the_exposure_alone(folder, tmp_path):
    content = exif(6, focal=26, make="Apple")
    content.get_ifd(EXIF).update({exif_exposure.TIME: 0.01, exif_exposure.ISO: 64, exif_exposure.F_NUMBER: 1.6})
    picture(3).save(folder / "turned.jpg", exif=content)
    found = {photo.name: photo for photo in photographs.find(folder).photographs}
    upright_copies.write(tmp_path, [found["turned.jpg"], found["0.png"]])
    files = [tmp_path / "images" / name for name in ("turned.jpg", "0.png", "missing.jpg")]
    stops = exif_exposure.of_files(files)
    assert stops[0] == pytest.approx(np.log2(0.01 * 64 / 1.6**2), abs=1e-5)
    assert np.isnan(stops[1:]).all()
    assert exif_exposure.of_files(files[1:]) is None
    with Image.open(files[0]) as copy:
        assert copy.getexif().get(ORIENTATION, 1) == 1
        assert FOCAL_35MM not in copy.getexif().get_ifd(EXIF)


def test_formats_that_colmap_does_not_read_are_converted_under_other_names(folder, tmp_path):
    picture(0).save(folder / "0.webp", lossless=True)
    rgba = np.dstack([np.asarray(picture(5)), np.full((16, 24), 200, np.uint8)])
    Image.fromarray(rgba).save(folder / "5.webp", lossless=True)
    picture(6).convert("CMYK").save(folder / "6.jpg", quality=100)
    picture(7).save(folder / "7.JPG", "PNG")
    found = photographs.find(folder).photographs
    assert [photo.name for photo in found] == ["0.png", "0.jpg", "1.png", "2.png", "5.png", "6.jpg", "7.png"]
    assert [photo.source.name for photo in found][1] == "0.webp"
    upright_copies.write(tmp_path / "scene", found)
    for photo in found:
        with Image.open(tmp_path / "scene" / "images" / photo.name) as copy:
            assert copy.format in ("JPEG", "PNG")
            assert copy.mode != "CMYK"
    assert images.read(tmp_path / "scene" / "images" / "5.png").shape[-1] == 4


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_turned_avif_photographs_are_copied_upright(folder, tmp_path):
    picture(3).save(folder / "turned.avif", exif=exif(6))
    photo = next(photo for photo in photographs.find(folder).photographs if photo.name == "turned.jpg")
    upright_copies.write(tmp_path / "scene", [photo])
    copy = tmp_path / "scene" / "images" / "turned.jpg"
    assert images.size(copy) == (photo.width, photo.height, False) == (16, 24, False)


def test_photographs_that_training_cannot_read_are_left_out(folder):
    Image.fromarray(np.zeros((16, 24), np.float32)).save(folder / "floats.tif")
    Image.fromarray(np.zeros((16, 24), np.uint16)).save(folder / "deep.png")
    found = photographs.find(folder)
    assert found.unreadable == {"floats.tif": "it has 32 bits a channel, which have no agreed range"}
    for photo in found.photographs:
        images.read(photo.source)


def test_equal_names_of_subfolders_stay_apart(folder):
    for name in ("left side", "rechte Seite ä"):
        (folder / name).mkdir()
        picture(1).save(folder / name / "0.png")
    found = photographs.find(folder).photographs
    assert [photo.name for photo in found] == ["0.png", "1.png", "2.png", "left side/0.png", "rechte Seite ä/0.png"]
    assert [photo.folder for photo in found][-2:] == ["left side", "rechte Seite ä"]


def test_focal_lengths_of_exif_data_refer_to_the_diagonal(folder):
    picture(3, 4000, 3000).save(folder / "p.jpg", exif=exif(6, 26, "Apple"))
    photo = {photo.name: photo for photo in photographs.find(folder).photographs}["p.jpg"]
    assert photo.focal == pytest.approx(26 * 5000 / np.hypot(36, 24))
    assert (photo.width, photo.height) == (3000, 4000)
    assert photo.is_of_phone


@pytest.mark.parametrize("focal", [1, 60_000])
def test_implausible_focal_lengths_of_exif_data_count_as_unknown(folder, focal):
    picture(3).save(folder / "p.jpg", exif=exif(1, focal))
    assert {photo.focal for photo in photographs.find(folder).photographs} == {None}


def test_linked_folders_are_not_followed_and_named(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    picture(1).save(tmp_path / "outside" / "9.png")
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(folder)
    assert len(photographs.find(folder).photographs) == 3
    for i in range(3):
        (folder / f"{i}.png").unlink()
    assert "not taken as photographs: linked, loop (links to folders), expected" in refusal(photographs.find, folder)


def test_files_that_cannot_be_read_are_named_and_left_out(folder, caplog):
    (folder / "empty.jpg").touch()
    whole = folder / "2.png"
    (folder / "cut.jpg").write_bytes(b"")
    picture(4, 64, 64).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-400])
    found = photographs.find(folder)
    assert set(found.unreadable) == {"empty.jpg", "cut.jpg"}
    assert "empty.jpg (the file is empty)" in caplog.text
    whole.unlink()
    (folder / "1.png").unlink()
    words = refusal(photographs.find, folder)
    assert "found 2 photographs (2 more cannot be read), expected at least 3" in words


@pytest.mark.parametrize(
    "name",
    [
        "masks/0.png",
        "masks/0.png.png",
        "0.mask.png",
        "0_mask.png",
        "0.png.mask.png",
        "dynamic_mask_0.png",
        "mask_0.png",
        "0.png.png",
    ],
)
def test_masks_are_found_by_their_usual_names_and_are_no_photographs(folder, tmp_path, name):
    mask = np.zeros((16, 24), np.uint8)
    mask[:, :5] = 1
    images.write_png(folder / name, mask)
    found = photographs.find(folder).photographs
    assert [photo.name for photo in found] == ["0.png", "1.png", "2.png"]
    assert [photo.mask for photo in found] == [folder / name, None, None]
    upright_copies.write(tmp_path / "a", found)
    upright_copies.write(tmp_path / "b", found, invert_masks=True)
    a, b = (np.asarray(Image.open(tmp_path / part / "masks" / "0.png.png")) for part in "ab")
    np.testing.assert_array_equal(a, np.where(mask > 0, 255, 0))
    np.testing.assert_array_equal(b, 255 - a)
    assert not (tmp_path / "a" / "masks" / "1.png.png").exists()


def test_masks_of_unrotated_pixels_are_turned_with_their_photograph(folder, tmp_path):
    picture(3).save(folder / "t.jpg", exif=exif(6))
    raw = np.zeros((16, 24), np.uint8)
    raw[:4] = 255
    upright = np.ascontiguousarray(np.rot90(raw, -1))
    for name, mask in (("raw", raw), ("upright", upright)):
        images.write_png(folder / "masks" / "t.png", mask)
        found = [photo for photo in photographs.find(folder).photographs if photo.name == "t.jpg"]
        upright_copies.write(tmp_path / name, found)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name / "masks" / "t.jpg.png")), upright)


def test_a_folder_of_masks_can_be_given(folder, tmp_path):
    masks = folder / "inside"
    images.write_png(masks / "1.png", np.ones((8, 12), np.uint8))
    found = photographs.find(folder, str(masks)).photographs
    assert [photo.mask for photo in found] == [None, masks / "1.png", None]
    (masks / "1.png").rename(masks / "other.png")
    assert "expected names such as 0.png or 0.png.png" in refusal(photographs.find, folder, str(masks))
    assert "expected a folder" in refusal(photographs.find, folder, str(tmp_path / "none"))
    images.write_png(folder / "masks" / "0.png", np.ones((16, 16), np.uint8))
    found = photographs.find(folder).photographs
    assert "expected the shape of 0.png, 24x16" in refusal(upright_copies.write, tmp_path / "s", found)


@pytest.mark.parametrize("inner", ["", "left"])
def test_masks_beside_a_folder_of_images_are_found_from_above_and_from_within(tmp_path, inner):
    for i in range(3):
        images.write_png(tmp_path / "images" / inner / f"{i}.png", np.zeros((16, 24, 3)))
        images.write_png(tmp_path / "masks" / inner / f"{i}.png.png", np.ones((16, 24)))
    for folder in (tmp_path, tmp_path / "images"):
        found = [photo.mask for photo in photographs.find(folder).photographs]
        assert found == [tmp_path / "masks" / inner / f"{i}.png.png" for i in range(3)]


def test_a_folder_of_masks_that_are_named_otherwise_is_warned_of(folder, caplog):
    images.write_png(folder / "masks" / "segmentation_0.png", np.ones((16, 24)))
    assert not any(photo.mask for photo in photographs.find(folder).photographs)
    assert "masks: found no mask of a photograph" in caplog.text
    assert "expected names such as 0.png or 0.png.png" in caplog.text
