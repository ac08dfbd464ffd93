"""COLMAP's sparse models: cameras, poses of registered images, and points, in binary or text files.

A model is a folder with ``cameras``, ``images`` and, where there are points, ``points3D``, each ``.bin`` or ``.txt``.
Rigs and frames, which COLMAP 4 adds, are not read: the pose of each image is in ``images``. COLMAP's poses are
world-to-camera with OpenCV's axes (right, down, forward); its pixel coordinates begin at the image's outer corner, as
``core.types.Camera`` has them.

Source: COLMAP's documentation, "Output Format"; Schönberger and Frahm, Structure-from-Motion Revisited (2016).
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float64, Int64

from enerf.core import io
from enerf.core.errors import InputError
from enerf.core.image_files import some
from enerf.core.types import Camera
from enerf.datasets.scenes import colmap_binary, colmap_records, colmap_text, model_images, poses
from enerf.datasets.scenes.colmap_records import Images, Points3D
from enerf.datasets.scenes.posed_images import Points, PosedImages

log = logging.getLogger("enerf")
LAYOUT = "<scene>/{sparse/0/{cameras,images,points3D}.bin or .txt, images/}"
_PLACES = ("", "sparse", "colmap/sparse", "colmap")  # below a scene's folder; each may have numbered models
_TO_OPENGL = np.array([1.0, -1, -1])  # axes right, down, forward to right, up, back
_Content = TypeVar("_Content")


@dataclass(frozen=True)
class _Part(Generic[_Content]):
    """One of a model's files: its name, and the function that reads it."""

    name: str
    reader: Callable[[Path], _Content]

    def read(self, model: Path) -> _Content:
        """Content of the file in a model's folder."""
        with io.os_errors_as_input_errors(self.file(model), _read_error):
            return self.reader(self.file(model))

    def file(self, model: Path) -> Path:
        """The file in a model's folder, whose name may differ in case (RealityScan: ``Cameras.txt``)."""
        exact = model / self.name
        if os.path.lexists(exact):
            return exact
        return next((path for path in sorted(_listed(model)) if path.name.lower() == self.name.lower()), exact)


@dataclass(frozen=True)
class _Format:
    """The files of a model in one format."""

    cameras: _Part[dict[int, Camera | None]]
    images: _Part[Images]
    points: _Part[Points3D]


def _read_error(file: Path, reason: str) -> InputError:
    return InputError(f"{file}: cannot be read ({reason}), expected a file of a COLMAP model")


_BINARY = _Format(
    _Part("cameras.bin", colmap_binary.read_cameras),
    _Part("images.bin", colmap_binary.read_images),
    _Part("points3D.bin", colmap_binary.read_points),
)
_TEXT = _Format(
    _Part("cameras.txt", colmap_text.read_cameras),
    _Part("images.txt", colmap_text.read_images),
    _Part("points3D.txt", colmap_text.read_points),
)


def detect(folder: Path) -> bool:
    """Whether a folder is a model or contains one where ``find`` looks."""
    return bool(_candidates(folder))


def find(folder: Path) -> Path:
    """The folder of the model in a scene's folder: itself, or below ``sparse``, ``colmap/sparse`` or ``colmap``.

    Of several models the one with the most registered images is taken, and logged.

    Raises
    ------
    InputError
        If there is none, or one of several cannot be read.
    """
    models = _candidates(folder)
    if not models:
        raise InputError(f"{folder}: found no COLMAP model, expected a scene laid out as {LAYOUT}")
    if len(models) == 1:
        return models[0]
    counts = [len(_format(model).images.read(model).names) for model in models]
    most = counts.index(max(counts))
    found = ", ".join(f"{model.name} ({n} images)" for model, n in zip(models, counts, strict=True))
    log.info("%s: %d models: %s; %s is read", folder, len(models), found, models[most].name)
    return models[most]


def input_files(folder: Path) -> list[Path]:
    """The files of the model that is read from a folder.

    Raises
    ------
    InputError
        If there is no model.
    """
    model = find(folder)
    layout = _format(model)
    found = [part.file(model) for part in (layout.cameras, layout.images, layout.points)]
    return [file for file in found if os.path.lexists(file)]


def read(folder: Path, image_folder: Path | None = None, *, with_points: bool = True) -> PosedImages:
    """Read a model; the views are sorted by name, the points by their identifiers.

    Observations are the tracks of the points; if all of these are empty, those that the images list. Observations of
    unregistered images are left out, as are repeated ones of a point in an image. Images whose camera has parameters
    that are no numbers are left out with a warning. Where images and masks lie: see ``model_images``.

    Parameters
    ----------
    folder
        The model's folder or one that contains it, see ``find``.
    image_folder
        Folder that the images' names are relative to; by default the one that ``model_images.find`` finds.
    with_points
        Whether points are read.

    Raises
    ------
    InputError
        If a file is missing, damaged or inconsistent with another.
    """
    folder = Path(folder)
    model = find(folder)
    layout = _format(model)
    images, cameras = layout.images.read(model), layout.cameras.read(model)
    file = layout.images.file(model)
    for name, number in zip(images.names, images.cameras.tolist(), strict=True):
        if number not in cameras:
            raise InputError(f"{file}: found camera {number} for image {name}, expected one of {layout.cameras.name}")
    images = _with_camera(file, images, cameras)
    if image_folder is None:
        root, image_folder = model_images.find(folder, model, images.names)
    else:
        image_folder = Path(image_folder)
        root = image_folder.parent
    images = _sorted(replace(images, names=model_images.located(file, image_folder, images.names)))
    return PosedImages(
        source=model,
        names=images.names,
        files=tuple(image_folder / name for name in images.names),
        cameras=tuple(camera for number in images.cameras.tolist() if (camera := cameras[number]) is not None),
        c2w=_c2w(images),
        masks=model_images.masks(root / "masks", image_folder, images.names),
        points=_points(model, images) if with_points else None,
    )


