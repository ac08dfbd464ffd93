"""Work on bricks by a C++ kernel, on CPUs; reference implementation: the NumPy functions that ``Bricks`` calls.

Values, evaluated samples and meshes equal those of the reference implementation bit for bit. The field is evaluated by
torch, in chunks, on any device; the samples between are found, located and stored by the kernel.
"""

import ctypes
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from enerf.core import cpu_build
from enerf.geometry.isosurface import cell_bounds, marching_cubes

if TYPE_CHECKING:
    from enerf.geometry.isosurface.bricks import Bricks

SOURCE = Path(__file__).with_name("cpu_bricks.cpp")
SIDE = 8  # samples along a brick; others are processed by the reference implementation
Ids = Int[np.ndarray, " n"]


class _Store(ctypes.Structure):
    """The structure ``Store`` of the kernel."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("known", ctypes.c_void_p),
        ("requested", ctypes.c_void_p),
        ("coords", ctypes.c_void_p),
        ("id_at", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("grid", ctypes.c_int64 * 3),
        ("samples", ctypes.c_int64 * 3),
        ("along", ctypes.c_void_p * 3),
        ("wide", ctypes.c_int32),
        ("closed", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    )


class _Coarse(ctypes.Structure):
    """The structure ``Coarse`` of the kernel."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("known", ctypes.c_void_p),
        ("candidates", ctypes.c_void_p),
        ("shape", ctypes.c_int64 * 3),
        ("stride", ctypes.c_int32),
    )


class _Bounds(ctypes.Structure):
    """The structure ``Bounds`` of the kernel."""

    _fields_ = (
        ("limit", ctypes.c_double),
        ("sides", ctypes.c_double * 3),
        ("factor", ctypes.c_float),
        ("measured", ctypes.c_int32),
        ("surface_cells", ctypes.c_void_p),
        ("surface_shape", ctypes.c_int64 * 3),
    )


def available() -> bool:
    """Whether the kernel can be used; compiles it in the first call, which takes seconds."""
    return cpu_build.library(SOURCE) is not None


def applies(side: int) -> bool:
    """Whether bricks of a side are processed by the kernel."""
    return side == SIDE and available()


def fill(bricks: "Bricks", first: int) -> None:
    """Initialize the bricks from ``first`` on from the coarse samples."""
    grid = bricks.coarse
    values, known = np.ascontiguousarray(grid.values), np.ascontiguousarray(grid.known)
    coarse = _Coarse(_pointer(values), _pointer(known), None, (ctypes.c_int64 * 3)(*values.shape), grid.stride)
    _call("bricks_fill", bricks, ctypes.byref(coarse), ctypes.c_int64(first))


def request_candidates(bricks: "Bricks", ids: Ids, stride: int, slope: float | int | None, first: bool) -> None:
    """Request the samples of half the stride in the candidate cells of bricks; ``first``: those of the coarse grid."""
    sides, grid = bricks.sampler.lattice.spacing * stride, bricks.coarse
    known_cells, candidates = bricks.surface_cells, np.ascontiguousarray(grid.candidates)
    bounds = _Bounds(
        cell_bounds.limit(sides),
        (ctypes.c_double * 3)(*(4 * sides)),
        cell_bounds.safety(stride) ** 2 if slope is None else float(slope) ** 2,
        int(slope is None),
        None if known_cells is None else _pointer(known_cells),
        (ctypes.c_int64 * 3)(*(() if known_cells is None else known_cells.shape)),
    )
    coarse = _Coarse(None, None, _pointer(candidates), (ctypes.c_int64 * 3)(*grid.values.shape), grid.stride)
    given = ctypes.byref(coarse) if first else None
    _call("bricks_refine", bricks, ctypes.byref(bounds), given, _pointer(ids), ctypes.c_int64(len(ids)), stride)


def spread(bricks: "Bricks", stride: int) -> None:
    """Fill unknown samples with the value at their index rounded down to the stride."""
    _call("bricks_spread", bricks, stride)


