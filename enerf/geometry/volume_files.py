"""Reading arrays of voxels from ``.npy``, ``.npz`` and MATLAB files, also zipped.

Nothing is unpacked beyond the size that a file announces, and that is first compared with the available memory.
"""

import io
import math
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from enerf.core import arrays, files
from enerf.core.errors import InputError, shown

VARIABLE = "hypercube"
SUFFIXES = (".mat", ".npy", ".npz", ".zip")
EXPECTED = "an array of voxels as .npy, .npz or .mat (MATLAB 5), also inside of a .zip"
LARGEST = 8 << 30  # unpacked bytes
_NUMBERS = "biuf"  # kinds of dtypes
_ITEM_BYTES = {"logical": 1, "double": 8, "single": 4} | {
    f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)
}  # of MATLAB's classes of real numbers
_HEADER = 128  # bytes of a MATLAB 5 file before its elements
_COMPRESSED = 15  # type of an element
_DAMAGED = (
    *(OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, struct.error, MemoryError),
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, OverflowError, RecursionError),
)


def read(path: Path) -> Shaped[np.ndarray, "..."]:
    """Return the array of real numbers or booleans in a file, in any number of dimensions and memory order.

    Of a MATLAB file it is the variable ``hypercube``, or the only one; of a zip file, the only array in it.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another format, or too large, or has no such array.
    """
    try:
        data, name = _content(path)
    except _DAMAGED as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)}), expected {EXPECTED}") from None
    if data.startswith(b"\x93NUMPY"):
        return arrays.array_of(data, name, _NUMBERS)
    if data.startswith(b"\x89HDF") or data[512:516] == b"\x89HDF":
        return _read_hdf(data, name)
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise InputError(f"{name}: found a file of another format, expected {EXPECTED}")
    return _read_matlab(data, name)


def announced_bytes(path: Path) -> int:
    """Return the size of a volume's array by what its file says, without reading it; 0 if that is not known."""
    try:
        with files.open_regular(path) as file:
            if not zipfile.is_zipfile(file):
                return files.require_regular(path)
            with zipfile.ZipFile(file) as zipped:
                return sum(member.file_size for member in zipped.infolist())
    except _DAMAGED:
        return 0  # reported by the reader


def _content(path: Path) -> tuple[bytes, str]:
    """Return the bytes of the array's file, from inside of a zip if it is one, and its name for messages."""
    with files.open_regular(path) as file:
        if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            return files.read_bytes(path, LARGEST), str(path)
        with zipfile.ZipFile(file) as zipped:
            member = _only_member(zipped, path)
            name = f"{path}:{member.filename}"
            _require(member.file_size, name)
            with zipped.open(member) as unpacked:
                data = unpacked.read(member.file_size)  # without the size, a lying one is found after unpacking
            if len(data) != member.file_size:
                raise ValueError("it ends too soon")
            return data, name


