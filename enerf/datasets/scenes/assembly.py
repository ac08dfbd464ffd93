"""From ``PosedImages`` to a ``Scene``: pixels, masks, cameras of the images' size, bounds, normalization, split."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from enerf.core import image_files as core_image_files
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import (
    camera_models,
    cameras,
    exif_exposure,
    normalization,
    point_bounds,
    poses,
    rays,
    resized_files,
    sparse_depths,
    splits,
    storage,
    view_checks,
)
from enerf.datasets.scenes import masks as scene_masks
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.normalization import Normalized
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.resized_files import Photo
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.settings import AUTOMATIC, SceneSettings

log = logging.getLogger("enerf")
NEARER = 0.9  # times the nearest bound: where rays start without NDC
WIDEST = 1e6  # times the nearest depth: farther than samples can cover


def assemble(posed: PosedImages, settings: SceneSettings, folder: Path, axes: str = "opengl") -> Scene:
    """Read the photographs, and normalize poses and bounds.

    Parameters
    ----------
    posed
        What the scene's files say.
    settings
        Options.
    folder
        The scene's, which gives its name.
    axes
        Convention in which the format's files have matrices, one of ``poses.AXES``; if the settings name another one,
        the matrices are read in that.

    Views of which every pixel is masked are neither trained on nor scored.

    Raises
    ------
    InputError
        If a file is missing or damaged, cameras and photographs do not fit, or no bounds are known.
    """
    file, names = posed.source, posed.names
    if len(names) < 2:
        raise InputError(f"{file} has {len(names)} photographs, expected 2 or more: to train on and to test")
    view_checks.require_rotations(file, posed.c2w, names)
    matrices, axes = poses.to_axes(posed.c2w, axes), settings.pose_axes or axes
    c2w = poses.orthonormalize(poses.from_axes(matrices, axes))
    view_checks.warn_of_equal_poses(file, posed.c2w, names)
    split = splits.choose(names, c2w, settings.llffhold, settings.test_views, posed.test)
    photos, factor = _photos(posed, settings, folder)
    cameras.check_views(posed.cameras, names, file)
    table = Cameras([_fitted(camera, photo) for camera, photo in zip(posed.cameras, photos, strict=True)])
    pixels = _read(photos, posed.files[0].parent, settings)
    if settings.pose_check:  # before bounds, which poses in other axes have none of
        view_checks.warn_of_axes(file, pixels, matrices, axes, table)
    bounds = _bounds(posed, c2w, settings, is_object=storage.channels_of(pixels) == 4)
    view_checks.require_one_scale(file, c2w[:, :, 3], bounds, names, " (--near and --far)")
    view_checks.require_parallax(file, c2w[list(split.train), :, 3], float(np.median(bounds[:, 0])), "training cameras")
    masks, empty = scene_masks.find(posed, photos, table, settings)
    split = _without(posed, split, empty)
    layout = "around" if settings.spherify else normalization.layout_of(c2w)
    normalized, white = normalization.normalize(c2w, bounds, layout), float(settings.white_bkgd)
    content: dict[str, Any] = {
        "images": pixels,
        "image_names": names,
        "masks": masks,
        "background": white,
        "factor": factor,
    }
    if settings.exposures and (stops := exif_exposure.of_files(posed.files)) is not None:
        content["exposures"] = torch.from_numpy(stops)
    if settings.depths:
        scale = float(np.linalg.det(normalized.world_to_scene[:3, :3])) ** (1 / 3)
        content["depths"] = sparse_depths.find(posed, c2w, table, scale, masks)
    return _scene(_name(folder), normalized, table, split, settings, **content)


def image_files(posed: PosedImages, settings: SceneSettings, folder: Path) -> list[Path]:
    """The images, masks and depth maps that are read, downsampled images if they exist."""
    masks = posed.masks if settings.use_masks else ()
    photos, _ = _photos(posed, settings, folder, create=False)
    depths = posed.depths if settings.depths else ()
    return [*(photo.file for photo in photos), *filter(None, masks), *filter(None, depths)]


def _photos(
    posed: PosedImages, settings: SceneSettings, folder: Path, *, create: bool = True
) -> tuple[list[Photo], int]:
    stated = [(camera.width, camera.height) for camera in posed.cameras]
    factor = 0 if settings.factor == AUTOMATIC else max(1, settings.factor)
    return resized_files.photos_of(posed.files, folder, stated, factor, by_alpha=settings.keep_alpha, create=create)


def _name(folder: Path) -> str:
    """Name of the scene in a folder; of a COLMAP model's own folder that of the folder above ``sparse/0`` or the like.

    >>> _name(Path("/data/garden")), _name(Path("/data/7"))
    ('garden', '7')
    """
    found = folder.resolve()
    if not any((found / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
        return found.name
    while (found.name.isdecimal() or found.name == "sparse") and found.parent.name:
        found = found.parent
    return found.name


def _scene(
    name: str, found: Normalized, table: Cameras, split: splits.Split, settings: SceneSettings, **content: Any
) -> Scene:
    """The scene of poses, cameras and a split; ``content`` are its images and what belongs to them."""
    reference, c2w = cameras.reference(table), torch.from_numpy(found.c2w).float()
    ndc = found.layout == "forward" and settings.ndc and found.is_beyond_plane() and rays.all_forward(table, c2w)
    log.info("%s: cameras %s", name, _DESCRIPTIONS[found.layout, ndc])
    low, high = float(found.bounds[:, 0].min()), float(found.bounds[:, 1].max())
    return Scene(
        name=name,
        c2w=c2w,
        camera=reference,
        bounds=torch.from_numpy(found.bounds).float(),
        train=split.train,
        test=split.test,
        near=0.0 if ndc else NEARER * low,
        far=1.0 if ndc else high,
        ndc=ndc,
        forward_facing=found.layout != "around",
        world_to_scene=torch.from_numpy(found.world_to_scene),
        split_rule=split.rule,
        view_cameras=None if table.is_single and table.camera(0) == reference else table,
        **content,
    )


_DESCRIPTIONS = {
    ("forward", True): "face one direction: normalized device coordinates (--no_ndc: none)",
    ("forward", False): "face one direction: space is contracted beyond the nearest depth",
    ("around", False): "stand around the point that they look at, which is the origin; their distance from it is 1",
    ("free", False): "neither face one direction nor look at one point: space is contracted beyond the nearest depth",
}


def _fitted(camera: Camera, photo: Photo) -> Camera:
    """The camera of a photograph at the size at which it is read."""
    return camera_models.of_size(camera, photo.width, photo.height)


def _read(photos: Sequence[Photo], folder: Path, settings: SceneSettings) -> storage.SceneImages:
    """Colors of the photographs, packed if they differ in size."""
    flags = {"white": settings.white_bkgd, "keep_alpha": settings.keep_alpha, "by_alpha": settings.keep_alpha}
    return storage.load(resized_files.photographs(photos, folder, **flags), settings.limits)


def _bounds(
    posed: PosedImages, c2w: Float64[np.ndarray, "n 3 4"], settings: SceneSettings, is_object: bool
) -> Float64[np.ndarray, "n 2"]:
    """Nearest and farthest depth of each view: the options', the file's, from its points, or from the cameras.

    Points are not looked at if the options state both.

    Raises
    ------
    InputError
        If there is nothing to take them from, or near is not before far.
    """
    found, stated = posed.bounds, bool(settings.near and settings.far)
    if found is None and not stated and posed.points is not None and len(posed.points.xyz):
        found = point_bounds.depth_bounds(replace(posed, c2w=c2w))
    if found is None and not stated:
        found = normalization.geometric_bounds(c2w, is_object)
        if found is not None:
            log.info(
                "%s has no points: depths are %.3g to %.3g, by the point that the cameras look at (--near, --far)",
                *(posed.source, found[:, 0].min(), found[:, 1].max()),
            )
    if found is None and not stated:
        raise InputError(
            f"{posed.source} has no points, and its cameras look at no common point, expected --near and --far: the "
            "depths at which the scene begins and ends, in units of the file; or poses in other axes (--pose_axes)"
        )
    bounds = np.ones((len(c2w), 2)) if found is None else found
    bounds = np.where([settings.near, settings.far], [settings.near, settings.far], bounds)
    if (bounds[:, 0] >= bounds[:, 1]).any():
        raise InputError(
            f"options --near and --far: found depths from {bounds[:, 0].max():g} to {bounds[:, 1].min():g} in a view, "
            "expected near below far"
        )
    bounds = view_checks.robust_bounds(posed.source, bounds, posed.names)
    if settings.far and bounds[:, 1].max() > WIDEST * bounds[:, 0].min():
        raise InputError(
            f"options --near and --far: found depths from {bounds[:, 0].min():g} to {bounds[:, 1].max():g}, expected "
            f"at most {WIDEST:g} times the nearest"
        )
    return bounds


def _without(posed: PosedImages, split: splits.Split, empty: set[int]) -> splits.Split:
    """The split without views of which every pixel is masked; they are logged."""
    if not empty:
        return split
    log.warning(
        "%s: every pixel is masked, neither trained on nor scored: %s",
        *(posed.source, core_image_files.some([posed.names[view] for view in sorted(empty)])),
    )
    train, test = (tuple(view for view in part if view not in empty) for part in (split.train, split.test))
    if not train or not test:
        part = "test" if train else "training"
        raise InputError(f"{posed.source}: masks exclude every pixel of the {part} views, expected some left")
    return splits.Split(train, test, split.rule)