def evaluate(bricks: "Bricks") -> Ids:
    """Evaluate the field at requested samples that are not known; returns the ids of the bricks that own them."""
    count, sampler = len(bricks.coords), bricks.sampler
    counts, owners, total = np.empty(count, dtype=np.int64), np.empty(count, dtype=bool), ctypes.c_int64()
    _call("bricks_count", bricks, _pointer(counts), _pointer(owners), ctypes.byref(total))
    flat = np.empty(total.value, dtype=np.int64)
    _call("bricks_list", bricks, _pointer(counts), _pointer(flat))
    parts = [flat[start : start + sampler.points_at_once] for start in range(0, len(flat), sampler.points_at_once)]
    for part, output in zip(parts, sampler.in_order(partial(_found, bricks), parts), strict=True):
        _store(bricks, part, output)
    return np.flatnonzero(owners)


def _points(bricks: "Bricks", flat: Ids) -> torch.Tensor:
    """Coordinates of samples, given by their positions in the flattened arrays."""
    points = torch.empty(len(flat), 3, dtype=torch.float64 if bricks.sampler.dtype == np.float64 else torch.float32)
    _call("bricks_points", bricks, _pointer(flat), ctypes.c_int64(len(flat)), ctypes.c_void_p(points.data_ptr()))
    return points


@torch.no_grad()
def _found(bricks: "Bricks", flat: Ids) -> torch.Tensor:
    """Values of the field at samples."""
    output = bricks.sampler.at(_points(bricks, flat)).cpu().contiguous()
    return output if output.dtype in (torch.float32, torch.float64) else output.double()


def _store(bricks: "Bricks", flat: Ids, output: torch.Tensor) -> None:
    """Store the values of the field at samples."""
    sampler, n = bricks.sampler, ctypes.c_int64(len(flat))
    low_high_finite = (ctypes.c_double * 3)()
    _call(
        *("bricks_store", bricks, _pointer(flat), n, ctypes.c_void_p(output.data_ptr())),
        *(int(output.dtype == torch.float64), ctypes.c_double(sampler.iso_value), int(sampler.inside == "below")),
        low_high_finite,
    )
    low, high, finite = low_high_finite
    if not finite:
        sampler.refuse(output.double().numpy(), _points(bricks, flat).double().numpy())
    sampler.record(low, high, len(flat))


def track(bricks: "Bricks", ids: Ids) -> Int[np.ndarray, "m 3"]:
    """Request unknown corners of cells with a sign change; returns coordinates of bricks that the surface enters."""
    crossed = np.empty(len(ids), dtype=np.uint8)
    _call("bricks_track", bricks, _pointer(ids), ctypes.c_int64(len(ids)), _pointer(crossed))
    beyond = [
        bricks.coords[ids[(crossed >> (2 * axis + end) & 1).astype(bool)]]
        + np.eye(3, dtype=np.int64)[axis] * (1 if end else -1)
        for axis in range(3)
        for end in range(2)
    ]
    return np.concatenate(beyond)


def triangles(bricks: "Bricks", ids: Ids) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "m 3"]]:
    """Vertices and faces of all cells of bricks with a sign change, welded."""
    counts, edges = (np.ascontiguousarray(x, dtype=np.int64) for x in marching_cubes.cases())
    mesh, sizes = ctypes.c_void_p(), (ctypes.c_int64 * 2)()
    n = ctypes.c_int64(len(ids))
    _call("bricks_mesh", bricks, _pointer(ids), n, _pointer(counts), _pointer(edges), ctypes.byref(mesh), sizes)
    vertices, faces = np.empty((sizes[0], 3)), np.empty((sizes[1], 3), dtype=np.int64)
    library = cpu_build.library(SOURCE)
    assert library is not None
    library.bricks_mesh_take(mesh, _pointer(vertices), _pointer(faces))
    return vertices, faces


def _call(name: str, bricks: "Bricks", *arguments: Any) -> None:
    """Call a function of the kernel on bricks."""
    lattice, along = bricks.sampler.lattice, bricks.sampler.lattice.along
    store = _Store(
        *(_pointer(x) for x in (bricks.values, bricks.known, bricks.requested, bricks.coords, bricks.id_at)),
        len(bricks.coords),
        (ctypes.c_int64 * 3)(*bricks.id_at.shape),
        (ctypes.c_int64 * 3)(*lattice.counts),
        (ctypes.c_void_p * 3)(*(x.ctypes.data for x in along)),
        int(bricks.sampler.dtype == np.float64),
        int(lattice.closed),
        torch.get_num_threads(),
    )
    status = getattr(cpu_build.library(SOURCE), name)(ctypes.byref(store), *arguments)
    cpu_build.check(status, "cpu_bricks")


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    """The address of a contiguous array."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
