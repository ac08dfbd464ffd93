"""Reading ``transforms_*.json``: the horizontal field of view, and file name and matrix of each frame."""

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Float64

from enerf.core import files, image_files
from enerf.core.errors import InputError

log = logging.getLogger("enerf")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
NARROWEST = 1e-4  # radians: a field of view that no camera has, nor its complement
_MOST_DIGITS = 300
_PER_FRAME = ("camera_angle_x", "fl_x", "fl_y", "w", "h")


@dataclass(frozen=True)
class Frames:
    """Content of one file.

    Attributes
    ----------
    file
        Its path.
    angle
        Horizontal field of view, in radians.
    names
        Image file of each frame, relative to the folder, with suffix.
    matrices
        [R | t] of each frame, as in the file; not yet checked to be a rotation.
    """

    file: Path
    angle: float
    names: tuple[str, ...]
    matrices: Float64[np.ndarray, "n 3 4"]


def read(file: Path, layout: str) -> Frames:
    """Read a file; ``layout`` describes the folder in the message for a missing one.

    Raises
    ------
    InputError
        If it is missing or damaged, or has cameras of several kinds.
    """
    content = _content(file, layout)
    angle, frames = content.get("camera_angle_x"), content.get("frames")
    if not _is_number(angle) or not NARROWEST < angle < math.pi - NARROWEST:
        raise InputError(f"{file} has camera_angle_x {_short(angle)}, expected an angle between 0 and pi in radians.")
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{file} has no list of frames, expected at least one frame.")
    found = [_frame(file, i, frame if isinstance(frame, dict) else {}) for i, frame in enumerate(frames)]
    _check_cameras(file, content, frames)
    return Frames(file, float(angle), tuple(name for name, _ in found), np.stack([matrix for _, matrix in found]))


def _content(file: Path, layout: str) -> dict[str, Any]:
    """The file's object; empty if it holds anything else."""
    try:
        content = json.loads(files.read_text(file), parse_int=_parsed_integer)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist, expected a scene laid out as {layout}.") from None
    except RecursionError:
        raise InputError(f"{file} is no JSON (it is nested too deeply), expected camera_angle_x and frames.") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is no JSON ({reason}), expected camera_angle_x and frames.") from None
    return content if isinstance(content, dict) else {}


def _parsed_integer(digits: str) -> int | float:
    """An integer of a JSON file; infinity if it exceeds a float, since Python raises errors in arithmetic with both."""
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def _frame(file: Path, index: int, frame: dict[str, Any]) -> tuple[str, Float64[np.ndarray, "3 4"]]:
    """Image file (relative to the folder) and matrix of a frame."""
    name = frame.get("file_path")
    if not isinstance(name, str) or not name or not name.isprintable():
        found = "" if not isinstance(name, str) or not name else f" ({_short(name)})"
        raise InputError(f"{file} has no file_path in frame {index}{found}, expected the name of a picture.")
    matrix = _matrix(frame.get("transform_matrix"))
    if matrix is None:
        raise InputError(f"{file} has no 4 x 4 transform_matrix in frame {index} ({name}), expected numbers.")
    if not np.isfinite(matrix).all():
        raise InputError(
            f"{file} has a transform_matrix in frame {index} ({name}) that is not finite, expected finite numbers."
        )
    if len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError(
            f"{file} has a transform_matrix in frame {index} ({name}) whose last row is {matrix[3].tolist()}, expected "
            "0, 0, 0, 1 (is it transposed?)."
        )
    path = Path(name.replace("\\", "/"))
    return (path if image_files.has_image_suffix(path.name) else Path(f"{path}.png")).as_posix(), matrix[:3]


def _matrix(rows: Any) -> Float64[np.ndarray, "m 4"] | None:
    """A list of 3 or 4 lists of 4 numbers as an array; None if it is anything else."""
    if not isinstance(rows, list) or len(rows) not in (3, 4):
        return None
    if not all(isinstance(row, list) and len(row) == 4 and all(map(_is_number, row)) for row in rows):
        return None
    return np.array([[float(value) for value in row] for row in rows])


def _check_cameras(file: Path, content: dict[str, Any], frames: list[dict[str, Any]]) -> None:
    """Refuse cameras that differ between frames; log what a pinhole camera with centered principal point lacks."""
    for key in _PER_FRAME:
        usual = content.get(key, frames[0].get(key))
        for i, frame in enumerate(frames):
            if not _nearly_equal(frame.get(key, usual), usual):
                raise InputError(
                    f"{file} has {key} {_short(frame[key])} in frame {i}, expected {_short(usual)} as elsewhere in the "
                    "file: one camera for all frames."
                )
    cameras = [content, *frames]
    unread = [key for key in _DISTORTION if any(camera.get(key) not in (None, 0) for camera in cameras)]
    for key, side in (("cx", "w"), ("cy", "h")):
        at, size = content.get(key), content.get(side)
        if _is_number(at) and _is_number(size) and abs(at - size / 2) > 0.005 * size:
            unread.append(key)
    if unread:
        log.warning(
            "%s: %s is not read: the camera is a pinhole without distortion, its principal point the image's center",
            *(file, ", ".join(unread)),
        )


def _nearly_equal(a: Any, b: Any) -> bool:
    """Whether two values are equal, or numbers that differ by rounding."""
    return bool(a == b or (_is_number(a) and _is_number(b) and abs(a - b) <= 1e-3 * abs(b)))


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a JSON number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    """A value in a message: one short line of ASCII."""
    text = ascii(value) if isinstance(value, str) else str(value)[:200]
    return text if len(text) <= 40 else f"{text[:40]}..."
