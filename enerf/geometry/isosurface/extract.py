"""A scalar field to a mesh of its level set: only where the surface can be, with the mesh of the dense lattice.

``lattice`` fixes the words. The way of an extraction: ``coarse`` samples all over the box, cells that can hold the
surface (``suspects``) halved until they are as small as asked for, kept in ``bricks``; the surface followed wherever
it leaves what was looked into; then ``cubes`` makes triangles of the mixed cells.

What is guaranteed
------------------
1. With a ``slope`` that the field's values never exceed (1 for a signed distance), every mixed cell is found: the mesh
   is that of the dense lattice, vertex for vertex, however thin a part is.
2. Always: what is found is whole. A surface is followed until it closes or leaves the box; it never ends, or gapes,
   at the border of what was looked into. So only parts that hang together with nothing else can be missed, and only
   those that no suspicious cell holds a piece of.
3. Without a slope a cell is suspicious if a field ``suspects.SAFETY`` times as steep inside as along its edges could
   reach the level in it, or if a neighbour of the first strides is. A loose part is sure to be found if a sample of
   the first stride lies in it, and missed if it is smaller and the field tells nothing of it a stride away.
4. ``check`` asks at every sample of a share of the lattice, or of all, and counts what was missed.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from enerf.core.types import ScalarField
from enerf.geometry.isosurface import coarse, cost, verify
from enerf.geometry.isosurface.bricks import Bricks
from enerf.geometry.isosurface.coarse import Coarse
from enerf.geometry.isosurface.cost import Plan
from enerf.geometry.isosurface.marching_cubes import Pieces
from enerf.geometry.isosurface.sample_grid import Asking, Inside, Lattice
from enerf.geometry.isosurface.verify import Check

MEMORY = 2 << 30


@dataclass(frozen=True)
class Surface:
    """A mesh, counter-clockwise faces seen from outside, and what it took.

    Attributes
    ----------
    vertices
        In the coordinates of the box.
    faces
        Three vertices each.
    evaluations
        Points that the field was asked at, the check not counted.
    seen
        The lowest and the highest value that the field had there.
    plan
        What was foretold.
    check
        What was missed, if that was asked for.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    evaluations: int
    seen: tuple[float, float]
    plan: Plan
    check: Check | None = None

    def mapped(self, onto: Callable[[np.ndarray], np.ndarray]) -> "Surface":
        """The surface with its vertices elsewhere; a map that mirrors turns the faces, so that they look outwards.

        ``onto`` takes and gives points ``n 3``.
        """
        faces = self.faces[:, ::-1].copy() if _mirrors(onto, self.vertices) else self.faces
        return replace(self, vertices=np.asarray(onto(self.vertices), dtype=np.float64), faces=faces)


def extract(
    field: ScalarField,
    box: Float[Tensor, "2 3"],
    resolution: int | tuple[int, int, int],
    level: float | int = 0.0,
    *,
    inside: Inside = "above",
    slope: float | int | None = None,
    closed: bool = False,
    coarsest: int = 64,
    exhaustive: bool = False,
    check: float | int = 0.0,
    points_at_once: int = 1 << 17,
    side: int = 8,
    memory: int = MEMORY,
    progress: bool = False,
    announce: Callable[[Plan], None] | None = None,
) -> Surface:
    """The mesh where a field equals a level.

    Parameters
    ----------
    field
        Points ``n 3``, with dtype and device of the box, to values ``n``. No gradients are taken.
    box
        Lowest and highest corner.
    resolution
        Cells along the longest side of the box, in cubes as far as the other sides allow; or along each.
    level, inside
        The surface is where the field equals the level; the shape is ``above`` it (occupancy logits, density) or
        ``below`` (signed distance).
    slope
        The most the field changes per unit length: 1 for a signed distance. None measures it as it goes.
    closed
        Close what the box cuts open, at the box's sides.
    coarsest
        Cells along the longest side, about, that are looked at first.
    exhaustive
        Ask at every sample.
    check
        The share of the lattice, 1 for all, whose every sample is asked for afterwards to see what was missed.
    points_at_once
        Most points in one call of the field.
    side
        Samples along a brick, a power of two; nothing but time and memory depends on it.
    memory
        Most bytes, beyond what the field needs.
    progress
        Show a bar with the time that is left.
    announce
        Is given the plan before the bulk of the work.

    Raises
    ------
    ValueError
        If an argument makes no sense, the field does not cross the level or is not finite, or memory will not do.
    """
    lattice = _lattice(box, resolution, closed, side)
    stride = 1 if exhaustive else coarse.first_stride(max(lattice.cells), coarsest)
    every = 0.5 if sys.stderr.isatty() else 30.0  # a log file is not flooded
    with tqdm(desc="extract", unit="point", unit_scale=True, mininterval=every, disable=not progress) as bar:
        asking = Asking(field, lattice, float(level), inside, points_at_once, bar)
        _refuse_if_too_large(lattice, stride, side, memory)
        seen, plan = _look(asking, stride, side, slope)
        if announce is not None:
            announce(plan)
        if plan.bytes > memory:
            raise ValueError(_too_much(plan.bytes, memory, lattice))
        bar.total = plan.evaluations
        bricks = Bricks(asking, seen, side)
        bricks.refine(slope)
        bricks.follow()
        bar.total = asking.evaluations
        vertices, faces = _triangles(bricks)
        evaluations, ranged = asking.evaluations, (asking.lowest, asking.highest)
    if not len(faces):
        raise ValueError(f"no crossing at level {level:g}; the field ranges over [{ranged[0]:g}, {ranged[1]:g}]")
    asking.bar = None
    checked = verify.check(bricks, check) if check else None
    return Surface(vertices, faces, evaluations, ranged, plan, checked)


