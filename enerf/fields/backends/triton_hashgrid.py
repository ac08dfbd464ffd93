"""Multiresolution hash encoding on a GPU by Triton; reference implementation: ``hashgrid.encode``.

Each program computes one level for a block of points. The gradient of the table is summed by atomic additions in fp32,
so its last bits change from run to run, and additions to the few entries of a coarse level are serialized. The gradient
of the points is written for each level and summed by torch. It has not been timed on a GPU; it is expected to be bound
by memory: eight scattered reads per level and point.
"""

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.first_order import first_order
from enerf.fields.backends.hashgrid import Grid
from enerf.fields.backends.triton_kernels import load, on, require, unavailable_reason

__all__ = ["encode", "unavailable_reason"]

BLOCK = 128  # points of a program


def encode(points: Float[Tensor, "n 3"], table: Float[Tensor, "e f"], grid: Grid) -> Float[Tensor, "n w"]:
    """Features of points in the unit cube (see ``hashgrid.encode``); once differentiable in table and points.

    Raises
    ------
    RuntimeError
        If Triton or a GPU is missing, with ``unavailable_reason``.
    TypeError
        If the points or the table are not fp32.
    ValueError
        If the shape of the points or of the table does not match the grid, or they are on different devices.
    """
    require(points.device)
    if points.dtype != torch.float32 or table.dtype != torch.float32:
        raise TypeError(f"points and table must be float32, not {points.dtype} and {table.dtype}")
    if tuple(table.shape) != (grid.offsets[-1], grid.features):
        raise ValueError(f"a table of {tuple(table.shape)} for a grid of {(grid.offsets[-1], grid.features)}")
    if points.shape[1:] != (3,) or points.device != table.device:
        raise ValueError(f"points of {tuple(points.shape)} on {points.device}; expected (n, 3) on {table.device}")
    if not len(grid.entries) == len(grid.resolutions) > 0:
        raise ValueError(f"a grid of {len(grid.resolutions)} resolutions and {len(grid.entries)} numbers of entries")
    return _Encode.apply(grid, points, table)


class _Encode(torch.autograd.Function):
    """Autograd function; forward and backward launch the same kernel."""

    @staticmethod
    def forward(ctx: Any, grid: Grid, points: Tensor, table: Tensor) -> Tensor:
        points, table = points.contiguous(), table.contiguous()
        out = points.new_empty(len(points), grid.width)
        _launch(grid, points, table, out, out, out, out, backward=False, to_table=False, to_points=False)
        ctx.grid = grid
        ctx.save_for_backward(points, table)
        return out

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> Any:
        points, table = ctx.saved_tensors
        to_points, to_table = ctx.needs_input_grad[1:]
        grad = grad.to(torch.float32).contiguous()
        d_table = torch.zeros_like(table) if to_table else grad
        levels = len(ctx.grid.resolutions)
        d_points = points.new_empty(levels, *points.shape) if to_points else grad
        needs = {"backward": True, "to_table": to_table, "to_points": to_points}
        _launch(ctx.grid, points, table, grad, grad, d_table, d_points, **needs)
        return None, d_points.sum(0) if to_points else None, d_table if to_table else None


def _launch(
    grid: Grid,
    points: Tensor,
    table: Tensor,
    out: Tensor,
    grad: Tensor,
    grad_table: Tensor,
    grad_points: Tensor,
    backward: bool,
    to_table: bool,
    to_points: bool,
) -> None:
    """Launch the kernel ``features`` over all points and levels."""
    if not len(points):
        return
    count = len(grid.resolutions)
    padded = 1 << (grid.features - 1).bit_length()
    shape = (grid.width, grid.features, padded, BLOCK, backward, to_table, to_points)
    programs = (-(-len(points) // BLOCK), count)
    with on(points.device):
        tensors = (points, table, _levels(grid, points.device), out, grad, grad_table, grad_points)
        load("features")[programs](*tensors, len(points), *shape, num_warps=4, enable_fp_fusion=True)


@functools.lru_cache(maxsize=8)
def _levels(grid: Grid, device: torch.device) -> Tensor:
    """Resolution, number of entries, first row, and whether it is hashed, for each level."""
    count = range(len(grid.resolutions))
    rows = [(grid.resolutions[i], grid.entries[i], grid.offsets[i], int(grid.is_hashed(i))) for i in count]
    return torch.tensor(rows, dtype=torch.int32, device=device)
