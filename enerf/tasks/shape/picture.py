"""Pictures as fields of the plane: pixels to points and colours, and a field back to a picture.

Words of this file:

- The *square* is [−1, 1]². A picture lies in its middle, its longest side as long as the square's, its pixels square:
  x grows to the right, y upwards. A pixel's point is its centre.
- *Colours* are those the file stores, in [0, 1], grey ones three times over.
- *Learned* pixels are those that batches are drawn from; *held-out* ones are never drawn. Which they are is decided by
  share and seed alone, at random over the whole picture, so they lie between learned ones: PSNR there says how well
  the field fills in, not how it goes on beyond an edge.
"""

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from enerf.core import images
from enerf.core.errors import InputError

log = logging.getLogger("enerf")

Colours = Callable[[Tensor], Tensor]  # points (n, 2) -> colours (n, 3)

AT_ONCE = 1 << 17  # points asked together


@dataclass(frozen=True)
class Picture:
    """Colours of pixels, and which of them are learned.

    Attributes
    ----------
    name, source
        The file's name without its suffix, and the file.
    colours
        Row by row from the top, in [0, 1].
    learned, heldout
        Numbers of pixels, row by row, in growing order; together they are all.
    """

    name: str
    source: str
    colours: Float32[Tensor, "h w 3"]
    learned: Int64[Tensor, " n"]
    heldout: Int64[Tensor, " m"]

    def points(self, index: Int64[Tensor, " k"]) -> Float32[Tensor, "k 2"]:
        """Centres of pixels by their numbers."""
        height, width = self.colours.shape[:2]
        x, y = index % width + 0.5 - width / 2, height / 2 - 0.5 - index // width
        return (torch.stack([x, y], -1).double() * (2 / max(height, width))).float()

    def colours_of(self, index: Int64[Tensor, " k"]) -> Float32[Tensor, "k 3"]:
        """Colours of pixels by their numbers."""
        return self.colours.reshape(-1, 3)[index]


def load(path: str | os.PathLike[str], holdout: float | int = 0.0, seed: int = 0, *, white: bool = True) -> Picture:
    """Picture of a file; a share ``holdout`` of its pixels is kept from learning.

    Transparent pixels are laid over white, or else over black, and that is logged. Files of 8 and 16 bits are read in
    full; those of 32 bits have no agreed range.

    Raises
    ------
    InputError
        If the file is missing, truncated or not an image, or nothing would be left to learn or to test.
    """
    path = Path(path)
    pixels = images.read(path)
    if pixels.shape[-1] == 4:
        log.info("%s: has transparency and was laid over %s", path, "white" if white else "black")
        alpha = pixels[..., 3:]
        pixels = pixels[..., :3] * alpha + (1 - alpha) * np.float32(white)
    return from_array(pixels, path.as_posix(), holdout, seed)


def from_array(pixels: Float[np.ndarray, "h w 3"], source: str, holdout: float | int = 0.0, seed: int = 0) -> Picture:
    """Picture of colours in [0, 1].

    Raises
    ------
    InputError
        If the share of held-out pixels leaves nothing to learn, or is above 0 and holds no pixel.
    """
    n = pixels.shape[0] * pixels.shape[1]
    kept = round(holdout * n) if 0 <= holdout < 1 else -1
    if not 0 <= kept < n or (holdout and not kept):
        raise InputError(
            f"{source}: a share of {holdout:g} of its {n} pixels was to be held out, expected some of each"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    colours = torch.from_numpy(np.array(pixels, dtype=np.float32))
    return Picture(Path(source).stem, source, colours, order[kept:].sort().values, order[:kept].sort().values)


def batch(
    picture: Picture, n: int, generator: torch.Generator
) -> tuple[Float32[Tensor, "n 2"], Float32[Tensor, "n 3"]]:
    """Points and colours of ``n`` learned pixels, drawn with replacement.

    The same generator gives the same batch: one of (seed, step) makes each step's its own.
    """
    chosen = picture.learned[torch.randint(len(picture.learned), (n,), generator=generator)]
    return picture.points(chosen), picture.colours_of(chosen)


@torch.no_grad()
def rendered(field: Colours, picture: Picture, points_at_once: int = AT_ONCE) -> Float32[Tensor, "h w 3"]:
    """A field as a picture of the same size, its colours as it gives them.

    Raises
    ------
    ValueError
        If it gives something else than three numbers a point.
    """
    parts = []
    for index in torch.arange(picture.colours.shape[0] * picture.colours.shape[1]).split(points_at_once):
        found = field(picture.points(index))
        if found.shape != (len(index), 3):
            raise ValueError(f"colours of {len(index)} points were asked for, found shape {tuple(found.shape)}")
        parts.append(found.float().cpu())
    return torch.cat(parts).reshape(picture.colours.shape)


def measured(field: Colours, picture: Picture, points_at_once: int = AT_ONCE) -> dict[str, Any]:
    """PSNR of a field in dB, flat: of learned pixels and of held-out ones, None where there are none.

    Colours are clipped to [0, 1]; PSNR is of the mean over all pixels and channels, infinite where nothing differs.
    """
    found = rendered(field, picture, points_at_once)
    return {
        "psnr": _psnr(found, picture, picture.learned),
        "psnr_heldout": _psnr(found, picture, picture.heldout) if len(picture.heldout) else None,
        "pixels_learned": len(picture.learned),
        "pixels_heldout": len(picture.heldout),
        "width": picture.colours.shape[1],
        "height": picture.colours.shape[0],
    }


def _psnr(found: Float32[Tensor, "h w 3"], picture: Picture, index: Int64[Tensor, " k"]) -> float:
    """PSNR of some pixels."""
    error = found.reshape(-1, 3)[index].clamp(0, 1) - picture.colours_of(index)
    mean = float(error.square().mean(dtype=torch.float64))
    return math.inf if mean == 0 else -10 * math.log10(mean)