def plan(
    field: ScalarField,
    box: Float[Tensor, "2 3"],
    resolution: int | tuple[int, int, int],
    level: float | int = 0.0,
    *,
    inside: Inside = "above",
    slope: float | int | None = None,
    closed: bool = False,
    coarsest: int = 64,
    points_at_once: int = 1 << 17,
    side: int = 8,
) -> Plan:
    """What ``extract`` would take, by a look at the coarse samples; the arguments are its own.

    Raises
    ------
    ValueError
        As ``extract``, but for memory.
    """
    lattice = _lattice(box, resolution, closed, side)
    asking = Asking(field, lattice, float(level), inside, points_at_once)
    return _look(asking, coarse.first_stride(max(lattice.cells), coarsest), side, slope)[1]


def cells_of(box: Float[Tensor, "2 3"], resolution: int) -> tuple[int, int, int]:
    """Cells along each axis: so many along the longest, of the others as many as make them nearest to cubes.

    >>> cells_of(torch.tensor([[0.0, 0.0, 0.0], [4.0, 2.0, 0.1]]), 16)
    (16, 8, 1)
    """
    low, high = box.double().cpu().numpy()
    x, y, z = np.maximum(1, np.rint(resolution * (high - low) / (high - low).max())).astype(int).tolist()
    return x, y, z


def _lattice(box: Float[Tensor, "2 3"], resolution: int | tuple[int, int, int], closed: bool, side: int) -> Lattice:
    """The lattice of what was asked for, or a sentence that says why there is none."""
    if not bool(torch.isfinite(box).all()) or not bool((box[0] < box[1]).all()):
        raise ValueError(f"box: found {box.tolist()}, expected a lowest and a highest corner, each finite")
    cells = resolution if isinstance(resolution, tuple) else (resolution,) * 3
    if min(cells) < 1:
        raise ValueError(f"resolution: found {resolution}, expected at least 1")
    if side < 1 or side & (side - 1):
        raise ValueError(f"side: found {side}, expected a power of two")
    return Lattice(box, cells if isinstance(resolution, tuple) else cells_of(box, resolution), closed)


def _refuse_if_too_large(lattice: Lattice, stride: int, side: int, memory: int) -> None:
    """Raise if the coarse samples alone are too many."""
    coarse_bytes = cost.COARSE * math.prod(count // min(stride, side) + 1 for count in lattice.counts)
    if coarse_bytes > memory:
        raise ValueError(_too_much(coarse_bytes, memory, lattice))


def _too_much(needed: int, memory: int, lattice: Lattice) -> str:
    size = "×".join(map(str, lattice.cells))
    return (
        f"{size} cells need about {needed / 2**30:.2g} GiB, more than the {memory / 2**30:.2g} GiB allowed: "
        "choose a lower resolution, a smaller box, or allow more memory"
    )


def _look(asking: Asking, stride: int, side: int, slope: float | int | None) -> tuple[Coarse, Plan]:
    """What is seen at first, and what is foretold from it."""
    began = time.perf_counter()
    seen = coarse.survey(asking, stride, side, slope)
    return seen, cost.foretell(asking, seen, side, time.perf_counter() - began)


def _triangles(bricks: Bricks) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of all mixed cells."""
    pieces = Pieces(bricks.asking.lattice)
    for numbers, values, within in bricks.each(bricks.crossed, np.flatnonzero(bricks.active)):
        pieces.add(values, bricks.place[numbers] * bricks.side, within)
    return pieces.welded()


def _mirrors(onto: Callable[[np.ndarray], np.ndarray], at: Float[np.ndarray, "n 3"]) -> bool:
    """Whether a map turns right hands into left ones, by its differences at up to 64 of some points."""
    if not len(at):
        return False
    at = at[:: -(-len(at) // 64)]
    step = 1e-4 * max(float(np.ptp(at, axis=0).max()), 1e-12)
    columns = [np.asarray(onto(at + step * e)) - np.asarray(onto(at - step * e)) for e in np.eye(3)]
    return bool(np.median(np.linalg.det(np.stack(columns, -1))) < 0)
