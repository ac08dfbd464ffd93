"""Parts of every ``transforms*.json``: the object itself, numbers, names and matrices of frames; all are validated.

The format is that of NeRF's synthetic data (Mildenhall et al., 2020), which instant-ngp and nerfstudio extended.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Float64

from enerf.core import files
from enerf.core.errors import InputError

_MOST_BYTES = 1 << 28  # of a file: some 200,000 frames
_PARSED_BYTES = 24  # of memory per byte of JSON: an empty list takes 64 bytes for "[],"
_MOST_DIGITS = 300
_LARGEST = 1e30  # of the numbers of a matrix: beyond, products of three overflow in single precision


def read_object(file: Path, layout: str, expected: str) -> dict[str, Any]:
    """The file's object; empty if it holds anything else.

    Parameters
    ----------
    file
        The file.
    layout
        How the folder is laid out, for the message for a missing file.
    expected
        What the file should contain, for the message for one that is no JSON.

    Raises
    ------
    InputError
        If it is missing, larger than 256 MiB or than the memory, or no JSON.
    """
    try:
        text = files.read_text(file, _MOST_BYTES)
        files.require_memory(_PARSED_BYTES * len(text), str(file))
        content = json.loads(text, parse_int=_parsed_integer)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist, expected a scene laid out as {layout}") from None
    except RecursionError:
        raise InputError(f"{file} is no JSON (it is nested too deeply), expected {expected}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}), expected {expected}") from None
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is no JSON ({reason}), expected {expected}") from None
    return content if isinstance(content, dict) else {}


def frame_name(file: Path, index: int, frame: Mapping[str, Any]) -> str:
    """The frame's ``file_path`` as the file writes it.

    Raises
    ------
    InputError
        If it is missing or cannot be the name of a file.
    """
    name = frame.get("file_path")
    if not is_name(name):
        found = "" if not isinstance(name, str) or not name else f" ({short(name)})"
        raise InputError(f"{file} has no file_path in frame {index}{found}, expected the name of a picture")
    return name


def frame_matrix(file: Path, index: int, name: str, rows: Any) -> Float64[np.ndarray, "3 4"]:
    """[R | t] of a frame's ``transform_matrix`` of 3 or 4 rows; not yet checked to be a rotation.

    Raises
    ------
    InputError
        If it has another shape, elements that are no finite numbers, or a last row other than 0, 0, 0, 1.
    """
    matrix = _matrix(rows)
    if matrix is None:
        raise InputError(f"{file} has no 4 x 4 transform_matrix in frame {index} ({name}), expected numbers")
    where = f"{file} has a transform_matrix in frame {index} ({name})"
    if not np.isfinite(matrix).all():
        raise InputError(f"{where} that is not finite, expected finite numbers")
    if len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError(f"{where} whose last row is {matrix[3].tolist()}, expected 0, 0, 0, 1 (is it transposed?)")
    if np.abs(matrix).max() > _LARGEST:
        raise InputError(f"{where} with numbers of up to {np.abs(matrix).max():g}, expected at most {_LARGEST:g}")
    return matrix[:3]


def is_name(value: Any) -> TypeGuard[str]:
    """Whether it is a string that can be the name of a file: not empty, all of its characters printable."""
    return isinstance(value, str) and value != "" and value.isprintable()


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a JSON number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def nearly_equal(a: Any, b: Any) -> bool:
    """Whether two values are equal, or numbers that differ by rounding: by at most 0.1%."""
    return bool(a == b or (is_number(a) and is_number(b) and abs(a - b) <= 1e-3 * abs(b)))


def short(value: Any) -> str:
    """A value in a message: one short line of ASCII; of lists and objects only the length."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = ascii(value) if isinstance(value, str) else str(value)[:200]
    return text if len(text) <= 40 else f"{text[:40]}..."


def _parsed_integer(digits: str) -> int | float:
    """An integer of a JSON file; infinity if it exceeds a float, since Python raises errors in arithmetic with both."""
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def _matrix(rows: Any) -> Float64[np.ndarray, "m 4"] | None:
    """A list of 3 or 4 lists of 4 numbers as an array; None if it is anything else."""
    if not isinstance(rows, list) or len(rows) not in (3, 4):
        return None
    if not all(isinstance(row, list) and len(row) == 4 and all(map(is_number, row)) for row in rows):
        return None
    return np.array([[float(value) for value in row] for row in rows])
