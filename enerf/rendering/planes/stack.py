"""A plane stack: a forward-facing scene as textured planes parallel to the image of a reference camera.

This docstring is the specification of the data, for the kernel and for exporters.

**Planes.** The reference camera is a pinhole at ``c2w`` (OpenGL axes, scene coordinates). Plane i is at
``t_vals[i]``, the depth in normalized device coordinates with the near plane at 1: the depth along the reference
camera's axis, in scene units, is 1 / (1 − t), and 1 − t is its **disparity**. They are ordered front to back. t = 0 is
the nearest depth that NDC have, t = 1 infinity; a plane may be there.

**Texels.** All planes have the same grid of ``camera.height × camera.width`` texels, which are the pixels of the
reference camera: the texel of column x and row y has its center at (x + 0.5, y + 0.5) in the image of the camera. The
image has a margin beyond that of the scene's camera, so that cx and cy are not in its middle in general. A texel is
RGBA, 8 bits per channel, straight (not premultiplied) alpha, sRGB. Between centers, the four channels are interpolated
bilinearly and **each for itself**; then the color counts with the interpolated alpha. So the color of a texel with
alpha 0 matters if it has visible neighbors; ``bake`` fills it with theirs. Nothing is drawn beyond the centers of the
outermost texels.

**Tiles.** The grid is cut into cells between texel centers. A tile has 31 × 31 cells and stores the 32 × 32 texels at
their corners, so that neighbors share a row or a column of texels, which is stored in both: interpolation never reads a
second tile, and a tile is a quad of 31 × 31 texels whose texture coordinates are from the center of its first to that
of its last texel. The tile of row r and column c begins at texel (31 r, 31 c). ``index[i, r, c]`` is its place in
``tiles``, or −1 if it is left out: nothing is drawn there. ``camera.height`` and ``camera.width`` are 31 · rows + 1 and
31 · columns + 1.

**Rendering.** A ray in the frame of the reference camera, o + s · d with d_z < 0, meets the plane of disparity δ in the
image at the point a + δ b of the plane z = −1, with a = −d_xy / d_z and b = o_xy − o_z d_xy / d_z; the texture
coordinates follow by the intrinsics (x = cx + fx · right, y = cy − fy · up). This holds at infinity, δ = 0, too. Planes
behind the ray's origin, 1 + δ o_z ≤ 0, are left out. From front to back, with transmittance T = 1 before the first
plane: rgb += T · alpha · color, depth += T · alpha · t, opacity += T · alpha, T *= 1 − alpha. The background is black,
or white if the scene's is. Nothing is drawn for rays that do not look forward (d_z ≥ 0).

Source: Zhou et al., Stereo Magnification (SIGGRAPH 2018), for multiplane images.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Int32, Int64, UInt8
from torch import Tensor

from enerf.core.types import Camera

TILE = 32  # texels along a side of a tile
CELLS = TILE - 1  # between them; also the distance of neighboring tiles in texels


@dataclass(frozen=True)
class PlaneStack:
    """Textured planes that stand for a forward-facing scene; see the module for what the numbers mean.

    Attributes
    ----------
    c2w
        Pose of the reference camera, in float64.
    camera
        Pinhole of the reference camera; its pixels are the texels.
    t_vals
        Depths of the planes in NDC, increasing, in [0, 1].
    tiles
        Texels of the tiles that are stored: RGBA, straight alpha.
    index
        Place of each tile of each plane in ``tiles``; −1: left out.
    white
        Whether the background is white instead of black.
    metadata
        What the stack was made from: JSON values.
    """

    c2w: Float[Tensor, "3 4"]
    camera: Camera
    t_vals: Float[Tensor, " d"]
    tiles: UInt8[Tensor, "n 32 32 4"]
    index: Int32[Tensor, "d r c"]
    white: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def disparity(self) -> Float[Tensor, " d"]:
        """Inverse depth of the planes along the reference camera's axis, decreasing, in float64."""
        return 1.0 - self.t_vals.double()

    def visible(self) -> Bool[Tensor, " n"]:
        """Which tiles have an alpha above 0."""
        return (self.tiles[..., 3] > 0).flatten(1).any(1)

    def places(self, keep: Bool[Tensor, " n"]) -> Int64[Tensor, " m"]:
        """Places of the tiles to keep, in the order of planes, rows and columns."""
        stored = self.index[self.index >= 0].long()
        return stored[keep[stored]]

    def only(self, keep: Bool[Tensor, " n"]) -> "PlaneStack":
        """The stack of the tiles to keep, without planes that have none."""
        kept = self.index >= 0
        kept[kept.clone()] = keep[self.index[kept].long()]
        planes = kept.flatten(1).any(1)
        return replace(
            self, tiles=self.tiles[self.places(keep)], index=numbered(kept[planes]), t_vals=self.t_vals[planes]
        )

    def dense(self) -> UInt8[Tensor, "d h w 4"]:
        """Textures of all planes without tiles; 0 where a tile is left out."""
        n, rows, columns = self.index.shape
        out = self.tiles.new_zeros(n, rows * CELLS + 1, columns * CELLS + 1, 4)
        for tile, *at in zip(self.tiles, *of_index(self.index), strict=True):
            i, y, x = int(at[0]), CELLS * int(at[1]), CELLS * int(at[2])
            out[i, y : y + TILE, x : x + TILE] = tile
        return out


