"""Reader for scenes in the format of LLFF: photographs and ``poses_bounds.npy``.

Each row of that file has a 3 × 5 matrix [R | t | height, width, focal] with LLFF's camera axes (down, right,
backwards), or in another convention (``pose_axes``), and the nearest and farthest depth of the view, in the file's
*world* coordinates. The scene read is in *scene* coordinates: world coordinates scaled so that the nearest depth is
1 / bd_factor, in the frame of the average camera.

Sources: Mildenhall et al., Local Light Field Fusion (2019), for the format; Mildenhall et al., NeRF (2020),
and nerf-pytorch for the normalization.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64

from enerf.core import arrays, image_files
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import cameras, image_folder, poses, splits, storage, view_checks
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.storage import Limits

log = logging.getLogger("enerf")
_INFINITY = 1e30  # scene units
_LAYOUT = "data/nerf_llff_data/<scene>/{poses_bounds.npy, images/, images_8/}"


def load(
    folder: str | os.PathLike[str],
    factor: int | None = 8,
    llffhold: int = 8,
    *,
    spherify: bool = False,
    ndc: bool = True,
    bd_factor: float | int | None = 0.75,
    white_bkgd: bool = False,
    pose_axes: str = "llff",
    pose_check: bool = True,
    keep_alpha: bool = False,
    test_views: str = "",
    limits: Limits = storage.UNBOUNDED,
) -> Scene:
    """Read a scene: photographs, recentered poses, and the split into training and test views.

    Parameters
    ----------
    folder
        Contains ``poses_bounds.npy``, ``images`` and ``images_F``, which is created if missing.
    factor
        F, by which width and height of the photographs are divided; None, 0 or 1 for full size.
    llffhold
        Views 0, n, 2n … are test views for a value of n; for 0, only the most central view is.
    spherify
        For cameras around an object: the origin becomes the point they look at, and their root-mean-square distance
        from it 1.
    ndc
        Use normalized device coordinates, where near and far are 0 and 1.
    bd_factor
        The nearest depth is scaled to 1 / bd_factor; None keeps the scale.
    white_bkgd
        Composite transparent images over white.
    keep_alpha
        Keep the alpha channel of transparent images, for ``Scene.images`` of four channels, and composite them when
        they are used; otherwise they are composited over white or their alpha is dropped.
    pose_axes
        Convention of the matrices in the file, one of ``poses.AXES``.
    pose_check
        Whether to log a warning if the poses do not fit the photographs.
    test_views
        Names of the test views, see ``splits.choose``; empty: by ``llffhold``.
    limits
        Where the photographs may be, see ``storage``.

    Outlying bounds are replaced with a warning.

    Raises
    ------
    InputError
        If a file is missing, damaged or inconsistent with another, or an option is invalid; before any file is
        written.
    """
    scene, file = Path(folder), Path(folder) / "poses_bounds.npy"
    rows = _rows(scene, file)
    factor = _factor(factor)
    photos = image_folder.find(scene, factor, len(rows), (float(rows[0, 9]), float(rows[0, 4])))
    photos = replace(photos, by_alpha=keep_alpha)
    matrices, bounds = _check_rows(file, rows, [photo.name for photo in photos.files], pose_axes)
    view_cameras = Cameras(_cameras(file, rows, photos, factor))
    c2w, bounds, world_to_scene = _normalize(file, poses.from_axes(matrices, pose_axes), bounds, bd_factor, spherify)
    bounds = _limited(file, bounds, ndc)
    split = splits.choose([photo.name for photo in photos.files], c2w, llffhold, test_views)
    view_checks.require_parallax(file, c2w[list(split.train), :, 3], float(np.median(bounds[:, 0])), "training cameras")
    pixels, names = image_folder.read(photos, white_bkgd, keep_alpha, limits)
    if pose_check:
        view_checks.warn_of_axes(file, pixels, matrices, pose_axes, view_cameras)
    return Scene(
        name=scene.resolve().name,
        images=pixels,
        c2w=torch.from_numpy(c2w).float(),
        camera=cameras.reference(view_cameras),
        bounds=torch.from_numpy(bounds).float(),
        image_names=names,
        train=split.train,
        test=split.test,
        near=0.0 if ndc else float(bounds.min() * 0.9),
        far=1.0 if ndc else float(bounds.max()),
        ndc=ndc,
        forward_facing=not spherify,
        world_to_scene=torch.from_numpy(world_to_scene),
        background=float(white_bkgd),
        split_rule=split.rule,
        view_cameras=None if view_cameras.is_single else view_cameras,
    )


def read_posed(folder: Path, pose_axes: str = "llff") -> PosedImages:
    """Read poses, bounds and the camera of a scene as the file states them; of images, only headers are read.

    The photographs are those of ``images`` or, if that is missing, of the ``images_F`` with the smallest F. Cameras
    are those of the photographs' size. World coordinates are those of the file.

    Parameters
    ----------
    folder
        The scene.
    pose_axes
        Convention of the matrices in the file, one of ``poses.AXES``.

    Raises
    ------
    InputError
        If a file is missing, damaged or inconsistent with another.
    """
    scene, file = Path(folder), Path(folder) / "poses_bounds.npy"
    rows = _rows(scene, file)
    factor = _least_factor(scene)
    photos = image_folder.find(scene, factor, len(rows), (float(rows[0, 9]), float(rows[0, 4])))
    names = tuple(photo.name for photo in photos.files)
    matrices, bounds = _check_rows(file, rows, names, pose_axes)
    return PosedImages(
        source=file,
        names=names,
        files=photos.files,
        cameras=tuple(_cameras(file, rows, photos, factor)),
        c2w=poses.orthonormalize(poses.from_axes(matrices, pose_axes)),
        bounds=bounds,
        are_upright=photos.rotate,
    )


def _least_factor(scene: Path) -> int:
    """Factor of the largest photographs: 1 if there is a folder ``images``, or no other."""
    found = [path.name.removeprefix("images_") for path in scene.glob("images_*") if path.is_dir()]
    factors = [int(text) for text in found if text.isascii() and text.isdecimal() and len(text) < 5 and int(text) > 1]
    return 1 if (scene / "images").is_dir() else min(factors, default=1)


def input_files(folder: Path, factor: int) -> list[Path]:
    """Return the files of a scene: poses, and the images that are read at 1 / ``factor`` of the full size.

    Images that have yet to be downsampled are not included.

    Raises
    ------
    InputError
        If the folder of the images cannot be listed.
    """
    pixels = folder / image_folder.name_of(factor or 1)
    return [folder / "poses_bounds.npy", *(image_files.list_images(pixels) if pixels.is_dir() else [])]


def _rows(scene: Path, file: Path) -> Float64[np.ndarray, "n 17"]:
    """Rows of ``poses_bounds.npy``, not yet validated."""
    if not scene.is_dir():
        raise InputError(f"{scene} is not a folder, expected an LLFF scene laid out as {_LAYOUT}.")
    try:
        rows = arrays.read_npy(file)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist, expected an LLFF scene laid out as {_LAYOUT}.") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}), expected N x 17 numbers.") from None
    if rows.ndim != 2 or rows.shape[1] != 17:
        raise InputError(f"{file} holds {rows.dtype} of shape {rows.shape}, expected N x 17 numbers.")
    if len(rows) < 2:
        raise InputError(f"{file} holds {len(rows)} views, expected 2 or more: to train on and to test.")
    return rows.astype(np.float64)


def _factor(factor: int | None) -> int:
    """The downsampling factor, 1 for full size."""
    if factor is not None and not 0 <= factor <= 4096:
        raise InputError(f"option --factor: found {factor}, expected 0 or 1 for full size, or more up to 4096.")
    return factor or 1


def _check_rows(
    file: Path, rows: Float64[np.ndarray, "n 17"], names: Sequence[str], axes: str
) -> tuple[Float64[np.ndarray, "n 3 4"], Float64[np.ndarray, "n 2"]]:
    """The file's matrices and bounds; an InputError names the rows with invalid values."""

    def refuse(bad: Bool[np.ndarray, " n"], found: str, expected: str) -> None:
        if bad.any():
            raise InputError(f"{file} has {found} in {view_checks.name_views(bad, names)}, expected {expected}.")

    near, far = rows[:, 15], rows[:, 16]
    refuse(~np.isfinite(rows).all(axis=1), "values that are not finite", "finite poses and bounds")
    refuse(rows[:, [4, 9, 14]].min(axis=1) <= 0, "a height, width or focal length of 0 or less", "pixels")
    refuse(np.abs(np.log10(rows[:, 14] / rows[:, 9])) > 4, "a focal length of no camera", "about the width, in pixels")
    refuse((near <= 0) | (near >= far), "a near bound that is not between 0 and the far", "0 < near < far")
    matrices = rows[:, :15].reshape(-1, 3, 5)[:, :, :4]
    view_checks.require_rotations(file, matrices, names)
    view_checks.require_one_shape(file, rows[:, 4] / rows[:, 9], names)
    bounds = view_checks.robust_bounds(file, rows[:, 15:], names)
    centers = poses.from_axes(matrices, axes)[:, :, 3]
    view_checks.require_one_scale(file, centers, bounds, names)
    view_checks.require_parallax(file, centers, float(np.median(bounds[:, 0])))
    view_checks.warn_of_equal_poses(file, matrices, names)
    return matrices, bounds


