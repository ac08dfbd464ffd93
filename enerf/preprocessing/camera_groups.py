"""Which photographs share a camera, its model, and the focal length that estimation begins with."""

import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from enerf.core.errors import InputError
from enerf.datasets.scenes import camera_models
from enerf.preprocessing.photographs import Photograph, sizes

GUESS = 1.2  # focal length without EXIF data, times the longer side; COLMAP's
MANY = 20  # photographs of a phone, from which on the coefficients of OPENCV are determined


@dataclass(frozen=True)
class CameraGroup:
    """Photographs that share a camera.

    Attributes
    ----------
    members
        Indices of the photographs.
    model
        COLMAP's name of the camera model.
    parameters
        First values in COLMAP's order.
    has_prior
        Whether the focal length is that of EXIF data.
    """

    members: tuple[int, ...]
    model: str
    parameters: tuple[float, ...]
    has_prior: bool


def group(photographs: Sequence[Photograph], per: str = "auto", model: str = "auto") -> list[CameraGroup]:
    """Groups of photographs with one camera each, in the order of their first photographs.

    Parameters
    ----------
    photographs
        The photographs.
    per
        ``auto``: one camera for each folder, size, device and focal length; ``all``; ``folder``; ``image``.
    model
        COLMAP's name of the camera model, or ``auto``.

    Raises
    ------
    InputError
        If photographs that shall share a camera are of several sizes.
    """
    members: dict[Hashable, list[int]] = {}
    for i, photo in enumerate(photographs):
        members.setdefault(_key(i, photo, per), []).append(i)
    return [_camera(tuple(some), [photographs[i] for i in some], per, model) for some in members.values()]


def _key(index: int, photo: Photograph, per: str) -> Hashable:
    size = (photo.width, photo.height)
    keys: dict[str, Hashable] = {
        "auto": (photo.folder, size, photo.device, photo.focal and round(photo.focal)),
        "all": "",
        "folder": photo.folder,
        "image": index,
    }
    return keys[per]


def _camera(members: tuple[int, ...], photographs: list[Photograph], per: str, model: str) -> CameraGroup:
    width, height = photographs[0].width, photographs[0].height
    if any((photo.width, photo.height) != (width, height) for photo in photographs):
        raise InputError(
            f"option --camera_per: found {per} and photographs of {sizes(photographs)} pixels, expected one size of "
            "those that share a camera, or auto"
        )
    if model == "auto":
        is_phone = len(photographs) >= MANY and all(photo.is_of_phone for photo in photographs)
        model = "OPENCV" if is_phone else "SIMPLE_RADIAL"
    known = [photo.focal for photo in photographs if photo.focal is not None]
    focal = statistics.median(known) if known else GUESS * max(width, height)
    first = {"f": focal, "fx": focal, "fy": focal, "cx": width / 2, "cy": height / 2}
    names = camera_models.MODELS[model].parameters
    return CameraGroup(members, model, tuple(first.get(name, 0.0) for name in names), bool(known))
