"""Reader for scenes in the format of NeRF's synthetic data: renderings of an object, and their poses as JSON.

The poses are camera-to-world with OpenGL axes unless another convention is named, so scene coordinates are those of the
file. The object is around the origin, between ``near`` and ``far`` from every camera; 2 and 6 in NeRF's scenes.

Source: Mildenhall et al., NeRF (2020); options and defaults as in nerf-pytorch.
"""

import math
import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from enerf.core import files as core_files
from enerf.core import image_formats, images, parallel
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import poses, storage, transforms, view_checks
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.photographs import Photographs
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.storage import Limits
from enerf.datasets.scenes.transforms import Frames
from enerf.datasets.scenes.transparency import Stored

_LAYOUT = "data/nerf_synthetic/<scene>/{transforms_train.json, transforms_test.json, train/, test/}"
_NEAR, _FAR = 2.0, 6.0


def load(
    folder: str | os.PathLike[str],
    half_res: bool = False,
    testskip: int = 8,
    white_bkgd: bool = False,
    *,
    near: float | int = 0,
    far: float | int = 0,
    pose_axes: str = "opengl",
    pose_check: bool = True,
    keep_alpha: bool = False,
    limits: Limits = storage.UNBOUNDED,
) -> Scene:
    """Read a scene: training frames, then test frames; validation frames are not read.

    Parameters
    ----------
    folder
        Contains ``transforms_train.json``, ``transforms_test.json`` and the image files that they name.
    half_res
        Downsample by 2, averaging squares of 2 × 2 pixels.
    testskip
        Use every n-th test frame, from the first; 0 means 1.
    white_bkgd
        Composite transparent images over white; otherwise alpha is dropped.
    near, far
        Depths at which rays start and end; 0 means 2 and 6.
    pose_axes
        Convention of the matrices in the files, one of ``poses.AXES``.
    pose_check
        Whether to log a warning if the poses do not fit the photographs.
    keep_alpha
        Keep the alpha channel of transparent images, for ``Scene.images`` of four channels, and composite them when
        they are used.
    limits
        Where the photographs may be, see ``storage``.

    Raises
    ------
    InputError
        If a file is missing, damaged or inconsistent with another.
    """
    scene = Path(folder)
    _require_folder(scene)
    if testskip < 0:
        raise InputError(f"option --testskip: found {testskip}, expected 0 or more.")
    near, far = _range(near, far)
    train, test = _frames(scene, testskip or 1)
    c2w = _poses(train, pose_axes, near, far)
    if test.names:
        c2w = np.concatenate([c2w, _poses(test, pose_axes, near, far, training=False)])
    names, matrices = (*train.names, *test.names), np.concatenate([train.matrices, test.matrices])
    view_checks.warn_of_equal_poses(scene, matrices, names)
    photographs = _photographs([scene / name for name in names], half_res, white_bkgd, keep_alpha)
    pixels, n, (height, width) = storage.load(photographs, limits), len(names), photographs.sizes[0]
    focal = 0.5 * width / math.tan(0.5 * train.angle)
    camera = Camera(width, height, focal, focal, width / 2, height / 2)
    if pose_check:
        view_checks.warn_of_axes(scene, pixels, matrices, pose_axes, Cameras([camera] * n))
    return Scene(
        name=scene.resolve().name,
        images=pixels,
        c2w=torch.from_numpy(c2w).float(),
        camera=camera,
        bounds=torch.tensor([[near, far]], dtype=torch.float32).repeat(n, 1),
        image_names=names,
        train=tuple(range(len(train.names))),
        test=tuple(range(len(train.names), n)),
        near=near,
        far=far,
        ndc=False,
        forward_facing=False,
        world_to_scene=torch.eye(4, dtype=torch.float64),
        background=float(white_bkgd),
    )


