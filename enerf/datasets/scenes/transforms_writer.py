"""Writer of ``transforms.json`` for nerfstudio or instant-ngp; ``transforms_file`` explains the keys."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enerf.core import images, io
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes.posed_images import Points, PosedImages
from enerf.datasets.scenes.transforms_file import MILLIMETER, dynamic_mask, whole_mask, whole_mask_size

DIALECTS = ("nerfstudio", "instant-ngp")
POINTS = "sparse_pc.ply"
# Keys of the coefficients of COLMAP's models, in their order; those that are None must be 0.
_PERSPECTIVE: Mapping[str, tuple[str | None, ...]] = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": ("k1",),
    "RADIAL": ("k1", "k2"),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", None, None, None),
}
_FISHEYE: Mapping[str, tuple[str | None, ...]] = {
    "SIMPLE_FISHEYE": (),
    "FISHEYE": (),
    "SIMPLE_RADIAL_FISHEYE": ("k1",),
    "RADIAL_FISHEYE": ("k1", "k2"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
}
_FISHEYE624, _PANORAMA = "RAD_TAN_THIN_PRISM_FISHEYE", "EQUIRECTANGULAR"
_PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE")
# Keys that are read from one object, of the file or of the frame, together.
_TOGETHER = (("fl_x", "fl_y"), ("w", "cx"), ("h", "cy"))

WritePoints = Callable[[Path, Points], None]


def write(
    file: Path,
    posed: PosedImages,
    *,
    dialect: str = "nerfstudio",
    lossy: bool = False,
    write_points: WritePoints | None = None,
) -> None:
    """Write poses, cameras, masks, depth maps and split; ``transforms_file.read`` returns the same to rounding.

    Keys of cameras are those of the file where all views agree, else of each frame. COLMAP's models with fewer
    coefficients are written as OPENCV or OPENCV_FISHEYE, which makes no difference to any pixel.

    Parameters
    ----------
    file
        The file, which stands in the folder of the images or above; it is replaced.
    posed
        What is written.
    dialect
        The program that the file is for, one of ``DIALECTS``.
    lossy
        Leave out what the format cannot express, except for cameras. Mask files
        stay what they are: nerfstudio has no inverse ones, instant-ngp no others, and only as ``dynamic_mask``.
    write_points
        Writes points to a PLY file, which is put beside the file; for nerfstudio only.

    Raises
    ------
    InputError
        If the format cannot express something, a number is not finite, an image is outside of the file's folder, or
        the file cannot be written.
    """
    if dialect not in DIALECTS:
        raise InputError(f"{file}: found dialect {dialect}, expected {' or '.join(DIALECTS)}")
    lost = _lost(posed, dialect, write_points is not None)
    if lost and not lossy:
        raise InputError(
            f"{file}: transforms.json of {dialect} cannot express {', '.join(lost)}, expected a scene without"
        )
    content = content_of(file, posed, dialect, with_points=write_points is not None)
    if write_points is not None and posed.points is not None and "ply_file_path" in content:
        write_points(file.parent / POINTS, in_original_units(posed.points, content))
    write_whole_masks(file.parent, content)
    io.write_json(file, content)


def write_whole_masks(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the masks ``whole_mask`` that the object of a file in a folder names."""
    for size in {whole_mask_size(frame["mask_path"]) for frame in content["frames"] if "mask_path" in frame}:
        if size is not None:
            width, height = size
            path = folder / whole_mask(width, height)
            images.write_png(path, np.full((height, width), 255, np.uint8))


