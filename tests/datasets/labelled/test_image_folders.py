"""Tests of image folders: exact bytes, one size or a resize, archives equal to their folder."""

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from enerf.core import files
from enerf.core.errors import InputError
from enerf.datasets.labelled import decoding, image_folders, load, synthetic
from tests.contents import refusal


def _refused(path, **options):
    return refusal(load.load, path, **options)


@pytest.fixture
def folder(tmp_path):
    return synthetic.write_folder(tmp_path / "figures", 20, 10, size=16)


def _every(split):
    return split.batch(torch.arange(len(split)))


def _same(one, other):
    assert one.classes == other.classes
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert torch.equal(_every(a), _every(b))
        assert torch.equal(a.labels, b.labels)


def _packed(folder, path):
    names = sorted(p for p in folder.rglob("*") if p.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(name, f"./{name.relative_to(folder.parent)}")
    else:
        kind = path.suffix.removeprefix(".")
        with tarfile.open(path, "w" if kind == "tar" else f"w:{kind}") as archive:
            archive.add(folder, folder.name)
    return path


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".zip"])
def test_archives_hold_what_their_folder_holds_and_what_systems_leave_behind_does_not_count(folder, tmp_path, suffix):
    before = load.load(folder)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "README.md").write_text("figures")
    (folder / "train" / "._disc").mkdir()
    (folder / "train" / "disc" / "._a.png").write_bytes(b"x")
    (folder / "train" / "disc" / "Thumbs.db").write_bytes(b"x")
    (folder / "train" / "disc" / "notes.txt").write_bytes(b"x")
    os.symlink("/", folder / "train" / "disc" / "elsewhere.png") if suffix != ".zip" else None
    _same(load.load(_packed(folder, tmp_path / f"a{suffix}")), before)
    assert load.load(tmp_path / f"a{suffix}").name == "figures"


@pytest.mark.parametrize("name", ["val", "validation"])
def test_tests_lie_in_any_of_the_usual_folders_or_in_the_one_that_is_named(folder, name):
    before = load.load(folder)
    shutil.move(folder / "test", folder / name)
    _same(load.load(folder), before)
    shutil.move(folder / name, folder / "mine")
    assert "has no test/, val/ or validation/" in _refused(folder)
    _same(load.load(folder, test="mine"), before)
    (folder / "test").mkdir()
    (folder / "test" / "unlabelled.png").write_bytes(b"x")
    assert "unlabelled.png lies in no class folder" in _refused(folder)
    shutil.move(folder / "mine", folder / "val")
    _same(load.load(folder), before)  # a test folder without labels is passed over
    assert "has no other beside train/" in _refused(folder, test="other")


@pytest.mark.parametrize("size", [16, 20])
def test_images_decoded_on_demand_are_those_in_memory(folder, monkeypatch, size):
    held = load.load(folder)
    monkeypatch.setattr(image_folders, "MEMORY", 0)
    asked = load.load(folder)
    assert asked.train.on_demand
    _same(held, asked)
    assert (asked.mean, asked.std) == (held.mean, held.std)
    numbers = torch.tensor([3, 3, 17, 0])
    for augment in ("shift", "shift_flip"):
        one, other = (s.train.batch(numbers, augment, torch.Generator().manual_seed(1)) for s in (held, asked))
        assert torch.equal(one, other)
    with pytest.raises(InputError, match="--augment is crop"):
        held.train.batch(numbers, "crop", torch.Generator())


def test_pictures_are_gray_only_if_all_are(folder):
    for path in folder.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    gray = load.load(folder)
    assert (gray.channels, gray.train.images.shape[1]) == (1, 1)
    path = next((folder / "train" / "disc").glob("*.png"))
    Image.open(path).convert("RGB").save(path)
    colored = load.load(folder)
    assert colored.channels == 3
    assert torch.equal(colored.train.images, gray.train.images.expand(-1, 3, -1, -1))


