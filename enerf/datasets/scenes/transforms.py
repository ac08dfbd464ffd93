"""Reading NeRF's ``transforms_{train,test}.json``: the horizontal field of view, and name and matrix of each frame.

Files of instant-ngp and nerfstudio, with all their keys, are read by ``transforms_file``.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core import image_files
from enerf.core.errors import InputError
from enerf.datasets.scenes.transforms_json import (
    frame_matrix,
    frame_name,
    is_number,
    nearly_equal,
    read_object,
    short,
)

log = logging.getLogger("enerf")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
NARROWEST = 1e-4  # radians: a field of view that no camera has, nor its complement
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
    content = read_object(file, layout, "camera_angle_x and frames")
    angle, frames = content.get("camera_angle_x"), content.get("frames")
    if not is_number(angle) or not NARROWEST < angle < math.pi - NARROWEST:
        raise InputError(f"{file} has camera_angle_x {short(angle)}, expected an angle between 0 and pi in radians.")
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{file} has no list of frames, expected at least one frame.")
    found = [_frame(file, i, frame if isinstance(frame, dict) else {}) for i, frame in enumerate(frames)]
    _check_cameras(file, content, frames)
    return Frames(file, float(angle), tuple(name for name, _ in found), np.stack([matrix for _, matrix in found]))


def _frame(file: Path, index: int, frame: dict[str, Any]) -> tuple[str, Float64[np.ndarray, "3 4"]]:
    """Image file (relative to the folder) and matrix of a frame."""
    name = frame_name(file, index, frame)
    matrix = frame_matrix(file, index, name, frame.get("transform_matrix"))
    path = Path(name.replace("\\", "/"))
    return (path if image_files.has_image_suffix(path.name) else Path(f"{path}.png")).as_posix(), matrix


def _check_cameras(file: Path, content: dict[str, Any], frames: list[dict[str, Any]]) -> None:
    """Refuse cameras that differ between frames; log what a pinhole camera with centered principal point lacks."""
    for key in _PER_FRAME:
        usual = content.get(key, frames[0].get(key))
        for i, frame in enumerate(frames):
            if not nearly_equal(frame.get(key, usual), usual):
                raise InputError(
                    f"{file} has {key} {short(frame[key])} in frame {i}, expected {short(usual)} as elsewhere in the "
                    "file: one camera for all frames."
                )
    cameras = [content, *frames]
    unread = [key for key in _DISTORTION if any(camera.get(key) not in (None, 0) for camera in cameras)]
    for key, side in (("cx", "w"), ("cy", "h")):
        at, size = content.get(key), content.get(side)
        if is_number(at) and is_number(size) and abs(at - size / 2) > 0.005 * size:
            unread.append(key)
    if unread:
        log.warning(
            "%s: %s is not read: the camera is a pinhole without distortion, its principal point the image's center",
            *(file, ", ".join(unread)),
        )
