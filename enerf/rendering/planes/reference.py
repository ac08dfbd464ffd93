"""Rendering of plane stacks in torch: the reference implementation of the kernel in ``kernel``."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from enerf.core.types import Rays
from enerf.rendering.planes.stack import CELLS, PlaneStack, of_index, ray_lines
from enerf.rendering.render import Picture


def render(stack: PlaneStack, rays: Rays) -> Picture:
    """Colors, depths (Σ weights · t, as of NDC rays) and opacities of rays in scene space, in float32.

    Planes are composited back to front, each sampled bilinearly. A plane that is behind the ray's origin, a tile that
    is left out, and all planes of a ray that does not look forward are transparent.
    """
    line, depth = ray_lines(stack, rays.origins, rays.directions)
    shape = depth.shape
    rgb = torch.full((*shape, 3), float(stack.white))
    seen, opacity = torch.zeros(shape), torch.zeros(shape)
    textures, drawn = stack.dense(), _drawn_cells(stack)
    for i in range(len(stack.t_vals) - 1, -1, -1):
        disparity = stack.disparity[i]
        at = line[..., :2] + disparity * line[..., 2:]
        inside = _inside(stack, at, drawn[i]) & (disparity * depth < 1)
        color = _sampled(textures[i].float() / 255, torch.where(inside[..., None], at, 0.0))
        alpha = color[..., 3] * inside
        rgb = rgb + alpha[..., None] * (color[..., :3] - rgb)
        opacity = opacity + alpha * (1 - opacity)
        seen = seen + alpha * (stack.t_vals[i].float() - seen)
    return Picture(rgb, seen, opacity)


def _drawn_cells(stack: PlaneStack) -> Bool[Tensor, "d r c"]:
    """Which tiles of each plane are stored."""
    drawn = torch.zeros(stack.index.shape, dtype=torch.bool)
    drawn[of_index(stack.index)] = True
    return drawn


def _inside(stack: PlaneStack, at: Float[Tensor, "*b 2"], drawn: Bool[Tensor, "r c"]) -> Bool[Tensor, "*b"]:
    """Whether texel coordinates are within the grid, in a tile that is stored."""
    x, y = at.unbind(-1)
    within = (x >= 0) & (y >= 0) & (x <= stack.camera.width - 1) & (y <= stack.camera.height - 1)
    rows, columns = drawn.shape
    row = torch.where(within, y / CELLS, 0.0).long().clamp(max=rows - 1)
    column = torch.where(within, x / CELLS, 0.0).long().clamp(max=columns - 1)
    return within & drawn[row, column]


def _sampled(texture: Float[Tensor, "h w 4"], at: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 4"]:
    """Values of a texture between the centers of its texels, bilinear."""
    height, width = texture.shape[:2]
    last = torch.tensor([width - 1, height - 1], dtype=at.dtype)
    grid = (2 * at / last - 1).float().reshape(1, 1, -1, 2)
    found = functional.grid_sample(texture.permute(2, 0, 1)[None], grid, align_corners=True, padding_mode="border")
    return found[0, :, 0].T.reshape(*at.shape[:-1], 4)
