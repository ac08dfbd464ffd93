"""Random pixels of the training views, their rays and colours: made for each step, from indices alone.

Nothing of the size of all rays is ever stored. The random numbers of a step depend on (seed, step) and nothing else, so
a resumed run sees the batches it would have seen, and two arms of a comparison see the same ones.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.scenes import rays
from enerf.types import Camera, Rays, Scene


@dataclass(frozen=True)
class Pixels:
    """Indices of pixels: which view, which column, which row."""

    view: Int[Tensor, "*b"]
    x: Int[Tensor, "*b"]
    y: Int[Tensor, "*b"]


def generator_for(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one step: a stream of its own for each (seed, step).

    >>> int(torch.randint(100, (1,), generator=generator_for(0, 3))) == int(
    ...     torch.randint(100, (1,), generator=generator_for(0, 3)))
    True
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return torch.Generator(device).manual_seed((mixed ^ (mixed >> 31)) & (2**63 - 1))


def random_pixels(
    views: Int[Tensor, "v"], camera: Camera, n: int, generator: torch.Generator, one_view: bool, crop: float = 1.0
) -> Pixels:
    """``n`` pixels drawn uniformly from the central ``crop`` of the views, with replacement; all of one view on request."""
    device = generator.device
    picked = torch.randint(len(views), (1 if one_view else n,), generator=generator, device=device).expand(n)

    def along(size: int) -> Tensor:
        span = max(1, int(size * crop))
        return (size - span) // 2 + torch.randint(span, (n,), generator=generator, device=device)

    return Pixels(views.to(device)[picked], along(camera.width), along(camera.height))


def rays_of(scene: Scene, pixels: Pixels, pixel_centers: float) -> Rays:
    """The rays of some pixels, in NDC if the scene lives there."""
    made = rays.through_pixels(
        scene.camera, scene.c2w[pixels.view], pixels.x, pixels.y, scene.near, scene.far, pixel_centers
    )
    return rays.to_ndc(made, scene.camera) if scene.ndc else made


def colours_of(scene: Scene, pixels: Pixels) -> Float[Tensor, "*b 3"]:
    """The photographed colours of some pixels."""
    return scene.images[pixels.view, pixels.y, pixels.x]


def fixed_pixels(view: int, camera: Camera, n: int, seed: int = 0) -> Pixels:
    """The same ``n`` pixels of a view at every call, without repeats; all of them, row-major, if ``n`` is 0 or too many."""
    total = camera.width * camera.height
    chosen = torch.arange(total)
    if 0 < n < total:
        chosen = torch.randperm(total, generator=generator_for(seed, view))[:n]
    return Pixels(torch.full_like(chosen, view), chosen % camera.width, chosen // camera.width)
