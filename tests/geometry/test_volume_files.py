"""Tests of reading voxels: every format gives the same array, hostile files are one sentence and little memory."""

import importlib.util
import io
import re
import struct
import zlib

import numpy as np
import pytest

from enerf.core import files
from enerf.core.errors import InputError
from enerf.geometry import volume_files
from tests.contents import refusal
from tests.geometry import volumes
from tests.memory import least_peak

BALL = volumes.ball()


@pytest.mark.parametrize("name", volumes.FILES)
def test_every_format_and_type_holds_the_same_voxels(tmp_path, name):
    for make in volumes.VALUES.values():
        path = volumes.write(tmp_path, name, volumes.FILES[name](make(BALL)))
        found = volume_files.read(path)
        assert found.shape == BALL.shape
        assert np.array_equal(found > 0, BALL)
        assert volume_files.announced_bytes(path) > 0


MATRIX = volumes.mat(hypercube=BALL.astype(np.uint8))


def compressed(announced: int, body: bytes) -> bytes:
    """A MATLAB file with one compressed element, which announces a size."""
    packed = zlib.compress(struct.pack("<2I", 14, announced) + body)
    return MATRIX[:128] + struct.pack("<2I", 15, len(packed)) + packed


def bomb_in_element() -> bytes:
    """A compressed element of 300 MB that announces 64 bytes."""
    stream = zlib.compressobj(9)
    packed = stream.compress(struct.pack("<2I", 14, 64))
    packed += b"".join(stream.compress(bytes(1 << 20)) for _ in range(300)) + stream.flush()
    return MATRIX[:128] + struct.pack("<2I", 15, len(packed)) + packed


HOSTILE = {
    "empty.mat": (b"", "another format"),
    "text.mat": (b"MATLAB? no " * 40, "another format"),
    "cut.mat": (MATRIX[:-500], "cannot be read"),
    "header.mat": (MATRIX[:128], "found the variables 'none'"),
    "two.mat": (
        volumes.mat(a=BALL * 1, b=BALL * 1),
        "found the variables 'a, b', expected one, or one named hypercube",
    ),
    "struct.mat": (volumes.mat(hypercube={"a": 1}), "'hypercube' of class struct"),
    "char.mat": (volumes.mat(hypercube="abc"), "'hypercube' of class char"),
    "complex.mat": (volumes.mat(hypercube=np.ones((2, 2, 2)) * 1j), "of type complex128"),
    "announces.mat": (compressed(0xFFFFFFF0, b"1234"), r"needs 4\.0 GiB|announces|another number"),
    "lies.mat": (compressed(4096, b"1234"), "announces 4,096 bytes and has another number"),
    "bomb.mat": (bomb_in_element(), "announces 64 bytes and has another number"),
    "v73.mat": (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(100), "7.3"),
    "objects.npy": (volumes.npy(np.array([{}], dtype=object)), "pickled objects"),
    "complex.npy": (volumes.npy(np.ones((2, 2, 2)) * 1j), "expected real numbers"),
    "cut.npy": (volumes.npy(BALL)[:-1], "damaged"),
    "two.npz": (volumes.npz(a=BALL, b=BALL), "2 of them .mat or .npy"),
    "none.zip": (volumes.zipped({"readme.txt": b"text"}), "found 1 files in it, 0 of them"),
    "cut.zip": (volumes.zipped({"it.npy": volumes.npy(BALL)})[:-30], "cannot be read"),
    "small.zip": (volumes.with_size(volumes.zipped({"it.npy": bytes(300 << 20)}), 1000), "cannot be read"),
    "large.zip": (volumes.with_size(volumes.zipped({"it.npy": volumes.npy(BALL)}), 1 << 31), "announces 2.0 GiB"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_sentence_and_takes_little_memory(tmp_path, name):
    data, sentence = HOSTILE[name]
    path = volumes.write(tmp_path, name, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "available_memory", lambda: 1 << 28)
        patch.setattr(volume_files, "LARGEST", 1 << 28)
        assert least_peak(lambda: _matches(refusal_of(path), sentence), 1) < 64 << 20


def refusal_of(path) -> str:
    """The message without the full stop of array files."""
    with pytest.raises(InputError) as caught:
        volume_files.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _matches(text: str, pattern: str) -> None:
    assert re.search(pattern, text), text


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path):
    assert "it does not exist" in refusal(volume_files.read, tmp_path / "none.npy")
    assert "found a folder" in refusal(volume_files.read, tmp_path)
    assert volume_files.announced_bytes(tmp_path / "none.npy") == 0


def test_what_exceeds_the_memory_is_refused_by_its_announced_size(tmp_path, monkeypatch):
    path = volumes.write(tmp_path, "it.npy.zip", volumes.zipped({"it.npy": volumes.npy(BALL)}))
    assert volume_files.announced_bytes(path) == BALL.size + 128
    monkeypatch.setattr(files, "available_memory", lambda: BALL.size)
    assert "needs 28.0 KiB of memory" in refusal(volume_files.read, path)


@pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="h5py is not installed")
def test_matlab_7_3_is_read_by_h5py(tmp_path):
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=512) as file:
        file["hypercube"] = BALL.T.astype(np.uint8)
        file["other"] = np.ones(3)
    path = volumes.write(tmp_path, "it.mat", stream.getvalue())
    assert np.array_equal(volume_files.read(path), BALL)
    volumes.write(tmp_path, "it.mat", stream.getvalue()[:-3000])
    assert "cannot be read" in refusal(volume_files.read, path)