def write(
    folder: Path,
    posed: PosedImages,
    *,
    text: bool = False,
    pixels: Float64[np.ndarray, "k 2"] | None = None,
) -> None:
    """Write a model that COLMAP 3 and 4 open and ``read`` reads: cameras, poses and points, each file atomically.

    Views become images 1, 2, ..., equal cameras become one, points become points 1, 2, .... Bounds, masks, depth maps
    and held-out views have no place in the format. Points without colors become black.

    Parameters
    ----------
    folder
        Will hold the three files; created.
    posed
        The scene.
    text
        Write text files instead of binary ones.
    pixels
        Position of each observation in its image, in pixels; by default the projection of the point by the camera's
        focal lengths and principal point, without distortion.

    Raises
    ------
    InputError
        If the folder has files of another model that COLMAP or ``read`` would combine with these; if a name is not
        allowed in the format; if a file cannot be written.
    """
    layout, other = (colmap_text, "bin") if text else (colmap_binary, "txt")
    _require_no_other(Path(folder), [f"{part}.{other}" for part in ("cameras", "images", "points3D")])
    _require_no_other(Path(folder), [f"{part}{layout.SUFFIX}" for part in ("rigs", "frames")])
    cameras = {camera: i + 1 for i, camera in enumerate(dict.fromkeys(posed.cameras))}
    points, images, indices, order = _tables(posed, cameras)
    if text:
        colmap_text.check_names(str(Path(folder) / "images.txt"), images.names)
    at = (_projections(posed, points) if pixels is None else pixels)[order]
    limits = np.cumsum([len(observed) for observed in images.observed])[:-1]
    by_number = {number: camera for camera, number in cameras.items()}
    _write(Path(folder) / f"cameras{layout.SUFFIX}", layout.cameras_bytes(by_number))
    _write(Path(folder) / f"images{layout.SUFFIX}", layout.images_bytes(images, tuple(np.split(at, limits))))
    _write(Path(folder) / f"points3D{layout.SUFFIX}", layout.points_bytes(points, indices))


def _require_no_other(folder: Path, names: Iterable[str]) -> None:
    """Refuse files that would be combined with those that will be written."""
    for name in names:
        if os.path.lexists(folder / name):
            raise InputError(f"{folder / name}: found a file of another model, expected a folder without it")


def _candidates(folder: Path) -> list[Path]:
    """Folders of models in the first place that has some, numbered ones in the order of their numbers."""
    for place in _PLACES:
        parent = Path(folder) / place
        inner: list[Path] = []
        if place and os.path.isdir(parent):
            inner = sorted((path for path in _listed(parent) if path.name.isdecimal()), key=_by_number)
        models = [path for path in (parent, *inner) if _format_of(path) is not None]
        if models:
            return models
    return []