def _picture(folder, name, width, height, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    Image.fromarray(ramp).save(path, **options)
    return ramp


@pytest.fixture
def mixed(tmp_path):
    for split in ("train", "test"):
        _picture(tmp_path, f"{split}/cat/a.png", 40, 30)
        _picture(tmp_path, f"{split}/cat/b.jpg", 30, 64, quality=95)
        _picture(tmp_path, f"{split}/dog/c.webp", 24, 24, lossless=True)
    return tmp_path


def test_pictures_of_several_sizes_need_image_size_and_the_first_that_differ_are_named(mixed):
    assert "a.png has 40×30 pixels, expected squares or --image_size" in _refused(mixed)
    _picture(mixed, "train/cat/a.png", 30, 30)
    words = _refused(mixed)
    assert "a.png has 30×30 pixels and train/cat/b.jpg 30×64, expected one size or --image_size" in words


def test_resized_pictures_are_the_middle_of_a_larger_one_or_a_random_part(mixed):
    read = load.load(mixed, image_size=16)
    assert (read.size, read.channels, read.note) == (16, 3, "JPEG, lossy")
    pixels = decoding.resized(decoding.decode(read.train.archive, "train/cat/a.png"), 24, 18)
    assert np.array_equal(_every(read.train)[0].permute(1, 2, 0), pixels[1:17, 4:20])
    one, other, third = (
        read.train.batch(torch.arange(3), "crop", torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert one.shape == (3, 3, 16, 16)
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    with pytest.raises(ValueError, match="generator"):
        read.train.batch(torch.arange(3), "crop")


def test_a_constant_picture_stays_so_whatever_the_sizes():
    for width, height in ((3, 5), (40, 30), (224, 224), (1, 1)):
        flat = np.full((height, width, 3), 77, np.uint8)
        assert (decoding.resized(flat, 17, 11) == 77).all()


def test_pictures_are_upright_and_16_bits_and_palettes_and_transparency_come_out_as_bytes(mixed):
    ramp = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) * 100
    Image.fromarray(ramp).save(mixed / "train/dog/deep.png")
    Image.open(mixed / "train/dog/c.webp").convert("P").save(mixed / "train/dog/palette.png")
    Image.open(mixed / "train/dog/c.webp").convert("RGBA").save(mixed / "train/dog/clear.png")
    exif = Image.Exif()
    exif[274] = 6
    _picture(mixed, "train/dog/turned.jpg", 24, 36, exif=exif)
    store = load.load(mixed, image_size=8).train.archive
    shapes = {n: decoding.decode(store, f"train/dog/{n}").shape for n in ("deep.png", "palette.png", "clear.png")}
    assert shapes == {"deep.png": (24, 24), "palette.png": (24, 24, 3), "clear.png": (24, 24, 3)}
    assert decoding.decode(store, "train/dog/turned.jpg").shape == (24, 36, 3)


def test_declared_sizes_are_checked_before_anything_is_decoded(folder, monkeypatch):
    path, stream = next((folder / "train" / "ring").glob("*.png")), io.BytesIO()
    Image.new("L", (16, 16)).save(stream, "JPEG")
    jpeg = stream.getvalue()
    at = jpeg.index(b"\xff\xc0") + 5
    png = path.read_bytes()
    monkeypatch.setattr(files, "available_memory", lambda: 2**30)
    for side, found in (
        (30_000, "declares more than 178,956,970 pixels"),
        (10_000, "10000x10000 pixels: needs 2.2 GiB"),
    ):
        header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
        for data in (
            jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4 :],
            png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:],
        ):
            path.write_bytes(data)
            words = _refused(folder)
            assert path.name in words
            assert found in words


def test_a_pipe_in_the_place_of_a_picture_is_refused_at_once(folder):
    path = sorted((folder / "train" / "ring").iterdir())[0]
    path.unlink()
    os.mkfifo(path)
    assert f"{path}: found a named pipe, expected a file" in _refused(folder)


