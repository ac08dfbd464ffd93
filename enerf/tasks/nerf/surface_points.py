"""Points on the surfaces of a radiance field, with colors and normals, from depths that its training cameras see.

The depth of a ray is the median of its weights, which lies on a surface also where a ray crosses several; their mean
does not. A point is dropped if its ray is not opaque enough, if the surface is seen edge-on (there depths are
interpolated between a near and a far surface), if it lies far behind the scene, or if more training views look through
it than see it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.core.types import Camera, Rays, Rendering
from enerf.datasets.scenes import camera_models, coordinates, rays
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.scene import Scene
from enerf.rendering.render import in_chunks
from enerf.tasks.nerf import depth_maps
from enerf.tasks.nerf.views import Renderer

EDGE_ON = 0.1  # cosine between normal and ray below which a point is dropped
FARTHEST = 2.0  # times the farthest depth that the scene states, beyond which points are dropped
TOLERANCE = 0.05  # relative, within which two depths are of one surface
_CHUNK = 1 << 18  # points that are projected at once


@dataclass(frozen=True)
class SurfacePoints:
    """Points in the coordinates of the scene's files, with sRGB colors and unit normals towards the cameras."""

    xyz: Float64[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    normals: Float64[np.ndarray, "n 3"]


@dataclass(frozen=True)
class DepthMap:
    """What one camera sees, in scene coordinates: points, normals, depths along the axis, and which are valid."""

    camera: Camera
    c2w: Float64[np.ndarray, "3 4"]
    points: Float64[np.ndarray, "h w 3"]
    normals: Float64[np.ndarray, "h w 3"]
    depth: Float64[np.ndarray, "h w"]
    rgb: UInt8[np.ndarray, "h w 3"]
    valid: Bool[np.ndarray, "h w"]


def surface_points(scene: Scene, renderer: Renderer, n: int, opacity: float | int = 0.5) -> SurfacePoints:
    """Return at most about ``n`` points that the training cameras see.

    Parameters
    ----------
    scene
        Its training views are rendered, downsampled so that they have about ``n`` pixels together.
    renderer
        Renderer of the field.
    n
        Number of rays; those without a point on a surface give none.
    opacity
        Smallest opacity of a ray that has a point.

    Raises
    ------
    InputError
        If no ray has a point.
    """
    sizes = [scene.size(view) for view in scene.train]
    factor = max(1.0, (sum(height * width for height, width in sizes) / n) ** 0.5)
    views = progress_bar(None, "depth maps", "view", iterable=scene.train)
    maps = [depth_map(scene, renderer, view, factor, opacity) for view in views]
    kept = [each.valid.ravel() & is_consistent(maps, each).ravel() for each in maps]
    if not any(mask.any() for mask in kept):
        raise InputError(f"{scene.name}: no ray of the training views has a point of opacity {opacity:g} on a surface")
    parts = [
        [array.reshape(-1, 3)[mask] for array in (each.points, each.rgb, each.normals)]
        for each, mask in zip(maps, kept, strict=True)
    ]
    xyz, rgb, normals = (np.concatenate(part) for part in zip(*parts, strict=True))
    to_world = np.linalg.inv(scene.world_to_scene.double().cpu().numpy())
    rotation = to_world[:3, :3] / np.cbrt(np.linalg.det(to_world[:3, :3]))
    return SurfacePoints(coordinates.apply_transform(to_world, xyz), rgb, normals @ rotation.T)


def depth_map(scene: Scene, renderer: Renderer, view: int, factor: float, opacity: float | int) -> DepthMap:
    """Return points and normals that a view sees, at 1/factor of its size."""
    camera = camera_models.resized(scene.cameras.camera(view), factor)
    c2w = scene.c2w[view]
    scene_rays = rays.of_image(camera, c2w, scene.near, scene.far, renderer.pixel_centers)
    field_rays = rays.to_ndc(scene_rays, scene.camera) if scene.ndc else scene_rays
    found = in_chunks(partial(_with_median_depth, renderer), field_rays, renderer.rays_at_once)
    size = (camera.height, camera.width)
    at = field_rays.at(found.depth[:, None])[:, 0].double().cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):  # at infinity
        points = coordinates.to_scene(scene, at).reshape(*size, 3)
    finite = np.isfinite(points).all(-1)
    points = np.where(finite[..., None], points, 0.0)
    pose = c2w.double().cpu().numpy()
    ahead = points - pose[:, 3]
    depth = -(ahead @ pose[:, 2])
    normals = normals_of(points, ahead)
    slant = np.abs((normals * ahead).sum(-1)) / np.maximum(np.linalg.norm(ahead, axis=-1), 1e-12)
    seen = found.opacity.reshape(size)
    valid = ((seen >= opacity) & (seen > 0)).cpu().numpy()
    farthest = FARTHEST * float(scene.bounds[:, 1].max())
    valid &= finite & (slant > EDGE_ON) & (depth > 0) & (depth <= farthest)
    valid &= depth_maps.unmasked(scene, view, size)
    rgb = depth_maps.surface_colors(scene, found).reshape(*size, 3)
    return DepthMap(camera, pose, points, normals, depth, rgb, valid)


