"""Multiresolution hash encoding by a compiled kernel, for float32 on CPUs; its readable twin is ``hashgrid.encode``."""

import ctypes
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from enerf.core import cpu_build
from enerf.fields.backends import hashgrid

SOURCE = Path(__file__).with_name("cpu_hashgrid.cpp")
FEATURES = (1, 2, 4, 8)  # the kernel is compiled for each of them
MOST_VALUES = 2**31  # of a level: places are 32-bit numbers
FINEST = 2**23  # cells a side that a float32 can count


def available() -> bool:
    """Whether the kernel is there; compiles it on the first call, which takes seconds."""
    return cpu_build.library(SOURCE) is not None


def encode(points: Float[Tensor, "n 3"], table: Float[Tensor, "e f"], grid: hashgrid.Grid) -> Float[Tensor, "n w"]:
    """What ``hashgrid.encode`` gives, up to rounding, and its first derivatives; faster where the kernel applies.

    It applies to float32 on a CPU with 1, 2, 4 or 8 features; everything else is handed to the twin. The gradient of
    the table repeats bit for bit, whatever the number of threads, which is torch's. A second derivative raises.
    """
    if not (_applies(points, table, grid) and available()):
        return hashgrid.encode(points, table, grid)
    return _Encode.apply(points.contiguous(), table.contiguous(), grid)


def _applies(points: Tensor, table: Tensor, grid: hashgrid.Grid) -> bool:
    """Whether the kernel can take these values without leaving its arrays."""
    return (
        all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (points, table))
        and grid.features in FEATURES
        and table.shape[1] == grid.features
        and table.shape[0] >= grid.offsets[-1]
        and all(1 <= resolution <= FINEST for resolution in grid.resolutions)
        and all(1 <= entries < MOST_VALUES // grid.features for entries in grid.entries)
    )


class _Encode(torch.autograd.Function):
    """The kernel as a differentiable function of contiguous points and table."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, grid: hashgrid.Grid) -> Tensor:
        ctx.save_for_backward(points, table)
        ctx.grid = grid
        out = points.new_empty(len(points), grid.width)
        _call("hashgrid_forward", points, [table], grid, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        points, table = ctx.saved_tensors
        grad, points_grad, table_grad = grad.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            points_grad = torch.empty_like(points)
            _call("hashgrid_backward_points", points, [table, grad], ctx.grid, points_grad)
        if ctx.needs_input_grad[1]:
            table_grad = torch.empty_like(table)  # the kernel zeroes what it owns, each level by its thread
            table_grad[ctx.grid.offsets[-1] :] = 0
            _call("hashgrid_backward_table", points, [grad], ctx.grid, table_grad)
        return points_grad, table_grad, None


def _call(name: str, points: Tensor, arrays: list[Tensor], grid: hashgrid.Grid, out: Tensor) -> None:
    """One function of the kernel; all have points first, then arrays, the grid, threads, and what they write."""
    count = len(grid.resolutions)
    numbers = ctypes.c_int32 * count
    getattr(cpu_build.library(SOURCE), name)(
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
