"""Reader for ``transforms.json`` of instant-ngp and nerfstudio, with all keys that the two define.

Matrices are camera-to-world with OpenGL axes in both. The world of the poses read is the file's own:

- nerfstudio's ``applied_transform`` A (3 × 4) and ``applied_scale`` s record how the file's world differs from that of
  the original data (COLMAP's, for example): x_file = s · A x_original, so that A⁻¹(x / s) undoes them. The file of
  points, ``ply_file_path``, has A applied but not s, and depth maps are in units of 0.001 of the original world:
  points and depths read here are multiplied by s. ``orientation_override`` and nerfstudio's own centering and scaling
  concern what that program does after reading.
- instant-ngp's ``scale``, ``offset``, ``aabb_scale``, ``aabb``, ``render_aabb``, ``up`` and ``from_mitsuba`` place the
  scene in that program's unit cube and are not used.

Where the two programs contradict one another, the keys decide (``transforms_keys.is_for_instant_ngp``): a file with
keys that only instant-ngp defines and none that only nerfstudio does is read as instant-ngp reads it. That concerns
cameras (``transforms_cameras``) and depth maps: instant-ngp's are ``depth_path`` with the unit ``integer_depth_scale``,
and not used without it. A file with ``camera_angle_x`` alone is read as NeRF's synthetic data are.

Masks are those that ``mask_path`` names, where 0 is ignored, as in nerfstudio. If no frame names one, they are
instant-ngp's, which lie beside the images: ``images/dynamic_mask_a.png`` for ``images/a.jpg``, where all but 0 is.

nerfstudio's ``fisheye_crop_radius``, in pixels of the size that the file states, is for fisheye cameras alone.

Views are in the order of the file. Both programs sort them by name, and instant-ngp drops blurred ones by
``sharpness``; neither is done here.

Sources: as of ``transforms_keys``.
"""

import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core import files, image_files, images
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, poses, projections, transforms_cameras, transforms_keys, view_checks
from enerf.datasets.scenes.posed_images import Points, PosedImages
from enerf.datasets.scenes.transforms_json import frame_matrix, frame_name, is_name, is_number, read_object, short
from enerf.datasets.scenes.transforms_paths import Places, inner_path, inside

log = logging.getLogger("enerf")
_LAYOUT = "<scene>/{transforms.json, images/}"
MILLIMETER = 0.001  # nerfstudio's unit of integer depth maps

ReadPoints = Callable[[Path], Points]


@dataclass(frozen=True)
class Frame:
    """A frame of the file.

    Attributes
    ----------
    index
        Its place in the file.
    stated
        Normalized path as the file writes it, perhaps without suffix.
    name
        Path of the image relative to the file's folder, with suffix.
    exists
        Whether the image does.
    matrix
        [R | t] as in the file.
    content
        The frame's object.
    """

    index: int
    stated: str
    name: str
    exists: bool
    matrix: Float64[np.ndarray, "3 4"]
    content: Mapping[str, Any]


def read(path: str | os.PathLike[str], *, read_points: ReadPoints | None = None) -> PosedImages:
    """Read a file; images are looked for, and their headers are read where sizes are not stated or have to be checked.

    Parameters
    ----------
    path
        The file, or a folder with ``transforms.json``.
    read_points
        Reads the PLY file that ``ply_file_path`` names, in its own coordinates; None leaves it unread.

    An image that is not at its path, or whose path leads out of the folder, is looked for by the last parts of the
    path, in any case, in the folder and in ``images``. Images that do not exist are left out with a warning, as are
    masks, depth maps and points. A frame that repeats an
    earlier one is left out; one with the same image and another pose is refused. Where the images are smaller or larger
    than the file states, and of the same shape, the cameras are those of the images; this is examined in one image of
    each stated size. Sizes are those of the stored pixels, before EXIF orientation, as in both programs.

    Test views are those of ``test_filenames``, or of ``val_filenames`` if there are none; views that none of the lists
    of a split names are left out with a warning, as are validation views beside test views.

    Raises
    ------
    InputError
        If the file is missing, damaged or contradicts itself or the images; paths that lead out of its folder, and to
        no file in it by their last parts, are refused.
    """
    file = Path(path) / "transforms.json" if os.path.isdir(path) else Path(path)
    return from_content(file, read_object(file, _LAYOUT, "an object with frames"), read_points=read_points)


