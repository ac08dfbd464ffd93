"""Points that no training has seen and which of them a mesh holds: a grid all over the box, a shell at the surface.

Words of this file:

- The *grid* has ``grid``³ points, one in each cell of an even division of the box. They lie ``SHIFT`` of a cell off the
  cells' middles, an irrational share of it that differs by axis: so none is a sample of a lattice that someone trains
  or marches on, and an edge or a plate along an axis is not hit or missed by a whole layer.
- The *shell* is what lies nearer to the surface than ``shell``, on either side, within the box. Its points are drawn
  uniformly by volume: from cells that an octree keeps because they can reach into the shell, all of one size, and only
  those points stay whose own distance is below the width. No step prefers a place, as moving points of the surface
  along their normals would where it bends or where sheets lie close together.
- *Inside* is a winding number above 1/2, as in ``shapes.inside``: faces that lie within other parts of a surface that
  overlaps itself belong to the surface that the shell follows, and change no label.

Points are rounded to float32 before they are labelled: the label is that of the very point a field is asked about.
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

SHIFT = (math.sqrt(2) - 1.5, math.sqrt(3) - 1.5, math.sqrt(5) - 2.5)  # of a cell, off its middle
SIDE, VOLUME = 2.0, 8.0  # of the box
AT_ONCE = 1 << 18  # points asked together
_CELLS = 1 << 20  # of the shell's octree, beyond which it is not refined
_DRY = 100  # rounds without a point before a shell counts as empty
_FEW = 1e-4  # of the shell: less than this overlaps by rounding
_STREAMS = {"shell": 0, "thin": 1, "surface": 2, "other": 3}  # of random numbers


@dataclass(frozen=True)
class Settings:
    """What is asked where.

    Attributes
    ----------
    grid
        Points of the grid along each side of the box.
    shell
        How far from the surface the shell reaches, in the box.
    shell_points, surface_points
        How many points are drawn from the shell, and by area from each of two surfaces that are compared.
    thin
        A quick look asks one point, drawn at random, in each block of ``thin``³ of the grid, and as many of the shell's
        as it asks of the grid's.
    thresholds
        Distances of F-scores, in percent of the side of the box.
    seed
        Of all points that are drawn.
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
            raise ValueError(f"counts must be at least 1, widths above 0 and the seed 0 or more: {self}")

    def protocol(self, quick: bool = False) -> dict[str, Any]:
        """How a field is asked, in numbers and words that go beside its figures."""
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
        """How many points of the shell a quick look asks."""
        return min(self.shell_points, math.ceil(self.grid / self.thin) ** 3)

    def generator(self, stream: str) -> torch.Generator:
        """Random numbers of one use of the seed."""
        return rng.generator_for(self.seed, _STREAMS[stream])


@dataclass(frozen=True)
class Labelled:
    """Points of the box, and which of them are inside."""

    points: Float32[Tensor, "n 3"]
    inside: Bool[Tensor, " n"]


class Reference:
    """What is true of a solid, found once and asked as often as wanted: labels of the grid and of the shell.

    Labels are kept (2 MB of the grid, 1.3 MB of the shell at the default settings); the grid's places are made anew
    each time, by slices, for they cost next to nothing.

    Attributes
    ----------
    solid, settings
        Of which, and where.
    grid_labels
        Which points of the grid are inside.
    near
        The shell.
    overlap
        The share of it that lies in two parts or more.
    seconds
        What it took to find them.
    """

    def __init__(self, solid: Solid, settings: Settings | None = None) -> None:
        began = time.perf_counter()
        self.solid, self.settings = solid, settings or Settings()
        self.grid_labels = torch.cat([solid.occupancy(part) for part in grid(self.settings.grid)])
        self.near = _shell(solid, self.settings)
        self.overlap = float((solid.winding(self.near.points) > 1.5).double().mean())
        self.seconds = time.perf_counter() - began

    @functools.cached_property
    def quick_index(self) -> Int64[Tensor, " n"]:
        """Points of the grid that a quick look asks."""
        n, thin = self.settings.grid, self.settings.thin
        blocks = torch.cartesian_prod(*[torch.arange(0, n, thin)] * 3)
        within = torch.randint(thin, blocks.shape, generator=self.settings.generator("thin"))
        chosen = (blocks + within).clamp(max=n - 1)
        return (chosen[:, 0] * n + chosen[:, 1]) * n + chosen[:, 2]

    @property
    def volume(self) -> float:
        """Of what is inside, in the box, by the grid."""
        return float(self.grid_labels.double().mean()) * VOLUME

    def describe(self) -> dict[str, Any]:
        """What the mesh is and what was assumed about its inside, flat; ``_file`` is in the file's units."""
        about, normalization = self.solid.mesh.report, self.solid.mesh.normalization
        return {
            "name": self.solid.mesh.name,
            "watertight": about.watertight,
            "parts": about.parts,
            "open_parts": about.open_parts,
            "boundary_edges": about.boundary_edges,
            "euler_number": about.euler_number,
            "faces": about.faces,
            "inside": "generalised winding number above 1/2",
            "assumed": self._assumed(),
            "volume": self.volume,
            "volume_file": self.volume / normalization.scale**3,
            "volume_by_faces_file": about.volume,
            "area_file": about.area,
            "box_units_per_file_unit": normalization.scale,
            "reference_seconds": round(self.seconds, 3),
        }

    def _assumed(self) -> str | None:
        """A sentence where inside is not what every definition says; None for a plain closed surface."""
        about = self.solid.mesh.report
        if not self.grid_labels.any():
            return "no point of the grid is inside, the shape is thinner than its cells: figures of the grid are null"
        if about.open_parts:
            return f"{about.open_parts} of {about.parts} parts are open: a film is thought to be spanned over each hole"
        if self.overlap > _FEW:
            return "its parts overlap or cut through themselves: what any of them holds is inside, and counts once"
        return None


