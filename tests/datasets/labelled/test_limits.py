"""Limits of labelled data: what files and archives say of their sizes is checked before anything is allocated."""

import gzip
import os
import pickle
import struct
import tarfile
import time
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

from enerf.core import files
from enerf.datasets.labelled import archive, load, safe_pickle, synthetic
from tests.contents import refusal
from tests.corpus import damage

MIB = 1 << 20


@contextmanager
def little_memory(most: int = 32 * MIB):
    """Check that the block allocates no more than this."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def archive_of(path, *parts) -> str:
    path.write_bytes(damage.gzipped(*parts))
    with little_memory():
        return refusal(load.load, path)


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_tar_header_of_gigabytes_is_not_read(kind, tmp_path):
    found = archive_of(tmp_path / "a.tar.gz", damage.tar_header(b"x", 5 << 29, kind), bytes(MIB))
    assert "it has a header of 2,684,354,560 bytes, of which 65,536 are read" in found


def test_a_name_of_a_thousand_bytes_is_read(tmp_path):
    folder = synthetic.write_cifar(tmp_path / "figures", 25, 7)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as made:
        made.add(folder, "figures")
        made.add(folder / "test_batch.bin", "figures/" + "a/" * 500 + "notes.txt")
    assert len(load.load(tmp_path / "a.tar").train) == 25


def test_a_sparse_member_is_refused(tmp_path):
    found = archive_of(tmp_path / "a.tar.gz", damage.sparse_header(b"data_batch_1.bin", 1 << 29), bytes(1024))
    assert found.endswith("data_batch_1.bin is a sparse file, expected an archive of files without holes")


def test_a_tar_that_unpacks_a_thousand_times_its_size_is_refused_before_the_memory_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FREE", MIB)
    members = [damage.tar_header(b"a%d" % i, MIB, b"0") + bytes(MIB) for i in range(20)]
    assert "unpacks to more than 32 times its size" in archive_of(tmp_path / "a.tar.gz", *members)


def test_a_zip_is_refused_by_its_directory_before_a_member_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FREE", MIB)
    monkeypatch.setattr(zipfile.ZipFile, "read", pytest.fail)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for i in range(1, 6):
            made.writestr(f"data_batch_{i}.bin", bytes(MIB))
    assert "unpacks to more than 32 times its size" in refusal(load.load, tmp_path / "a.zip")


def test_an_archive_that_does_not_fit_in_memory_is_refused(tmp_path, monkeypatch):
    folder = synthetic.write_cifar(tmp_path / "figures", 25, 7)
    with tarfile.open(tmp_path / "a.tar", "w") as made:
        made.add(folder, "figures")
    monkeypatch.setattr(files, "available_memory", lambda: 10_000)
    monkeypatch.setattr(archive, "_STEP", 0)
    assert "needs 15.0 KiB of memory" in refusal(load.load, tmp_path / "a.tar")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_header_that_promises_more_than_the_file_can_hold_is_refused(suffix, tmp_path):
    folder = synthetic.write_idx(tmp_path / "figures", 20, 10)
    raw = struct.pack(">4B3I", 0, 0, 8, 3, 1 << 18, 28, 28) + bytes(1000)
    whole = folder / "train-images-idx3-ubyte.gz"
    whole.unlink()
    (folder / f"train-images-idx3-ubyte{suffix}").write_bytes(gzip.compress(raw) if suffix else raw)
    with little_memory():
        assert "promises 205,520,896 bytes and has" in refusal(load.load, folder)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}r" + struct.pack("<I", 2**28) + b".",  # a memo of 2^28 entries
        b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b"x.",  # a bytearray of 16 GiB
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    ],
)
def test_a_pickle_of_a_few_bytes_takes_no_memory(data):
    with little_memory(MIB), pytest.raises(ValueError, match=r"."):
        safe_pickle.read(data)


def test_a_pickle_whose_keys_take_forever_to_hash_is_refused_at_once():
    nested = b"\x80\x02})q\x00"
    for i in range(60):
        nested += b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    began = time.perf_counter()
    with pytest.raises(safe_pickle.UnsafePickle, match="references to tuples"):
        safe_pickle.read(nested + b"K\x01s.")
    assert time.perf_counter() - began < 5


def test_a_label_of_thousands_of_digits_is_one_sentence(tmp_path):
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        content = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10**5000]}
        (tmp_path / name).write_bytes(pickle.dumps(content))
    assert "row 0 has the label a number of many digits, expected 0 to 9" in refusal(load.load, tmp_path)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_many_arrays_are_read_in_every_protocol(protocol):
    content = {f"a{i}": np.arange(i + 1, dtype=np.uint8) for i in range(50)} | {"labels": [1, 2] * 20}
    found = safe_pickle.read(pickle.dumps(content, protocol))
    assert all(np.array_equal(found[name], content[name]) for name in content)


@pytest.mark.parametrize("place", ["train/disc/pipe.png", "test/ring/README", "train/pipe"])
def test_a_named_pipe_in_a_class_folder_is_named_at_once(place, tmp_path):
    folder = synthetic.write_folder(tmp_path / "figures", 10, 10)
    os.mkfifo(folder / place)
    assert refusal(load.load, folder) == f"{folder / place}: found a named pipe, expected a file"


@pytest.mark.parametrize("name", ["0.png", "0.jpg"])
def test_an_image_of_a_billion_pixels_is_not_decoded(name, tmp_path):
    folder = synthetic.write_folder(tmp_path / "figures", 10, 10)
    raw = damage.png(30_000, 30_000, rows=b"")
    if name == "0.jpg":
        raw = bytearray(damage.encoded("L", "JPEG", size=(512, 512)))
        at = raw.index(b"\xff\xc0") + 5
        raw[at : at + 4] = struct.pack(">HH", 30_000, 30_000)
    (folder / "train" / "disc" / name).write_bytes(bytes(raw))
    found = refusal(load.load, folder)
    assert "it declares more than 178,956,970 pixels" in found


def test_thousands_of_folders_are_looked_through_in_no_time(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for i in range(5000):
            made.writestr(f"d{i}/x", b"")
    began = time.perf_counter()
    assert "and 4995 more" in refusal(load.load, tmp_path / "a.zip")
    assert time.perf_counter() - began < 30


def test_a_fingerprint_changes_with_every_file_inside(tmp_path):
    folder = synthetic.write_folder(tmp_path / "figures", 10, 10)
    seen = {archive.fingerprint(folder)}
    inner = folder / "train" / "disc"
    stamp = inner.stat()

    def assert_is_new() -> None:
        os.utime(inner, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the folder's own time tells nothing
        assert archive.fingerprint(folder) not in seen
        seen.add(archive.fingerprint(folder))

    image = next(inner.iterdir())
    image.write_bytes(image.read_bytes() + b" ")
    assert_is_new()
    os.utime(image, ns=(0, 0))
    assert_is_new()
    image.rename(image.with_name("renamed.png"))
    assert_is_new()
    assert archive.fingerprint(folder) == archive.fingerprint(folder)
    assert archive.fingerprint(tmp_path / "none") == ""
