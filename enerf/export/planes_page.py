"""Pages of plane stacks.

Tiles are drawn as quads, back to front. Their texels are in pages of 60 × 60 tiles in the order of their places, RGB
and alpha in separate opaque pictures: few ones as WebP without losses, otherwise colors as AVIF whose chroma has the
full resolution (at half of it, as in WebP with losses, small pictures lose more than 1 dB) and alpha as WebP. Each
layer of texture costs time for each pixel: blocks of tiles that are transparent are not drawn, and those that count
least in the training views are left out until there are few enough.
"""

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, features
from torch import Tensor

from enerf.core.types import Camera, Rays
from enerf.datasets.scenes import rays
from enerf.datasets.scenes.scene import Scene
from enerf.export.page import Page
from enerf.rendering.planes import bake, blocks, reference
from enerf.rendering.planes.reference import Samples
from enerf.rendering.planes.stack import TILE, PlaneStack, ray_lines
from enerf.rendering.render import Picture

ACROSS = DOWN = 60  # tiles of a page
BORDER = 1  # texels around each tile that repeat its own, since losses mix what is near
QUALITY = 90  # of pictures with losses
FEW = 1024  # tiles that are encoded without losses: about a megabyte
PITCH = TILE + 2 * BORDER
FAINTEST = 2  # smallest alpha of 255 that is drawn: less is noise of the encoding
BYTES_BLENDED = 16  # per fragment: 4 half floats read and written
BYTES_READ = 4  # per fragment: a texel
_SHADES = 9  # colors of depths


@dataclass(frozen=True)
class Thinned:
    """A stack of which some blocks of 8 × 8 cells (7 at the end) are not drawn.

    Attributes
    ----------
    stack
        Planes and tiles.
    drawn
        Which blocks of each tile are drawn.
    """

    stack: PlaneStack
    drawn: Bool[Tensor, "n 4 4"]


@dataclass(frozen=True)
class Encoded:
    """Textures of a page.

    Attributes
    ----------
    rgb, alpha
        AVIF or WebP pictures of the pages.
    shown
        What a browser shows: with the tiles that it decodes from them.
    """

    rgb: list[bytes]
    alpha: list[bytes]
    shown: Thinned


def thinned(stack: PlaneStack, scene: Scene, most: float, pixel_centers: float | int = 0.5) -> Thinned:
    """The stack with at most ``most`` layers: blocks with the least weight in training views are left out."""
    drawn = blocks.visible(stack)
    if blocks.layers(stack, drawn, scene.camera) > most:
        drawn = blocks.fewer(stack, drawn, bake.weights_in_views(stack, scene, pixel_centers), scene.camera, most)
    used = drawn.flatten(1).any(1)
    return Thinned(stack.only(used), drawn[stack.places(used)])


