"""Photographs with an alpha channel: kept for compositing over a background, or flattened as nerf-pytorch does."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from enerf.core import files, images

log = logging.getLogger("enerf")
Stored = Float32[np.ndarray, "_ _ _"] | UInt8[np.ndarray, "_ _ _"]  # in [0, 1], or as bytes


def stacked(
    pictures: Iterable[Stored],
    shape: tuple[int, int, int],
    folder: Path,
    *,
    white: bool,
    keep_alpha: bool,
) -> UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n h w c"]:
    """Images in one array, as bytes if lossless, else as floats in [0, 1].

    Parameters
    ----------
    pictures
        The images, with 3 or 4 channels; ``parallel.in_order`` holds a few of them at a time.
    shape
        Number of images, their height and width.
    folder
        Where they come from, for messages.
    white
        Without ``keep_alpha``: composite over white. Otherwise the colors stored in transparent pixels are taken, with
        a warning.
    keep_alpha
        Whether the array has an alpha channel if some pixel is transparent. It has three channels if none is.

    Raises
    ------
    InputError
        If they do not fit in memory; errors of reading pass through.
    """
    n, height, width = shape
    files.require_memory(n * height * width * 3, f"{folder}: {n} images of {width}x{height} pixels")
    return images.stack(flattened(pictures, folder, white=white, keep_alpha=keep_alpha), (n, height, width, 3))


def packed(
    pictures: Iterable[Stored], pixels: int, folder: Path, *, white: bool, keep_alpha: bool
) -> UInt8[np.ndarray, "p c"] | Float32[np.ndarray, "p c"]:
    """Pixels of images of several sizes, ``pixels`` in all, image after image; otherwise as ``stacked``."""
    files.require_memory(pixels * 3, f"{folder}: images of {pixels} pixels in all")
    return images.pack(flattened(pictures, folder, white=white, keep_alpha=keep_alpha), pixels)


def flattened(pictures: Iterable[Stored], folder: Path, *, white: bool, keep_alpha: bool) -> Iterator[Stored]:
    """Images without alpha, or with it if some pixel is transparent and ``keep_alpha``; logs what is learned."""
    transparent = count = 0
    for picture in pictures:
        transparent, count = transparent + images.has_transparency(picture), count + 1
        yield flat(picture, white=white, keep_alpha=keep_alpha)
    if transparent and not keep_alpha and not white:
        log.warning(
            "%s: %d of %d images have transparent pixels, whose stored colors are learned (--background_color stored)",
            *(folder, transparent, count),
        )


def flat(picture: Stored, *, white: bool, keep_alpha: bool) -> Stored:
    """An image without alpha, or with it if some pixel is transparent and ``keep_alpha``."""
    if keep_alpha:
        return picture if images.has_transparency(picture) else picture[..., :3]
    if white and picture.shape[-1] == 4:
        return np.asarray(images.composite(images.to_floats(picture), white))
    return picture[..., :3]