def from_content(file: Path, content: Mapping[str, Any], *, read_points: ReadPoints | None = None) -> PosedImages:
    """What ``read`` returns, from a file's content.

    Parameters
    ----------
    file
        Begins messages; paths are relative to its folder. It is not opened.
    content
        The object.
    read_points
        As in ``read``.

    Raises
    ------
    InputError
        If the content contradicts itself or the images.
    """
    found = content.get("frames")
    if not isinstance(found, list) or not found:
        raise InputError(f"{file} has no list of frames, expected at least one frame")
    places = Places(file)
    every = [_frame(places, i, frame if isinstance(frame, dict) else {}) for i, frame in enumerate(found)]
    places.log_moved()
    frames, test = _split(places, content, _without_repeats(file, _existing(file, every)))
    names = tuple(frame.name for frame in frames)
    objects = [frame.content for frame in every]
    cameras, radii = _cameras(file, content, frames, transforms_keys.is_for_instant_ngp(content, objects))
    matrices = np.stack([frame.matrix for frame in frames])
    view_checks.require_rotations(file, matrices, names)
    scale = _positive(file, content, "applied_scale", 1.0)
    depths, unit, used = _depths(file, content, frames, scale)
    points = _points(file, content, scale, read_points)
    masks, inverse = _masks(file, frames)
    used |= {"ply_file_path", "applied_scale"} if points else set()
    used |= {"fisheye_crop_radius"} if radii else set()
    used |= set() if any("transform_matrix" in frame for frame in objects) else {"transform_matrix_start"}
    unread, unknown = transforms_keys.unread(set(content).union(*objects), used)
    if unread:
        log.info("%s: keys are understood and not used: %s", file, ", ".join(unread))
    if unknown:
        log.info("%s: unknown keys are ignored: %s", file, image_files.some([short(key) for key in unknown]))
    return PosedImages(
        source=file,
        names=names,
        files=tuple(file.parent / name for name in names),
        cameras=cameras,
        c2w=poses.orthonormalize(matrices),
        masks=masks,
        masks_are_inverse=inverse,
        depths=depths,
        depth_unit=unit,
        points=points,
        test=test,
        unread=unread,
        radii=radii,
    )


def input_files(path: str | os.PathLike[str], *, with_points: bool = True) -> list[Path]:
    """The file, and the one of points that it names if it exists; ``read`` returns images, masks and depth maps.

    Raises
    ------
    InputError
        If the file is missing or damaged, or names a path outside of its folder.
    """
    file = Path(path) / "transforms.json" if os.path.isdir(path) else Path(path)
    points = _points_file(file, read_object(file, _LAYOUT, "an object with frames")) if with_points else None
    return [file] if points is None or not files.is_regular(points) else [file, points]


def dynamic_mask(image: Path) -> Path:
    """Where instant-ngp looks for the mask of an image.

    >>> dynamic_mask(Path("images/a.jpg")).as_posix()
    'images/dynamic_mask_a.png'
    """
    return image.with_name(f"dynamic_mask_{image.stem}.png")


def _frame(places: Places, index: int, frame: Mapping[str, Any]) -> Frame:
    """A checked frame."""
    stated = frame_name(places.file, index, frame)
    rows = frame.get("transform_matrix", frame.get("transform_matrix_start"))
    matrix = frame_matrix(places.file, index, stated, rows)
    name, exists = places.locate(stated, f"file_path of frame {index}")
    return Frame(index, inside(places.file, stated) or name, name, exists, matrix, frame)


def _existing(file: Path, frames: Sequence[Frame]) -> list[Frame]:
    """Frames of which the image exists; the others are logged."""
    missing = [frame.name for frame in frames if not frame.exists]
    if len(missing) == len(frames):
        raise InputError(
            f"{file} names {len(frames)} images, of which none exists, expected {image_files.some(missing)}"
        )
    if missing:
        log.warning(
            "%s: images do not exist and are left out, %d of %d: %s",
            *(file, len(missing), len(frames), image_files.some(missing)),
        )
    return [frame for frame in frames if frame.exists]


def _without_repeats(file: Path, frames: Sequence[Frame]) -> list[Frame]:
    """Frames of different images; exact repeats are logged, others refused."""
    first: dict[str, Frame] = {}
    repeated = []
    for frame in frames:
        before = first.setdefault(frame.name, frame)
        if before is frame:
            continue
        keys = transforms_cameras.KEYS
        same = all(before.content.get(key) == frame.content.get(key) for key in keys)
        if not same or not np.array_equal(before.matrix, frame.matrix):
            raise InputError(
                f"{file} has two frames of {frame.name}, {before.index} and {frame.index}, with different poses or "
                "cameras, expected one frame for each image"
            )
        repeated.append(frame.name)
    if repeated:
        log.warning(
            "%s: frames repeat an earlier one and are left out (%d): %s",
            file,
            len(repeated),
            image_files.some(repeated),
        )
    return list(first.values())