def encode(thin: Thinned, quality: int = 0) -> Encoded:
    """Textures as pictures of a quality in 1 ... 100, the last without losses; 0: 100 for ``FEW`` tiles, else 90."""
    quality = quality or (100 if len(thin.stack.tiles) <= FEW else QUALITY)
    rgb, alpha, decoded = [], [], [torch.zeros(0, TILE, TILE, 4, dtype=torch.uint8)]
    for group in thin.stack.tiles.split(ACROSS * DOWN):
        rows, inner = -(-len(group) // ACROSS), slice(BORDER, BORDER + TILE)
        full = group.new_zeros(rows * ACROSS, PITCH, PITCH, 4)
        around = torch.arange(-BORDER, TILE + BORDER).clamp(0, TILE - 1)
        full[: len(group)] = group[:, around][:, :, around]
        page = full.unflatten(0, (rows, ACROSS)).transpose(1, 2).flatten(0, 1).flatten(1, 2).numpy()
        rgb.append(_colors(page[..., :3], quality))
        alpha.append(_webp(np.repeat(page[..., 3:], 3, -1), quality))
        both = np.concatenate([_pixels(rgb[-1]), _pixels(alpha[-1])[..., 1:2]], -1)
        back = torch.from_numpy(both).unflatten(0, (rows, PITCH)).unflatten(2, (ACROSS, PITCH))
        decoded.append(back.transpose(1, 2).flatten(0, 1)[: len(group), inner, inner])
    tiles = torch.cat(decoded)
    tiles[..., 3] *= tiles[..., 3] >= FAINTEST
    return Encoded(rgb, alpha, Thinned(replace(thin.stack, tiles=tiles), thin.drawn))


def render(thin: Thinned, through: Rays) -> Picture:
    """Colors, depths and opacities of rays in scene space (n,), as a page shows them: ``reference.render``."""
    stack, tiles = thin.stack, thin.stack.tiles.float() / 255
    line, depth = ray_lines(stack, through.origins, through.directions)
    rgb, seen, opacity = torch.full((len(line), 3), float(stack.white)), torch.zeros(len(line)), torch.zeros(len(line))
    for plane in range(len(stack.t_vals) - 1, -1, -1):
        found = reference.samples(stack, plane, line, depth)
        place, at = found.corner // TILE**2, found.corner % TILE**2
        drawn = found.drawn & thin.drawn[place, at // TILE // blocks.BLOCK, at % TILE // blocks.BLOCK]
        which = drawn.nonzero()[:, 0]
        color = reference.sampled(tiles, Samples(drawn[which], found.corner[which], found.fraction[which]))
        alpha = color[:, 3]
        rgb[which] += alpha[:, None] * (color[:, :3] - rgb[which])
        opacity[which] += alpha * (1 - opacity[which])
        seen[which] += alpha * (stack.t_vals[plane].float() - seen[which])
    return Picture(rgb, seen, opacity)


def page(
    encoded: Encoded,
    camera: Camera,
    poses: Float[Tensor, "v 3 4"],
    title: str,
    caption: tuple[str, ...] = (),
) -> Page:
    """The page of a stack.

    Parameters
    ----------
    encoded
        Planes with at least one tile.
    camera
        Pinhole of the photographs, whose frame the page shows.
    poses
        Of the training cameras, in scene coordinates: the page's camera stays among them, and looks where they do.
    title, caption
        Texts of the caption.
    """
    stack = encoded.shown.stack
    rotation, center = stack.c2w.double()[:, :3], stack.c2w.double()[:, 3]
    local = (poses.double()[:, :, 3] - center) @ rotation
    low, high, middle = _depths(encoded.shown, camera)
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
        "focus": min(max(fixed_disparity(local, -poses.double()[:, :, 2] @ rotation), 0.0), 1 - middle),
        "range": [low, max(high, low + 1e-3)],
        "shades": _shades(),
        "faintest": FAINTEST,
    }
    bits = np.packbits(stack.index.numpy().reshape(-1) >= 0, bitorder="little").tobytes()
    powers = 1 << torch.arange(16).reshape(4, 4)
    bits_of_blocks = (encoded.shown.drawn * powers).sum((1, 2)).numpy().astype("<u2").tobytes()
    data = {"index": bits, "blocks": bits_of_blocks}
    for number, (rgb, alpha) in enumerate(zip(encoded.rgb, encoded.alpha, strict=True)):
        data |= {f"rgb_{number}": rgb, f"alpha_{number}": alpha}
    return Page("planes", title, caption, meta, data)


def fixed_disparity(positions: Float[Tensor, "v 3"], axes: Float[Tensor, "v 3"]) -> float:
    """Disparity at which what is in the middle of cameras' images is the same for all, by least squares.

    0 for cameras that are moved without turning; ``axes`` are the directions in which they look.
    """
    moved = positions[:, :2] - positions[:, :2].mean(0)
    turned = axes[:, :2] / -axes[:, 2:]
    return -float((moved * (turned - turned.mean(0))).sum() / moved.square().sum().clamp(min=1e-12))


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


def _depths(thin: Thinned, camera: Camera) -> tuple[float, float, float]:
    """Depths t between which nearly all of the reference view is; and that of the middle of its frame."""
    through = rays.of_image(replace(camera, model="PINHOLE", coefficients=()), thin.stack.c2w.float(), 0, 1)
    found = render(thin, through)
    depth = (found.depth / found.opacity.clamp(min=1e-6)).reshape(camera.height, camera.width)
    seen = depth[found.opacity.reshape(depth.shape) > 0.5]
    if not len(seen):
        return 0.0, 1.0, 0.5
    height, width = depth.shape
    middle = depth[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
    low, high = np.percentile(seen.numpy(), [1, 99]).tolist()
    return low, high, float(middle.median())


def _shades() -> list[list[float]]:
    """RGB colors in [0, 1] for evenly spaced depths from near to far: those of the color map of depth videos."""
    import matplotlib

    return matplotlib.colormaps["inferno"](np.linspace(1, 0, _SHADES))[:, :3].round(4).tolist()


def _colors(picture: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    if quality == 100 or not features.check("avif"):
        return _webp(picture, quality)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "AVIF", quality=max(1, quality - 5), subsampling="4:4:4", speed=8)
    return stream.getvalue()


def _webp(picture: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    stream = io.BytesIO()
    if quality == 100:
        Image.fromarray(picture).save(stream, "WEBP", lossless=True, quality=50, method=4)
    else:
        Image.fromarray(picture).save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()


def _pixels(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(io.BytesIO(data), formats=["WEBP", "AVIF"]) as found:
        return np.array(found.convert("RGB"))