def grid(n: int, at_once: int = AT_ONCE) -> Iterator[Float32[Tensor, "m 3"]]:
    """The grid's points by parts, the last axis fastest.

    >>> next(grid(2))[0]
    tensor([-0.5858, -0.2679, -0.7639])
    """
    for start in range(0, n**3, at_once):
        yield grid_points(torch.arange(start, min(start + at_once, n**3)), n)


def grid_points(index: Int64[Tensor, " m"], n: int) -> Float32[Tensor, "m 3"]:
    """Points of a grid of n³ by their numbers."""
    places = torch.stack([index // n**2, index // n % n, index % n], -1)
    return ((places + torch.tensor(SHIFT, dtype=torch.float64) + 0.5) * (SIDE / n) - 1).float()


def shell(solid: Solid, width: float | int, n: int, generator: torch.Generator) -> tuple[Float32[Tensor, "n 3"], float]:
    """Points drawn uniformly from what is nearer to the surface than ``width``, and an estimate of its volume.

    Raises
    ------
    ValueError
        If there is nothing of it in the box.
    """
    corners, side = _cells_within_reach(solid, width)
    found: list[Float32[Tensor, "m 3"]] = []
    drawn = kept = rounds = 0
    while kept < n and len(corners) and (kept or rounds < _DRY):
        chosen = torch.randint(len(corners), (n,), generator=generator).numpy()
        places = corners[chosen] + side * torch.rand(n, 3, generator=generator, dtype=torch.float64).numpy()
        some = torch.from_numpy(places).float()
        found.append(some[torch.from_numpy(_distances(solid, some.double().numpy()) < width)])
        drawn, kept, rounds = drawn + n, kept + len(found[-1]), rounds + 1
    if kept < n:
        raise ValueError("the shell is empty: the surface does not come near the box")
    return torch.cat(found)[:n], kept / drawn * len(corners) * side**3


def _cells_within_reach(solid: Solid, width: float | int) -> tuple[Float64[np.ndarray, "n 3"], float]:
    """Least corners and side of the cells that can hold a point nearer to the surface than ``width``."""
    side = SIDE / 8
    corners = np.stack(np.meshgrid(*[np.arange(8) * side - 1] * 3, indexing="ij"), -1).reshape(-1, 3)
    halves = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3)
    while True:
        half_diagonal = side * math.sqrt(3) / 2
        corners = corners[_distances(solid, corners + side / 2) < width + half_diagonal]
        if half_diagonal <= 1.5 * width or len(corners) > _CELLS:
            return corners, side
        corners, side = (corners[:, None] + side * halves).reshape(-1, 3), side / 2


def _distances(solid: Solid, rows: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """Unsigned distances, asked in an order in which neighbours follow each other."""
    order, distances = geometry_solid.morton_order(rows), np.empty(len(rows))
    distances[order] = solid.nearest(np.ascontiguousarray(rows[order])).distances
    return distances


def _shell(solid: Solid, settings: Settings) -> Labelled:
    """The shell of the settings, labelled."""
    some, _ = shell(solid, settings.shell, settings.shell_points, settings.generator("shell"))
    return Labelled(some, solid.occupancy(some))