def test_pictures_in_formats_that_are_not_read_are_named_in_a_warning(folder, caplog):
    (folder / "train" / "ring" / "a.gif").write_bytes(b"GIF89a")
    (folder / "test" / "ring" / "b.CR2").write_bytes(b"raw")
    load.load(folder)
    assert "not read: train/ring/a.gif (GIF: convert them to PNG)" in caplog.text
    assert "not read: test/ring/b.CR2 (raw photographs" in caplog.text


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_an_image_that_ends_too_soon_or_is_none_is_one_sentence(folder, kind):
    path = sorted((folder / "train" / "ring").iterdir())[0]
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(stream, kind)
    whole = stream.getvalue()
    for data in (whole[: len(whole) * 2 // 3], whole[:20], b"", b"no image"):
        path.write_bytes(data)
        words = _refused(folder)
        assert path.name in words
        assert "expected a whole image file" in words


def test_what_does_not_fit_together_is_one_sentence_each(folder):
    (folder / "train" / "zebra").mkdir()
    assert "zebra holds no images" in _refused(folder)
    (folder / "train" / "zebra").rmdir()
    shutil.copytree(folder / "test" / "disc", folder / "test" / "zebra")
    assert "zebra is no class of" in _refused(folder)
    shutil.rmtree(folder / "test" / "zebra")
    shutil.rmtree(folder / "test" / "disc")
    assert 0 not in load.load(folder).test.labels - load.load(folder).classes.index("disc")
    shutil.rmtree(folder / "test")
    (folder / "test").mkdir()
    assert "test holds no images" in _refused(folder)
    for path in [p for p in (folder / "train").iterdir() if p.name != "ring"]:
        shutil.rmtree(path)
    assert "has 1 class folders, expected 2 or more" in _refused(folder)


def test_zip_archives_that_are_damaged_or_reach_outside_are_one_sentence(folder, tmp_path):
    path = _packed(folder, tmp_path / "a.zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "a.zip cannot be read" in _refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train/../../evil.png", b"x")
    assert "expected names without '..'" in _refused(path)


def test_archives_that_unpack_to_too_much_are_one_sentence(folder, tmp_path, monkeypatch):
    path = _packed(folder, tmp_path / "a.tar.gz")
    monkeypatch.setattr("enerf.datasets.labelled.archive.TOTAL", 4000)
    assert "unpack it and name the folder" in _refused(path)
    monkeypatch.setattr("enerf.datasets.labelled.archive.MEMBER", 100)
    assert "expected a smaller file" in _refused(path)


@pytest.mark.data
def test_cifar10_as_jpeg_files_in_an_archive_is_complete():
    path = Path(os.environ.get("ENERF_DATA", "")) / "labelled" / "cifar10_jpeg.tar.xz"
    if "ENERF_DATA" not in os.environ or not path.is_file():
        pytest.skip("ENERF_DATA names no folder with labelled/cifar10_jpeg.tar.xz")
    read = load.load(path)
    assert (len(read.train), len(read.test), read.channels, read.size, len(read.classes)) == (50000, 10000, 3, 32, 10)
    assert read.train.labels.bincount().tolist() == [5000] * 10
    assert read.classes[0] == "airplane"
    assert read.note == "JPEG, lossy"
    assert read.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-3)


# what other decoders and file systems make of it


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_of_16_bits_the_high_ones_are_taken_whatever_the_format(folder, suffix):
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for path in folder.rglob("*.png"):
        path.unlink()
        Image.fromarray(eight.astype(np.uint16) * 257).save(path.with_suffix(suffix))
    found = load.load(folder)
    assert found.channels == 1
    assert np.array_equal(found.train.batch(torch.tensor([0])).numpy()[0, 0], eight)


def test_32_bits_of_an_unknown_range_are_refused(folder):
    path = folder / "train" / "disc" / "float.tiff"
    Image.fromarray(np.full((16, 16), 0.5, np.float32)).save(path)
    assert "float.tiff cannot be read (its pixels have 32 bits" in _refused(folder)


def test_links_that_lead_back_or_to_themselves_add_nothing(folder):
    before = load.load(folder)
    disc = folder / "train" / "disc"
    (disc / "self").symlink_to("self")
    (disc / "here").symlink_to(".")
    (disc / "up").symlink_to("..")
    _same(load.load(folder), before)
