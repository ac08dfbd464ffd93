"""Reader for raw data of Polycam: ``keyframes/corrected_cameras/*.json`` with their images and depth maps.

The app exports it of captures in LiDAR and room mode if its developer mode is on. Each JSON file describes a
keyframe: ``fx``, ``fy``, ``cx``, ``cy``, ``width``, ``height`` in pixels, and ``t_00`` ... ``t_23``, the rows of a
camera-to-world matrix with the axes right, up, back, in meters, as in ARKit. The files ``corrected_images/NAME.jpg``
belong to it, free of distortion, and ``depth/NAME.png``, in millimeters. Where there are no ``corrected_cameras``, the
app has not optimized the poses; then ``cameras`` and ``images`` are read.

Undistorted images have a black border of some pixels, which is part of the photograph here; nerfstudio crops 15 pixels,
Polycam's own converter 5. Keyframes with a low ``blur_score`` are not left out. ``raw.glb`` is not read.

Sources: Polycam's description of the format (github.com/PolyCam/polyform); nerfstudio's ``polycam_utils.py``.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core.errors import InputError
from enerf.datasets.scenes import sparse_depths, transforms_file
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.transforms_json import is_number, read_object, short

log = logging.getLogger("enerf")
LAYOUT = "<capture>/keyframes/{corrected_cameras/*.json, corrected_images/}"
_FOLDERS = (("corrected_cameras", "corrected_images"), ("cameras", "images"))
_KEYS = {"fx": "fl_x", "fy": "fl_y", "cx": "cx", "cy": "cy", "width": "w", "height": "h"}
_PERCENTILES = (0.5, 99.5)  # of a depth map, for the range of depths


def detect(folder: Path) -> bool:
    """Whether a folder has cameras of keyframes."""
    return bool(camera_files(folder))


def camera_files(folder: Path) -> list[Path]:
    """The files of cameras that are read, sorted by name; empty if there are none."""
    for cameras, pictures in _FOLDERS:
        place = Path(folder) / "keyframes" / cameras
        if os.path.isdir(place.with_name(pictures)) and (found := sorted(place.glob("*.json"))):
            return found
    return []


def read(folder: Path, *, with_bounds: bool = True) -> PosedImages:
    """Read cameras, poses, and where images and depth maps lie; the range of depths is that of the depth maps.

    Parameters
    ----------
    folder
        Folder of the capture, with ``keyframes``.
    with_bounds
        Whether depth maps are read for the range of depths.

    Keyframes whose image is missing are left out with a warning, as are depth maps that are.

    Raises
    ------
    InputError
        If there are none, or a file is damaged or contradicts the images.
    """
    folder = Path(folder)
    found = camera_files(folder)
    if not found:
        raise InputError(f"{folder}: found no cameras of Polycam, expected a capture laid out as {LAYOUT}")
    pictures = dict(_FOLDERS)[found[0].parent.name]
    if pictures == "images":
        log.warning(
            "%s has no corrected_cameras: its poses are not optimized, and its images are distorted",
            folder / "keyframes",
        )
    frames = [_frame(file, pictures) for file in found]
    posed = transforms_file.from_content(folder / "keyframes", {"frames": frames})
    return replace(posed, bounds=_bounds(posed)) if with_bounds and posed.depths else posed


def _frame(file: Path, pictures: str) -> dict[str, Any]:
    """A keyframe in the form that ``transforms.json`` has."""
    content = read_object(file, LAYOUT, "an object with fx, fy, cx, cy, width, height and t_00 to t_23")

    def number(key: str) -> float:
        value = content.get(key)
        if not is_number(value):
            raise InputError(f"{file} has {key} {short(value)}, expected a number")
        return float(value)

    depth = f"keyframes/depth/{file.stem}.png"
    return {
        "file_path": f"keyframes/{pictures}/{file.stem}",
        "transform_matrix": [[number(f"t_{row}{column}") for column in range(4)] for row in range(3)],
        **{ours: number(theirs) for theirs, ours in _KEYS.items()},
        **({"depth_file_path": depth} if (file.parents[2] / depth).is_file() else {}),
    }


def _bounds(posed: PosedImages) -> Float64[np.ndarray, "v 2"] | None:
    """Percentiles of the depths in each view's depth map, medians of the others where it has none; None without any."""
    bounds = np.full((len(posed.names), 2), np.nan)
    for view, file in enumerate(posed.depths):
        if file is not None:
            depths = sparse_depths.read_map(file) * posed.depth_unit
            depths = depths[np.isfinite(depths) & (depths > 0)]
            if len(depths):
                bounds[view] = np.percentile(depths, _PERCENTILES)
    known = np.isfinite(bounds[:, 0]) & (bounds[:, 0] < bounds[:, 1])
    if not known.any():
        return None
    bounds[~known] = np.median(bounds[known], axis=0)
    return bounds
