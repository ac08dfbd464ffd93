"""Evaluation points that are independent of training, with inside/outside labels: a grid, and a shell at the surface.

- The *grid* has ``grid``³ points, one in each cell of a regular division of the box. Points are offset from the cell
  centers by ``SHIFT`` cells, an irrational fraction that differs by axis, so that they coincide with no training or
  marching cubes lattice, and axis-aligned edges and plates do not contain or miss a whole layer of points.
- The *shell* is the set of points of the box whose distance to the surface, on either side, is below ``shell``. It is
  sampled uniformly by volume: points are drawn from octree cells of equal size that may intersect the shell, and
  rejected if their own distance is too large. Displacing surface points along their normals would not be uniform where
  the surface is curved or where two sheets are close to each other.
- *Inside* means that the winding number is above 1/2, as in ``enerf.geometry.solid``. Faces in the interior of a
  self-overlapping surface contribute to the shell, but do not change labels.

Points are rounded to float32 before they are labeled, so that labels belong to exactly the points that a field gets.
"""

import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from enerf.core import rng
from enerf.geometry import solid as geometry_solid
from enerf.geometry.solid import Solid

SHIFT = (math.sqrt(2) - 1.5, math.sqrt(3) - 1.5, math.sqrt(5) - 2.5)  # offset from the cell center, in cells
SIDE, VOLUME = 2.0, 8.0  # of the box
POINTS_PER_CALL = 1 << 18  # largest number of points in one call of a field
_MAX_CELLS = 1 << 20  # cells of the shell's octree above which it is not refined
_MAX_EMPTY_ROUNDS = 100  # rounds without an accepted point before the shell is considered empty
_OVERLAP_TOLERANCE = 1e-4  # fraction of the shell; a smaller overlap is attributed to rounding
_STREAMS = {"shell": 0, "thin": 1, "surface": 2, "other": 3}  # indices of random number streams


