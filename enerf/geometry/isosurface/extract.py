"""Extraction of an isosurface as a mesh: coarse-to-fine, with the same mesh as on the dense lattice.

Terms are defined in ``sample_grid``. Steps: ``coarse`` samples the whole box; candidate cells are halved down to the
resolution, stored in ``bricks``; the surface is tracked into neighboring cells; ``marching_cubes`` makes the triangles.

Guarantees
----------
1. With a ``slope`` that bounds the change of the field per unit length (1 for a signed distance), every cell with a
   sign change is found: the mesh equals that of the dense lattice, vertex for vertex, however thin a part is.
2. In any case, found surfaces are complete: they are tracked until they close or leave the box. So only whole connected
   components can be missed, and only those without a piece in any candidate cell.
3. Without a slope a cell is a candidate if a field ``cell_bounds.safety`` times as steep inside as along its edges
   could reach the iso value in it. A separate component is found for sure if it contains a sample of the first stride,
   and may be missed if it is smaller and does not affect those samples.
4. With ``surface_cells`` a part is also found if it contains a sample of one of these cells (of a stride that is at
   most half the size of these cells, or 1).
5. ``check`` evaluates every sample of a share of the lattice, or of all of it, and counts what was missed.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.core.progress import progress_bar
from enerf.core.types import ScalarField
from enerf.geometry.isosurface import coarse, cost, verify
from enerf.geometry.isosurface.bricks import Bricks
from enerf.geometry.isosurface.coarse import CoarseGrid
from enerf.geometry.isosurface.cost import Plan
from enerf.geometry.isosurface.sample_grid import FieldSampler, InOrder, Inside, Lattice
from enerf.geometry.isosurface.surface_cells import SurfaceCells
from enerf.geometry.isosurface.verify import Check

MEMORY = 2 << 30


class NotCrossedError(ValueError):
    """The field does not cross the iso value in the box."""


@dataclass(frozen=True)
class ExtractionSettings:
    """What to extract, how finely, and within which limits.

    Attributes
    ----------
    resolution
        Cells along the longest side of the box, as near to cubes as the other sides allow; or cells along each axis.
    iso_value, inside
        The surface is where the field equals ``iso_value``; the inside is ``above`` it (occupancy logits, density) or
        ``below`` it (signed distance).
    slope
        Upper bound of the change of the field per unit length: 1 for a signed distance. None: estimated from samples.
    closed
        Close the mesh along the sides of the box where they cut the shape.
    coarsest
        Approximate number of cells along the longest side in the coarse sampling.
    exhaustive
        Evaluate the field at every sample.
    check
        Share of the lattice, 1 for all, in which every sample is evaluated afterwards to count missed cells.
    points_at_once
        Largest number of points in one call of the field.
    side
        Samples along a brick, a power of two; affects time and memory only.
    memory
        Limit in bytes, beyond what the field needs.
    progress
        Show a progress bar.
    surface_cells
        Cells that are refined in any case: where the surface is known to be.
    in_order
        Function like ``map``, by which the field is evaluated at parts of ``points_at_once`` points: several processes
        share them, and each gets the results of all.
    reference
        Use the reference implementation in NumPy in the place of the compiled kernel, with the same result.
    """

    resolution: int | tuple[int, int, int]
    iso_value: float | int = 0.0
    inside: Inside = "above"
    slope: float | int | None = None
    closed: bool = False
    coarsest: int = 64
    exhaustive: bool = False
    check: float | int = 0.0
    points_at_once: int = 1 << 17
    side: int = 8
    memory: int = MEMORY
    progress: bool = False
    surface_cells: SurfaceCells | None = None
    reference: bool = False
    in_order: InOrder = map

    def first_stride(self, lattice: Lattice) -> int:
        """Stride of the coarse sampling."""
        return 1 if self.exhaustive else coarse.first_stride(max(lattice.cells), self.coarsest)


@dataclass(frozen=True)
class Surface:
    """An extracted mesh with faces counter-clockwise seen from outside, and statistics of the extraction.

    Attributes
    ----------
    vertices
        In the coordinates of the box.
    faces
        Three vertex indices each.
    evaluations
        Number of points at which the field was evaluated, without the check.
    value_range
        Lowest and highest value of the field at these points.
    plan
        The estimated cost.
    check
        Result of the check, if it was requested.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    evaluations: int
    value_range: tuple[float, float]
    plan: Plan
    check: Check | None = None

    def mapped(self, transform: Callable[[np.ndarray], np.ndarray]) -> "Surface":
        """The surface with transformed vertices; faces are flipped if the map is a reflection.

        ``transform`` maps points ``n 3`` to points ``n 3``.
        """
        faces = self.faces[:, ::-1].copy() if _mirrors(transform, self.vertices) else self.faces
        return replace(self, vertices=np.asarray(transform(self.vertices), dtype=np.float64), faces=faces)


