"""Content of a COLMAP model's files before it is joined, and the checks common to binary and text files.

Messages begin with the file, and the line of a text file.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from enerf.core import files
from enerf.core.errors import InputError, shown
from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models
from enerf.datasets.scenes.found_files import is_absolute

MOST_PIXELS = 1_000_000  # width or height of an image
MOST_ID = 2**63 - 1
_LARGEST = 1e100  # coordinates beyond this overflow when they are squared
_QUATERNION_NORMS = (1e-6, 1e6)


@dataclass(frozen=True)
class Images:
    """Registered images, in the order of the file.

    Attributes
    ----------
    ids
        Identifiers, unique.
    quaternions
        World-to-camera rotations (w, x, y, z), not normalized.
    translations
        World-to-camera translations.
    cameras
        Identifiers of the cameras.
    names
        Names, relative to the folder of images; unique.
    observed
        For each image, the identifier of the 3-D point of each of its 2-D points; negative if it has none.
    """

    ids: Int64[np.ndarray, " n"]
    quaternions: Float64[np.ndarray, "n 4"]
    translations: Float64[np.ndarray, "n 3"]
    cameras: Int64[np.ndarray, " n"]
    names: tuple[str, ...]
    observed: tuple[Int64[np.ndarray, " _"], ...]


@dataclass(frozen=True)
class Points3D:
    """Points, in the order of the file.

    Attributes
    ----------
    ids
        Identifiers, unique.
    xyz, rgb
        World positions, and colors.
    lengths
        Number of observations of each point.
    tracks
        Identifiers of the images that observe the points, those of one point after those of another.
    """

    ids: Int64[np.ndarray, " n"]
    xyz: Float64[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    lengths: Int64[np.ndarray, " n"]
    tracks: Int64[np.ndarray, " k"]


def camera(where: str, model: str, width: int, height: int, parameters: Sequence[float]) -> Camera:
    """The camera of a record.

    Parameters
    ----------
    where
        File and record; begins the messages.
    model
        Name of the camera model.
    width, height, parameters
        As in the file.

    Raises
    ------
    InputError
        If the model is unknown, or the size, the number of parameters or one of their values is impossible.
    """
    if not (0 < width <= MOST_PIXELS and 0 < height <= MOST_PIXELS):
        raise InputError(f"{where}: found an image of {width} x {height} pixels, expected 1 to {MOST_PIXELS:,} each")
    found = camera_models.camera_from_parameters(model, width, height, parameters, where)
    for name, value in zip(camera_models.MODELS[model].parameters, parameters, strict=True):
        if not abs(value) < _LARGEST:
            raise InputError(f"{where}: found {name} = {value:g} of {model}, expected a finite number")
        if name in ("f", "fx", "fy") and value <= 0:
            raise InputError(f"{where}: found {name} = {value:g} of {model}, expected a focal length above 0")
    return found


def image_name(where: str, name: str) -> str:
    """The name of an image in POSIX form: relative, inside of the folder of images.

    Raises
    ------
    InputError
        If it is empty, absolute, leaves the folder, has control characters, or is longer than file systems allow.
    """
    if is_absolute(name):
        raise InputError(f"{where}: found the absolute image name {shown(name)}, expected a relative one")
    return listed_name(where, name)


def listed_name(where: str, name: str) -> str:
    """The name of an image in a file: as ``image_name``, but it may be absolute.

    Raises
    ------
    InputError
        If it is empty, leaves the folder, has control characters, or is longer than file systems allow.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if ".." in path.parts or not path.parts:
        raise InputError(f"{where}: found the image name {shown(name)}, expected a file inside of the image folder")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        raise InputError(f"{where}: found the image name {shown(name)}, expected one without control characters")
    if len(name.encode()) > files.PATH_BYTES or any(len(part.encode()) > files.NAME_BYTES for part in path.parts):
        raise InputError(
            f"{where}: found an image name of {len(name.encode()):,} bytes ({shown(name)}), expected parts of at most "
            f"{files.NAME_BYTES} bytes, {files.PATH_BYTES:,} together"
        )
    return path.as_posix()


def check_cameras(where: str, ids: Sequence[int]) -> None:
    """Raise InputError if there is no camera, or two have one identifier."""
    if not ids:
        raise InputError(f"{where}: found no camera, expected one or more")
    _require_unique(where, np.array(ids, dtype=np.int64), "cameras")


def check_images(where: str, images: Images) -> None:
    """Check poses, and that there are images whose identifiers and names are unique.

    Raises
    ------
    InputError
        Otherwise; the message names an image.
    """
    if not images.names:
        raise InputError(f"{where}: found no registered image, expected one or more")
    _require_unique(where, images.ids, "images")
    if len(set(images.names)) < len(images.names):
        twice = Counter(images.names).most_common(1)[0][0]
        raise InputError(f"{where}: found two images of the name {shown(twice)}, expected unique names")
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(images.quaternions, axis=1)
    low, high = _QUATERNION_NORMS
    _refuse(where, ~((norms > low) & (norms < high)), "quaternion that is no rotation in image", images.names)
    infinite = ~(np.abs(images.translations) < _LARGEST).all(axis=1)
    _refuse(where, infinite, "translation that is not finite in image", images.names)


def check_points(where: str, points: Points3D) -> None:
    """Check that positions are finite and identifiers unique.

    Raises
    ------
    InputError
        Otherwise; the message names a point.
    """
    _require_unique(where, points.ids, "points")
    if len(points.ids) and points.ids.min() < 0:
        raise InputError(
            f"{where}: found a point with the identifier {int(points.ids.min()) % 2**64}, expected below 2^63"
        )
    _refuse(where, ~(np.abs(points.xyz) < _LARGEST).all(axis=1), "position that is not finite in point", points.ids)


def _refuse(
    where: str, wrong: Bool[np.ndarray, " n"], found: str, names: Sequence[str] | Int64[np.ndarray, " n"]
) -> None:
    """Raise an InputError with the name of the first wrong record, if there is one."""
    if wrong.any():
        expected = "a quaternion of length 1" if found.startswith("quaternion") else "finite numbers"
        raise InputError(f"{where}: found a {found} {names[int(wrong.argmax())]}, expected {expected}")


def _require_unique(where: str, ids: Int64[np.ndarray, " n"], what: str) -> None:
    found = np.sort(ids)
    again = found[1:] == found[:-1]
    if again.any():
        raise InputError(f"{where}: found two {what} with the identifier {found[1:][again][0]}, expected unique ones")
