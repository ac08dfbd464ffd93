"""Fusion of depth maps: a truncated signed distance field (TSDF) that is evaluated where it is asked for.

Every depth map says, along each of its rays, where the surface is. At a point, the distance to it along the ray
through the point, in units of the truncation and clamped to [−1, 1], is averaged over the maps. Maps in which the point
lies behind the surface by more than the truncation say nothing about it: they do not see it.

The average is never stored on a grid: it is a function of points, which ``geometry.isosurface`` samples from coarse to
fine, so that the memory is that of the depth maps and of the bricks near the surface.

Distances are measured so that planes stay planes when depths are interpolated between pixels:

- In normalized device coordinates (NDC), by the difference in z, which is linear in inverse depth. Cells of a lattice
  in NDC are then even in the images and in disparity, and so is the truncation: in space it grows with the square of
  the depth, as the error of depths from disparity does.
- In scene coordinates, by the difference in inverse distance from the camera times the squared distance. The truncation
  is a length, plus a share of the distance from the camera.

Maps may have colors: those of a surface point are a mean over the maps that see it, weighted by how large it is in
each.

Source: Curless and Levoy, A volumetric method for building complex models from range images (1996).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from scipy import ndimage
from torch import Tensor

from enerf.core.types import Camera
from enerf.datasets.scenes import rays
from enerf.datasets.scenes.cameras import Cameras

SWEEPS = 24  # of relaxation on each level of ``filled``
UNSEEN = -1.0  # value where no map says anything: as behind surfaces
EDGE_ON = 0.05  # smallest cosine between normal and ray in weights of colors: normals of meshes are noisy


@dataclass(frozen=True)
class SurfaceMap:
    """Where the rays of one camera meet the surface.

    Attributes
    ----------
    camera, c2w
        The camera, and its pose in scene coordinates with OpenGL axes.
    level
        The surface along the ray of each pixel: z in NDC, or minus the inverse distance from the camera; it increases
        along rays.
    weight
        Weight of each pixel in the average; 0: it says nothing.
    rgb
        Colors of the surface, or None.
    pixel_centers
        Position of the ray of each pixel within it.
    """

    camera: Camera
    c2w: Float32[Tensor, "3 4"]
    level: Float32[Tensor, "h w"]
    weight: Float32[Tensor, "h w"]
    rgb: UInt8[Tensor, "h w 3"] | None = None
    pixel_centers: float | int = 0.5


@dataclass(frozen=True)
class Truncation:
    """Distance at which distances are clamped: ``length`` + ``share`` · distance from the camera.

    In NDC it is ``length`` alone, in units of z.
    """

    length: float
    share: float = 0.0


class FusedDepths:
    """The TSDF of depth maps, in units of the truncation: positive before surfaces, negative behind them.

    Parameters
    ----------
    maps
        Depth maps, on one device.
    truncation
        See ``Truncation``; at least two cells of the lattice on which the field is sampled.
    reference
        Camera of NDC, if points and levels are in NDC; None: scene coordinates.
    """

    def __init__(self, maps: Sequence[SurfaceMap], truncation: Truncation, reference: Camera | None = None) -> None:
        self.maps, self.truncation, self.reference = tuple(maps), truncation, reference
        self._tables = [Cameras([each.camera], each.level.device) for each in self.maps]

    def __call__(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Values at points in NDC or scene coordinates; ``UNSEEN`` where no map says anything."""
        return self._averaged(points)[0]

    def views_near(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Number of maps whose surface is nearer to each point than the truncation.

        Vertices near none lie between what is seen and what is not. Where a surface ends, at the border of all images
        or behind another surface, the mesh may turn towards the cameras by less than the truncation.
        """
        return self._averaged(points)[1]

    def colors(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
        """Colors in [0, 1] of surface points, and their weights: 0 where no map with colors sees a point.

        Points are in NDC or scene coordinates, unit normals in scene coordinates. A map counts with ((1 − |d|) · a)²,
        where d is the distance between the point and the map's surface in truncations, and a the number of its pixels
        per area of the surface, f_x f_y cos θ / r² at the distance r from the camera. So the mean is over the maps that
        see a point well, and highlights differ little between neighboring points.
        """
        total, weights = torch.zeros_like(points), torch.zeros_like(points[:, 0])
        at = self._scene(points)
        for i, each in enumerate(self.maps):
            if each.rgb is None:
                continue
            found = self._along_rays(i, points, at)
            ahead = each.c2w[:, 3] - at
            square = ahead.square().sum(1).clamp(min=1e-12)
            cosine = ((ahead * normals).sum(1) * square.rsqrt()).clamp(min=EDGE_ON)
            near = (1 - found.distance.abs()).clamp(min=0) * each.camera.fx * each.camera.fy * cosine / square
            weight = torch.where(found.weight > 0, found.weight * near.square(), 0.0)
            total += weight[:, None] * _color(each.rgb, found) / 255
            weights += weight
        return total / torch.where(weights > 0, weights, 1.0)[:, None], weights

    def _averaged(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Values at points, and the number of maps whose surface is nearer than the truncation."""
        total, weights, near = (torch.zeros_like(points[:, 0]) for _ in range(3))
        at = self._scene(points)
        for i in range(len(self.maps)):
            found = self._along_rays(i, points, at)
            weight = torch.where(found.distance < -1, 0.0, found.weight)
            total += weight * found.distance.clamp(-1, 1)
            weights += weight
            near += (weight > 0) & (found.distance < 1)
        return torch.where(weights > 0, total / weights.clamp(min=1e-12), UNSEEN), near

    def _scene(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Scene coordinates of points."""
        return points if self.reference is None else rays.point_from_ndc(points, self.reference)

    def _along_rays(self, i: int, points: Float[Tensor, "n 3"], at: Float[Tensor, "n 3"]) -> "_Found":
        """What a map says along its rays through points."""
        each = self.maps[i]
        local = (at - each.c2w[:, 3]) @ each.c2w[:, :3]
        x, y, seen = self._pixels(i, local)
        if self.reference is not None:
            own, scale = points[:, 2], torch.full_like(points[:, 2], 1 / self.truncation.length)
        else:
            far = local.norm(dim=-1).clamp(min=1e-12)
            own, scale = -1 / far, far * far / (self.truncation.length + self.truncation.share * far)
        place = _place(each.level.shape, x, y)
        level, smooth = _sampled(each.level, place, 1 / scale)
        weight = torch.where(seen, each.weight.reshape(-1)[place.nearest], 0.0)
        return _Found((level - own) * scale, weight, place, smooth)

    def _pixels(
        self, i: int, local: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """Column and row of points of a camera's frame, rays of pixels at integers, and whether it has them in view."""
        camera, table, shift = self.maps[i].camera, self._tables[i], self.maps[i].pixel_centers
        if table.is_plain:
            inverse = -1 / local[:, 2]
            x, y = camera.fx * local[:, 0] * inverse + camera.cx, camera.cy - camera.fy * local[:, 1] * inverse
            seen = local[:, 2] < 0
        else:
            pixels, seen = table.project(torch.zeros_like(local[:, 0], dtype=torch.int64), local)
            x, y = pixels.unbind(-1)
        seen = seen & (x >= 0) & (y >= 0) & (x <= camera.width) & (y <= camera.height)
        return torch.where(seen, x - shift, 0.0), torch.where(seen, y - shift, 0.0), seen


@dataclass(frozen=True)
class _Place:
    """Positions between the pixels of a map, for bilinear interpolation.

    ``first`` is the index, in the flat map, of the upper left of the four pixels around a position; ``one`` and ``row``
    are the steps to the pixel right of it and below it; ``right`` and ``down`` are the weights of those, in [0, 1].
    """

    first: Int64[Tensor, " n"]
    one: int
    row: int
    right: Float[Tensor, " n"]
    down: Float[Tensor, " n"]

    @property
    def nearest(self) -> Int64[Tensor, " n"]:
        """Index in the flat map of the pixel nearest to each position."""
        return self.first + self.one * (self.right > 0.5) + self.row * (self.down > 0.5)

    def around(self, values: Tensor) -> list[Tensor]:
        """Values of the four pixels, of the flat map."""
        return [values[self.first + step] for step in (0, self.one, self.row, self.one + self.row)]


@dataclass(frozen=True)
class _Found:
    """Distance of points to the surface of a map in truncations, weight, position, and whether it is smooth there."""

    distance: Float[Tensor, " n"]
    weight: Float[Tensor, " n"]
    place: _Place
    smooth: Bool[Tensor, " n"]


def _place(shape: Sequence[int], x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> _Place:
    """Positions in a map of a height and width, clamped to it."""
    height, width = shape
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor().clamp(max=max(width - 2, 0)), y.floor().clamp(max=max(height - 2, 0))
    return _Place((top * width + left).long(), int(width > 1), width * int(height > 1), x - left, y - top)


def _sampled(
    level: Float32[Tensor, "h w"], place: _Place, tolerance: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Values of an image at positions, and where they are bilinear rather than those of the nearest pixel.

    They are bilinear where the four pixels around differ by the tolerance at most, so that nothing is interpolated
    between a near and a far surface.
    """
    level = level.reshape(-1)
    corners = place.around(level)
    upper, lower = torch.lerp(corners[0], corners[1], place.right), torch.lerp(corners[2], corners[3], place.right)
    low = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3]))
    high = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
    smooth = high - low <= tolerance
    return torch.where(smooth, torch.lerp(upper, lower, place.down), level[place.nearest]), smooth


def _color(rgb: UInt8[Tensor, "h w 3"], found: _Found) -> Float[Tensor, "n 3"]:
    """Colors of a map in 0 ... 255: bilinear where the surface is smooth, otherwise those of the nearest pixel."""
    flat, place = rgb.reshape(-1, 3), found.place
    a, b, c, d = (corner.float() for corner in place.around(flat))
    right, down = place.right[:, None].float(), place.down[:, None].float()
    mixed = torch.lerp(torch.lerp(a, b, right), torch.lerp(c, d, right), down)
    return torch.where(found.smooth[:, None], mixed, flat[place.nearest].float())


def without_speckles(level: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """A map after a median filter of 3 × 3 pixels: single pixels that differ from their neighbors are replaced."""
    return np.asarray(ndimage.median_filter(level, 3, mode="nearest"))


def filled(level: Float32[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """A map whose unknown pixels are interpolated smoothly from the known ones around them.

    An approximate solution of Laplace's equation: from a map of half the size, which is filled first, by relaxation.
    Levels of a plane are linear in the image, so gaps in walls and floors are closed where these are. Without a known
    pixel the map is returned as it is.

    >>> level = np.float32([[1, 2, 3, 4], [1, 0, 0, 4], [1, 0, 0, 4], [1, 2, 3, 4]])
    >>> filled(level, level > 0)[1].round(1).tolist()
    [1.0, 2.0, 3.0, 4.0]
    """
    if known.all() or not known.any():
        return level
    level = np.where(known, level, 0.0).astype(np.float32)
    if min(level.shape) > 1:
        half = [math.ceil(n / 2) for n in level.shape]
        pad = [(0, 2 * m - n) for m, n in zip(half, level.shape, strict=True)]
        sums, counts = (
            np.pad(values, pad).reshape(half[0], 2, half[1], 2).sum((1, 3)) for values in (level, known.astype("f4"))
        )
        coarse = filled((sums / np.maximum(counts, 1)).astype(np.float32), counts > 0)
        start = coarse.repeat(2, 0).repeat(2, 1)[: level.shape[0], : level.shape[1]]
    else:
        start = np.full_like(level, level[known].mean())
    found = np.where(known, level, start)
    for _ in range(SWEEPS):
        edge = np.pad(found, 1, mode="edge")
        mean = 0.25 * (edge[:-2, 1:-1] + edge[2:, 1:-1] + edge[1:-1, :-2] + edge[1:-1, 2:])
        found = np.where(known, level, mean).astype(np.float32)
    return found
