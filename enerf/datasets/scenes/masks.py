"""Which pixels of a scene's photographs are used: not masked, and with a ray of their camera."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from enerf.core import image_formats, images, parallel
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, decoded_cache, storage
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.on_demand_images import OnDemandImages
from enerf.datasets.scenes.packed_images import PackedImages
from enerf.datasets.scenes.photographs import Photographs
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.resized_files import Photo
from enerf.datasets.scenes.settings import SceneSettings
from enerf.datasets.scenes.storage import SceneImages
from enerf.datasets.scenes.transparency import Stored

log = logging.getLogger("enerf")
Usable = Callable[[int], Bool[np.ndarray, "h w"]]


def find(
    posed: PosedImages, photos: Sequence[Photo], table: Cameras, settings: SceneSettings
) -> tuple[SceneImages | None, set[int]]:
    """Pixels that are used, None if all are; and the views without any.

    Beyond ``settings.limits``, masks are stored as photographs are (``storage``), those of cameras alone once for each
    camera.

    Raises
    ------
    InputError
        If a mask is damaged, or of another shape than its photograph.
    """
    with_ray: dict[Camera, Bool[np.ndarray, "h w"]] = {}
    for view in range(len(photos)):
        if table.camera(view) not in with_ray:
            with_ray[table.camera(view)] = table.has_ray(view, settings.pixel_centers).numpy()

    def usable(view: int) -> Bool[np.ndarray, "h w"]:
        mask, camera = posed.masks[view] if settings.use_masks and posed.masks else None, table.camera(view)
        kept = with_ray[camera]
        if settings.use_masks and posed.radii and posed.radii[view] < math.inf:
            kept = kept & _in_circle(camera, posed.radii[view] * camera.width / posed.cameras[view].width)
        if mask is not None:
            kept = kept & of_file(mask, photos[view], inverse=posed.masks_are_inverse)
        return kept

    of_views = settings.use_masks and (any(posed.masks) or any(radius < math.inf for radius in posed.radii))
    if not of_views and all(each.all() for each in with_ray.values()):
        return None, set()
    found: SceneImages
    if sum(photo.height * photo.width for photo in photos) <= settings.limits.in_memory:
        found = _in_memory(usable, photos)
    elif not of_views:
        rows = list(with_ray)
        stored = [torch.from_numpy(with_ray[camera][..., None]) for camera in rows]
        found = PackedImages.of(stored, [rows.index(table.camera(view)) for view in range(len(photos))])
    else:
        found = _stored(posed, photos, usable, table, settings)
    used = _counts(found, photos)
    total = sum(photo.height * photo.width for photo in photos)
    if sum(used) == total:
        return None, set()
    share = 100 * (1 - sum(used) / total)
    log.info("%s: %.1f %% of the pixels are masked: neither trained on nor scored", posed.source, share)
    return found, {view for view, n in enumerate(used) if n == 0}


def _in_memory(usable: Usable, photos: Sequence[Photo]) -> Tensor | PackedImages:
    found = [torch.from_numpy(each[..., None]) for each in map(usable, range(len(photos)))]
    return torch.stack(found) if len({each.shape for each in found}) == 1 else PackedImages.of(found)


def _stored(
    posed: PosedImages, photos: Sequence[Photo], usable: Usable, table: Cameras, settings: SceneSettings
) -> SceneImages:
    """Masks in a mapped file of the cache folder; or in memory, or read on demand, if there is no room for it."""

    def read(view: int) -> Stored:
        return usable(view)[..., None].astype(np.uint8)

    sources = tuple(
        mask or photo.file for mask, photo in zip(posed.masks or (None,) * len(photos), photos, strict=True)
    )
    sizes, folder = tuple((photo.height, photo.width) for photo in photos), posed.files[0].parent
    options = (
        posed.masks_are_inverse,
        settings.pixel_centers,
        posed.radii,
        [table.camera(v) for v in range(len(table))],
    )
    variant = f"masks,{options},{[photo.rotate for photo in photos]}"
    largest = max(height * width for height, width in sizes)
    threads = partial(parallel.threads_for, image_formats.bytes_to_decode(largest))
    photographs = Photographs(sources, sizes, read, threads, folder, variant=variant, channels=1)
    try:
        mapped = decoded_cache.mapped(photographs, settings.limits.cached)
        return PackedImages(mapped.pixels.view(torch.bool), torch.tensor(sizes), is_mapped=True)
    except decoded_cache.NoRoom as reason:
        if storage.fits_memory(photographs.pixels):
            return _in_memory(usable, photos)
        log.warning("%s: masks: %s: they are read again whenever they are used", folder, reason)
    return OnDemandImages(
        lambda view: torch.from_numpy(usable(view)[..., None].copy()), torch.tensor(sizes), 1, torch.bool
    )


def _counts(found: SceneImages, photos: Sequence[Photo]) -> list[int]:
    """Number of used pixels of each view; masks on demand are decoded for that, by threads."""

    def count(view: int) -> int:
        mask = found.decoded(view) if isinstance(found, OnDemandImages) else found[view]
        return int(mask.sum())

    largest = max(photo.height * photo.width for photo in photos)
    return list(
        parallel.in_order(count, range(len(photos)), parallel.threads_for(image_formats.bytes_to_decode(largest)))
    )


def _in_circle(camera: Camera, radius: float) -> Bool[np.ndarray, "h w"]:
    """Which pixels of an image have their center in a circle about the image's center."""
    x, y = (np.arange(side) + 0.5 - side / 2 for side in (camera.width, camera.height))
    return np.asarray(np.hypot(x, y[:, None]) < radius)


def of_file(file: Path, photo: Photo, *, inverse: bool = False) -> Bool[np.ndarray, "h w"]:
    """Which pixels of a photograph a mask keeps: those that nowhere are masked, at the size at which it is read.

    Masked is where the mask is 0 or, if it is ``inverse``, where it is not.
    """
    kept = images.read_mask(file, photo.rotate) != inverse
    height, width = kept.shape
    if not camera_models.same_shape((width, height), (photo.width, photo.height)):
        raise InputError(
            f"{file} has {width}x{height} pixels, expected the shape of its photograph, {photo.width}x{photo.height}"
        )
    return kept if (width, height) == (photo.width, photo.height) else _resized(kept, photo.width, photo.height)


def _resized(kept: Bool[np.ndarray, "h w"], width: int, height: int) -> Bool[np.ndarray, "h2 w2"]:
    """A mask of another size: pixels that are kept as a whole if it is larger, its nearest ones if it is smaller."""
    if kept.shape[1] >= width:
        return np.asarray(images.downsample(kept[..., None].astype(np.float32), (width, height))[..., 0] > 1 - 1e-4)
    rows = (np.arange(height) + 0.5) * kept.shape[0] / height
    columns = (np.arange(width) + 0.5) * kept.shape[1] / width
    return kept[rows.astype(int)][:, columns.astype(int)]