def content_of(file: Path, posed: PosedImages, dialect: str, *, with_points: bool) -> dict[str, Any]:
    """The object that ``write`` stores; nothing is written, and what cannot be expressed is left out.

    Parameters
    ----------
    file
        Where it is meant for: the images' paths are relative to its folder.
    posed, dialect
        As for ``write``.
    with_points
        Whether points will be put beside the file as ``POINTS``, in the units of ``in_original_units``.

    Raises
    ------
    InputError
        If the format cannot express a camera, a number is not finite, or an image is outside of the file's folder.
    """
    if not np.isfinite(posed.c2w).all():
        raise InputError(f"{file}: found poses that are not finite, expected finite numbers")
    shared, own = _cameras(file, posed, dialect)
    frames = [
        {
            "file_path": _relative(file, posed.files[i]),
            "transform_matrix": [*c2w.tolist(), [0.0, 0.0, 0.0, 1.0]],
            **own[i],
        }
        for i, c2w in enumerate(posed.c2w)
    ]
    if dialect == "nerfstudio" and not posed.masks_are_inverse:
        masks = posed.masks if any(posed.masks) else ()  # those of instant-ngp have no key: they lie beside the images
        whole = [file.parent / whole_mask(camera.width, camera.height) for camera in posed.cameras]
        _add(file, frames, [mask or other for mask, other in zip(masks, whole, strict=False)], "mask_path")
    shared |= _add_depths(file, frames, posed, dialect)
    if posed.test is not None and dialect == "nerfstudio":
        held = [frames[i]["file_path"] for i in posed.test]
        train = [frame["file_path"] for i, frame in enumerate(frames) if i not in set(posed.test)]
        shared |= {"train_filenames": train, "val_filenames": held, "test_filenames": held}
    if len(set(posed.radii)) == 1 and dialect == "nerfstudio":
        shared["fisheye_crop_radius"] = posed.radii[0]
    if posed.points is not None and with_points and dialect == "nerfstudio":
        shared["ply_file_path"] = POINTS
    return {**shared, "frames": frames}


def _lost(posed: PosedImages, dialect: str, with_points: bool) -> list[str]:
    """What the format cannot express, except for cameras."""
    nerfstudio, points = dialect == "nerfstudio", posed.points
    return [
        what
        for what, is_lost in (
            ("the depth range of views", posed.bounds is not None),
            ("masks", any(posed.masks) and not _finds_masks(posed, nerfstudio)),
            ("the radius of fisheye pictures", bool(posed.radii) and not (nerfstudio and len(set(posed.radii)) == 1)),
            ("the split into training and test views", posed.test is not None and not nerfstudio),
            ("points", points is not None and not (nerfstudio and with_points)),
            ("which views see which points", points is not None and len(points.point) > 0),
        )
        if is_lost
    ]


def _finds_masks(posed: PosedImages, nerfstudio: bool) -> bool:
    """Whether the program finds the masks and takes them for what they are."""
    if nerfstudio:
        return not posed.masks_are_inverse
    pairs = zip(posed.files, posed.masks, strict=True)
    return posed.masks_are_inverse and all(mask in (None, dynamic_mask(image)) for image, mask in pairs)


def _relative(file: Path, path: Path) -> str:
    """POSIX path of a file relative to the folder of another one."""
    found = Path(os.path.relpath(path.absolute(), file.absolute().parent))
    if found.parts[0] == "..":
        raise InputError(f"{file}: found the file {path}, expected files inside of the folder {file.parent}")
    return found.as_posix()


def _add(file: Path, frames: Sequence[dict[str, Any]], paths: Sequence[Path | None], key: str) -> None:
    """Add the names of files to the frames that have one."""
    for frame, path in zip(frames, paths or [None] * len(frames), strict=True):
        if path is not None:
            frame[key] = _relative(file, path)


def _add_depths(file: Path, frames: Sequence[dict[str, Any]], posed: PosedImages, dialect: str) -> dict[str, Any]:
    """Add depth maps to frames; returns the keys of the file that state their unit."""
    if not any(posed.depths):
        return {}
    if not 0 < posed.depth_unit < math.inf:
        raise InputError(f"{file}: found a depth unit of {posed.depth_unit}, expected a number above 0")
    if dialect == "instant-ngp":
        _add(file, frames, posed.depths, "depth_path")
        return {"integer_depth_scale": posed.depth_unit}
    _add(file, frames, posed.depths, "depth_file_path")
    return {} if posed.depth_unit == MILLIMETER else {"applied_scale": posed.depth_unit / MILLIMETER}


def in_original_units(points: Points, content: Mapping[str, Any]) -> Points:
    """Points in the units of nerfstudio's PLY file, to which the content's ``applied_scale`` is not applied yet."""
    scale = content.get("applied_scale", 1.0)
    return Points(points.xyz / scale, points.rgb, points.point, points.view)


