"""Batches of random pixels of the training views, with their rays and colors.

Rays are computed per batch, never stored for all pixels. The random numbers of a step depend only on (seed, step), so
that a resumed run continues with the same batches, and all methods of a comparison use the same ones.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from enerf.core import rng
from enerf.core.types import Camera, Rays
from enerf.datasets.scenes import rays
from enerf.datasets.scenes.scene import Scene


@dataclass(frozen=True)
class Pixels:
    """Pixel indices: view, column ``x`` and row ``y``."""

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
        The camera of the views.
    n
        Number of pixels.
    generator
        The only source of randomness.
    one_view
        Whether all pixels come from one view, itself drawn at random.
    crop
        Width and height of the central region to draw from, as a fraction of the image's, in (0, 1]; at least one
        pixel.
    """
    device = generator.device
    drawn = torch.randint(len(views), (1 if one_view else n,), generator=generator, device=device)

    def along(size: int) -> Tensor:
        span = max(1, int(size * crop))
        return (size - span) // 2 + torch.randint(span, (n,), generator=generator, device=device)

    return Pixels(views.to(device)[drawn.expand(n)], along(camera.width), along(camera.height))


def rays_of(scene: Scene, pixels: Pixels, pixel_centers: float | int) -> Rays:
    """Rays of pixels, on the scene's device; in NDC if the scene uses them."""
    batch = rays.through_pixels(
        scene.camera,
        scene.c2w[pixels.view],
        pixels.x,
        pixels.y,
        near=scene.near,
        far=scene.far,
        pixel_centers=pixel_centers,
    )
    return rays.to_ndc(batch, scene.camera) if scene.ndc else batch


def has_alpha(scene: Scene) -> bool:
    """Whether the photographs have an alpha channel."""
    return scene.images.shape[-1] == 4


def colors_of(scene: Scene, pixels: Pixels, background: Float[Tensor, "*b 3"] | None = None) -> Float[Tensor, "*b 3"]:
    """Colors in [0, 1] of pixels of the photographs, on the scene's device.

    Transparent pixels are composited over ``background``, by default that of the scene.
    """
    return _over(_floats(scene.images[pixels.view, pixels.y, pixels.x]), scene, background)


def view_image(scene: Scene, view: int) -> Float[Tensor, "h w 3"]:
    """Image of a view in [0, 1], on the scene's device; composited over the scene's background if it has alpha."""
    return _over(_floats(scene.images[view]), scene)


def _over(
    colors: Float[Tensor, "*b c"], scene: Scene, background: Float[Tensor, "*b 3"] | None = None
) -> Float[Tensor, "*b 3"]:
    """Colors with straight alpha over a background; colors without alpha are returned unchanged."""
    if colors.shape[-1] == 3:
        return colors
    alpha = colors[..., 3:]
    return colors[..., :3] * alpha + (scene.background if background is None else background) * (1 - alpha)


def _floats(colors: Float[Tensor, "*b c"] | UInt8[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    """Colors in [0, 1]: bytes / 255 in float32, identical on every device; floats are returned unchanged.

    The divisor is a tensor because CUDA multiplies by the rounded reciprocal of a Python number.
    """
    return colors / colors.new_full((), 255, dtype=torch.float32) if colors.dtype == torch.uint8 else colors


def fixed_pixels(view: int, camera: Camera, n: int, seed: int = 0) -> Pixels:
    """``n`` random pixels of a view without repetition, fixed by ``seed``, on the CPU.

    All pixels, in row-major order, if ``n`` is 0 or at least their number.
    """
    total = camera.width * camera.height
    chosen = torch.arange(total)
    if 0 < n < total:
        chosen = torch.randperm(total, generator=rng.generator_for(seed, view))[:n]
    return Pixels(torch.full_like(chosen, view), chosen % camera.width, chosen // camera.width)