def _listed(folder: Path) -> list[Path]:
    """Content of a folder; nothing if it cannot be listed."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _by_number(path: Path) -> tuple[int, str]:
    return len(path.name.lstrip("0")), path.name.lstrip("0")


def _format_of(model: Path) -> _Format | None:
    """The format of a model, preferably binary; None if there are not both cameras and images in one."""
    for layout in (_BINARY, _TEXT):
        if all(os.path.lexists(part.file(model)) for part in (layout.cameras, layout.images)):
            return layout
    return None


def _format(model: Path) -> _Format:
    """The format of a model.

    Raises
    ------
    InputError
        If there are not both cameras and images in one.
    """
    layout = _format_of(model)
    if layout is None:
        raise InputError(f"{model}: found no COLMAP model, expected cameras and images, both .bin or both .txt")
    return layout


def _with_camera(file: Path, images: Images, cameras: Mapping[int, Camera | None]) -> Images:
    """The images without those whose camera is None, which are logged."""
    keep = np.array([cameras[number] is not None for number in images.cameras.tolist()])
    if keep.all():
        return images
    lost = [name for name, kept in zip(images.names, keep, strict=True) if not kept]
    if not keep.any():
        raise InputError(f"{file}: found no image whose camera has finite parameters, expected some")
    log.warning(
        "%s: images whose camera has parameters that are no numbers are left out (%d): %s", file, len(lost), some(lost)
    )
    return _selected(images, np.flatnonzero(keep))


def _sorted(images: Images) -> Images:
    """The images in the order of their names."""
    return _selected(images, np.array(sorted(range(len(images.names)), key=images.names.__getitem__)))


def _selected(images: Images, order: Int64[np.ndarray, " n"]) -> Images:
    """The images at these positions."""
    return Images(
        ids=images.ids[order],
        quaternions=images.quaternions[order],
        translations=images.translations[order],
        cameras=images.cameras[order],
        names=tuple(images.names[i] for i in order),
        observed=tuple(images.observed[i] for i in order),
    )


def _c2w(images: Images) -> Float64[np.ndarray, "n 3 4"]:
    """Camera-to-world poses with OpenGL axes."""
    unit = images.quaternions / np.linalg.norm(images.quaternions, axis=1, keepdims=True)
    rotations = np.stack([poses.rotation(quaternion) for quaternion in unit])
    centers = -np.einsum("nji,nj->ni", rotations, images.translations)
    return np.concatenate([np.swapaxes(rotations, 1, 2) * _TO_OPENGL, centers[:, :, None]], axis=-1)


def _points(model: Path, images: Images) -> Points | None:
    """Points and observations of the sorted images; None if there are no points."""
    part = _format(model).points
    if not os.path.lexists(part.file(model)):
        return None
    found = part.read(model)
    if not len(found.ids):
        return None
    order = np.argsort(found.ids)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    if len(found.tracks):
        point, view = np.repeat(rank, found.lengths), _rows(images.ids, found.tracks)
    else:
        view = np.repeat(np.arange(len(images.ids)), [len(observed) for observed in images.observed])
        point = _rows(found.ids[order], np.concatenate(images.observed))
    seen = (point >= 0) & (view >= 0)
    pairs = np.sort(point[seen] * len(images.ids) + view[seen])
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return Points(found.xyz[order], found.rgb[order], *np.divmod(pairs, len(images.ids)))


def _rows(ids: Int64[np.ndarray, " n"], wanted: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
    """Position of each wanted identifier among the others; -1 where it is not."""
    order = np.argsort(ids)
    at = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(ids[at] == wanted, at, -1)


def _tables(
    posed: PosedImages, cameras: dict[Camera, int]
) -> tuple[Points3D, Images, Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Points and images with COLMAP's identifiers; index of each track's 2-D points; observations in order of views."""
    empty = Points(np.zeros((0, 3)), None, *np.zeros((2, 0), dtype=np.int64))
    points = posed.points or empty
    by_view = np.argsort(points.view, kind="stable")
    counts = np.bincount(points.view, minlength=len(posed.names))
    index = np.empty(len(by_view), dtype=np.int64)
    index[by_view] = np.arange(len(by_view)) - np.repeat(np.cumsum(counts) - counts, counts)
    by_point = np.argsort(points.point, kind="stable")
    table = Points3D(
        ids=np.arange(1, len(points.xyz) + 1),
        xyz=points.xyz,
        rgb=np.zeros(points.xyz.shape, dtype=np.uint8) if points.rgb is None else points.rgb,
        lengths=np.bincount(points.point, minlength=len(points.xyz)),
        tracks=points.view[by_point] + 1,
    )
    w2c = np.swapaxes(posed.c2w[:, :, :3] * _TO_OPENGL, 1, 2)
    quaternions = np.stack([poses.quaternion(rotation) for rotation in w2c])
    images = Images(
        ids=np.arange(1, len(posed.names) + 1),
        quaternions=np.where(quaternions[:, :1] < 0, -quaternions, quaternions),
        translations=-np.einsum("nij,nj->ni", w2c, posed.c2w[:, :, 3]),
        cameras=np.array([cameras[camera] for camera in posed.cameras]),
        names=tuple(colmap_records.image_name(str(posed.source), name) for name in posed.names),
        observed=tuple(np.split(points.point[by_view] + 1, np.cumsum(counts)[:-1])),
    )
    return table, images, index[by_point], by_view


def _projections(posed: PosedImages, points: Points3D) -> Float64[np.ndarray, "k 2"]:
    """Pixels of the observations by the pinhole camera of each view; (0, 0) in the plane of the camera's center."""
    if posed.points is None:
        return np.zeros((0, 2))
    view = posed.points.view
    offsets = points.xyz[posed.points.point] - posed.c2w[view, :, 3]
    x, y, z = np.einsum("kij,ki->jk", posed.c2w[view, :, :3], offsets)
    fx, fy, cx, cy = np.array([[each.fx, each.fy, each.cx, each.cy] for each in posed.cameras], dtype=float)[view].T
    depth = np.where(z == 0, 1, -z)
    return np.where(z[:, None] == 0, 0, np.stack([fx * x / depth + cx, -fy * y / depth + cy], axis=1))


def _write(file: Path, pieces: Iterable[bytes]) -> None:
    """Write a file atomically."""
    with io.atomic_path(file) as temporary, io.os_errors_as_input_errors(file), temporary.open("wb") as output:
        output.writelines(pieces)
