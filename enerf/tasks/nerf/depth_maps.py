"""Depth maps of a radiance field for fusion: of the training views, and of cameras between them.

The depth of a ray is the median of its weights, interpolated between samples. Rays of what has no texture (walls,
ceilings) may have it at infinity, beyond all that the scene states: there depths are interpolated from the pixels
around them, with a small weight, so that any view that does see the surface decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from enerf.core import images
from enerf.core.progress import progress_bar
from enerf.core.types import Camera, Rays, Rendering
from enerf.datasets.scenes import camera_models, pixels, poses, rays
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.scene import Scene
from enerf.geometry import fusion
from enerf.geometry.fusion import SurfaceMap
from enerf.rendering.render import Picture, in_chunks
from enerf.tasks.nerf.views import Renderer

FILLED = 0.1  # weight of pixels whose depth is interpolated from others
OPAQUE = 0.5  # opacity below which a ray meets no surface


@dataclass(frozen=True)
class Viewpoint:
    """A camera at a pose in scene coordinates; ``view`` is its index in the scene, None for a camera between views."""

    camera: Camera
    c2w: Float[Tensor, "3 4"]
    view: int | None = None


def viewpoints(scene: Scene, between: int = 0) -> list[Viewpoint]:
    """The training views, and ``between`` interpolated cameras between each and the next in the order of the images."""
    found = [Viewpoint(scene.cameras.camera(view), scene.c2w[view], view) for view in scene.train]
    if not between or len(found) < 2:
        return found
    given = torch.stack([each.c2w for each in found])
    path = poses.interpolate(given.double().cpu().numpy(), (len(found) - 1) * (between + 1) + 1)
    for i, pose in enumerate(torch.from_numpy(path).to(given)):
        if i % (between + 1):
            found.append(Viewpoint(found[i // (between + 1)].camera, pose))
    return found


def surface_maps(
    scene: Scene, renderer: Renderer, where: Sequence[Viewpoint], n: int, *, ndc: bool | None = None, fill: bool = True
) -> list[SurfaceMap]:
    """Render where the rays of cameras meet the surface, and its colors there.

    Parameters
    ----------
    scene, renderer
        The scene, and the renderer of its field.
    where
        The cameras; downsampled alike, so that they have about ``n`` pixels together.
    n
        Number of rays.
    ndc
        Whether levels are z in NDC (see ``geometry.fusion``); None: if the scene uses NDC.
    fill
        Interpolate depths that are beyond the farthest bound of a forward-facing scene; otherwise these pixels say
        nothing.
    """
    total = sum(each.camera.width * each.camera.height for each in where)
    factor = max(1.0, (total / n) ** 0.5)
    shown = progress_bar(None, "depth maps", "view", iterable=where)
    return [_surface_map(scene, renderer, each, factor, scene.ndc if ndc is None else ndc, fill) for each in shown]


def _surface_map(scene: Scene, renderer: Renderer, at: Viewpoint, factor: float, ndc: bool, fill: bool) -> SurfaceMap:
    """Where the rays of a camera meet the surface, at 1/factor of its size."""
    camera = camera_models.resized(at.camera, factor)
    size = (camera.height, camera.width)
    scene_rays = rays.of_image(camera, at.c2w, scene.near, scene.far, renderer.pixel_centers)
    field_rays = rays.to_ndc(scene_rays, scene.camera) if scene.ndc else scene_rays
    found = in_chunks(partial(_with_median_depth, renderer), field_rays, renderer.rays_at_once)
    points = field_rays.at(found.depth[:, None])[:, 0].double()
    opaque = (found.opacity >= OPAQUE).reshape(size).cpu().numpy()
    in_scene = _in_scene(scene, points)
    distance = (in_scene - at.c2w[:, 3].double()).norm(dim=-1).clamp(min=1e-9)
    level = (points[:, 2] if ndc else -1 / distance).reshape(size).float().cpu().numpy()
    level = np.where(opaque, level, np.float32(1.0 if ndc else 0.0))  # no surface: infinitely far
    known = np.isfinite(level) & _has_ray(camera, size, renderer.pixel_centers)
    if at.view is not None:
        known &= unmasked(scene, at.view, size)
    counts = known
    if scene.ndc or scene.forward_facing:
        depth = -((in_scene - at.c2w[:, 3].double()) @ at.c2w[:, 2].double())
        within = (depth <= float(scene.bounds[:, 1].max())).reshape(size).cpu().numpy()
        known = known & (within | ~opaque)
    cosine = 1.0 if ndc else (scene_rays.viewdirs @ -at.c2w[:, 2]).clamp(min=0.1).reshape(size).cpu().numpy()
    level = fusion.without_speckles(fusion.filled(level / cosine, known) * cosine)  # filled in inverse depth
    weight = np.where(known, 1.0, FILLED if fill else 0.0) * counts
    device = at.c2w.device
    return SurfaceMap(
        camera,
        at.c2w.float(),
        torch.from_numpy(level).to(device),
        torch.from_numpy(weight).float().to(device),
        torch.from_numpy(surface_colors(scene, found).reshape(*size, 3)).to(device),
        renderer.pixel_centers,
    )


def _in_scene(scene: Scene, points: Float64[Tensor, "n 3"]) -> Float64[Tensor, "n 3"]:
    """Scene coordinates of points of the field; those at infinity are very far."""
    if not scene.ndc:
        return points
    return rays.point_from_ndc(torch.cat([points[:, :2], points[:, 2:].clamp(max=1 - 1e-9)], 1), scene.camera)


def surface_colors(scene: Scene, found: Picture) -> UInt8[np.ndarray, "n 3"]:
    """Rendered colors without what is seen through the surface; those of rays that meet none mean nothing."""
    opacity = found.opacity[:, None]
    return images.to_uint8(((found.rgb - scene.background * (1 - opacity)) / opacity.clamp(min=1e-6)).clamp(0, 1))


def unmasked(scene: Scene, view: int, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Return which pixels of a downsampled view count: the nearest pixel of its mask."""
    mask = pixels.view_mask(scene, view)
    if mask is None:
        return np.ones(size, dtype=bool)
    found = mask.cpu().numpy()
    rows, columns = ((np.arange(n) + 0.5) / n * full for n, full in zip(size, found.shape, strict=True))
    return np.asarray(found[rows.astype(int)[:, None], columns.astype(int)[None]])


