"""Reader for recordings of Record3D: ``metadata.json`` beside ``rgb/0.jpg``, ``rgb/1.jpg``, ...

That is the app's export "EXR + JPG sequence"; of an unpacked ``.r3d`` file, ``metadata`` and ``rgbd`` are read. The
file has ``poses``, for each frame a quaternion x, y, z, w and a position in meters, camera to world with the axes
right, up, back; ``K``, the nine elements of the intrinsic matrix column by column; ``w`` and ``h``, the size of the
images; and in newer versions ``perFrameIntrinsicCoeffs``, for each frame fx, fy, cx, cy in pixels of the images.

Depth maps (EXR, or compressed by LZFSE) are not read, so that the range of depths is that of the point that the cameras
look at, or of ``--near`` and ``--far``. A video has 30 or 60 frames a second: at most 300 are read, evenly chosen.

Sources: issues 27, 67, 83 and 99 of github.com/marek-simonik/record3d; nerfstudio's ``record3d_utils.py``;
instant-ngp's ``record3d2nerf.py``.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enerf.core import files
from enerf.core.errors import InputError
from enerf.datasets.scenes import poses, transforms_file
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.transforms_json import is_number, read_object, short

log = logging.getLogger("enerf")
LAYOUT = "<recording>/{metadata.json, rgb/0.jpg, rgb/1.jpg, ...}"
MOST = 300  # frames that are read
_PLACES = (("metadata.json", "rgb"), ("metadata", "rgbd"), ("metadata.json", "rgbd"), ("metadata", "rgb"))
_LONGEST = 1 << 26  # bytes of a file that is examined: some 300,000 frames


def detect(folder: Path) -> bool:
    """Whether a folder has a file of poses and a folder of images as Record3D writes them."""
    place = _place(folder)
    if place is None:
        return False
    try:
        text = files.read_text(place[0], _LONGEST)
    except (OSError, InputError, ValueError):
        return False
    return '"poses"' in text and '"K"' in text


def metadata_file(folder: Path) -> Path:
    """The file of poses.

    Raises
    ------
    InputError
        If there is none.
    """
    return _required_place(folder)[0]


def read(folder: Path) -> PosedImages:
    """Read cameras and poses, and where the images lie.

    Images that are missing are left out with a warning.

    Raises
    ------
    InputError
        If there is no recording, or its file is damaged or contradicts the images.
    """
    file, pictures = _required_place(folder)
    content = read_object(file, LAYOUT, "an object with poses, K, w and h")
    found = content.get("poses")
    if not isinstance(found, list) or not found:
        raise InputError(f"{file} has no list of poses, expected one for each frame")
    shared = _shared(file, content)
    chosen = np.unique(np.linspace(0, len(found) - 1, min(MOST, len(found))).round().astype(int)).tolist()
    if len(chosen) < len(found):
        log.info("%s: %d of %d frames are read, evenly chosen", file, len(chosen), len(found))
    own = content.get("perFrameIntrinsicCoeffs")
    cameras = own if isinstance(own, list) and len(own) == len(found) else None
    frames = []
    for i in chosen:
        frame = {"file_path": f"{pictures}/{i}", "transform_matrix": _matrix(file, i, found[i]), **shared}
        if cameras is not None:
            numbers = _numbers(file, f"perFrameIntrinsicCoeffs of frame {i}", cameras[i], 4)
            frame |= dict(zip(("fl_x", "fl_y", "cx", "cy"), numbers, strict=True))
        frames.append(frame)
    return transforms_file.from_content(file, {"frames": frames})


def _place(folder: Path) -> tuple[Path, str] | None:
    """The file of poses, and the name of the folder of images; None if there are none."""
    for name, pictures in _PLACES:
        if os.path.isfile(Path(folder) / name) and os.path.isdir(Path(folder) / pictures):
            return Path(folder) / name, pictures
    return None


def _required_place(folder: Path) -> tuple[Path, str]:
    place = _place(folder)
    if place is None:
        raise InputError(f"{folder}: found no recording of Record3D, expected one laid out as {LAYOUT}")
    return place


def _shared(file: Path, content: dict[str, Any]) -> dict[str, float]:
    """Camera of the recording in the keys that ``transforms.json`` has."""
    k = _numbers(file, "K", content.get("K"), 9)
    width, height = (_numbers(file, key, [content.get(key)], 1)[0] for key in ("w", "h"))
    return {"fl_x": k[0], "fl_y": k[4], "cx": k[6], "cy": k[7], "w": width, "h": height}


def _matrix(file: Path, index: int, pose: Any) -> list[list[float]]:
    """Camera-to-world matrix of a frame."""
    values = np.array(_numbers(file, f"the pose of frame {index}", pose, 7))
    norm = float(np.linalg.norm(values[:4]))
    if not 0.5 < norm < 2:
        raise InputError(f"{file} has a quaternion of length {norm:g} in frame {index}, expected 1")
    x, y, z, w = values[:4] / norm
    return np.column_stack([poses.rotation(np.array([w, x, y, z])), values[4:]]).tolist()


def _numbers(file: Path, what: str, values: Any, n: int) -> Sequence[float]:
    """A list of n finite numbers."""
    if not isinstance(values, list) or len(values) != n or not all(map(is_number, values)):
        raise InputError(f"{file} has {what} {short(values)}, expected {n} numbers")
    found = [float(value) for value in values]
    if not np.isfinite(found).all():
        raise InputError(f"{file} has {what} with numbers that are not finite, expected {n} finite ones")
    return found
