"""Pickled arrays as plain values: numbers, text, lists, dicts and numpy arrays. Nothing else is built.

A pickle is a program that may name any function to be called. This reader knows three of them, the ones that arrays
and bytes are written with, has its own for each, and refuses a file that names any other before anything is called.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np


class Refused(ValueError):
    """A pickle that asks for something other than arrays and bytes."""


class _DType:
    """What an array's numbers are, once the file has said it."""

    def __init__(self, name: Any, align: Any = False, copy: Any = False) -> None:
        self.made = np.dtype(name.decode("ascii") if isinstance(name, bytes) else str(name))
        if self.made.kind not in "biuf":
            raise Refused(f"it asks for arrays of {self.made}, expected numbers")

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.made = self.made.newbyteorder(">" if order == ">" else "<")


class _Array:
    """What an array is until the file has said its numbers."""

    made = np.zeros(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self.made = _from_buffer(data, dtype, shape, "F" if is_fortran else "C")


class _Function:
    """A function that files may call and not change."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    def __call__(self, *values: Any) -> Any:
        return self.run(*values)

    def __setstate__(self, state: Any) -> None:
        raise Refused("it changes a function")


def read(data: bytes) -> dict[str, Any]:
    """The dict that a pickle says, with text as keys and numpy arrays among its values; other text may be bytes.

    Raises
    ------
    ValueError
        If it names any other class or function, ends too soon, is damaged or no dict; says which in a few words.
    """
    try:
        said = _Reader(io.BytesIO(data), encoding="bytes").load()
    except Refused:
        raise
    except EOFError:
        raise ValueError("it ends too soon") from None
    except Exception as error:  # a damaged pickle may stumble over anything
        words = " ".join(str(error).split()).rstrip(".")
        raise ValueError(words[:120] or type(error).__name__) from None
    if not isinstance(said, dict):
        raise ValueError(f"it holds a {type(said).__name__} and no dict")
    return {_text(key): value.made if isinstance(value, _Array) else value for key, value in said.items()}


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


class _Reader(pickle.Unpickler):
    """An unpickler of values that do nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a function or class, if it is one of those that arrays need."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        raise Refused(f"it asks for {module}.{name}, which data have no need of")

    def persistent_load(self, pid: Any) -> Any:
        """Nothing: data have no need of it."""
        raise Refused("it asks for an object outside of it, which data have no need of")


def _reconstruct(kind: Any, shape: Any, dtype: Any) -> _Array:
    """An array without numbers, which follow in the file."""
    if kind is not _Array:
        raise Refused("it asks for an array in a way of its own")
    return _Array()


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype.made).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise Refused(f"it asks for the encoding {encoding!r}, which data have no need of")
    return text.encode("latin-1")


_KNOWN: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Function(_reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Function(_from_buffer) for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Function(_encode),
}
