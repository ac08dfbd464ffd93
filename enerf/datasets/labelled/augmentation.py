"""Batches of images as they might also have been taken: shifted, flipped, cropped, mixed.

All random numbers come from the generator that is passed in, so a batch is the same whenever and wherever it is made.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from enerf.core.errors import InputError

AUGMENTS = ("none", "shift", "shift_flip", "crop")
TRIES = 10  # at a crop that fits, before the largest central one is taken
AREA = (0.08, 1.0)  # share of the picture that a random crop has
ASPECT = (3 / 4, 4 / 3)


def augmented(
    images: UInt8[Tensor, "b c h w"], augment: str, generator: torch.Generator | None
) -> UInt8[Tensor, "b c h w"]:
    """Images after an augmentation that keeps their size, one of ``none``, ``shift`` and ``shift_flip``.

    Raises
    ------
    InputError
        If it is ``crop``, which needs the files, or no augmentation at all.
    """
    if augment == "none":
        return images
    if augment == "crop":
        raise InputError(
            "--augment is crop, which needs image files at their own sizes: expected shift or shift_flip here, or "
            "--image_size for a folder of images"
        )
    if augment not in AUGMENTS:
        raise InputError(f"--augment is {augment}, expected one of {', '.join(AUGMENTS)}")
    if generator is None:
        raise ValueError(f"{augment} needs a generator of random numbers")
    return shift(images, generator) if augment == "shift" else shift_flip(images, generator)


def shift(images: UInt8[Tensor, "b c h w"], generator: torch.Generator, padding: int = 4) -> UInt8[Tensor, "b c h w"]:
    """Each image moved by up to ``padding`` pixels along either axis; black comes in from outside.

    The same as a crop at a random place of the image with a black frame around it.
    """
    places = torch.randint(2 * padding + 1, (2, len(images)), generator=generator, device=generator.device)
    rows, columns = places.to(images.device)
    framed = torch.nn.functional.pad(images, (padding,) * 4)
    crops = framed.unfold(2, images.shape[2], 1).unfold(3, images.shape[3], 1)  # a view: b c row column h w
    return crops[torch.arange(len(images), device=images.device), :, rows, columns]


def shift_flip(
    images: UInt8[Tensor, "b c h w"], generator: torch.Generator, padding: int = 4
) -> UInt8[Tensor, "b c h w"]:
    """Each image shifted, and in every other case turned left to right.

    He, Zhang, Ren, Sun, Deep residual learning for image recognition (2016), section 4.2.
    """
    moved = shift(images, generator, padding)
    flips = torch.randint(2, (len(images),), generator=generator, device=generator.device).to(images.device)
    return torch.where(flips.bool()[:, None, None, None], moved.flip(-1), moved)


def mixup(
    images: Float[Tensor, "b c h w"],
    labels: Int64[Tensor, " b"],
    classes: int,
    alpha: float | int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b {classes}"]]:
    """Each image mixed with another of the batch, λ x + (1 − λ) x′, and the weights of its classes, which sum to 1.

    λ is from Beta(α, α), one for the batch, as the authors' code has it; α = 0 mixes nothing. Zhang, Cisse, Dauphin,
    Lopez-Paz, mixup: Beyond empirical risk minimization (2018).

    Parameters
    ----------
    images, labels
        A batch, on any device.
    classes
        How many there are.
    alpha
        How much is mixed: 0.2 a little, 1 evenly.
    generator
        The only source of randomness.
    """
    weights = torch.nn.functional.one_hot(labels, classes).to(images.dtype)
    if alpha <= 0:
        return images, weights
    drawn = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    share = float(np.random.default_rng(int(drawn)).beta(alpha, alpha))
    others = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
    return torch.lerp(images[others], images, share), torch.lerp(weights[others], weights, share)


def crop_box(width: int, height: int, draws: Float64[np.ndarray, "t 3+1"]) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random part of a picture.

    Its share of the area is uniform in 0.08 … 1 and its aspect log-uniform in 3/4 … 4/3; the first of the tries that
    fits is taken, and else the largest central part with such an aspect. Szegedy et al., Going deeper with
    convolutions (2015), section 6.

    Parameters
    ----------
    width, height
        Of the picture, in pixels.
    draws
        A row for each try, uniform in [0, 1): area, aspect, place across, place down.

    >>> crop_box(100, 100, np.array([[1.0, 0.5, 0.0, 0.0]]))
    (0, 0, 100, 100)
    """
    low, high = (math.log(aspect) for aspect in ASPECT)
    for area, aspect, across, down in draws:
        pixels = width * height * (AREA[0] + (AREA[1] - AREA[0]) * area)
        ratio = math.exp(low + (high - low) * aspect)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(across * (width - w + 1)), int(down * (height - h + 1)), w, h
    w, h = min(width, round(height * ASPECT[1])), min(height, round(width / ASPECT[0]))
    return (width - w) // 2, (height - h) // 2, w, h