def _split(
    places: Places, content: Mapping[str, Any], frames: list[Frame]
) -> tuple[list[Frame], tuple[int, ...] | None]:
    """Frames of the training and test split, and indices of the latter among them; None if the file does not say."""
    file, lists = places.file, [_names(places, content, key) for key in transforms_keys.SPLITS]
    if lists == [None, None, None]:
        return frames, None
    train, val, test = (None if names is None else set(names) for names in lists)
    held = test or val or set()
    both = (train or set()) & ((test or set()) | (val or set()))
    if both:
        raise InputError(
            f"{file} has names in train_filenames and in another list, {image_files.some(sorted(both))}, expected "
            "different images for training and testing"
        )
    stated = {name for frame in frames for name in (frame.stated, frame.name)}
    absent = sorted(set().union(*(names for names in (train, val, test) if names)) - stated)
    if absent:
        log.warning("%s: names in a list of a split have no frame or image: %s", file, image_files.some(absent))
    is_test = [not held.isdisjoint((frame.stated, frame.name)) for frame in frames]
    other = (val or set()) - held
    is_train = [
        other.isdisjoint((frame.stated, frame.name))
        if train is None
        else not train.isdisjoint((frame.stated, frame.name))
        for frame in frames
    ]
    kept = [i for i in range(len(frames)) if is_test[i] or is_train[i]]
    if len(kept) < len(frames):
        out = [frame.name for i, frame in enumerate(frames) if not (is_test[i] or is_train[i])]
        log.warning(
            "%s: views are neither for training nor for testing and are left out (%d): %s",
            *(file, len(out), image_files.some(out)),
        )
    if all(is_test[i] for i in kept):
        raise InputError(f"{file} has no frame for training, expected one that train_filenames names")
    return [frames[i] for i in kept], tuple(n for n, i in enumerate(kept) if is_test[i])


def _names(places: Places, content: Mapping[str, Any], key: str) -> list[str] | None:
    """Normalized paths in a list of a split, without suffix if the file has none; None if the list is missing."""
    names = content.get(key)
    if names is None:
        return None
    if not isinstance(names, list) or not all(map(is_name, names)):
        raise InputError(f"{places.file} has {key} {short(names)}, expected a list of names of images")
    return [inside(places.file, name) or places.locate(name, f"a name of {key}")[0] for name in names]


def _cameras(
    file: Path, content: Mapping[str, Any], frames: Sequence[Frame], own_first: bool
) -> tuple[tuple[Camera, ...], tuple[float, ...]]:
    """Camera of each frame, of the size of its image, and radii; contradictions and other sizes are logged."""
    radius = (
        None if content.get("fisheye_crop_radius") is None else _positive(file, content, "fisheye_crop_radius", 1.0)
    )
    contradictions: dict[str, list[int]] = {}
    factors: dict[tuple[int, int], tuple[int, int]] = {}
    cameras, radii = [], []
    for index, frame in enumerate(frames):
        view = transforms_cameras.view(file, frame.name, index, content, frame.content, own_first, contradictions)
        stated = transforms_cameras.stated_size(view)
        image = file.parent / frame.name
        if stated is None:
            stated = size = images.size(image)[:2]
        else:
            size = factors[stated] = factors.get(stated) or _size(file, image, stated)
        cameras.append(camera_models.of_size(transforms_cameras.camera(view, *stated), *size))
        is_fisheye = projections.family_of(cameras[-1].model) in projections.FISHEYE
        radii.append(radius * size[0] / stated[0] if is_fisheye and radius else math.inf)
    names = [frame.name for frame in frames]
    for key, indices in contradictions.items():
        selected = np.isin(np.arange(len(frames)), indices)
        log.warning(
            "%s: a value of %s is not used since it contradicts another one (%s): %s",
            *(file, key, "frames precede the file" if own_first else "the file precedes frames"),
            view_checks.name_views(selected, names),
        )
    return tuple(cameras), tuple(radii) if min(radii) < math.inf else ()


def _size(file: Path, image: Path, stated: tuple[int, int]) -> tuple[int, int]:
    """Size of an image, which must have the stated shape; another size is logged."""
    width, height, swapped = images.size(image)
    if (width, height) == stated:
        return stated
    if not camera_models.same_shape((width, height), stated):
        hint = " before its EXIF orientation, which is not applied," if swapped else ""
        raise InputError(
            f"{file} states images of {stated[0]}x{stated[1]} but {image} has {width}x{height} pixels,{hint} expected "
            "the same shape"
        )
    log.warning(
        "%s states images of %dx%d but %s has %dx%d pixels: the cameras are resized",
        file,
        *stated,
        image,
        width,
        height,
    )
    return width, height


