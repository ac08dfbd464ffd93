"""Rendering of plane stacks by a C++ kernel, and its gradients; reference implementation: ``reference``.

Rays that are images, row by row, are processed in strips of rows for gradients (see ``cpu_planes.cpp``). The kernel
uses torch's number of threads; all results are the same bit for bit for any number. Without a compiler the reference
implementation is called.
"""

import ctypes
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from enerf.core import cpu_build
from enerf.core.types import Rays
from enerf.rendering.planes import reference
from enerf.rendering.planes.stack import PlaneStack, ray_lines
from enerf.rendering.render import Picture

SOURCE = Path(__file__).with_name("cpu_planes.cpp")
STRIP = 16  # rows of an image
CHUNK = 1 << 15  # rays that the reference implementation processes at a time
BETAS = (0.9, 0.99)  # of Adam
SOFT = 0.02  # difference of texels below which total variation is smooth


def available() -> bool:
    """Whether the kernel can be used; compiles it in the first call, which takes seconds."""
    return cpu_build.library(SOURCE) is not None


def render(stack: PlaneStack, rays: Rays) -> Picture:
    """Colors, depths and opacities of rays in scene space (n,), as of ``reference.render`` up to rounding.

    A ray ends where less than 1/2048 of its light is left.
    """
    n = len(rays)
    if not available():
        parts = [reference.render(stack, rays[i : i + CHUNK]) for i in range(0, n, CHUNK)]
        return Picture(*(torch.cat([getattr(part, name) for part in parts]) for name in ("rgb", "depth", "opacity")))
    picture = Picture(torch.empty(n, 3), torch.empty(n), torch.empty(n))
    outputs = [picture.rgb, picture.depth, picture.opacity]
    _call("planes_render", stack, stack.tiles.contiguous(), rays, outputs)
    return picture