def _cameras(file: Path, rows: Float64[np.ndarray, "n 17"], photos: image_folder.Photos, factor: int) -> list[Camera]:
    """Camera of each view: that of the first row for all, unless the focal lengths differ by more than rounding.

    The focal lengths are scaled by the ratio of the images' size to the recorded size.
    """
    width, height = photos.width, photos.height
    full_height, full_width = rows[0, [4, 9]]
    across, down = width / full_width, height / full_height
    if abs(across / down - 1) > max(0.02, 1 / width + 1 / height):
        raise InputError(
            f"{file} was made from images of {full_width:g}x{full_height:g} but {photos.files[0]} is read at "
            f"{width}x{height}, expected the same shape."
        )
    if abs(across * factor - 1) > max(0.01, 0.5 / width):
        log.warning(
            "%s: width %g became %d, which is not 1/%d; the focal length follows the real ratio",
            *(photos.output_folder or photos.files[0].parent, full_width, width, factor),
        )
    shares = rows[:, 14] / rows[:, 9]
    used = rows[:1].repeat(len(rows), 0) if view_checks.has_one_focal_length(shares) else rows
    if used is rows:
        log.info("%s: focal lengths of %.4g to %.4g of the width: one for each view", file, shares.min(), shares.max())
    return [
        Camera(width, height, float(f * (width / w)), float(f * (height / h)), width / 2, height / 2)
        for h, w, f in used[:, [4, 9, 14]].tolist()
    ]