def _has_ray(camera: Camera, size: tuple[int, int], pixel_centers: float) -> Bool[np.ndarray, "h w"]:
    """Which pixels of a camera have a ray."""
    return Cameras([camera]).has_ray(0, pixel_centers).numpy().reshape(size)


def _with_median_depth(renderer: Renderer, batch: Rays) -> Rendering:
    rendering = renderer.render(batch)
    return replace(rendering, depth=interpolated_median(rendering.weights, rendering.t_vals))


def interpolated_median(weights: Float[Tensor, "*b s"], t_vals: Float[Tensor, "*b s"]) -> Float[Tensor, "*b"]:
    """Return the t at which half of a ray's weight is reached, each sample's half at its t, linear in between.

    >>> weights, t_vals = torch.tensor([0.2, 0.2, 0.4, 0.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> round(interpolated_median(weights, t_vals).item(), 3)
    2.333
    """
    half = 0.5 * weights.sum(-1, keepdim=True)
    reached = weights.cumsum(-1) - 0.5 * weights
    after = (reached < half).sum(-1, keepdim=True).clamp(1, max(weights.shape[-1] - 1, 1))
    if weights.shape[-1] == 1:
        return t_vals[..., 0]
    low, high = reached.gather(-1, after - 1), reached.gather(-1, after)
    share = ((half - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return torch.lerp(t_vals.gather(-1, after - 1), t_vals.gather(-1, after), share)[..., 0]
