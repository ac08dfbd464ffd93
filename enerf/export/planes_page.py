"""Pages of plane stacks.

Tiles are drawn as quads, back to front. Their texels are in pages of 64 × 64 tiles in the order of their places, RGB
and alpha in separate opaque pictures, as WebP with losses. Each layer of
texture costs time for each pixel: blocks of tiles that are transparent are not drawn, and those that count least in the
training views are left out until there are few enough.
"""

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from enerf.core.types import Camera
from enerf.datasets.scenes import rays
from enerf.datasets.scenes.scene import Scene
from enerf.export.page import Page
from enerf.rendering.planes import bake, kernel
from enerf.rendering.planes.stack import CELLS, TILE, PlaneStack, of_index
from enerf.rendering.planes.storage import ACROSS

DOWN = ACROSS  # tiles of a page
BLOCK = 8  # cells along a side of what is drawn or left out
FAINTEST = 2  # smallest alpha of 255 that is drawn: less is noise of the encoding
BYTES_BLENDED = 16  # per fragment: 4 half floats read and written
BYTES_READ = 4  # per fragment: a texel
_SHADES = 9  # colors of depths


@dataclass(frozen=True)
class Encoded:
    """Textures of a page.

    Attributes
    ----------
    rgb, alpha
        WebP pictures of the pages.
    tiles
        What a browser decodes from them: RGBA of the tiles.
    """

    rgb: list[bytes]
    alpha: list[bytes]
    tiles: UInt8[Tensor, "n 32 32 4"]


def encode(tiles: UInt8[Tensor, "n 32 32 4"], quality: int = 90) -> Encoded:
    """Tiles as WebP pictures of a quality in 1 ... 100."""
    rgb, alpha, decoded = [], [], [torch.zeros(0, TILE, TILE, 4, dtype=torch.uint8)]
    for group in tiles.split(ACROSS * DOWN):
        rows = -(-len(group) // ACROSS)
        full = group.new_zeros(rows * ACROSS, TILE, TILE, 4)
        full[: len(group)] = group
        page = full.unflatten(0, (rows, ACROSS)).transpose(1, 2).flatten(0, 1).flatten(1, 2).numpy()
        rgb.append(_webp(page[..., :3], quality))
        alpha.append(_webp(np.repeat(page[..., 3:], 3, -1), quality))
        both = np.concatenate([_pixels(rgb[-1]), _pixels(alpha[-1])[..., 1:2]], -1)
        back = torch.from_numpy(both).unflatten(0, (rows, TILE)).unflatten(2, (ACROSS, TILE))
        decoded.append(back.transpose(1, 2).flatten(0, 1)[: len(group)])
    found = torch.cat(decoded)
    found[..., 3] *= (found[..., 3] >= FAINTEST) & _texels(drawn(tiles))
    return Encoded(rgb, alpha, found)


def drawn(tiles: UInt8[Tensor, "n 32 32 4"]) -> Bool[Tensor, "n 4 4"]:
    """Blocks of 8 × 8 cells (7 at the end) of tiles that are drawn: those with a texel whose alpha is not 0."""
    return _largest((tiles[..., 3] > 0).float()) > 0


def layers(stack: PlaneStack, camera: Camera) -> float:
    """Mean number of textures that a pixel's ray meets, for a camera at the reference pose."""
    area = _areas(stack, camera)[drawn(stack.tiles)].sum()
    return float(area) / (camera.width * camera.height)


def thinned(stack: PlaneStack, scene: Scene, most: float, pixel_centers: float | int = 0.5) -> PlaneStack:
    """The stack with at most ``most`` layers: blocks with the least weight in training views are left out.

    Alpha becomes 0 in all texels of these blocks, those that they share with others as well.
    """
    areas = torch.where(drawn(stack.tiles), _areas(stack, scene.camera), 0.0)
    excess = float(areas.sum()) - most * scene.camera.width * scene.camera.height
    if excess <= 0:
        return stack
    weights = _cells(bake.weights_in_views(stack, scene, pixel_centers))
    means = (functional.avg_pool2d(weights[:, None], BLOCK, ceil_mode=True)[:, 0]).flatten()
    means[areas.flatten() == 0] = torch.inf  # beyond the frame: they cost nothing
    order = means.argsort()
    covered = areas.flatten()[order]
    dropped = torch.zeros_like(means, dtype=torch.bool)
    dropped[order[covered.cumsum(0) - covered < excess]] = True
    dropped &= areas.flatten() > 0
    tiles = stack.tiles.clone()
    tiles[..., 3] *= ~_texels(dropped.reshape(-1, 4, 4))
    thin = replace(stack, tiles=tiles)
    return thin.only(thin.visible())


def _cells(texels: Float[Tensor, "n 32 32"]) -> Float[Tensor, "n 31 31"]:
    """The largest value at the four corners of each cell."""
    return functional.max_pool2d(texels[:, None], 2, stride=1)[:, 0]


def _largest(texels: Float[Tensor, "n 32 32"]) -> Float[Tensor, "n 4 4"]:
    """The largest value of the texels of each block."""
    return functional.max_pool2d(_cells(texels)[:, None], BLOCK, ceil_mode=True)[:, 0]


def _texels(blocks: Bool[Tensor, "n 4 4"]) -> Bool[Tensor, "n 32 32"]:
    """Texels of blocks, of which neighbors share a row or a column."""
    cells = blocks.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :CELLS, :CELLS]
    padded = functional.pad(cells.float(), (1, 1, 1, 1))
    return functional.max_pool2d(padded[:, None], 2, stride=1)[:, 0] > 0


