"""Pictures in which smooth parts are interpolated: every second pixel of every second row is rendered first.

These pixels are the corners of square **cells**. Within a cell whose corners have nearly the same color, opacity and
depth, the pixels between them are means of their corners; all others are rendered. Fields with a proposal do not
evaluate it again there: the histogram of such a ray is the mean of those of its corners. ``benchmarks/render.py
--preset fast`` measures what both change.

The idea of refining where neighbors differ is that of adaptive sampling by Whitted, An improved illumination model for
shaded display (1980).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from enerf.core.types import Rays, Rendering
from enerf.rendering.render import Picture, in_chunks

# rays, and the weights of their proposals if these are known -> rendering, and these weights; None without a proposal
GuidedRender = Callable[[Rays, Float[Tensor, "n m"] | None], tuple[Rendering, Float[Tensor, "n m"] | None]]
Corners = Int[Tensor, "n 4"]


@torch.no_grad()
def picture(
    render: GuidedRender, rays: Rays, height: int, width: int, chunk: int, tolerance: float
) -> tuple[Picture, Bool[Tensor, " n"]]:
    """Render the rays of an image, given row by row; returns flat pixels, and which of them were rendered.

    Parameters
    ----------
    render
        Renders a batch of rays.
    rays
        All height · width rays; t is a depth, or proportional to one.
    height, width
        Size of the image, in pixels.
    chunk
        Rays at once, as for ``render.in_chunks``.
    tolerance
        Largest difference within a cell: of color channels and opacities, and of depths relative to the largest.
    """
    pixel = torch.arange(height * width, device=rays.origins.device).reshape(height, width)
    first = pixel[::2, ::2]
    rendered = torch.zeros(height * width, dtype=torch.bool, device=pixel.device)
    rendered[first] = True
    coarse, weights = _with_weights(render, rays[first.flatten()], chunk)
    corners = corners_of(height, width).to(pixel.device)
    result = _means(coarse, corners)
    missing = (~(rendered | uniform(coarse, height, width, tolerance))).nonzero()[:, 0]
    _put(result, first.flatten(), coarse)
    if len(missing):
        guided = _guided(render, weights, corners[missing])
        _put(result, missing, in_chunks(guided, rays[missing], chunk))
        rendered[missing] = True
    return result, rendered


def corners_of(height: int, width: int) -> Corners:
    """For each pixel the four pixels of the coarse image around it, with repetitions on its rows and columns.

    >>> corners_of(3, 3)[[0, 1, 4]].tolist()
    [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 2, 3]]
    """
    columns = (width + 1) // 2
    y, x = (_ends(size) for size in (height, width))
    return (y[:, None, :, None] * columns + x[None, :, None, :]).reshape(height * width, 4)


def _ends(size: int) -> Int[Tensor, "n 2"]:
    """For each position along one axis the coarse positions on both sides; equal at a coarse one and at the end."""
    at = torch.arange(size)
    return torch.stack([at // 2, ((at + 1) // 2).clamp(max=(size - 1) // 2)], -1)


def uniform(coarse: Picture, height: int, width: int, tolerance: float) -> Bool[Tensor, " n"]:
    """Which pixels are in a cell of nearly equal corners; those beyond the last corner of a row or column are not."""
    rows, columns = (height + 1) // 2, (width + 1) // 2
    values = torch.cat([coarse.rgb, coarse.opacity[:, None]], -1).reshape(rows, columns, 4)
    depth = coarse.depth.reshape(rows, columns, 1)
    low, high = _extremes(depth)
    smooth = (_spread(values).amax(-1) <= tolerance) & ((high - low)[..., 0] <= tolerance * high[..., 0].abs())
    wide = smooth.repeat_interleave(2, 0).repeat_interleave(2, 1)[:height, :width].clone()
    if height % 2 == 0:
        wide[-1] = False
    if width % 2 == 0:
        wide[:, -1] = False
    return wide.flatten()


def _spread(values: Float[Tensor, "h w c"]) -> Float[Tensor, "h w c"]:
    low, high = _extremes(values)
    return high - low


def _extremes(values: Float[Tensor, "h w c"]) -> tuple[Float[Tensor, "h w c"], Float[Tensor, "h w c"]]:
    """Least and largest value of each corner and of those below it and to its right."""
    both = []
    for best in (torch.minimum, torch.maximum):
        down = best(values, torch.cat([values[1:], values[-1:]]))
        both.append(best(down, torch.cat([down[:, 1:], down[:, -1:]], 1)))
    return both[0], both[1]


def _with_weights(render: GuidedRender, rays: Rays, chunk: int) -> tuple[Picture, Float[Tensor, "n m"] | None]:
    """Picture of rays, and the weights of their proposals."""
    parts: list[Float[Tensor, "n m"] | None] = []

    def one(part: Rays) -> Rendering:
        rendering, weights = render(part, None)
        parts.append(weights)
        return rendering

    found = in_chunks(one, rays, chunk)
    known = [part for part in parts if part is not None]
    return found, torch.cat(known) if known else None


def _guided(
    render: GuidedRender, weights: Float[Tensor, "c m"] | None, corners: Corners
) -> Callable[[Rays], Rendering]:
    """Renderer of rays in the order of their corners, with the mean weights of these; for ``in_chunks``."""
    done = 0

    def one(part: Rays) -> Rendering:
        nonlocal done
        around = corners[done : done + len(part)]
        rendering, _ = render(part, None if weights is None else weights[around].mean(1))
        done += len(part)
        return rendering

    return one


def _means(coarse: Picture, corners: Corners) -> Picture:
    """Pixels as means of their corners."""
    return Picture(*(getattr(coarse, name)[corners].mean(1) for name in ("rgb", "depth", "opacity")))


def _put(result: Picture, index: Int[Tensor, " k"], values: Picture) -> None:
    """Set pixels, in place."""
    for name in ("rgb", "depth", "opacity"):
        getattr(result, name)[index] = getattr(values, name)
