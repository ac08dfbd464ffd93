"""Known depths at positions of a scene's images: of points that structure from motion saw there, or of depth maps."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from PIL import Image
from torch import Tensor

from enerf.core import arrays, files, image_formats
from enerf.core.errors import InputError
from enerf.datasets.scenes import camera_models, projections
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.packed_images import IndexedImages
from enerf.datasets.scenes.posed_images import PosedImages

log = logging.getLogger("enerf")
PER_MAP = 4096  # positions that are kept of each depth map
_CHUNK = 1 << 18  # observations that are projected at once


@dataclass(frozen=True)
class SparseDepths:
    """Depths at positions of images.

    Attributes
    ----------
    view, xy
        View, and position in pixels from the image's outer corner.
    depth
        The t of the ray through that position, in scene units, not in NDC: the distance along the optical axis for
        perspective cameras, else that from the camera.
    """

    view: Int64[Tensor, " k"]
    xy: Float[Tensor, "k 2"]
    depth: Float[Tensor, " k"]

    def __len__(self) -> int:
        return len(self.view)

    def to(self, device: torch.device | str) -> "SparseDepths":
        """The same depths on a device."""
        return SparseDepths(self.view.to(device), self.xy.to(device), self.depth.to(device))

    def where(self, keep: Tensor) -> "SparseDepths":
        """The depths at which ``keep`` is true."""
        return SparseDepths(self.view[keep], self.xy[keep], self.depth[keep])

    def within(self, masks: Bool[Tensor, "v h w 1"] | IndexedImages) -> "SparseDepths":
        """The depths at pixels that masks do not exclude."""
        x, y = self.xy.long().unbind(-1)
        return self.where(masks[self.view, y, x][..., 0])


def find(
    posed: PosedImages,
    c2w: Float64[np.ndarray, "v 3 4"],
    cameras: Cameras,
    scale: float,
    masks: Bool[Tensor, "v h w 1"] | IndexedImages | None = None,
) -> SparseDepths | None:
    """Depths of a scene: of its depth maps or, if it has none, of the points that views observe; None without both.

    Parameters
    ----------
    posed
        What the scene's files say.
    c2w
        Camera-to-world poses with OpenGL axes, in the units of the files.
    cameras
        Cameras of the images as they are read.
    scale
        Scene units per unit of the files.
    masks
        Pixels that are used; depths at others are left out. None: all.

    Raises
    ------
    InputError
        If a depth map is missing or damaged.
    """
    found = _of_maps(posed, cameras) if any(posed.depths) else _of_points(posed, c2w, cameras)
    if found is not None and masks is not None:
        found = found.within(masks)
    if found is None or not len(found):
        return None
    views = len(found.view.unique())
    log.info("%s: depths are known at %s positions of %d views", posed.source, f"{len(found):,}", views)
    return SparseDepths(found.view, found.xy, found.depth * scale)


def _of_points(posed: PosedImages, c2w: Float64[np.ndarray, "v 3 4"], cameras: Cameras) -> SparseDepths | None:
    """Depths of observed points, at their projections."""
    points = posed.points
    if points is None or not len(points.point):
        return None
    perspective, sizes, parts = _perspective(posed), cameras.sizes.cpu(), []
    for start in range(0, len(points.point), _CHUNK):
        point, view = (part[start : start + _CHUNK] for part in (points.point, points.view))
        local = torch.from_numpy(np.einsum("kji,kj->ki", c2w[view, :, :3], points.xyz[point] - c2w[view, :, 3]))
        index = torch.from_numpy(view)
        xy, valid = cameras.project(index, local)
        depth = torch.where(perspective[index], -local[:, 2], local.norm(dim=-1)).float()
        inside = ((xy >= 0) & (xy.float() < sizes[index])).all(-1)
        parts.append(SparseDepths(index, xy.float(), depth).where(valid & inside & (depth > 0)))
    return _joined(parts)


def _of_maps(posed: PosedImages, cameras: Cameras) -> SparseDepths:
    """Depths at evenly drawn pixels of the depth maps of perspective cameras; 0 and infinity mean an unknown depth."""
    perspective, parts = _perspective(posed), []
    for view, file in enumerate(posed.depths):
        if file is None or not perspective[view]:
            continue
        depths, camera = read_map(file), cameras.camera(view)
        height, width = depths.shape
        if not camera_models.same_shape((width, height), (camera.width, camera.height)):
            raise InputError(
                f"{file}: found a depth map of {width}x{height} pixels, expected the shape of its image, "
                f"{camera.width}x{camera.height}"
            )
        chosen = np.flatnonzero(np.isfinite(depths) & (depths > 0))
        if len(chosen) > PER_MAP:
            chosen = chosen[np.random.default_rng(view).choice(len(chosen), PER_MAP, replace=False)]
        rows, columns = np.divmod(chosen, width)
        xy = np.stack([(columns + 0.5) * camera.width / width, (rows + 0.5) * camera.height / height], 1)
        index, known = torch.full((len(rows),), view), torch.from_numpy(depths[rows, columns] * posed.depth_unit)
        parts.append(SparseDepths(index, torch.from_numpy(xy).float(), known.float()))
    return _joined(parts)


def _joined(parts: Sequence[SparseDepths]) -> SparseDepths:
    """Depths one after the other."""
    none = SparseDepths(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), torch.zeros(0))
    return SparseDepths(*(torch.cat([getattr(each, k) for each in (none, *parts)]) for k in vars(none)))


def _perspective(posed: PosedImages) -> Tensor:
    """Which views have a perspective camera."""
    return torch.tensor([projections.is_perspective(camera.model) for camera in posed.cameras])


def read_map(path: Path) -> Float64[np.ndarray, "h w"]:
    """The stored numbers of a depth map: a gray image of 8, 16 or 32 bits, or a ``.npy`` file.

    Raises
    ------
    InputError
        If the file is missing, damaged, or no array of two axes.
    """
    try:
        if path.suffix.lower() == ".npy":
            values = arrays.read_npy(path)
        else:
            with image_formats.open_image(io.BytesIO(files.read_bytes(path))) as picture:
                image_formats.require_pixels(picture, path)
                values = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as a depth map ({error}), expected a gray image or .npy") from None
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise InputError(f"{path}: found {values.dtype} of shape {values.shape}, expected a depth map of one channel")
    return values.astype(np.float64)


def of_views(depths: SparseDepths, views: Sequence[int]) -> SparseDepths:
    """The depths of some views."""
    return depths.where(torch.isin(depths.view, torch.tensor(list(views), device=depths.view.device)))
