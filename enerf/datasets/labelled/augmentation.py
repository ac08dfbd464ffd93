"""Augmentation of image batches: shifts, flips, crops, mixup.

All random numbers come from the generator passed in, so batches are reproducible.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from enerf.core.errors import InputError

AUGMENTS = ("none", "shift", "shift_flip", "crop")
TRIES = 10  # random crops before falling back to the largest central one
AREA = (0.08, 1.0)  # area of a random crop, as a share of the image
ASPECT = (3 / 4, 4 / 3)


def augmented(
    images: UInt8[Tensor, "b c h w"], augment: str, generator: torch.Generator | None
) -> UInt8[Tensor, "b c h w"]:
    """Apply a size-preserving augmentation: ``none``, ``shift`` or ``shift_flip``.

    Raises
    ------
    InputError
        If it is ``crop``, which needs the image files, or unknown.
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
    """Shift each image by up to ``padding`` pixels along each axis, filled with black.

    Equivalent to zero-padding followed by a random crop of the original size.
    """
    places = torch.randint(2 * padding + 1, (2, len(images)), generator=generator, device=generator.device)
    rows, columns = places.to(images.device)
    framed = torch.nn.functional.pad(images, (padding,) * 4)
    crops = framed.unfold(2, images.shape[2], 1).unfold(3, images.shape[3], 1)  # a view: b c row column h w
    return crops[torch.arange(len(images), device=images.device), :, rows, columns]


def shift_flip(
    images: UInt8[Tensor, "b c h w"], generator: torch.Generator, padding: int = 4
) -> UInt8[Tensor, "b c h w"]:
    """Shift each image, and flip it horizontally with probability 1/2.

    Source: He, Zhang, Ren, Sun, Deep residual learning for image recognition (2016), section 4.2.
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
    """Mix each image with another of the batch, λ x + (1 − λ) x′; returns images and class weights that sum to 1.

    λ is drawn from Beta(α, α) once per batch, as in the authors' code; α = 0 mixes nothing. Source: Zhang, Cisse,
    Dauphin, Lopez-Paz, mixup: Beyond empirical risk minimization (2018).

    Parameters
    ----------
    images, labels
        A batch, on any device.
    classes
        Number of classes.
    alpha
        Strength of the mixing: 0.2 is weak, 1 is uniform.
    generator
        Source of randomness.
    """
    weights = torch.nn.functional.one_hot(labels, classes).to(images.dtype)
    if alpha <= 0:
        return images, weights
    drawn = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    share = float(np.random.default_rng(int(drawn)).beta(alpha, alpha))
    others = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
    return torch.lerp(images[others], images, share), torch.lerp(weights[others], weights, share)


def crop_box(width: int, height: int, draws: Float64[np.ndarray, "t 3+1"]) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random crop.

    Its share of the area is uniform in 0.08 … 1 and its aspect ratio log-uniform in 3/4 … 4/3; the first of the tries
    that fits is used, otherwise the largest central crop with such an aspect ratio. Source: Szegedy et al., Going
    deeper with convolutions (2015), section 6.

    Parameters
    ----------
    width, height
        Size of the image in pixels.
    draws
        One row per try, uniform in [0, 1): area, aspect ratio, horizontal position, vertical position.

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
