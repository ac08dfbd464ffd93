"""Batches of random pixels of the training views, with their rays and colors.

Rays are computed per batch, never stored for all pixels. The random numbers of a step depend only on (seed, step), so
that a resumed run continues with the same batches, and all methods of a comparison use the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from enerf.core import rng
from enerf.core.errors import InputError
from enerf.core.types import Rays
from enerf.datasets.scenes import rays, storage
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.sparse_depths import SparseDepths
from enerf.datasets.scenes.usable_pixels import Counts, UsablePixels, counted, segment_width

SHUFFLED = 1 << 22  # pixels of a view; of more, in large scenes, fixed ones are not taken from a permutation of all
LISTED = 1 << 29  # pixels of masked views of which a list is kept, 4 bytes each; of more, counts of segments of rows


@dataclass(frozen=True)
class Pixels:
    """Integer coordinates of pixels: index of the view, column ``x`` and row ``y``."""

    view: Int[Tensor, "*b"]
    x: Int[Tensor, "*b"]
    y: Int[Tensor, "*b"]


class PixelSampler:
    """Random pixels of some views, uniform over all of their pixels that masks do not exclude, with replacement.

    Parameters
    ----------
    scene
        Its images and masks.
    views
        Indices of the views to draw from.
    crop
        Width and height of the central region to draw from, as a fraction of the image's, in (0, 1]; at least one
        pixel.
    counts
        Of each view, as by ``counts_of``, if they are known.

    Raises
    ------
    InputError
        If masks and the crop exclude all pixels.
    """

    def __init__(
        self, scene: Scene, views: Sequence[int], crop: float | int = 1.0, counts: Sequence[Counts] | None = None
    ) -> None:
        sizes = [scene.size(view) for view in views]
        self._size = sizes[0] if scene.masks is None and len(set(sizes)) == 1 else None
        self._crop, device = crop, scene.c2w.device
        self._views = torch.tensor(views, device=device)
        if self._size is not None:
            return
        places = [[*_central(height, crop), *_central(width, crop)] for height, width in sizes]
        self._places = torch.tensor(places, device=device)
        self._usable: Tensor | None = None  # indices among a view's central pixels of all that are not masked
        self._segments: UsablePixels | None = None  # the same by counts, of many pixels
        is_whole = counts is None  # not a block of views
        self._counts = self._places[:, 1] * self._places[:, 3]
        if scene.masks is not None and (counts is not None or int(self._counts.sum()) > LISTED):
            if counts is None:
                segment = segment_width(sum(height * width for height, width in sizes))
                counts = [counts_of(scene.masks[view], segment, crop) for view in views]
            self._counts = torch.tensor([int(each.rows.sum()) for each in counts], device=device)
        elif scene.masks is not None:
            chosen = [_usable(scene, view, crop) for view in views]
            self._counts = torch.tensor([len(inside) for inside in chosen], device=device)
            self._usable = torch.cat(chosen).to(device)
        kept = self._counts > 0
        if not kept.any():
            part = "" if crop == 1 else f" in the central {crop:g} of their width and height"
            which = "training views" if is_whole else f"{len(views)} views of a block (--block_gb)"
            raise InputError(f"{scene.name}: masks exclude every pixel of the {which}{part}, expected some left")
        self._views, self._places, self._counts = self._views[kept], self._places[kept], self._counts[kept]
        if scene.masks is not None and counts is not None:
            some = [each for each in counts if each.rows.any()]
            self._segments = UsablePixels(scene.masks, self._views, self._places, some)
        self._ends = self._counts.cumsum(0)
        self._total = int(self._ends[-1])

    def draw(self, n: int, generator: torch.Generator, one_view: bool = False) -> Pixels:
        """``n`` pixels, which the generator decides alone, on its device.

        ``one_view``: all of them from one view, itself drawn at random.
        """
        if self._size is not None:
            return random_pixels(self._views, self._size, n, generator, one_view, self._crop)
        device, here = generator.device, self._views.device
        if one_view:
            row = torch.randint(len(self._views), (1,), generator=generator, device=device).to(here).expand(n)
            share = torch.rand(n, generator=generator, device=device, dtype=torch.float64).to(here)
            inside = (share * self._counts[row]).long()
        else:
            at = torch.randint(self._total, (n,), generator=generator, device=device).to(here)
            row = torch.searchsorted(self._ends, at, right=True)
            inside = at - (self._ends - self._counts)[row]
        if self._segments is not None:
            inside = self._segments.at(row, inside)
        elif self._usable is not None:
            inside = self._usable[(self._ends - self._counts)[row] + inside].long()
        top, _, left, wide = self._places[row].unbind(-1)
        drawn = (self._views[row], left + inside % wide, top + torch.div(inside, wide, rounding_mode="floor"))
        return Pixels(*(part.to(device) for part in drawn))


def random_pixels(
    views: Int[Tensor, " v"],
    size: tuple[int, int],
    n: int,
    generator: torch.Generator,
    one_view: bool,
    crop: float | int = 1.0,
) -> Pixels:
    """``n`` pixels drawn uniformly and with replacement from views of one size, (height, width), without masks.

    ``one_view`` and ``crop`` are those of ``PixelSampler``.
    """
    device = generator.device
    drawn = torch.randint(len(views), (1 if one_view else n,), generator=generator, device=device)

    def along(length: int) -> Tensor:
        start, span = _central(length, crop)
        return start + torch.randint(span, (n,), generator=generator, device=device)

    return Pixels(views.to(device)[drawn.expand(n)], along(size[1]), along(size[0]))


def _central(length: int, crop: float | int) -> tuple[int, int]:
    """Start and length of the central part of a side."""
    span = max(1, int(length * crop))
    return (length - span) // 2, span


def counts_of(mask: Bool[Tensor, "h w 1"], segment: int, crop: float | int = 1.0) -> Counts:
    """Numbers of pixels that a mask does not exclude, in segments of so many columns of its central region."""
    height, width = mask.shape[:2]
    return counted(mask, (*_central(height, crop), *_central(width, crop)), segment)


def _usable(scene: Scene, view: int, crop: float | int = 1.0) -> Int[Tensor, " k"]:
    """Indices among the pixels of a view's central region, row by row, of those that are not masked, on the CPU."""
    height, width = scene.size(view)
    (top, tall), (left, wide) = _central(height, crop), _central(width, crop)
    if scene.masks is None:
        return torch.arange(tall * wide, dtype=torch.int32)
    inside = scene.masks[view][top : top + tall, left : left + wide, 0].cpu()
    return inside.flatten().nonzero()[:, 0].int()


