"""Rendering of plane stacks in torch: the reference implementation of ``kernel``, and its fallback."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from enerf.core.types import Rays
from enerf.rendering.planes.stack import CELLS, TILE, PlaneStack, ray_lines
from enerf.rendering.render import Picture


@dataclass(frozen=True)
class Samples:
    """Where rays meet a plane.

    Attributes
    ----------
    drawn
        Whether the ray meets a tile that is stored, in front of its origin.
    corner
        Place of the texel up and to the left among all texels of all tiles; 0 if nothing is drawn.
    fraction
        Position between that texel (0) and the next ones to the right and below (1).
    """

    drawn: Bool[Tensor, " b"]
    corner: Int64[Tensor, " b"]
    fraction: Float[Tensor, "b 2"]


def samples(stack: PlaneStack, plane: int, line: Float[Tensor, "b 4"], depth: Float[Tensor, " b"]) -> Samples:
    """Where the rays of ``ray_lines`` meet a plane."""
    disparity = stack.disparity[plane]
    at = line[:, :2] + disparity * line[:, 2:]
    last = torch.tensor([stack.camera.width - 1, stack.camera.height - 1], dtype=at.dtype)
    within = ((at >= 0) & (at <= last)).all(1) & (disparity * depth < 1)
    at = torch.where(within[:, None], at, 0.0)
    rows, columns = stack.index.shape[1:]
    tile = (at / CELLS).long().minimum(torch.tensor([columns - 1, rows - 1]))
    inside = at - CELLS * tile
    cell = inside.long().clamp(0, CELLS - 1)
    place = stack.index[plane, tile[:, 1], tile[:, 0]].long()
    drawn = within & (place >= 0)
    corner = (place * TILE + cell[:, 1]) * TILE + cell[:, 0]
    return Samples(drawn, torch.where(drawn, corner, 0), (inside - cell).float())


def sampled(tiles: Float[Tensor, "n 32 32 4"], found: Samples) -> Float[Tensor, "b 4"]:
    """RGBA of a plane where rays meet it, bilinear in each channel; alpha is 0 where nothing is drawn."""
    if not len(tiles):
        return torch.zeros(len(found.drawn), 4)
    texels, (x, y) = tiles.reshape(-1, 4), found.fraction[:, :, None].unbind(1)
    above = (1 - x) * texels[found.corner] + x * texels[found.corner + 1]
    below = (1 - x) * texels[found.corner + TILE] + x * texels[found.corner + TILE + 1]
    return ((1 - y) * above + y * below) * found.drawn[:, None]


def composite(
    stack: PlaneStack, tiles: Float[Tensor, "n 32 32 4"], line: Float[Tensor, "b 4"], depth: Float[Tensor, " b"]
) -> Picture:
    """Rays composited back to front with textures in [0, 1] in the place of the stack's; differentiable by them."""
    rgb, opacity = torch.full((len(line), 3), float(stack.white)), torch.zeros(len(line))
    seen = torch.zeros(len(line))
    for plane in range(len(stack.t_vals) - 1, -1, -1):
        color = sampled(tiles, samples(stack, plane, line, depth))
        alpha = color[:, 3]
        rgb = rgb + alpha[:, None] * (color[:, :3] - rgb)
        opacity = opacity + alpha * (1 - opacity)
        seen = seen + alpha * (stack.t_vals[plane].float() - seen)
    return Picture(rgb, seen, opacity)


def render(stack: PlaneStack, rays: Rays) -> Picture:
    """Colors, depths (Σ weights · t, as of NDC rays) and opacities of rays in scene space (n,), in float32.

    Planes behind a ray's origin, tiles that are left out, and all planes for a ray that does not look forward are
    transparent.
    """
    return composite(stack, stack.tiles.float() / 255, *ray_lines(stack, rays.origins, rays.directions))


def splat(stack: PlaneStack, tiles: Float[Tensor, "n 32 32 4"], rays: Rays, largest: Float[Tensor, "n 32 32"]) -> None:
    """Raise ``largest`` to the largest weight T · alpha with which a ray of a batch reads each texel."""
    line, depth = ray_lines(stack, rays.origins, rays.directions)
    transmittance, flat = torch.ones(len(line)), largest.view(-1)
    for plane in range(len(stack.t_vals)):
        found = samples(stack, plane, line, depth)
        alpha = sampled(tiles, found)[:, 3]
        weight = transmittance * alpha
        for step in (0, 1, TILE, TILE + 1):
            flat.scatter_reduce_(0, (found.corner + step)[found.drawn], weight[found.drawn], "amax")
        transmittance = transmittance * (1 - alpha)
