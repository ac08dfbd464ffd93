"""Random pixels of the training views, their rays and colors: made for each step, from indices alone.

Nothing of the size of all rays is ever stored. The random numbers of a step depend on (seed, step) and
nothing else, so a resumed run sees the batches it would have seen, and two arms of a comparison see the same
ones.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from enerf.core import rng
from enerf.core.types import Camera, Rays, Scene
from enerf.datasets.scenes import rays


@dataclass(frozen=True)
class Pixels:
    """Indices of pixels: which view, which column, which row."""

    view: Int[Tensor, "*b"]
    x: Int[Tensor, "*b"]
    y: Int[Tensor, "*b"]


def random_pixels(
    views: Int[Tensor, " v"],
    camera: Camera,
    n: int,
    generator: torch.Generator,
    one_view: bool,
    crop: float | int = 1.0,
) -> Pixels:
    """``n`` pixels drawn uniformly and with replacement from the views, on the generator's device.

    Parameters
    ----------
    views
        Indices of the views to draw from.
    camera
        Its width and height are those of the views.
    n
        How many.
    generator
        The only source of randomness.
    one_view
        Whether all of them come from one view, itself drawn at random.
    crop
        Side of the central part to draw from, as a fraction of the picture's, in (0, 1]; at least one pixel.
    """
    device = generator.device
    drawn = torch.randint(len(views), (1 if one_view else n,), generator=generator, device=device)

    def along(size: int) -> Tensor:
        span = max(1, int(size * crop))
        return (size - span) // 2 + torch.randint(span, (n,), generator=generator, device=device)

    return Pixels(views.to(device)[drawn.expand(n)], along(camera.width), along(camera.height))


def rays_of(scene: Scene, pixels: Pixels, pixel_centers: float | int) -> Rays:
    """Rays of some pixels on the scene's device, in NDC if the scene lives there."""
    made = rays.through_pixels(
        scene.camera,
        scene.c2w[pixels.view],
        pixels.x,
        pixels.y,
        near=scene.near,
        far=scene.far,
        pixel_centers=pixel_centers,
    )
    return rays.to_ndc(made, scene.camera) if scene.ndc else made


def colors_of(scene: Scene, pixels: Pixels) -> Float[Tensor, "*b 3"]:
    """Photographed colors of some pixels, on the scene's device."""
    return _floats(scene.images[pixels.view, pixels.y, pixels.x])


def view_image(scene: Scene, view: int) -> Float[Tensor, "h w 3"]:
    """Photograph of a view, on the scene's device."""
    return _floats(scene.images[view])


def _floats(colors: Float[Tensor, "*b 3"] | UInt8[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Colors in [0, 1]: bytes / 255 in float32, the same values on every device; floats as they are.

    The divisor is a tensor because CUDA multiplies by the rounded inverse of a plain number.
    """
    return colors / colors.new_full((), 255, dtype=torch.float32) if colors.dtype == torch.uint8 else colors


def fixed_pixels(view: int, camera: Camera, n: int, seed: int = 0) -> Pixels:
    """``n`` pixels of a view without repeats, the same ones at every call, on the CPU.

    All of them, row-major, if ``n`` is 0 or as many as there are.
    """
    total = camera.width * camera.height
    chosen = torch.arange(total)
    if 0 < n < total:
        chosen = torch.randperm(total, generator=rng.generator_for(seed, view))[:n]
    return Pixels(torch.full_like(chosen, view), chosen % camera.width, chosen // camera.width)