def read_posed(folder: Path, pose_axes: str = "opengl") -> PosedImages:
    """Read poses and the camera of all training and test frames; of images, the header of the first is read.

    Parameters
    ----------
    folder
        The scene.
    pose_axes
        Convention of the matrices in the files, one of ``poses.AXES``.

    Raises
    ------
    InputError
        If a file is missing, damaged or inconsistent with another.
    """
    scene = Path(folder)
    _require_folder(scene)
    train, test = _frames(scene, 1)
    for part in (train, test):
        view_checks.require_rotations(part.file, part.matrices, part.names)
    names, matrices = (*train.names, *test.names), np.concatenate([train.matrices, test.matrices])
    width, height, _ = images.size(scene / names[0])
    focal = 0.5 * width / math.tan(0.5 * train.angle)
    return PosedImages(
        source=scene,
        names=names,
        files=tuple(scene / name for name in names),
        cameras=(Camera(width, height, focal, focal, width / 2, height / 2),) * len(names),
        c2w=poses.orthonormalize(poses.from_axes(matrices, pose_axes)),
        test=tuple(range(len(train.names), len(names))),
    )


def _require_folder(scene: Path) -> None:
    if not scene.is_dir():
        raise InputError(f"{scene} is not a folder, expected a scene laid out as {_LAYOUT}.")


def input_files(folder: Path, testskip: int) -> list[Path]:
    """Return the files of a scene: poses, and the images of training frames and every n-th test frame.

    Raises
    ------
    InputError
        If a file of poses cannot be read.
    """
    return [path for part in _frames(folder, testskip or 1) for path in (part.file, *(folder / n for n in part.names))]


def _range(near: float | int, far: float | int) -> tuple[float, float]:
    """Near and far, with defaults for zeros."""
    start, end = float(near or _NEAR), float(far or _FAR)
    if not 0 < start < end < math.inf:
        raise InputError(
            f"options --near and --far: found depths from {start:g} to {end:g}, expected near above 0 and below far."
        )
    return start, end


def _frames(scene: Path, testskip: int) -> "tuple[Frames, Frames]":
    """Training frames and every n-th test frame, of one field of view."""
    train, test = (transforms.read(scene / f"transforms_{split}.json", _LAYOUT) for split in ("train", "test"))
    if not math.isclose(train.angle, test.angle, rel_tol=1e-6):
        raise InputError(f"{test.file} has camera_angle_x {test.angle}, expected {train.angle} as for training.")
    return train, replace(test, names=test.names[::testskip], matrices=test.matrices[::testskip])


def _poses(frames: Frames, axes: str, near: float, far: float, training: bool = True) -> Float64[np.ndarray, "n 3 4"]:
    """Checked poses with OpenGL axes."""
    bounds = np.array([[near, far]]).repeat(len(frames.names), 0)
    view_checks.require_rotations(frames.file, frames.matrices, frames.names)
    c2w = poses.orthonormalize(poses.from_axes(frames.matrices, axes))
    view_checks.require_one_scale(frames.file, c2w[:, :, 3], bounds, frames.names, " (--near and --far)")
    if training:
        view_checks.require_parallax(frames.file, c2w[:, :, 3], near, "training cameras")
        view_checks.warn_of_range(frames.file, c2w, near, far)
    return c2w


def _photographs(files: list[Path], half_res: bool, white: bool, keep_alpha: bool) -> Photographs:
    """Files of one common size, to be read at it or at half of it."""
    for file in files:
        with suppress(OSError):  # named below
            core_files.require_regular(file)
    raw = images.size(files[0])[:2]
    width, height = (side // 2 for side in raw) if half_res else raw

    def read(index: int) -> Stored:
        picture = images.read_stored(files[index], rotate=False)
        if picture.shape[:2] != raw[::-1]:
            found = f"{picture.shape[1]}x{picture.shape[0]}"
            raise InputError(f"{files[index]} has {found} pixels, expected {raw[0]}x{raw[1]} as {files[0].name}.")
        if not half_res:
            return picture
        return images.downsample(images.to_floats(picture), (width, height), by_alpha=keep_alpha)

    threads = partial(parallel.threads_for, image_formats.bytes_to_decode(raw[0] * raw[1]))
    sizes, folder = ((height, width),) * len(files), files[0].parent
    return Photographs(tuple(files), sizes, read, threads, folder, white, keep_alpha, "half" if half_res else "full")