def rays_of(scene: Scene, pixels: Pixels, pixel_centers: float | int) -> Rays:
    """Rays of pixels, on the scene's device; in NDC if the scene uses them."""
    batch = rays.of_views(
        scene.cameras,
        pixels.view,
        scene.c2w[pixels.view],
        pixels.x,
        pixels.y,
        near=scene.near,
        far=scene.far,
        pixel_centers=pixel_centers,
    )
    return rays.to_ndc(batch, scene.camera) if scene.ndc else batch


def depth_rays(scene: Scene, depths: SparseDepths) -> tuple[Rays, Float[Tensor, " k"]]:
    """Scene-space rays through positions of known depth, and the t of these depths."""
    in_camera = scene.cameras.directions(depths.view, depths.xy[:, 0], depths.xy[:, 1], 0, scene.c2w.dtype)
    return rays.posed(in_camera, scene.c2w[depths.view], near=scene.near, far=scene.far), depths.depth


def colors_of(scene: Scene, pixels: Pixels, background: Float[Tensor, "*b 3"] | None = None) -> Float[Tensor, "*b 3"]:
    """Colors in [0, 1] of pixels of the photographs, on the scene's device.

    Transparent pixels are composited over ``background``, by default that of the scene.
    """
    stored = storage.gathered(scene.images, pixels.view, pixels.y, pixels.x, scene.c2w.device)
    return _over(_floats(stored), scene, background)


def view_image(scene: Scene, view: int) -> Float[Tensor, "h w 3"]:
    """Image of a view in [0, 1], on the scene's device; composited over the scene's background if it has alpha."""
    return _over(_floats(scene.images[view].to(scene.c2w.device)), scene)


def view_mask(scene: Scene, view: int) -> Bool[Tensor, "h w"] | None:
    """Which pixels of a view are used, on the scene's device; None: all."""
    return None if scene.masks is None else scene.masks[view][..., 0].to(scene.c2w.device)


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


def fixed_pixels(scene: Scene, view: int, n: int, seed: int = 0) -> Pixels:
    """``n`` random pixels of a view that masks do not exclude, without repetition, fixed by ``seed``, on the CPU.

    All of them, in row-major order, if ``n`` is 0 or at least their number.
    """
    height, width = scene.size(view)
    if scene.is_large and scene.masks is None and height * width > SHUFFLED and 0 < n < height * width // 8:
        drawn = torch.randint(height * width, (2 * n,), generator=rng.generator_for(seed, view)).tolist()
        chosen = torch.tensor(list(dict.fromkeys(drawn))[:n])  # the first n that differ, of twice as many
        return Pixels(torch.full_like(chosen, view), chosen % width, chosen // width)
    chosen = _usable(scene, view).long()
    if 0 < n < len(chosen):
        chosen = chosen[torch.randperm(len(chosen), generator=rng.generator_for(seed, view))[:n]]
    return Pixels(torch.full_like(chosen, view), chosen % width, chosen // width)
