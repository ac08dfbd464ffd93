"""Tests of idx files: round trips, and nothing beyond the header's size is decompressed."""

import gzip
import os
import struct
from pathlib import Path

import pytest
import torch

from enerf.datasets.labelled import idx, load, synthetic
from tests.contents import refusal


def _refused(path, **options):
    return refusal(load.load, path, **options)


@pytest.fixture
def folder(tmp_path):
    return synthetic.write_idx(tmp_path / "mnist", 40, 20)


def _change(folder, name, change):
    path = folder / f"{name}-ubyte.gz"
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


def test_idx_files_hold_what_was_written_to_the_byte(folder):
    read = load.load(folder)
    for split, made in ((read.train, synthetic.figures(40, 28, 1, 0)), (read.test, synthetic.figures(20, 28, 1, 1))):
        assert torch.equal(split.images, made.images)
        assert torch.equal(split.labels, made.labels)
    assert (read.channels, read.size, read.classes, read.name) == (1, 28, tuple("0123456789"), "mnist")


def test_plain_files_with_a_dot_in_their_names_are_the_same(folder, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in folder.glob("*.gz"):
        (plain / path.name.removesuffix(".gz").replace("-idx", ".idx")).write_bytes(gzip.decompress(path.read_bytes()))
    assert torch.equal(load.load(plain).train.images, load.load(folder).train.images)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("train-images-idx3", lambda data: b"\0\0\x08\x01" + data[4:], "begins with 00000801, expected 00000803"),
        ("train-images-idx3", lambda data: b"", "begins with nothing"),
        ("train-images-idx3", lambda data: data[:9], "it ends too soon"),
        ("train-images-idx3", lambda data: data[:-1], "it ends too soon"),
        ("train-images-idx3", lambda data: data + b"\0", "more than the 31,360 bytes that its header says"),
        ("train-images-idx3", lambda data: data[:4] + b"\xff" * 12 + data[16:], "expected no more than"),
        ("train-images-idx3", lambda data: data[:8] + struct.pack(">II", 14, 56) + data[16:], "14×56"),
        ("train-labels-idx1", lambda data: data[:4] + struct.pack(">I", 39) + data[8:-1], "40 images and"),
        ("train-labels-idx1", lambda data: data[:-1] + b"\x0b", "up to 11 and none is 10"),
        ("t10k-labels-idx1", lambda data: data[:-1] + b"\x0a", "row 19 has the label 10, expected 0 to 9"),
    ],
)
def test_damage_is_one_sentence_each(folder, name, change, words):
    _change(folder, name, change)
    said = _refused(folder)
    assert words in said
    assert name in said


def test_a_compressed_file_that_ends_too_soon_or_is_none_is_one_sentence(folder):
    path = folder / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:5], b"no gzip at all", whole[:-8] + b"\0" * 8):
        path.write_bytes(data)
        assert "t10k-images-idx3-ubyte.gz" in _refused(folder)
    path.unlink()
    assert "lacks t10k-images-idx3-ubyte" in _refused(folder)


def test_a_bomb_is_not_unpacked_beyond_its_header(folder, monkeypatch):
    _change(folder, "t10k-labels-idx1", lambda data: data + b"\0" * (64 << 20))
    sizes = []
    read = gzip.GzipFile.read

    def counted(self, size=-1):
        sizes.append(size)
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    assert "holds more than the 20 bytes" in _refused(folder)
    assert 0 < max(sizes) <= idx._PIECE
    assert min(sizes) >= 0


@pytest.mark.data
def test_fashion_mnist_is_as_its_authors_say():
    folder = Path(os.environ.get("ENERF_DATA", "")) / "labelled" / "fashion-mnist"
    if "ENERF_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("ENERF_DATA names no folder with labelled/fashion-mnist")
    read = load.load(folder)
    assert (len(read.train), len(read.test), read.channels, read.size, len(read.classes)) == (60000, 10000, 1, 28, 10)
    assert read.train.labels.bincount().tolist() == [6000] * 10
    assert read.mean == pytest.approx((0.2860,), abs=1e-4)
    assert read.std == pytest.approx((0.3530,), abs=1e-4)