def whole_mask(width: int, height: int) -> Path:
    """Mask that ignores no pixel of an image, for frames without a mask beside others with one.

    nerfstudio demands masks of all frames or of none. It stands for no mask when it is read.
    """
    return Path("masks") / f"whole_{width}x{height}.png"


def whole_mask_size(name: str) -> tuple[int, int] | None:
    """Width and height of a ``whole_mask`` by its path; None for other files.

    >>> whole_mask_size("masks/whole_20x10.png"), whole_mask_size("masks/a.png")
    ((20, 10), None)
    """
    found = re.fullmatch(r"masks/whole_(\d{1,6})x(\d{1,6})\.png", name)
    return (int(found[1]), int(found[2])) if found else None


def _companions(file: Path, frames: Sequence[Frame], key: str, what: str) -> tuple[Path | None, ...]:
    """File of each frame that a key names, None where it is missing; empty if no frame has one."""
    found: list[Path | None] = []
    missing = []
    for frame in frames:
        name = frame.content.get(key)
        if name is None or name == "" or (is_name(name) and whole_mask_size(name)):
            found.append(None)
            continue
        if not is_name(name):
            raise InputError(f"{file} has {key} {short(name)} in frame {frame.index}, expected the name of a file")
        inner = inner_path(file, name, f"{key} of frame {frame.index}")
        exists = files.is_regular(file.parent / inner)
        found.append(file.parent / inner if exists else None)
        missing += [] if exists else [inner]
    if missing:
        log.warning(
            "%s: %s do not exist and are left out (%d): %s", file, what, len(missing), image_files.some(missing)
        )
    return tuple(found) if any(found) else ()


def _masks(file: Path, frames: Sequence[Frame]) -> tuple[tuple[Path | None, ...], bool]:
    """Mask of each frame, None where there is none, and whether they are instant-ngp's; empty if there are none."""
    if any(frame.content.get("mask_path") for frame in frames):
        return _companions(file, frames, "mask_path", "masks"), False
    beside = [dynamic_mask(file.parent / frame.name) for frame in frames]
    found = tuple(mask if files.is_regular(mask) else None for mask in beside)
    count = sum(mask is not None for mask in found)
    if not count:
        return (), False
    log.info(
        "%s: %d of %d images have a mask of instant-ngp, dynamic_mask_NAME.png: pixels that are not black there are "
        "ignored (--no_masks: none are)",
        *(file, count, len(found)),
    )
    return found, True


def _depths(
    file: Path, content: Mapping[str, Any], frames: Sequence[Frame], scale: float
) -> tuple[tuple[Path | None, ...], float, set[str]]:
    """Depth maps, the file's world units per stored unit, and the keys that were used."""
    if any(frame.content.get("depth_file_path") for frame in frames):
        found = _companions(file, frames, "depth_file_path", "depth maps")
        return found, MILLIMETER * scale, {"depth_file_path", "applied_scale"}
    unit = content.get("integer_depth_scale")
    if unit is None or (is_number(unit) and unit <= 0):
        return (), 1.0, set()  # instant-ngp reads no depth maps then
    unit = _positive(file, content, "integer_depth_scale", 1.0)
    found = _companions(file, frames, "depth_path", "depth maps")
    return found, unit if found else 1.0, {"depth_path", "integer_depth_scale"}


def _points(file: Path, content: Mapping[str, Any], scale: float, read_points: ReadPoints | None) -> Points | None:
    """Points of the PLY file in the file's world; None if it is missing or not to be read."""
    path = None if read_points is None else _points_file(file, content)
    if path is None or read_points is None:
        return None
    if not files.is_regular(path):
        log.warning("%s: the file of points %s does not exist", file, path)
        return None
    points = read_points(path)
    return replace(points, xyz=points.xyz * scale)


def _points_file(file: Path, content: Mapping[str, Any]) -> Path | None:
    """The PLY file that is named, which may be missing; None if none is."""
    name = content.get("ply_file_path")
    if name is None:
        return None
    if not is_name(name):
        raise InputError(f"{file} has ply_file_path {short(name)}, expected the name of a file")
    return file.parent / inner_path(file, name, "ply_file_path")


def _positive(file: Path, content: Mapping[str, Any], key: str, default: float) -> float:
    """A number of the file."""
    value = content.get(key)
    if value is None:
        return default
    if not is_number(value) or not 1e-12 < value < 1e12:
        raise InputError(f"{file} has {key} {short(value)}, expected a number above 0, from 1e-12 to 1e12")
    return float(value)