def grid_size(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover an image; their texels may be more than its pixels.

    >>> grid_size(32, 33)
    (2, 1)
    """
    return max(1, math.ceil((height - 1) / CELLS)), max(1, math.ceil((width - 1) / CELLS))


def cut(texture: UInt8[Tensor, "h w 4"] | Float[Tensor, "h w 4"]) -> Tensor:
    """All tiles (rows, columns, 32, 32, 4) of one plane, whose size is that of whole tiles; a view."""
    return texture.unfold(0, TILE, CELLS).unfold(1, TILE, CELLS).permute(0, 1, 3, 4, 2)


def assemble(
    textures: UInt8[Tensor, "d h w 4"], keep: Bool[Tensor, "d r c"]
) -> tuple[UInt8[Tensor, "n 32 32 4"], Int32[Tensor, "d r c"]]:
    """Tiles and index of dense textures, of the tiles to keep."""
    tiles = [cut(texture)[chosen] for texture, chosen in zip(textures, keep, strict=True)]
    return torch.cat(tiles), numbered(keep)


def numbered(keep: Bool[Tensor, "d r c"]) -> Int32[Tensor, "d r c"]:
    """Index of the tiles to keep, numbered in the order of planes, rows and columns."""
    number = keep.flatten().cumsum(0).reshape(keep.shape).int() - 1
    return torch.where(keep, number, -1).int()


def ray_lines(
    stack: PlaneStack, origins: Float[Tensor, "*b 3"], directions: Float[Tensor, "*b 3"]
) -> tuple[Float[Tensor, "*b 4"], Float[Tensor, "*b"]]:
    """Where rays meet the planes: texel coordinates (x, y) = line[:2] + δ · line[2:], at texel centers integers.

    Also the depth −o_z of the origins along the reference axis: planes with δ · depth ≥ 1 are behind the origin. The
    lines are NaN for rays that do not look forward. Computed in float64.
    """
    rotation, center = stack.c2w.double()[:, :3], stack.c2w.double()[:, 3]
    o, d = (origins.double() - center) @ rotation, directions.double() @ rotation
    slope = torch.where(d[..., 2:] < 0, -d[..., :2] / d[..., 2:], math.nan)
    shift = o[..., :2] + o[..., 2:] * slope
    camera = stack.camera
    scale = torch.tensor([camera.fx, -camera.fy], dtype=torch.float64)
    middle = torch.tensor([camera.cx - 0.5, camera.cy - 0.5], dtype=torch.float64)
    return torch.cat([middle + scale * slope, scale * shift], -1), -o[..., 2]


def of_index(index: Int[Tensor, "d r c"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Plane, row and column of each stored tile, in the order of their places."""
    found = (index >= 0).nonzero()
    order = index[index >= 0].argsort()
    plane, row, column = found[order].unbind(1)
    return plane, row, column


def neighbors(index: Int32[Tensor, "d r c"]) -> tuple[Int64[Tensor, "k 2"], Int64[Tensor, "l 2"]]:
    """Places of all stored tiles beside one another, left and right, and above one another, upper and lower."""

    def both(first: Tensor, second: Tensor) -> Tensor:
        stored = (first >= 0) & (second >= 0)
        return torch.stack([first[stored], second[stored]], 1).long()

    return both(index[:, :, :-1], index[:, :, 1:]), both(index[:, :-1], index[:, 1:])


def open_borders(index: Int32[Tensor, "d r c"], count: int) -> Bool[Tensor, "n 32 32"]:
    """Which texels of the ``count`` stored tiles are on a side without a neighbor, within the grid."""
    found = torch.zeros(count, TILE, TILE, dtype=torch.bool)
    stored = index >= 0
    for axis, first, last in ((2, (slice(None), 0), (slice(None), -1)), (1, (0,), (-1,))):
        here = index.transpose(1, 2) if axis == 1 else index
        kept = stored.transpose(1, 2) if axis == 1 else stored
        right = here[..., 1:][kept[..., 1:] & ~kept[..., :-1]].long()
        left = here[..., :-1][kept[..., :-1] & ~kept[..., 1:]].long()
        found[(right, *first)] = True
        found[(left, *last)] = True
    return found