def _normalize(
    file: Path,
    c2w: Float64[np.ndarray, "n 3 4"],
    bounds: Float64[np.ndarray, "n 2"],
    bd_factor: float | int | None,
    spherify: bool,
) -> tuple[Float64[np.ndarray, "n 3 4"], Float64[np.ndarray, "n 2"], Float64[np.ndarray, "4 4"]]:
    """Poses and bounds in scene coordinates, and the world-to-scene similarity."""
    if bd_factor is not None and bd_factor <= 0:
        raise InputError(f"option bd_factor: found {bd_factor}, expected a number above 0.")
    c2w = poses.orthonormalize(c2w)
    scale = 1 / (bounds.min() * bd_factor) if bd_factor is not None else 1.0
    c2w[:, :, 3] *= scale
    bounds = bounds * scale
    c2w, rigid = poses.recenter(c2w)
    world_to_scene = rigid @ np.diag([scale, scale, scale, 1.0])
    if not spherify:
        return c2w, bounds, world_to_scene
    try:
        c2w, bounds, similarity = poses.spherify(c2w, bounds)
    except ValueError as error:
        raise InputError(f"option --spherify: {error} in {file}, expected them around an object.") from None
    return c2w, bounds, similarity @ world_to_scene


def _limited(file: Path, bounds: Float64[np.ndarray, "n 2"], ndc: bool) -> Float64[np.ndarray, "n 2"]:
    """Bounds that are finite in single precision: in NDC a far bound may mean infinity, else it may not."""
    if not ndc and bounds.max() > 1e6 * bounds.min():
        raise InputError(
            f"{file} has far bounds of up to {bounds.max() / bounds.min():g} times the nearest, expected a range that "
            "samples can cover without NDC."
        )
    return np.minimum(bounds, _INFINITY)
