"""Multiresolution hash encoding: features of grid corners, interpolated at points (the readable twin of its kernels).

Vocabulary
----------
- a **level** is a grid over the unit cube with ``resolution`` cells a side; its corners hold **features**;
- a level whose corners fit into its **entries** has one for each; a finer one finds them by a hash, and lives with the
  collisions;
- the **table** holds the entries of all levels, one level after the other.

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
    """The levels of a hash encoding: resolutions, entries a level, and features an entry."""

    resolutions: tuple[int, ...]
    entries: tuple[int, ...]
    features: int

    @property
    def width(self) -> int:
        """Values of an encoded point."""
        return len(self.resolutions) * self.features

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each level begins in the table; the last number is the length of the table."""
        return (0, *itertools.accumulate(self.entries))

    def is_hashed(self, level: int) -> bool:
        """Whether the level has fewer entries than corners."""
        return self.entries[level] < (self.resolutions[level] + 1) ** 3


class HashEncoding(nn.Module):
    """A trainable table and what reads it: points in the unit cube to features.

    Entries start uniformly in ±1e-4 (Müller et al., section 4). ``encode`` is the backend; the twin unless another is
    set.
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
    """Resolutions in a geometric series from ``coarsest`` to ``finest``; at most 2^``log2_entries`` entries a level.

    >>> make_grid(3, 2, 10, 4, 16).resolutions, make_grid(3, 2, 10, 4, 16).entries
    ((4, 8, 16), (125, 729, 1024))
    """
    growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
    resolutions = tuple(math.floor(coarsest * growth**level + 0.5) for level in range(levels))
    return Grid(resolutions, tuple(min((r + 1) ** 3, 1 << log2_entries) for r in resolutions), features)


def encode(points: Float[Tensor, "n 3"], table: Float[Tensor, "e f"], grid: Grid) -> Float[Tensor, "n w"]:
    """Features of points in the unit cube, level after level; points outside are taken at its nearest face.

    Trilinear within a cell, continuous across cells; differentiable in the table and, within a cell, in the points.
    """
    inside = points.clamp(0, 1)
    levels = [_level(inside, table, grid, level) for level in range(len(grid.resolutions))]
    return torch.cat(levels, -1)


def _level(points: Float[Tensor, "n 3"], table: Float[Tensor, "e f"], grid: Grid, level: int) -> Float[Tensor, "n f"]:
    """One level's features."""
    scaled = points * grid.resolutions[level]
    cell = scaled.detach().floor().clamp(max=grid.resolutions[level] - 1)
    fraction = scaled - cell
    total = torch.zeros_like(table[:1])
    for corner in itertools.product((0, 1), repeat=3):
        offset = torch.tensor(corner, device=points.device)
        share = torch.where(offset == 1, fraction, 1 - fraction).prod(-1)
        total = total + share[:, None] * table[entry(cell.long() + offset, grid, level)]
    return total


def entry(corner: Int[Tensor, "*b 3"], grid: Grid, level: int) -> Int[Tensor, "*b"]:
    """Which row of the table holds a corner: x first where all have a place, else the exclusive or of products.

    The hash is that of 32-bit arithmetic, modulo the entries.
    """
    start, side = grid.offsets[level], grid.resolutions[level] + 1
    x, y, z = corner.unbind(-1)
    if not grid.is_hashed(level):
        return start + x + side * (y + side * z)
    mixed = (x * PRIMES[0]) ^ (y * PRIMES[1] & 0xFFFFFFFF) ^ (z * PRIMES[2] & 0xFFFFFFFF)
    return start + mixed % grid.entries[level]
