"""Rows of LLFF's ``poses_bounds.npy`` for posed photographs, and what of their cameras that format cannot express.

The format has a pinhole camera for each view, with one focal length, its principal point the image's center, and no
distortion, and images of one shape; ``llff`` describes the rows, and reads focal lengths that differ by less than 0.1 %
of the width as one.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import poses, projections, view_checks
from enerf.datasets.scenes.posed_images import PosedImages

FILE = "poses_bounds.npy"
_ROUNDING = 1e-9  # relative difference of lengths in pixels that counts as rounding


def lost(posed: PosedImages) -> list[str]:
    """What the format cannot express of the cameras, in words.

    Raises
    ------
    InputError
        If a camera is no perspective one: it has no pinhole camera that stands for it.
    """
    others = sorted({each.model for each in posed.cameras if not projections.is_perspective(each.model)})
    if others:
        raise InputError(
            f"{posed.source}: found cameras of the model {' and '.join(others)}, which LLFF's format cannot express, "
            "expected perspective cameras"
        )
    cameras = dict.fromkeys(posed.cameras)
    shapes = {(each.width, each.height) for each in cameras}
    focal = [each.fx / each.width for each in cameras]
    return [
        what
        for what, is_lost in (
            ("distortion", any(any(each.coefficients) for each in cameras)),
            ("different focal lengths along x and y", not all(_equal(each.fx, each.fy) for each in cameras)),
            (
                "a principal point off the center",
                not all(_equal(each.cx, each.width / 2) and _equal(each.cy, each.height / 2) for each in cameras),
            ),
            ("images of several sizes", len(shapes) > 1),
            (
                "focal lengths that differ by less than 0.1 %",
                view_checks.has_one_focal_length(np.array(focal)) and not _equal(min(focal), max(focal)),
            ),
        )
        if is_lost
    ]


def rows(file: Path, posed: PosedImages, bounds: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 17"]:
    """Rows of the file, in the order of the views; what the format cannot express is left out.

    A focal length is the geometric mean of those along x and y.

    Parameters
    ----------
    file
        The file that they are for, which begins messages.
    posed
        Photographs, cameras, and poses with OpenGL axes.
    bounds
        Nearest and farthest depth of each view.

    Raises
    ------
    InputError
        If a bound is not between 0 and the other one, or cameras differ by more than ``llff`` reads.
    """
    camera = np.array([[each.height, each.width, _focal_length(each)] for each in posed.cameras], dtype=np.float64)
    view_checks.require_one_shape(file, camera[:, 0] / camera[:, 1], posed.names)
    near, far = bounds.T
    wrong = ~((near > 0) & (near < far))
    if wrong.any():
        found = view_checks.name_views(wrong, posed.names)
        raise InputError(f"{file}: found a nearest depth that is not between 0 and the farthest in {found}")
    matrices = np.concatenate([poses.to_axes(posed.c2w, "llff"), camera[:, :, None]], axis=-1)
    return np.concatenate([matrices.reshape(-1, 15), bounds], axis=1)


def _focal_length(camera: Camera) -> float:
    return float(camera.fx if camera.fx == camera.fy else math.sqrt(camera.fx * camera.fy))


def _equal(a: float | int, b: float | int) -> bool:
    return math.isclose(a, b, rel_tol=_ROUNDING)
