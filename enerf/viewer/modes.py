"""What a rendered view is shown as: color, depth, opacity, normals, or compared with the nearest photograph."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from enerf.core import images
from enerf.datasets.scenes.scene import Scene
from enerf.rendering import sampling, view_rays
from enerf.rendering.render import Picture
from enerf.rendering.view_rays import ViewRays
from enerf.reporting import video
from enerf.viewer import photographs

COLOR, DEPTH, OPACITY, NORMALS = "color", "depth", "opacity", "normals"
DIFFERENCE, BLEND = "difference to photograph", "blend with photograph"
MODES = (COLOR, DEPTH, OPACITY, NORMALS, DIFFERENCE, BLEND)
WORST = 0.25  # difference of colors that is shown brightest


@dataclass(frozen=True)
class Rendered:
    """A rendered view with all that its modes need, and the knee of the samples' spacing."""

    scene: Scene
    c2w: Float[Tensor, "3 4"]
    rays: ViewRays
    picture: Picture
    knee: float | int = 0.0


def shown(view: Rendered, mode: str, blend: float | int = 0.5) -> UInt8[np.ndarray, "h w 3"]:
    """A view in one of ``MODES``; ``blend`` is the share of the photograph in ``BLEND``."""
    rgb = view.picture.rgb
    if mode == DEPTH:
        return _depth(view)
    if mode == OPACITY:
        rgb = view.picture.opacity[..., None].expand_as(rgb)
    elif mode == NORMALS:
        rgb = _normals(view)
    elif mode in (DIFFERENCE, BLEND):
        return _compared(view, mode, blend)
    return images.to_uint8(rgb.cpu())


def _depth(view: Rendered) -> UInt8[np.ndarray, "h w 3"]:
    """False colors of depth in the spacing of the samples, as in videos of depth; black where nothing is."""
    scene, opacity = view.scene, view.picture.opacity
    depth = (view.picture.depth / opacity.clamp(min=1e-6)).double()
    ends = torch.tensor([float(scene.near), float(scene.far)], dtype=torch.float64)
    if view.knee > 0:
        depth, ends = 1 - sampling.complement(depth.clamp(min=0), view.knee), 1 - sampling.complement(ends, view.knee)
    near, far = ends.tolist()
    colors = video.colorize_depth(depth.cpu().numpy(), near, far)
    colors[(opacity < 0.5).cpu().numpy()] = 0
    return colors


def _normals(view: Rendered) -> Float[Tensor, "h w 3"]:
    """Normals of the surface of the depths, in the camera's frame, as colors (n + 1) / 2; black where there is none."""
    depth = view_rays.scene_depth(view.scene, view.rays, view.picture)
    smooth = torch.nn.functional.avg_pool2d(depth[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    at = view_rays.points(view.rays, smooth)
    across = torch.zeros_like(at)
    down = torch.zeros_like(at)
    across[:, 1:-1] = at[:, 2:] - at[:, :-2]
    down[1:-1] = at[2:] - at[:-2]
    normal = torch.linalg.cross(down, across)
    normal = normal / normal.norm(dim=-1, keepdim=True)
    colors = 0.5 + 0.5 * normal @ view.c2w[:, :3]
    return torch.where(colors.isfinite().all(-1, keepdim=True), colors, 0.0)


def _compared(view: Rendered, mode: str, blend: float | int) -> UInt8[np.ndarray, "h w 3"]:
    """The difference of the view and the nearest photograph, or both mixed; where there is no photograph, dimmed."""
    rgb = view.picture.rgb
    depth = view_rays.scene_depth(view.scene, view.rays, view.picture)
    index = photographs.nearest(view.scene, view.c2w)
    colors, seen = photographs.moved(view.scene, index, view_rays.points(view.rays, depth))
    outside = images.to_uint8((0.3 * rgb).cpu())
    if mode == DIFFERENCE:
        error = (rgb - colors).abs().mean(-1)
        inside = video.colorize_depth(-error.double().cpu().numpy(), -WORST, 0.0)
    else:
        inside = images.to_uint8(((1 - blend) * rgb + blend * colors).cpu())
    return np.where(seen[..., None].cpu().numpy(), inside, outside)
