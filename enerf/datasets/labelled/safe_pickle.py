"""Safe reader of pickled dicts of numbers, text, lists and numpy arrays.

A pickle can call arbitrary functions. This reader allows only those that arrays and bytes are written with, replaces
them with its own, and rejects a file that refers to any other before anything is called. A pickle of a few bytes can
also ask for gigabytes, or for years: its operations are examined first, see ``_examine``.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np


class UnsafePickle(ValueError):
    """A pickle that refers to something other than arrays and bytes."""


class _DType:
    """Stand-in for ``numpy.dtype``."""

    def __init__(self, name: Any, align: Any = False, copy: Any = False) -> None:
        self.made = np.dtype(name.decode("ascii") if isinstance(name, bytes) else str(name))
        if self.made.kind not in "biuf":
            raise UnsafePickle(f"it contains arrays of {self.made}, expected numbers")

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.made = self.made.newbyteorder(">" if order == ">" else "<")


class _Array:
    """Stand-in for ``numpy.ndarray``; ``made`` is the array once its state is set."""

    made = np.zeros(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        self.made = _from_buffer(data, dtype, shape, "F" if is_fortran else "C")


class _Function:
    """A function that a pickle may call but not modify."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    def __call__(self, *values: Any) -> Any:
        return self.run(*values)

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickle("it modifies a function")


def read(data: bytes) -> dict[str, Any]:
    """Read a pickled dict with text as keys and numpy arrays among its values; other text may be bytes.

    Raises
    ------
    ValueError
        If it refers to any other class or function, is truncated, damaged or not a dict; the message says which.
    """
    try:
        _examine(data)
        contents = _Reader(io.BytesIO(data), encoding="bytes").load()
    except UnsafePickle:
        raise
    except EOFError:
        raise ValueError("it ends too soon") from None
    except Exception as error:  # a damaged pickle can raise any error
        words = " ".join(str(error).split()).rstrip(".")
        raise ValueError(words[:120] or type(error).__name__) from None
    if not isinstance(contents, dict):
        raise ValueError(f"it holds a {type(contents).__name__} and no dict")
    return {_text(key): value.made if isinstance(value, _Array) else value for key, value in contents.items()}


# Operations that neither arrays nor the standard pickler's numbers, text, lists and dicts need.
_UNNEEDED = frozenset(
    {"DUP", "POP", "POP_MARK", "EMPTY_SET", "ADDITEMS", "FROZENSET", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
    | {"NEXT_BUFFER", "READONLY_BUFFER"}
)
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")
# Operations whose result is certainly no tuple.
_VALUES = ("STRING", "UNICODE", "BYTES", "BYTEARRAY", "GLOBAL", "REDUCE", "LIST", "DICT")
_TUPLE_GETS = 1000  # references to tuples; arrays refer to an empty shape, once for each array


def _examine(data: bytes) -> None:
    """Check that reading a pickle takes no more memory or time than its size explains, without executing it.

    ``pickletools`` checks that strings are no longer than the file. Further, the numbers of the memo, which is an array
    as long as the largest of them, must follow on one another, and references to tuples must not be nested: the hash
    of a tuple of references to tuples of references ... takes exponential time.

    Raises
    ------
    ValueError
        If it is damaged, or something is not as in pickles of arrays.
    """
    puts, gets, previous = 0, 0, ""
    nested: dict[int, bool] = {}  # memo number of a tuple -> whether it may contain a reference to a tuple
    for operation, argument, _ in pickletools.genops(data):
        name = operation.name
        if name in _UNNEEDED:
            raise UnsafePickle(f"it has the operation {name}, which arrays do not need")
        if name in _PUTS:
            number, puts = puts if name == "MEMOIZE" else int(argument or 0), puts + 1
            if number > 2 * puts:
                raise UnsafePickle(f"it numbers its parts up to {number:,}, expected them in order")
            if not any(value in previous for value in _VALUES):
                nested[number] = gets > 0
            continue
        if name in _GETS and int(argument or 0) in nested:
            gets += 1
            if nested[int(argument or 0)] or gets > _TUPLE_GETS:
                raise UnsafePickle("it nests references to tuples, which arrays do not need")
        previous = name


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


class _Reader(pickle.Unpickler):
    """An unpickler restricted to plain values."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a function or class that arrays need; raises for any other."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        raise UnsafePickle(f"it refers to {module}.{name}, which arrays do not need")

    def persistent_load(self, pid: Any) -> Any:
        """Always raises: arrays have no external objects."""
        raise UnsafePickle("it refers to an external object, which arrays do not need")


def _reconstruct(kind: Any, shape: Any, dtype: Any) -> _Array:
    """An empty array, whose data follow in the file."""
    if kind is not _Array:
        raise UnsafePickle("it reconstructs an array in an unknown way")
    return _Array()


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype.made).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise UnsafePickle(f"it uses the encoding {encoding!r}, which arrays do not need")
    return text.encode("latin-1")


_KNOWN: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Function(_reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Function(_from_buffer) for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Function(_encode),
}