def _only_member(zipped: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """Return the only array in a zip; files that begin with a dot, and those of ``__MACOSX``, are ignored."""
    inside = [each for each in zipped.infolist() if not each.is_dir()]
    found = [
        each
        for each in inside
        if each.filename.lower().endswith((".mat", ".npy"))
        and not each.filename.rpartition("/")[2].startswith(".")
        and "__MACOSX" not in each.filename.split("/")
    ]
    if len(found) != 1:
        raise InputError(
            f"{path}: found {len(inside)} files in it, {len(found)} of them .mat or .npy, expected one array of voxels"
        )
    if found[0].flag_bits & 1:
        raise InputError(f"{path}: found an encrypted file in it, expected a zip without a password")
    return found[0]


def _read_matlab(data: bytes, name: str) -> Shaped[np.ndarray, "..."]:
    """Return the array of a MATLAB 5 file."""
    from scipy import io as scipy_io
    from scipy.io.matlab import MatReadError

    try:
        data = _inflated(data, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of variables that have one name
            variable, shape, kind = _chosen([tuple(each) for each in scipy_io.whosmat(io.BytesIO(data))], name)
            if kind not in _ITEM_BYTES:
                raise InputError(f"{name}: found {shown(variable)} of class {kind}, expected real numbers")
            _require(math.prod(shape) * _ITEM_BYTES[kind], name)
            found = scipy_io.loadmat(io.BytesIO(data), variable_names=[variable])[variable]
    except (*_DAMAGED, MatReadError) as error:
        raise InputError(f"{name}: cannot be read ({_reason(error)}), expected a whole MATLAB 5 file") from None
    if found.dtype.kind not in _NUMBERS:
        raise InputError(f"{name}: found {shown(variable)} of type {found.dtype}, expected real numbers")
    return np.asarray(found)


def _chosen(variables: list[tuple[str, tuple[int, ...], str]], name: str) -> tuple[str, tuple[int, ...], str]:
    """Return name, shape and class of the variable ``hypercube``, or of the only one."""
    named = [each for each in variables if each[0] == VARIABLE] or variables
    if len(named) != 1:
        listed = ", ".join(each[0] for each in variables[:5]) or "none"
        raise InputError(f"{name}: found the variables {shown(listed)}, expected one, or one named {VARIABLE}")
    return named[0]


def _inflated(data: bytes, name: str) -> bytes:
    """Return a MATLAB 5 file with its compressed elements unpacked, each to the size that it announces."""
    order = "<" if data[126:128] == b"IM" else ">"
    parts, at, total = [data[:_HEADER]], _HEADER, 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}2I", data, at)
        end = at + 8 + size
        if kind != _COMPRESSED:
            parts.append(data[at:end])
        else:
            stream = zlib.decompressobj()
            tag = stream.decompress(data[at + 8 : end], 8)
            inner = struct.unpack(f"{order}2I", tag)[1]
            total += inner
            _require(total, name)
            body = stream.decompress(stream.unconsumed_tail, max(1, inner))
            if len(body) != inner or stream.decompress(stream.unconsumed_tail, 1):
                raise ValueError(f"a variable announces {inner:,} bytes and has another number")
            parts += [tag, body]
        at = end
    return data if total == 0 else b"".join(parts)


def _read_hdf(data: bytes, name: str) -> Shaped[np.ndarray, "..."]:
    """Return the array of a MATLAB 7.3 file, which is an HDF5 file with reversed axes."""
    try:
        import h5py
    except ImportError:
        raise InputError(
            f"{name}: found a MATLAB 7.3 file, which is read only if h5py is installed; expected one of MATLAB 5 "
            "(save with -v7)"
        ) from None
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            inside: list[Any] = [each for each in file.values() if isinstance(each, h5py.Dataset)]
            variables = [(each.name.lstrip("/"), tuple(each.shape), str(each.dtype)) for each in inside]
            variable, shape, _ = _chosen(variables, name)
            stored = file[variable]
            if stored.dtype.kind not in _NUMBERS:
                raise InputError(f"{name}: found {shown(variable)} of type {stored.dtype}, expected real numbers")
            _require(math.prod(shape) * stored.dtype.itemsize, name)
            return np.asarray(stored[()]).T
    except _DAMAGED as error:
        raise InputError(f"{name}: cannot be read ({_reason(error)}), expected a whole MATLAB 7.3 file") from None


def _require(n_bytes: int, name: str) -> None:
    """Refuse an array that is larger than ``LARGEST`` or than the available memory."""
    if n_bytes > LARGEST:
        raise InputError(
            f"{name}: announces {files.format_bytes(n_bytes)}, expected at most {files.format_bytes(LARGEST)}"
        )
    files.require_memory(n_bytes, name)


def _reason(error: Exception) -> str:
    """Short description of an error."""
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    words = (getattr(error, "strerror", None) or " ".join(str(error).split())).rstrip(".")
    return (words[:1].lower() + words[1:])[:120] or type(error).__name__