def extract(
    field: ScalarField,
    box: Float[Tensor, "2 3"],
    settings: ExtractionSettings,
    *,
    announce: Callable[[Plan], None] | None = None,
) -> Surface:
    """Extract the mesh where a field equals an iso value.

    Parameters
    ----------
    field
        Points ``n 3``, in the dtype and on the device of the box, to values ``n``. Called without gradients.
    box
        Lowest and highest corner.
    settings
        Resolution, iso value and limits.
    announce
        Called with the estimated cost before the bulk of the work.

    Raises
    ------
    ValueError
        If a setting is invalid, the field does not cross the iso value (``NotCrossedError``) or is not finite, or the
        memory limit is too low.
    """
    lattice = _lattice(box, settings)
    stride = settings.first_stride(lattice)
    with progress_bar(None, "extract", "point", unit_scale=True, enabled=settings.progress) as bar:
        sampler = _sampler(field, lattice, settings)
        sampler.bar = bar
        _refuse_if_too_large(lattice, stride, settings)
        grid, plan = _sample_coarsely(sampler, stride, settings)
        if announce is not None:
            announce(plan)
        if plan.bytes > settings.memory:
            raise ValueError(_too_much(plan.bytes, settings.memory, lattice))
        bar.total = plan.evaluations
        bricks = Bricks(sampler, grid, settings.side, settings.reference)
        bricks.refine(settings.slope)
        bricks.track_surface()
        bar.total = sampler.evaluations
        vertices, faces = bricks.triangles()
        evaluations, value_range = sampler.evaluations, (sampler.lowest, sampler.highest)
    if not len(faces):
        raise NotCrossedError(
            f"the field does not cross the iso value {settings.iso_value:g}; it ranges over "
            f"[{value_range[0]:g}, {value_range[1]:g}], expected values on both sides"
        )
    sampler.bar = None
    checked = verify.check(bricks, settings.check) if settings.check else None
    return Surface(vertices, faces, evaluations, value_range, plan, checked)


def plan(field: ScalarField, box: Float[Tensor, "2 3"], settings: ExtractionSettings) -> Plan:
    """Estimate the cost of ``extract`` with the same arguments from the coarse samples.

    Raises
    ------
    ValueError
        As ``extract``; the memory limit is not checked.
    """
    lattice = _lattice(box, settings)
    return _sample_coarsely(_sampler(field, lattice, settings), settings.first_stride(lattice), settings)[1]


def cells_of(box: Float[Tensor, "2 3"], resolution: int) -> tuple[int, int, int]:
    """Cells along each axis: ``resolution`` along the longest, and as many along the others as make them near-cubes.

    >>> cells_of(torch.tensor([[0.0, 0.0, 0.0], [4.0, 2.0, 0.1]]), 16)
    (16, 8, 1)
    """
    low, high = box.double().cpu().numpy()
    x, y, z = np.maximum(1, np.rint(resolution * (high - low) / (high - low).max())).astype(int).tolist()
    return x, y, z


def _lattice(box: Float[Tensor, "2 3"], settings: ExtractionSettings) -> Lattice:
    """The lattice of the settings; raises ``ValueError`` if the box or a setting is invalid."""
    resolution, side = settings.resolution, settings.side
    if not bool(torch.isfinite(box).all()) or not bool((box[0] < box[1]).all()):
        raise ValueError(f"box: found {box.tolist()}, expected a lowest and a highest corner, each finite")
    cells = resolution if isinstance(resolution, tuple) else (resolution,) * 3
    if min(cells) < 1:
        raise ValueError(f"resolution: found {resolution}, expected at least 1")
    if side < 1 or side & (side - 1):
        raise ValueError(f"side: found {side}, expected a power of two")
    return Lattice(box, cells if isinstance(resolution, tuple) else cells_of(box, resolution), settings.closed)


def _sampler(field: ScalarField, lattice: Lattice, settings: ExtractionSettings) -> FieldSampler:
    """The sampler of a field on the lattice."""
    level, at_once = float(settings.iso_value), settings.points_at_once
    return FieldSampler(field, lattice, level, settings.inside, at_once, in_order=settings.in_order)


def _refuse_if_too_large(lattice: Lattice, stride: int, settings: ExtractionSettings) -> None:
    """Raise if the coarse samples alone exceed the memory limit."""
    coarse_bytes = cost.COARSE * math.prod(count // min(stride, settings.side) + 1 for count in lattice.counts)
    if coarse_bytes > settings.memory:
        raise ValueError(_too_much(coarse_bytes, settings.memory, lattice))


def _too_much(needed: int, memory: int, lattice: Lattice) -> str:
    size = "×".join(map(str, lattice.cells))
    return (
        f"{size} cells need about {needed / 2**30:.2g} GiB, more than the {memory / 2**30:.2g} GiB allowed: "
        "choose a lower resolution, a smaller box, or allow more memory"
    )


def _sample_coarsely(sampler: FieldSampler, stride: int, settings: ExtractionSettings) -> tuple[CoarseGrid, Plan]:
    """The coarse samples, and the cost estimated from them."""
    began = time.perf_counter()
    grid = coarse.sample(sampler, stride, settings.side, settings.slope, settings.surface_cells)
    seconds = time.perf_counter() - began
    return grid, cost.estimate(sampler, grid, settings.side, seconds, settings.slope is None)


def _mirrors(transform: Callable[[np.ndarray], np.ndarray], at: Float[np.ndarray, "n 3"]) -> bool:
    """Whether a map reverses orientation, by finite differences at up to 64 of some points."""
    if not len(at):
        return False
    at = at[:: -(-len(at) // 64)]
    step = 1e-4 * max(float(np.ptp(at, axis=0).max()), 1e-12)
    columns = [np.asarray(transform(at + step * e)) - np.asarray(transform(at - step * e)) for e in np.eye(3)]
    return bool(np.median(np.linalg.det(np.stack(columns, -1))) < 0)
