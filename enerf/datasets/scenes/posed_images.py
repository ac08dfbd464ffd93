"""What a file of cameras says: photographs, cameras, poses, masks, depth maps and points, before pixels are read.

Every file format is read into ``PosedImages``; what follows (reading pixels, normalization, bounds) is common to all.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from enerf.core.types import Camera


@dataclass(frozen=True)
class Points:
    """Points on the surfaces of a scene, as structure from motion finds them, in world coordinates.

    Attributes
    ----------
    xyz
        Positions.
    rgb
        Colors; None if the file has none.
    point, view
        Observations, flat: indices of a point and of a view that sees it. Empty if the file has none.
    """

    xyz: Float64[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"] | None
    point: Int64[np.ndarray, " k"]
    view: Int64[np.ndarray, " k"]


@dataclass(frozen=True)
class PosedImages:
    """Photographs with their cameras and poses, in the order of the file; no image file has been opened.

    Attributes
    ----------
    source
        The file or folder that describes them, for messages.
    names
        Names of the images as the file writes them, with suffix, in POSIX form; unique.
    files
        The image files, which may be missing.
    cameras
        Camera of each view, of the size that the file states; views may share one.
    c2w
        World poses: camera-to-world, OpenGL axes (x right, y up, looking down −z), orthonormal rotations.
    bounds
        Nearest and farthest depth of each view, if the file states them.
    masks
        File of the mask of each view, None where there is none: pixels of value 0 are ignored.
    depths
        File of the depth map of each view, None where there is none.
    depth_unit
        World units per stored unit of integer depth maps.
    points
        Points on surfaces; None if the file has none.
    test
        Indices of the views that the file holds out; None if it does not say.
    unread
        Keys of the file that are understood and not used.
    masks_are_inverse
        Whether masks ignore the pixels of any other value than 0 instead, as in instant-ngp.
    are_upright
        Whether cameras belong to pixels after the EXIF orientation; otherwise they do so only if these alone have the
        shape of the camera's image, and to raw ones else.
    radii
        Radius in pixels of each view's picture, a circle about the center of the image beyond which pixels are ignored;
        infinity where it is all of the image. Empty if it is for all views.
    """

    source: Path
    names: tuple[str, ...]
    files: tuple[Path, ...]
    cameras: tuple[Camera, ...]
    c2w: Float64[np.ndarray, "v 3 4"]
    bounds: Float64[np.ndarray, "v 2"] | None = None
    masks: tuple[Path | None, ...] = ()
    depths: tuple[Path | None, ...] = ()
    depth_unit: float = 1.0
    points: Points | None = None
    test: tuple[int, ...] | None = None
    unread: tuple[str, ...] = ()
    masks_are_inverse: bool = False
    are_upright: bool = False
    radii: tuple[float, ...] = ()