@dataclass(frozen=True)
class EvalSettings:
    """Numbers of evaluation points and their seed.

    Attributes
    ----------
    grid
        Number of grid points along each side of the box.
    shell
        Half-width of the shell, in units of the box.
    shell_points, surface_points
        Number of points sampled from the shell, and by area from each of two compared surfaces.
    thin
        A quick evaluation uses one random point in each block of ``thin``³ grid points, and as many points of the
        shell.
    thresholds
        Distance thresholds of F-scores, in percent of the side of the box.
    seed
        Seed of all sampled points.
    """

    grid: int = 128
    shell: float | int = 0.01
    shell_points: int = 100_000
    surface_points: int = 100_000
    thin: int = 4
    thresholds: tuple[float | int, ...] = (0.5, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        whole = (self.grid, self.shell_points, self.surface_points, self.thin)
        if min(whole) < 1 or not 0 < self.shell < SIDE or self.seed < 0 or min(self.thresholds, default=1) <= 0:
            raise ValueError(f"expected counts of at least 1, widths above 0 and a seed of at least 0, found {self}")

    def protocol(self, quick: bool = False) -> dict[str, Any]:
        """Return a description of the evaluation points, to be saved with the metrics."""
        step = f", one in each block of {self.thin}³" if quick else ""
        return {
            "grid": f"{self.grid}³ cells of [-1, 1]³, a point in each{step}",
            "grid_shift_of_a_cell": [round(share, 6) for share in SHIFT],
            "shell": self.shell,
            "shell_points": self.quick_points if quick else self.shell_points,
            "shell_density": "uniform by volume",
            "sign_f1": "mean of the F1 of inside and of outside",
            "volume": "share of the grid × 8",
            "seed": self.seed,
        }

    @property
    def quick_points(self) -> int:
        """Number of shell points of a quick evaluation."""
        return min(self.shell_points, math.ceil(self.grid / self.thin) ** 3)

    def generator(self, stream: str) -> torch.Generator:
        """Return a generator for one of the random number streams."""
        return rng.generator_for(self.seed, _STREAMS[stream])


@dataclass(frozen=True)
class LabeledPoints:
    """Points of the box with labels: whether they are inside."""

    points: Float32[Tensor, "n 3"]
    inside: Bool[Tensor, " n"]


class Reference:
    """Ground truth of a solid, computed once: labels of the grid and of the shell.

    Labels are kept in memory (2 MB for the grid, 1.3 MB for the shell with the default settings); coordinates of the
    grid are recomputed in chunks when they are needed.

    Attributes
    ----------
    solid, settings
        The solid, and where it is evaluated.
    grid_labels
        Whether each point of the grid is inside.
    near
        Labeled points of the shell.
    overlap
        Fraction of them that lies inside two parts or more.
    seconds
        Time that the computation took.
    """

    def __init__(self, solid: Solid, settings: EvalSettings | None = None) -> None:
        began = time.perf_counter()
        self.solid, self.settings = solid, settings or EvalSettings()
        self.grid_labels = torch.cat([solid.occupancy(part) for part in grid(self.settings.grid)])
        self.near = _shell(solid, self.settings)
        self.overlap = float((solid.winding(self.near.points) > 1.5).double().mean())
        self.seconds = time.perf_counter() - began

    @functools.cached_property
    def quick_index(self) -> Int64[Tensor, " n"]:
        """Indices of the grid points of a quick evaluation."""
        n, thin = self.settings.grid, self.settings.thin
        blocks = torch.cartesian_prod(*[torch.arange(0, n, thin)] * 3)
        within = torch.randint(thin, blocks.shape, generator=self.settings.generator("thin"))
        chosen = (blocks + within).clamp(max=n - 1)
        return (chosen[:, 0] * n + chosen[:, 1]) * n + chosen[:, 2]

    @property
    def volume(self) -> float:
        """Volume of the interior in units of the box, estimated on the grid."""
        return float(self.grid_labels.double().mean()) * VOLUME

    def describe(self) -> dict[str, Any]:
        """Return statistics of the mesh as a flat dictionary; names that end in ``_file`` are in the file's units."""
        about, normalization = self.solid.mesh.report, self.solid.mesh.normalization
        return {
            "name": self.solid.mesh.name,
            "watertight": about.watertight,
            "parts": about.parts,
            "open_parts": about.open_parts,
            "boundary_edges": about.boundary_edges,
            "euler_number": about.euler_number,
            "faces": about.faces,
            "inside": "generalized winding number above 1/2",
            "assumed": self._assumed(),
            "volume": self.volume,
            "volume_file": self.volume / normalization.scale**3,
            "volume_by_faces_file": about.volume,
            "area_file": about.area,
            "box_units_per_file_unit": normalization.scale,
            "reference_seconds": round(self.seconds, 3),
        }

    def _assumed(self) -> str | None:
        """Return a note where the definition of inside is ambiguous; None for a simple closed surface."""
        about = self.solid.mesh.report
        if not self.grid_labels.any():
            return "no point of the grid is inside, the shape is thinner than its cells: metrics of the grid are null"
        if about.open_parts:
            return f"{about.open_parts} of {about.parts} parts are open: each hole is treated as closed by a film"
        if self.overlap > _OVERLAP_TOLERANCE:
            return "parts overlap or intersect themselves: inside is the union of all parts"
        return None


def grid(n: int, chunk: int = POINTS_PER_CALL) -> Iterator[Float32[Tensor, "m 3"]]:
    """Yield the grid points in chunks, the last axis varying fastest.

    >>> next(grid(2))[0]
    tensor([-0.5858, -0.2679, -0.7639])
    """
    for start in range(0, n**3, chunk):
        yield grid_points(torch.arange(start, min(start + chunk, n**3)), n)


def grid_points(index: Int64[Tensor, " m"], n: int) -> Float32[Tensor, "m 3"]:
    """Return points of the n³ grid by their flat indices."""
    places = torch.stack([index // n**2, index // n % n, index % n], -1)
    return ((places + torch.tensor(SHIFT, dtype=torch.float64) + 0.5) * (SIDE / n) - 1).float()


def shell(solid: Solid, width: float | int, n: int, generator: torch.Generator) -> tuple[Float32[Tensor, "n 3"], float]:
    """Return points sampled uniformly within ``width`` of the surface, and an estimate of the volume of that shell.

    Raises
    ------
    ValueError
        If no part of the shell is in the box.
    """
    corners, side = _cells_within_reach(solid, width)
    found: list[Float32[Tensor, "m 3"]] = []
    drawn = kept = rounds = 0
    while kept < n and len(corners) and (kept or rounds < _MAX_EMPTY_ROUNDS):
        chosen = torch.randint(len(corners), (n,), generator=generator).numpy()
        places = corners[chosen] + side * torch.rand(n, 3, generator=generator, dtype=torch.float64).numpy()
        some = torch.from_numpy(places).float()
        found.append(some[torch.from_numpy(_distances(solid, some.double().numpy()) < width)])
        drawn, kept, rounds = drawn + n, kept + len(found[-1]), rounds + 1
    if kept < n:
        raise ValueError("the shell is empty: the surface is not near the box")
    return torch.cat(found)[:n], kept / drawn * len(corners) * side**3


def _cells_within_reach(solid: Solid, width: float | int) -> tuple[Float64[np.ndarray, "n 3"], float]:
    """Return the lower corners and the side of all cells that may contain points within ``width`` of the surface."""
    side = SIDE / 8
    corners = np.stack(np.meshgrid(*[np.arange(8) * side - 1] * 3, indexing="ij"), -1).reshape(-1, 3)
    halves = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3)
    while True:
        half_diagonal = side * math.sqrt(3) / 2
        corners = corners[_distances(solid, corners + side / 2) < width + half_diagonal]
        if half_diagonal <= 1.5 * width or len(corners) > _MAX_CELLS:
            return corners, side
        corners, side = (corners[:, None] + side * halves).reshape(-1, 3), side / 2


def _distances(solid: Solid, rows: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """Return unsigned distances; points are processed along a space-filling curve, for locality."""
    order, distances = geometry_solid.morton_order(rows), np.empty(len(rows))
    distances[order] = solid.nearest(np.ascontiguousarray(rows[order])).distances
    return distances


def _shell(solid: Solid, settings: EvalSettings) -> LabeledPoints:
    """Return the labeled shell."""
    some, _ = shell(solid, settings.shell, settings.shell_points, settings.generator("shell"))
    return LabeledPoints(some, solid.occupancy(some))