def descend(
    stack: PlaneStack,
    tiles: Float[Tensor, "n 32 32 4"],
    rays: Rays,
    width: int,
    target: Float[Tensor, "b 3"],
    share: Float[Tensor, " b"],
    gradient: Float[Tensor, "n 32 32 4"],
) -> float:
    """Sum over rays of ``share`` · squared error of the rendering with textures ``tiles``; its gradient is added.

    ``width`` is the number of rays in a row of the image.
    """
    if not available():
        return _descend(stack, tiles, rays, target, share, gradient)
    strip = STRIP * width
    losses = torch.zeros(-(-len(rays) // strip), dtype=torch.float64)
    arrays = [target.float().contiguous(), share.float().contiguous(), gradient, losses]
    _call("planes_descend", stack, tiles, rays, arrays, strip)
    return float(losses.sum())


def splat(
    stack: PlaneStack, tiles: Float[Tensor, "n 32 32 4"], rays: Rays, width: int, largest: Float[Tensor, "n 32 32"]
) -> None:
    """Raise ``largest`` to the largest weight with which a ray reads each texel, as ``reference.splat`` does."""
    if available():
        _call("planes_splat", stack, tiles, rays, [largest], STRIP * width)
        return
    for i in range(0, len(rays), CHUNK):
        reference.splat(stack, tiles, rays[i : i + CHUNK], largest)


def adam(
    tiles: Float[Tensor, "n 32 32 4"],
    gradient: Float[Tensor, "n 32 32 4"],
    moments: tuple[Float[Tensor, "n 32 32 4"], Float[Tensor, "n 32 32 4"]],
    rate: float,
    step: int,
) -> None:
    """One step of Adam in place, number ``step`` from 1; values are clamped to [0, 1] and the gradient is zeroed."""
    mean, square = moments
    library = cpu_build.library(SOURCE)
    if library is not None:
        pointers = [ctypes.c_void_p(part.data_ptr()) for part in (tiles, gradient, mean, square)]
        numbers = [ctypes.c_double(x) for x in (rate, *BETAS)]
        count, threads = ctypes.c_int64(tiles.numel()), torch.get_num_threads()
        cpu_build.check(library.planes_adam(*pointers, count, threads, *numbers, ctypes.c_int64(step)), SOURCE.stem)
        return
    mean.lerp_(gradient, 1 - BETAS[0])
    square.lerp_(gradient.square(), 1 - BETAS[1])
    denominator = (square / (1 - BETAS[1] ** step)).sqrt_() + 1e-12
    tiles.addcdiv_(mean, denominator, value=-rate / (1 - BETAS[0] ** step)).clamp_(0, 1)
    gradient.zero_()


def regularize(
    tiles: Float[Tensor, "n 32 32 4"],
    gradient: Float[Tensor, "n 32 32 4"],
    color: float,
    alpha: float,
    sparsity: float,
) -> None:
    """Add the gradient of the smoothed total variation within tiles, of color and of alpha, and of the sum of alpha."""
    library = cpu_build.library(SOURCE)
    if library is not None:
        pointers = [ctypes.c_void_p(part.data_ptr()) for part in (tiles, gradient)]
        numbers = [ctypes.c_float(x) for x in (color, alpha, sparsity, SOFT)]
        count = ctypes.c_int64(len(tiles))
        cpu_build.check(library.planes_regularize(*pointers, count, torch.get_num_threads(), *numbers), SOURCE.stem)
        return
    strength = torch.tensor([color] * 3 + [alpha])
    for axis in (1, 2):
        difference = tiles.diff(dim=axis)
        pull = strength * difference / (difference.square() + SOFT**2).sqrt()
        length = tiles.shape[axis] - 1
        gradient.narrow(axis, 1, length).add_(pull)
        gradient.narrow(axis, 0, length).sub_(pull)
    gradient[..., 3] += sparsity


def join(values: Float[Tensor, "n 32 32 4"], pairs: tuple[Int64[Tensor, "k 2"], Int64[Tensor, "l 2"]]) -> None:
    """Give both copies of the texels that neighbors share the sum of their values, in place.

    ``pairs`` are the places of left and right, and of upper and lower neighbors, as of ``stack.neighbors``.
    """
    across, down = pairs
    library = cpu_build.library(SOURCE)
    if library is not None:
        places = torch.cat([across, down]).contiguous()
        counts = (ctypes.c_int64(len(across)), ctypes.c_int64(len(down)))
        pointers = (ctypes.c_void_p(values.data_ptr()), ctypes.c_void_p(places.data_ptr()))
        cpu_build.check(library.planes_join(*pointers, *counts), SOURCE.stem)
        return
    left, right = across.unbind(1)
    values[left, :, -1] = values[right, :, 0] = values[left, :, -1] + values[right, :, 0]
    above, below = down.unbind(1)
    values[above, -1] = values[below, 0] = values[above, -1] + values[below, 0]


def _descend(stack: PlaneStack, tiles: Tensor, rays: Rays, target: Tensor, share: Tensor, gradient: Tensor) -> float:
    """The same as ``descend`` by the reference implementation."""
    total = 0.0
    for i in range(0, len(rays), CHUNK):
        part = slice(i, i + CHUNK)
        leaf = tiles.detach().requires_grad_()
        with torch.enable_grad():
            line = ray_lines(stack, rays.origins[part], rays.directions[part])
            error = (reference.composite(stack, leaf, *line).rgb - target[part]).square().sum(1)
            loss = (error * share[part]).sum()
        (slope,) = torch.autograd.grad(loss, leaf)
        gradient += slope
        total += float(loss.detach())
    return total


def _call(
    name: str, stack: PlaneStack, tiles: Tensor, rays: Rays, arrays: list[Tensor], strip: int | None = None
) -> None:
    """Call a function of the kernel that takes a stack, rays and more arrays."""
    camera = stack.camera
    intrinsics = torch.tensor([camera.fx, camera.fy, camera.cx, camera.cy], dtype=torch.float64)
    d, rows, columns = stack.index.shape
    numbers = [
        stack.index.contiguous(),
        stack.disparity.contiguous(),
        stack.t_vals.double().contiguous(),
        torch.tensor([d, rows, columns], dtype=torch.int32),
        torch.cat([stack.c2w.double().flatten(), intrinsics]),
    ]
    geometry = [rays.origins.float().contiguous(), rays.directions.float().contiguous()]
    status = getattr(cpu_build.library(SOURCE), name)(
        ctypes.c_void_p(tiles.data_ptr()),
        *(ctypes.c_void_p(each.data_ptr()) for each in numbers),
        ctypes.c_float(stack.white),
        *(ctypes.c_void_p(each.data_ptr()) for each in geometry),
        ctypes.c_int64(len(rays)),
        torch.get_num_threads(),
        *([] if strip is None else [ctypes.c_int64(strip)]),
        *(ctypes.c_void_p(each.data_ptr()) for each in arrays),
    )
    cpu_build.check(status, SOURCE.stem)
