"""Multiresolution hash encoding by a C++ kernel, float32 on CPUs; reference implementation: ``hashgrid.encode``."""

import ctypes
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core import cpu_build, spare
from enerf.core.first_order import first_order
from enerf.fields.backends import hashgrid

SOURCE = Path(__file__).with_name("cpu_hashgrid.cpp")
FEATURES = (1, 2, 4, 8)  # the kernel is compiled for each of them
MAX_VALUES = 2**31  # values of a level: the kernel has 32-bit offsets
MAX_RESOLUTION = 2**23  # cells a side that float32 can count


def available() -> bool:
    """Whether the kernel can be used; compiles it in the first call, which takes seconds."""
    return cpu_build.library(SOURCE) is not None


def encode(points: Float[Tensor, "n 3"], table: Float[Tensor, "e f"], grid: hashgrid.Grid) -> Float[Tensor, "n w"]:
    """Features of points, equal to those of ``hashgrid.encode`` up to rounding; once differentiable.

    The kernel supports float32 on a CPU with 1, 2, 4 or 8 features; for other arguments the reference implementation
    is called. It uses torch's number of threads; the gradient of the table is the same bit for bit for any number.

    Raises
    ------
    MemoryError
        If memory cannot be allocated.
    """
    if not (_applies(points, table, grid) and available()):
        return hashgrid.encode(points, table, grid)
    return _Encode.apply(points.contiguous(), table.contiguous(), grid)


def _applies(points: Tensor, table: Tensor, grid: hashgrid.Grid) -> bool:
    """Whether the kernel supports these arguments, without out-of-bounds accesses."""
    return (
        all(t.dtype == torch.float32 and t.device.type == "cpu" and t.dim() == 2 for t in (points, table))
        and points.shape[1] == 3
        and grid.features in FEATURES
        and len(grid.resolutions) == len(grid.entries) > 0
        and table.shape[1] == grid.features
        and table.shape[0] >= grid.offsets[-1]
        and all(1 <= resolution <= MAX_RESOLUTION for resolution in grid.resolutions)
        and all(1 <= entries < MAX_VALUES // grid.features for entries in grid.entries)
    )


class _Encode(torch.autograd.Function):
    """Autograd function of the kernel, for contiguous points and table."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, grid: hashgrid.Grid) -> Tensor:
        ctx.save_for_backward(points, table)
        ctx.grid = grid
        out = points.new_empty(len(points), grid.width)
        _call("hashgrid_forward", points, [table], grid, out)
        return out

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        points, table = ctx.saved_tensors
        grad, points_grad, table_grad = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            points_grad = torch.empty_like(points)
            _call("hashgrid_backward_points", points, [table, grad], ctx.grid, points_grad)
        if ctx.needs_input_grad[1]:
            table_grad = spare.empty_like(table)  # the kernel zeroes the rows of the levels
            table_grad[ctx.grid.offsets[-1] :] = 0
            _call("hashgrid_backward_table", points, [grad], ctx.grid, table_grad)
        return points_grad, table_grad, None


def _call(name: str, points: Tensor, arrays: list[Tensor], grid: hashgrid.Grid, out: Tensor) -> None:
    """Call a function of the kernel; arguments are points, arrays, the grid, number of threads, and the output."""
    count = len(grid.resolutions)
    numbers = ctypes.c_int32 * count
    status = getattr(cpu_build.library(SOURCE), name)(
        ctypes.c_void_p(points.data_ptr()),
        ctypes.c_int64(len(points)),
        *(ctypes.c_void_p(array.data_ptr()) for array in arrays),
        numbers(*grid.resolutions),
        numbers(*grid.entries),
        count,
        grid.features,
        torch.get_num_threads(),
        ctypes.c_void_p(out.data_ptr()),
    )
    cpu_build.check(status, "cpu_hashgrid")