def _cameras(file: Path, posed: PosedImages, dialect: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Keys of the file, and of each frame: those in which the cameras differ."""
    kinds = {_kind(file, camera, dialect): camera.model for camera in posed.cameras}
    if len(kinds) > 1 and dialect == "nerfstudio":
        raise InputError(
            f"{file}: found cameras of the models {' and '.join(sorted(kinds.values()))}, expected one projection: "
            "transforms.json of nerfstudio has no camera_model of a frame"
        )
    cameras = [_keys(file, camera, dialect) for camera in posed.cameras]
    lens = sorted(set().union(*cameras).difference(*_TOGETHER))
    shared: dict[str, Any] = {}
    differing: list[str] = []
    if dialect == "nerfstudio":
        shared["camera_model"] = _camera_model(next(iter(kinds)), {camera.model for camera in posed.cameras})
    for group in (*_TOGETHER, lens):
        if all(camera.get(key) == cameras[0].get(key) for key in group for camera in cameras):
            shared |= {key: cameras[0][key] for key in group if key in cameras[0]}
        else:
            differing += group
    return shared, [{key: camera[key] for key in differing if key in camera} for camera in cameras]


def _kind(file: Path, camera: Camera, dialect: str) -> str:
    """Kind of a camera's projection; an InputError names what the format lacks."""
    kinds = [("perspective", _PERSPECTIVE), ("fisheye", _FISHEYE)]
    if dialect == "nerfstudio":
        kinds += [("FISHEYE624", {_FISHEYE624: (None,) * 12}), ("EQUIRECTANGULAR", {_PANORAMA: ()})]
    known = [model for _, models in kinds for model in models]
    if camera.model not in known:
        raise InputError(
            f"{file}: transforms.json of {dialect} cannot express the camera model {camera.model}, expected one of "
            f"{', '.join(known)}"
        )
    kind, models = next((kind, models) for kind, models in kinds if camera.model in models)
    if len(camera.coefficients) != len(models[camera.model]):
        raise InputError(
            f"{file}: found a camera {camera.model} with {len(camera.coefficients)} coefficients, expected "
            f"{len(models[camera.model])}"
        )
    return kind


def _camera_model(kind: str, models: set[str]) -> str:
    """The ``camera_model`` of nerfstudio for a projection."""
    named = {"perspective": "PINHOLE" if models <= set(_PINHOLES) else "OPENCV", "fisheye": "OPENCV_FISHEYE"}
    return named.get(kind, kind)


def _keys(file: Path, camera: Camera, dialect: str) -> dict[str, Any]:
    """All keys of one camera."""
    numbers = (camera.fx, camera.fy, camera.cx, camera.cy, *camera.coefficients)
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{file}: found a camera with numbers that are not finite, expected finite numbers")
    keys: dict[str, Any] = {"w": camera.width, "h": camera.height, "cx": camera.cx, "cy": camera.cy}
    if camera.model == _PANORAMA:
        return {**keys, "fl_x": camera.width / 2, "fl_y": float(camera.height)}
    keys |= {"fl_x": camera.fx, "fl_y": camera.fy}
    if camera.model == _FISHEYE624:
        return {**keys, "distortion_params": list(camera.coefficients)}
    return {**keys, **_lens(file, camera, dialect)}


def _lens(file: Path, camera: Camera, dialect: str) -> dict[str, Any]:
    """Keys of the coefficients of a camera, and for instant-ngp of its projection."""
    names = {**_PERSPECTIVE, **_FISHEYE}[camera.model]
    pairs = list(zip(names, camera.coefficients, strict=True))
    nerfstudio, fisheye = dialect == "nerfstudio", camera.model in _FISHEYE
    if not nerfstudio and not fisheye:
        pairs = [(None if name == "k3" else name, value) for name, value in pairs]
    if any(name is None and value != 0 for name, value in pairs):
        raise InputError(
            f"{file}: transforms.json of {dialect} cannot express a camera {camera.model} with the coefficients "
            f"{', '.join(f'{value:g}' for value in camera.coefficients)}, expected 0 beyond the "
            f"{'fifth' if nerfstudio else 'fourth'}"
        )
    if not nerfstudio and fisheye and not any(camera.coefficients):
        raise InputError(
            f"{file}: transforms.json of instant-ngp cannot express a fisheye camera whose coefficients are all 0, "
            "which that program reads as a pinhole, expected another one"
        )
    return {name: value for name, value in pairs if name is not None} | ({} if nerfstudio else {"is_fisheye": fisheye})