def _with_median_depth(renderer: Renderer, batch: Rays) -> Rendering:
    rendering = renderer.render(batch)
    return replace(rendering, depth=median_depth(rendering.weights, rendering.t_vals))


def median_depth(weights: Float[Tensor, "*b s"], t_vals: Float[Tensor, "*b s"]) -> Float[Tensor, "*b"]:
    """Return the t of the sample at which half of a ray's weight is reached.

    >>> median_depth(torch.tensor([0.1, 0.2, 0.6, 0.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])).item()
    3.0
    """
    passed = weights.cumsum(-1)
    index = (passed < 0.5 * passed[..., -1:]).sum(-1, keepdim=True).clamp(max=weights.shape[-1] - 1)
    return t_vals.gather(-1, index)[..., 0]


def normals_of(
    points: Float64[np.ndarray, "h w 3"], ahead: Float64[np.ndarray, "h w 3"]
) -> Float64[np.ndarray, "h w 3"]:
    """Return unit normals of a grid of points, by differences, against the directions ``ahead``; 0 where undefined."""
    if min(points.shape[:2]) < 2:
        return np.zeros_like(points)
    found = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    found *= np.where((found * ahead).sum(-1, keepdims=True) > 0, -1.0, 1.0)
    lengths = np.linalg.norm(found, axis=-1, keepdims=True)
    return np.where(lengths > 0, found / np.maximum(lengths, 1e-300), 0.0)


def is_consistent(maps: Sequence[DepthMap], one: DepthMap) -> Bool[np.ndarray, "h w"]:
    """Return which points of a depth map the other depth maps confirm.

    A view confirms a point if its own depth there is the same within ``TOLERANCE``, and contradicts it if it sees a
    farther surface behind it. A point is consistent unless more views contradict than confirm it.
    """
    points = one.points.reshape(-1, 3)
    balance = np.zeros(len(points), dtype=np.int64)
    for other in maps:
        table = Cameras([other.camera])
        for start in range(0, len(points), _CHUNK):
            part = slice(start, start + _CHUNK)
            local = (points[part] - other.c2w[:, 3]) @ other.c2w[:, :3]
            where = torch.zeros(len(local), dtype=torch.int64)
            at, projected = (each.numpy() for each in table.project(where, torch.from_numpy(local)))
            height, width = other.depth.shape
            inside = projected & (at >= 0).all(-1) & (at[:, 0] < width) & (at[:, 1] < height)
            x, y = np.where(inside[:, None], at, 0.0).astype(np.int64).T
            inside &= other.valid[y, x]
            seen, depth = other.depth[y, x], -local[:, 2]
            sees = inside & (np.abs(depth - seen) <= TOLERANCE * seen)
            passes = inside & (depth < (1 - TOLERANCE) * seen)
            balance[part] += sees.astype(np.int64) - passes
    return (balance >= 0).reshape(one.depth.shape)
