"""Arrays in .npy files, whole and damaged."""

import io
import os

import numpy as np
import pytest

from enerf.core import arrays
from enerf.core.errors import InputError

ROWS = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize(
    "array",
    [
        ROWS,
        np.asfortranarray(ROWS),
        ROWS.astype(">f4"),
        ROWS.astype(np.longdouble),
        ROWS.astype(np.int16),
        ROWS[:0],
        np.float64(3.0),
    ],
)
def test_arrays_of_numbers_are_read_as_numpy_reads_them(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    found, wanted = arrays.read_npy(tmp_path / "a.npy"), np.load(tmp_path / "a.npy")
    assert np.array_equal(found, wanted)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)


def test_version_2_is_read(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, ROWS, version=(2, 0))
    (tmp_path / "a.npy").write_bytes(stream.getvalue())
    assert np.array_equal(arrays.read_npy(tmp_path / "a.npy"), ROWS)


def _with_header(text, body=b"\0" * 800):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


def _header(shape, descr="'<f8'"):
    return _with_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (_header("(1099511627776, 17)"), "numbers of shape (1099511627776, 17) and 800 bytes after it"),
        (_header(f"({'9' * 3000}, 17)"), "numbers of shape beyond all memory"),
        (_header(f"(0, {2**63 - 1})"), f"of shape (0, {2**63 - 1})"),
        (_header("(-8, -17)"), "of shape (-8, -17)"),
        (_header("(True, 17)"), "holds no plain array"),
        (_header("(8.0, 17)"), "holds no plain array"),
        (_header("(8, 17)", "'|O'"), "holds pickled objects"),
        (_header("(8, 17)", "'<U536870911'"), "expected real numbers"),
        (_header("(8, 17)", "[('a', '<f8', (2147483647,))]"), "holds no plain array"),
        (_with_header("(" * 9000), "holds no plain array"),
        (_with_header("-" * 3000 + "1"), "holds no plain array"),
        (_with_header("  {'descr': '<f8'}\n x: 1\n  y"), "holds no plain array"),
        (_with_header("{'descr': '<f8"), "holds no plain array"),
        (b"\x93NUMPY\x01\x00\xff\xff{'descr'", "holds no plain array"),
        (b"\x93NUMPY\x09\x00", "holds no plain array"),
        (b"", "holds no plain array"),
    ],
)
def test_what_is_no_array_is_one_sentence_and_takes_no_memory(data, found, tmp_path):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(InputError) as caught:
        arrays.read_npy(tmp_path / "a.npy")
    text = str(caught.value)
    assert found in text
    assert text.startswith(f"{tmp_path / 'a.npy'} h")
    assert "expected" in text
    assert len(text) < 400 + len(str(tmp_path))


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(InputError, match="found a named pipe"):
        arrays.read_npy(tmp_path / "a.npy")
