"""Images as fields over the plane: pixels to points and colors, and a field rendered as an image.

- Coordinates: the image is centered in [−1, 1]², its longer side spans the square, pixels are square; x points right, y
  up. The point of a pixel is its center.
- Colors are the stored values in [0, 1]; gray images are expanded to three channels.
- Batches are drawn from the *training* pixels and never from the *held-out* ones. The split is random over the whole
  image and depends only on the held-out fraction and the seed, so PSNR of held-out pixels measures interpolation, not
  extrapolation.
"""

import logging
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from enerf.core import files, images
from enerf.core.errors import InputError

log = logging.getLogger("enerf")

ColorField = Callable[[Tensor], Tensor]  # points (n, 2) -> colors (n, 3)

POINTS_PER_CALL = 1 << 17  # largest number of points in one call of a field


@dataclass(frozen=True)
class Picture:
    """An image with a split of its pixels into training and held-out ones.

    Attributes
    ----------
    name, source
        The file's name without its suffix, and the file.
    colors
        Rows from top to bottom, in [0, 1].
    train_pixels, heldout_pixels
        Sorted flat (row-major) indices of the pixels; together they are all pixels.
    """

    name: str
    source: str
    colors: Float32[Tensor, "h w 3"]
    train_pixels: Int64[Tensor, " n"]
    heldout_pixels: Int64[Tensor, " m"]

    def points(self, index: Int64[Tensor, " k"]) -> Float32[Tensor, "k 2"]:
        """Return the centers of pixels by their flat indices."""
        height, width = self.colors.shape[:2]
        x, y = index % width + 0.5 - width / 2, height / 2 - 0.5 - index // width
        return (torch.stack([x, y], -1).double() * (2 / max(height, width))).float()

    def colors_at(self, index: Int64[Tensor, " k"]) -> Float32[Tensor, "k 3"]:
        """Return the colors of pixels by their flat indices."""
        return self.colors.reshape(-1, 3)[index]


def load(path: str | os.PathLike[str], holdout: float | int = 0.0, seed: int = 0, *, white: bool = True) -> Picture:
    """Load an image; a fraction ``holdout`` of its pixels is held out.

    Transparent images are composited over white, or over black if not ``white``, which is logged. Images of 8 and 16
    bits per channel are supported, those of 32 bits are not.

    Raises
    ------
    InputError
        If the file is missing, truncated or not an image, or no pixel would be left to train or to test on.
    """
    path = Path(path)
    with suppress(OSError):  # reported by the reader
        files.require_regular(path)
    pixels = images.read(path)
    if pixels.shape[-1] == 4:
        log.info("%s: transparent image was composited over %s", path, "white" if white else "black")
        alpha = pixels[..., 3:]
        pixels = pixels[..., :3] * alpha + (1 - alpha) * np.float32(white)
    return from_array(pixels, path.as_posix(), holdout, seed)


def from_array(pixels: Float[np.ndarray, "h w 3"], source: str, holdout: float | int = 0.0, seed: int = 0) -> Picture:
    """Make a picture from an array of colors in [0, 1].

    Raises
    ------
    InputError
        If ``holdout`` leaves no training pixel, or is above 0 and selects no pixel.
    """
    n = pixels.shape[0] * pixels.shape[1]
    n_heldout = round(holdout * n) if 0 <= holdout < 1 else -1
    if not 0 <= n_heldout < n or (holdout and not n_heldout):
        raise InputError(
            f"{source}: found --holdout {holdout:g} with {n} pixels, expected some training and some held-out pixels"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    colors = torch.from_numpy(np.array(pixels, dtype=np.float32))
    return Picture(Path(source).stem, source, colors, order[n_heldout:].sort().values, order[:n_heldout].sort().values)


def batch(
    picture: Picture, n: int, generator: torch.Generator
) -> tuple[Float32[Tensor, "n 2"], Float32[Tensor, "n 3"]]:
    """Return points and colors of ``n`` training pixels, drawn with replacement."""
    chosen = picture.train_pixels[torch.randint(len(picture.train_pixels), (n,), generator=generator)]
    return picture.points(chosen), picture.colors_at(chosen)


def fixed_batch(picture: Picture, n: int, seed: int) -> tuple[Float32[Tensor, "_ 2"], Float32[Tensor, "_ 3"]]:
    """Return points and colors of ``n`` different training pixels, or of all if there are fewer.

    Pixels are drawn from the whole image in an order given by ``seed``, and held-out ones are left out: splits of one
    image then have most of these pixels in common, and all if nothing is held out.
    """
    order = torch.randperm(picture.colors.shape[:2].numel(), generator=torch.Generator().manual_seed(seed))
    chosen = order[torch.isin(order, picture.train_pixels)][:n]
    return picture.points(chosen), picture.colors_at(chosen)


@torch.no_grad()
def render(field: ColorField, picture: Picture, chunk: int = POINTS_PER_CALL) -> Float32[Tensor, "h w 3"]:
    """Render a field as an image of the same size, without clipping.

    Raises
    ------
    ValueError
        If the field does not return three values per point.
    """
    parts = []
    for index in torch.arange(picture.colors.shape[0] * picture.colors.shape[1]).split(chunk):
        found = field(picture.points(index))
        if found.shape != (len(index), 3):
            raise ValueError(
                f"colors of {len(index)} points: found shape {tuple(found.shape)}, expected ({len(index)}, 3)"
            )
        parts.append(found.float().cpu())
    return torch.cat(parts).reshape(picture.colors.shape)


def measure(field: ColorField, picture: Picture, chunk: int = POINTS_PER_CALL) -> dict[str, Any]:
    """Return the PSNR of a field in dB on training pixels and on held-out ones (None if there are none), and sizes.

    Colors are clipped to [0, 1]. The squared error is averaged over pixels and channels; PSNR is infinite if it is 0.
    """
    found = render(field, picture, chunk)
    return {
        "psnr": _psnr(found, picture, picture.train_pixels),
        "psnr_heldout": _psnr(found, picture, picture.heldout_pixels) if len(picture.heldout_pixels) else None,
        "pixels_learned": len(picture.train_pixels),
        "pixels_heldout": len(picture.heldout_pixels),
        "width": picture.colors.shape[1],
        "height": picture.colors.shape[0],
    }


def _psnr(found: Float32[Tensor, "h w 3"], picture: Picture, index: Int64[Tensor, " k"]) -> float:
    """Return the PSNR in dB over some pixels."""
    error = found.reshape(-1, 3)[index].clamp(0, 1) - picture.colors_at(index)
    mean = float(error.square().mean(dtype=torch.float64))
    return math.inf if mean == 0 else -10 * math.log10(mean)
