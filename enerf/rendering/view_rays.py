"""Rays of a freely moving camera, which may stand anywhere, and the depths and points that were rendered along them.

A camera of a browser differs from those of a scene: it may look away from all that NDC cover, walk beyond the near
plane, stand far outside, and see a part of space only, a box. Rays that meet nothing of that are left out.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from enerf.core.types import Camera, Rays
from enerf.datasets.scenes import bounds, rays
from enerf.datasets.scenes.scene import Scene
from enerf.rendering.render import Picture

LEAST_SLOPE = 1e-4  # of a ray in NDC: −z per unit of its length
FARTHEST_NDC = 1 - 1e-4  # t in NDC that stands for infinitely far
Box = Float[np.ndarray, "2 3"]


@dataclass(frozen=True)
class ViewRays:
    """Rays of a picture.

    Attributes
    ----------
    scene_rays
        All height · width rays in scene coordinates, row by row; t is the depth along the optical axis.
    field_rays
        Those of them that meet the field, in its coordinates: NDC or scene coordinates.
    met
        Which rays these are.
    """

    scene_rays: Rays
    field_rays: Rays
    met: Bool[Tensor, " n"]


def of_view(
    scene: Scene,
    camera: Camera,
    c2w: Float[Tensor, "3 4"],
    box: Box | None = None,
    pixel_centers: float | int = 0.5,
    to_box: Float[np.ndarray, "4 4"] | None = None,
) -> ViewRays:
    """Rays of a camera at a pose in scene coordinates, OpenGL axes; within ``box`` if it is given.

    The box is in scene coordinates, or in those that the affine map ``to_box`` makes of them.

    At a pose of the scene, without a box, they are those that evaluation renders.
    """
    near, far = (0.0, float("inf")) if scene.ndc else _range(scene, c2w)
    all_rays = rays.of_image(camera, c2w, near, far, pixel_centers)
    enter, leave = all_rays.near, all_rays.far
    if box is not None:
        first, last = _through_box(all_rays, np.asarray(box), np.eye(4) if to_box is None else to_box)
        enter, leave = torch.maximum(enter, first), torch.minimum(leave, last)
    if not scene.ndc:
        met = enter < leave
        return ViewRays(all_rays, replace(all_rays, near=enter, far=leave)[met], met)
    origin, slope = all_rays.origins[:, 2], all_rays.directions[:, 2]
    forward = slope < -LEAST_SLOPE * all_rays.directions.norm(dim=-1)
    downwards = torch.where(forward, slope, -1.0)
    plane = -(1.0 + origin) / downwards  # the near plane
    first = torch.where(enter <= plane, 0.0, 1 + 1 / (origin + enter * downwards))
    last = 1 + 1 / (origin + leave * downwards)
    enter = torch.maximum(enter, plane)
    met = forward & (enter < leave) & (first < last)
    inside = rays.to_ndc(all_rays[met], scene.camera)
    inside = replace(inside, near=first[met].clamp(0, 1), far=last[met].clamp(0, 1))
    return ViewRays(all_rays, inside, met)


def _range(scene: Scene, c2w: Float[Tensor, "3 4"]) -> tuple[float, float]:
    """Values of t where rays start and end: the scene's, moved with a camera that leaves the bounded region's cameras.

    Cameras around an object that are nearer to it or farther than all others see it nearer or farther.
    """
    near, far = float(scene.near), float(scene.far)
    if scene.forward_facing or bounds.space_of(scene).contracted:
        return near, far
    distances = scene.c2w[:, :, 3].norm(dim=-1)
    distance = float(c2w[:, 3].norm())
    moved = distance - min(max(distance, float(distances.min())), float(distances.max()))
    return max(1e-3 * far, near + moved), max(2e-3 * far, far + moved)


def _through_box(
    all_rays: Rays, box: Box, to_box: Float[np.ndarray, "4 4"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Values of t where rays enter and leave a box, which an affine map keeps; one that misses it leaves first."""
    planes, matrix = (torch.from_numpy(each.astype(np.float32)).to(all_rays.origins) for each in (box, to_box))
    origins, directions = all_rays.origins @ matrix[:3, :3].T + matrix[:3, 3], all_rays.directions @ matrix[:3, :3].T
    directions = torch.where(directions.abs() < 1e-12, 1e-12, directions)
    ends = (planes[:, None] - origins) / directions
    return ends.amin(0).amax(-1), ends.amax(0).amin(-1)


def assembled(scene: Scene, view: ViewRays, rendered: Picture | None, camera: Camera) -> Picture:
    """Picture (h, w) of rays that meet the field; others are background, at t = 0, transparent."""
    size, n = (camera.height, camera.width), len(view.met)
    like = view.scene_rays.origins
    rgb, depth, opacity = like.new_full((n, 3), float(scene.background)), like.new_zeros(n), like.new_zeros(n)
    if rendered is not None:
        rgb[view.met], depth[view.met], opacity[view.met] = rendered.rgb, rendered.depth, rendered.opacity
    return Picture(rgb.reshape(*size, 3).clamp(0, 1), depth.reshape(size), opacity.reshape(size))


def scene_depth(scene: Scene, view: ViewRays, picture: Picture) -> Float[Tensor, "h w"]:
    """Depth along the optical axis, in scene units, of what each pixel shows; NaN where it shows the background."""
    depth = picture.depth / picture.opacity.clamp(min=1e-6)
    if scene.ndc:
        z = 1 / (depth.clamp(max=FARTHEST_NDC) - 1)
        origin, slope = (
            values[:, 2].reshape(depth.shape) for values in (view.scene_rays.origins, view.scene_rays.directions)
        )
        depth = (z - origin) / slope
    return torch.where((picture.opacity > 0.5) & view.met.reshape(depth.shape), depth, torch.nan)


def points(view: ViewRays, depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w 3"]:
    """Scene points at depths along the rays of a picture."""
    shape = (*depth.shape, 3)
    return view.scene_rays.origins.reshape(shape) + depth[..., None] * view.scene_rays.directions.reshape(shape)
