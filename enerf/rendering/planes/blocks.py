"""Blocks of the tiles of a plane stack: the smallest pieces that a browser draws or leaves out, and what they cost.

A tile has 4 × 4 blocks of 8 × 8 cells, of 7 cells at its end. A block is drawn if a texel at the corner of one of its
cells is visible. The **layers** of a stack are the mean number of drawn blocks that the rays of a camera at the
reference pose meet: each is a texture to read, and to blend with what is behind it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from enerf.core.types import Camera
from enerf.rendering.planes import kernel
from enerf.rendering.planes.stack import CELLS, PlaneStack, neighbors, of_index, open_borders

BLOCK = 8  # cells along a side


def visible(stack: PlaneStack) -> Bool[Tensor, "n 4 4"]:
    """Blocks with a visible texel."""
    cells = of_cells((stack.tiles[..., 3] > 0).float())
    return functional.max_pool2d(cells[:, None], BLOCK, ceil_mode=True)[:, 0] > 0


def layers(stack: PlaneStack, drawn: Bool[Tensor, "n 4 4"], camera: Camera) -> float:
    """Mean number of drawn blocks that a pixel's ray meets, for a camera at the reference pose."""
    return float(areas(stack, camera)[drawn].sum()) / (camera.width * camera.height)


def fewer(
    stack: PlaneStack, drawn: Bool[Tensor, "n 4 4"], weights: Float[Tensor, "n 32 32"], camera: Camera, most: float
) -> Bool[Tensor, "n 4 4"]:
    """The blocks of ``drawn`` without those of the least mean weight, so that at most ``most`` layers are left.

    Blocks beyond the frame of the camera cost nothing, and stay. ``weights`` are those of the texels in views.
    """
    area = torch.where(drawn, areas(stack, camera), 0.0).flatten()
    excess = float(area.sum()) - most * camera.width * camera.height
    left = drawn.clone()
    if excess > 0:
        means = functional.avg_pool2d(of_cells(weights)[:, None], BLOCK, ceil_mode=True).flatten()
        order = torch.where(area > 0, means, torch.inf).argsort()
        covered = area[order]
        left.view(-1)[order[(covered.cumsum(0) - covered < excess) & (covered > 0)]] = False
    return left


def areas(stack: PlaneStack, camera: Camera) -> Float[Tensor, "n 4 4"]:
    """Pixels of the image of a camera at the reference pose that each block of each tile covers."""
    _, row, column = of_index(stack.index)
    grid, edges = stack.camera, torch.tensor([*range(0, CELLS, BLOCK), CELLS], dtype=torch.float64)

    def covered(tile: Tensor, focal: float, middle: float, image: tuple[float, float, int]) -> Tensor:
        ends = (tile[:, None] * CELLS + edges + 0.5 - middle) / focal * image[0] + image[1]
        return ends.clamp(0, image[2]).diff(dim=1)

    across = covered(column, grid.fx, grid.cx, (camera.fx, camera.cx, camera.width))
    down = covered(row, grid.fy, grid.cy, (camera.fy, camera.cy, camera.height))
    return down[:, :, None] * across[:, None]


def closed_texels(stack: PlaneStack, drawn: Bool[Tensor, "n 4 4"]) -> Bool[Tensor, "n 32 32"]:
    """Texels with a cell around them that is not drawn, in their tile or in a stored neighbor, or that has no tile.

    Where they are transparent, what is drawn fades out toward what is not, and nothing else is in blocks left out.
    """
    spread = drawn.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :CELLS, :CELLS]
    whole = functional.pad((~spread).float()[:, None], (1, 1, 1, 1))
    closed = functional.max_pool2d(whole, 2, stride=1)[:, 0]
    both = closed[..., None].expand(*closed.shape, 4).contiguous()
    kernel.join(both, neighbors(stack.index))  # the copies of texels that tiles share are closed together
    return (both[..., 0] > 0) | open_borders(stack.index, len(stack.tiles))


def of_cells(texels: Float[Tensor, "n 32 32"]) -> Float[Tensor, "n 31 31"]:
    """The largest value at the four corners of each cell."""
    return functional.max_pool2d(texels[:, None], 2, stride=1)[:, 0]