def page(
    stack: PlaneStack,
    encoded: Encoded,
    camera: Camera,
    positions: Float[Tensor, "v 3"],
    title: str,
    caption: tuple[str, ...] = (),
) -> Page:
    """The page of a stack.

    Parameters
    ----------
    stack
        Planes with at least one tile, as before the encoding.
    encoded
        The textures.
    camera
        Pinhole of the photographs, whose frame the page shows.
    positions
        Of the training cameras, in scene coordinates: the page's camera stays among them.
    title, caption
        Texts of the caption.
    """
    rotation, center = stack.c2w.double()[:, :3], stack.c2w.double()[:, 3]
    local = (positions.double() - center) @ rotation
    low, high, focus = _depths(stack, camera)
    grid = stack.camera
    left, right = (-camera.cx) / camera.fx, (camera.width - camera.cx) / camera.fx
    bottom, top = (camera.cy - camera.height) / camera.fy, camera.cy / camera.fy
    meta = {
        "pages": len(encoded.rgb),
        "tiles": len(stack.tiles),
        "index": list(stack.index.shape),
        "disparity": stack.disparity.tolist(),
        "grid": [grid.fx, grid.fy, grid.cx, grid.cy],
        "white": stack.white,
        "frame": [left, right, bottom, top],
        "aspect": (right - left) / (top - bottom),
        "hull": hull(local[:, :2].numpy()).tolist(),
        "z": [float(local[:, 2].min()), float(local[:, 2].max())],
        "focus": 1 - focus,
        "range": [low, max(high, low + 1e-3)],
        "shades": _shades(),
        "faintest": FAINTEST,
    }
    bits = np.packbits(stack.index.numpy().reshape(-1) >= 0, bitorder="little").tobytes()
    powers = 1 << torch.arange(16).reshape(4, 4)
    blocks = (drawn(stack.tiles) * powers).sum((1, 2)).numpy().astype("<u2").tobytes()
    data = {"index": bits, "blocks": blocks}
    for number, (rgb, alpha) in enumerate(zip(encoded.rgb, encoded.alpha, strict=True)):
        data |= {f"rgb_{number}": rgb, f"alpha_{number}": alpha}
    return Page("planes", title, caption, meta, data)


def hull(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "k 2"]:
    """Corners of the convex hull of points, counter-clockwise; of fewer than 3 that are not on a line, the ends.

    Source: Andrew's monotone chain (1979).

    >>> hull(np.array([[0.0, 0], [1, 0], [0.5, 0.2], [1, 1], [0, 1]])).tolist()
    [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    """
    ordered = sorted({(float(x), float(y)) for x, y in points})

    def chain(sequence: list[tuple[float, float]]) -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        for x, y in sequence:
            while len(found) > 1:
                (ax, ay), (bx, by) = found[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                found.pop()
            found.append((x, y))
        return found

    around = chain(ordered)[:-1] + chain(ordered[::-1])[:-1]
    return np.array(around or ordered)


def _areas(stack: PlaneStack, camera: Camera) -> Float[Tensor, "n 4 4"]:
    """Pixels of the image of a camera at the reference pose that each block of each tile covers."""
    _, row, column = of_index(stack.index)
    grid, edges = stack.camera, torch.tensor([0, 8, 16, 24, CELLS], dtype=torch.float64)

    def covered(tile: Tensor, focal: float, middle: float, image: tuple[float, float, int]) -> Tensor:
        ends = (tile[:, None] * CELLS + edges + 0.5 - middle) / focal * image[0] + image[1]
        return ends.clamp(0, image[2]).diff(dim=1)

    across = covered(column, grid.fx, grid.cx, (camera.fx, camera.cx, camera.width))
    down = covered(row, grid.fy, grid.cy, (camera.fy, camera.cy, camera.height))
    return down[:, :, None] * across[:, None]


def _depths(stack: PlaneStack, camera: Camera) -> tuple[float, float, float]:
    """Depths t between which nearly all of the reference view is; and that of the middle of its frame."""
    through = rays.of_image(replace(camera, model="PINHOLE", coefficients=()), stack.c2w.float(), 0, 1)
    found = kernel.render(stack, through)
    depth = (found.depth / found.opacity.clamp(min=1e-6)).reshape(camera.height, camera.width)
    seen = depth[found.opacity.reshape(depth.shape) > 0.5]
    if not len(seen):
        return 0.0, 1.0, 0.5
    height, width = depth.shape
    middle = depth[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
    low, high = np.percentile(seen.numpy(), [1, 99]).tolist()
    return low, high, float(middle.median())


def _shades() -> list[list[float]]:
    """Colors of depths from near to far, as videos have them."""
    import matplotlib

    return matplotlib.colormaps["inferno"](np.linspace(1, 0, _SHADES))[:, :3].round(4).tolist()


def _webp(picture: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()


def _pixels(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as found:
        return np.array(found.convert("RGB"))
