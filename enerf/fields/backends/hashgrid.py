"""Multiresolution hash encoding: features of grid corners, interpolated at points; reference implementation.

Vocabulary
----------
- a **level** is a grid over the unit cube with ``resolution`` cells a side, and **features** at its corners;
- a level with at most as many corners as **entries** has one entry for each corner; in a finer one the entry of a
  corner is given by a hash, and hash collisions are not resolved;
- the **table** contains the entries of all levels, one level after the other.

Source: Müller, Evans, Schied, Keller, Instant Neural Graphics Primitives, SIGGRAPH 2022, section 3.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

PRIMES = (1, 2654435761, 805459861)  # the paper's, equation 4


@dataclass(frozen=True)
class Grid:
    """The levels of a hash encoding: resolution and number of entries of each, and features per entry."""

    resolutions: tuple[int, ...]
    entries: tuple[int, ...]
    features: int

    @property
    def width(self) -> int:
        """Number of features of a point."""
        return len(self.resolutions) * self.features

    @property
    def offsets(self) -> tuple[int, ...]:
        """First row of each level in the table; the last number is the length of the table."""
        return (0, *itertools.accumulate(self.entries))

    def is_hashed(self, level: int) -> bool:
        """Whether the level has fewer entries than corners."""
        return self.entries[level] < (self.resolutions[level] + 1) ** 3


class HashEncoding(nn.Module):
    """Hash encoding with a trainable table: points in the unit cube to features.

    Entries are initialized uniformly in ±1e-4 (Müller et al., section 4). ``encode`` is the backend; by default the
    reference implementation.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(grid.offsets[-1], grid.features).uniform_(-1e-4, 1e-4))
        self.encode: Callable[[Tensor, Tensor, Grid], Tensor] = encode

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n w"]:
        """Features of points."""
        return self.encode(points, self.table, self.grid)


def make_grid(levels: int, features: int, log2_entries: int, coarsest: int, finest: int) -> Grid:
    """A grid with resolutions in geometric progression from ``coarsest`` to ``finest``.

    Each level has at most 2^``log2_entries`` entries.

    >>> make_grid(3, 2, 10, 4, 16).resolutions, make_grid(3, 2, 10, 4, 16).entries
    ((4, 8, 16), (125, 729, 1024))
    """
    growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
    resolutions = tuple(math.floor(coarsest * growth**level + 0.5) for level in range(levels))
    return Grid(resolutions, tuple(min((r + 1) ** 3, 1 << log2_entries) for r in resolutions), features)


def encode(points: Float[Tensor, "n 3"], table: Float[Tensor, "e f"], grid: Grid) -> Float[Tensor, "n w"]:
    """Features of points in the unit cube, concatenated over levels; points outside are clamped to the cube.

    Trilinear within a cell, continuous across cells; differentiable with respect to the table and, within a cell, the
    points.
    """
    inside = points.clamp(0, 1)
    levels = [_level(inside, table, grid, level) for level in range(len(grid.resolutions))]
    return torch.cat(levels, -1)


def _level(points: Float[Tensor, "n 3"], table: Float[Tensor, "e f"], grid: Grid, level: int) -> Float[Tensor, "n f"]:
    """Features of one level."""
    scaled = points * grid.resolutions[level]
    cell = scaled.detach().floor().clamp(max=grid.resolutions[level] - 1)
    fraction = scaled - cell
    total = torch.zeros_like(table[:1])
    side = torch.arange(2, device=points.device)  # not a tensor of numbers, which no CUDA graph can record
    for offset in torch.cartesian_prod(side, side, side):
        share = torch.where(offset == 1, fraction, 1 - fraction).prod(-1)
        total = total + share[:, None] * table[entry(cell.long() + offset, grid, level)]
    return total


def entry(corner: Int[Tensor, "*b 3"], grid: Grid, level: int) -> Int[Tensor, "*b"]:
    """Row of the table for a grid corner: its index in x-fastest order, or its hash where the level is hashed.

    The hash is the exclusive or of the coordinates times ``PRIMES``, in 32-bit arithmetic, modulo the entries.
    """
    start, side = grid.offsets[level], grid.resolutions[level] + 1
    x, y, z = corner.unbind(-1)
    if not grid.is_hashed(level):
        return start + x + side * (y + side * z)
    hashed = (x * PRIMES[0]) ^ (y * PRIMES[1] & 0xFFFFFFFF) ^ (z * PRIMES[2] & 0xFFFFFFFF)
    return start + hashed % grid.entries[level]
