"""Reading arrays of numbers from ``.npy`` files: the header is checked against the file's size first."""

import io
import math
import tokenize
import warnings

import numpy as np
from jaxtyping import Shaped

from enerf.core import files
from enerf.core.errors import InputError
from enerf.core.files import AnyPath

_MALFORMED = (ValueError, TypeError, KeyError, EOFError, SyntaxError, RecursionError, MemoryError, OverflowError)
_HEADER_LIMIT = 4096  # bytes; that of an array of numbers takes less than 200


def read_npy(path: AnyPath) -> Shaped[np.ndarray, "..."]:
    """The array of real numbers in a ``.npy`` file; nothing in it is executed.

    Raises
    ------
    InputError
        If it is not a regular file, or does not hold what its header says.
    OSError
        If it is missing or cannot be read.
    """
    return array_of(files.read_bytes(path), str(path))


def array_of(data: bytes, path: str, kinds: str = "fiu") -> Shaped[np.ndarray, "..."]:
    """The array in the content of a ``.npy`` file; nothing in it is executed.

    Parameters
    ----------
    data, path
        The content, and its file, for messages.
    kinds
        Accepted kinds of numbers, as in ``dtype.kind``; ``b`` for booleans.

    Raises
    ------
    InputError
        If it does not hold what its header says.
    """
    stream = io.BytesIO(data)
    try:
        shape, fortran, dtype = _header(stream)
    except (*_MALFORMED, tokenize.TokenError):
        raise InputError(
            f"{path} holds no plain array (pickled objects are refused, for they can run code), expected "
            "numbers written by numpy.save."
        ) from None
    if dtype.hasobject:
        raise InputError(f"{path} holds pickled objects, which are refused, for they can run code: expected numbers.")
    if dtype.kind not in kinds:
        raise InputError(f"{path} holds {str(dtype)[:40]} of shape {_text(shape)}, expected real numbers.")
    count = math.prod(shape)
    needed, found = count * dtype.itemsize, len(data) - stream.tell()
    if needed > found or any(not 0 <= side <= len(data) for side in shape):
        raise InputError(
            f"{path} has a header of {dtype} numbers of shape {_text(shape)} and {found:,} bytes after it, "
            "expected as many as the header says: it is damaged or no plain array."
        )
    values = np.frombuffer(data, dtype, count, stream.tell())
    return values.reshape(shape, order="F" if fortran else "C")


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"version {version} is for arrays of records")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers by Python 2, and of escapes in hostile ones
        shape, fortran, dtype = readers[version](stream, max_header_size=_HEADER_LIMIT)
    if any(type(side) is not int for side in shape):
        raise ValueError("a side is no whole number")
    return shape, fortran, dtype


def _text(shape: tuple[int, ...]) -> str:
    """A shape in a message, shortened if its numbers are absurd."""
    return str(shape) if all(abs(side) < 10**20 for side in shape) else "beyond all memory"
