"""Sparse storage of the samples near the surface in bricks: refinement, surface tracking, reading.

Terms are defined in ``sample_grid``. A brick owns the samples [0, side)³ counted from its first one. Its cells also
need one more layer of samples, owned by the next bricks along each axis. So all seven of these neighbors of an
**active** brick (one whose cells are processed) are stored too, and each sample has exactly one owner.
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from enerf.geometry.isosurface import cell_bounds, cpu_bricks
from enerf.geometry.isosurface.coarse import CoarseGrid
from enerf.geometry.isosurface.marching_cubes import MeshBuilder
from enerf.geometry.isosurface.sample_grid import FieldSampler

CHUNK_SAMPLES = 1 << 20  # processed at once
BYTES = 6  # per sample in single precision: value, known, requested
GROWTH = 1.5  # capacity over the number of bricks when arrays are enlarged
MAX_THREADS = 4  # each has its own temporary arrays
OFFSETS = tuple(itertools.product((0, 1), repeat=3))
T = TypeVar("T")


class Bricks:
    """Storage of bricks, which are cubes of grid samples; the first axis of each array is the index of the brick.

    ``values`` are the field's values at the samples, ``known`` whether they have been evaluated, ``requested`` whether
    they are needed.
    ``coords`` are the bricks' integer positions in the grid of bricks, ``id_at`` the inverse map (−1: not stored), and
    ``active`` marks the bricks whose cells are processed. The arrays have spare capacity, so that most additions copy
    nothing; the operating system allocates memory only for what is written.

    Bricks of 8 samples a side are processed by the kernel ``cpu_bricks`` where it is available, unless ``reference``.
    """

    def __init__(self, sampler: FieldSampler, coarse: CoarseGrid, side: int, reference: bool = False) -> None:
        self.sampler, self.coarse, self.side = sampler, coarse, side
        self.compiled = not reference and cpu_bricks.applies(side)
        grid = tuple((n - 1) * coarse.stride // side + 1 for n in coarse.values.shape)
        self.id_at = np.full(grid, -1, dtype=np.int32)
        self.coords = np.zeros((0, 3), dtype=np.int64)
        self.values = np.zeros((0, side, side, side), dtype=sampler.dtype)
        self.known, self.requested = np.zeros(self.values.shape, bool), np.zeros(self.values.shape, bool)
        self.active = np.zeros(0, dtype=bool)
        self.surface_cells: np.ndarray | None = None  # of the present stride
        blocks = [n for g in grid for n in (g - 1, side // coarse.stride)]
        self.activate(np.argwhere(coarse.candidates.reshape(blocks).any((1, 3, 5))))

    def activate(self, coords: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, " m"]:
        """Make the bricks at ``coords`` active and store their neighbors; returns the ids of newly active bricks.

        Coordinates outside of the lattice are ignored.
        """
        end = -(-(np.array(self.sampler.lattice.counts) - 1) // self.side)
        coords = self._unique(coords[((coords >= 0) & (coords < end)).all(1)])
        self._store(np.concatenate([coords + offset for offset in OFFSETS]))
        ids = self.id_at[tuple(coords.T)].astype(np.int64)
        ids = ids[~self.active[ids]]
        self.active[ids] = True
        return ids

    def _store(self, coords: Int[np.ndarray, "n 3"]) -> None:
        """Store the bricks at ``coords`` that are not stored yet, initialized from the coarse samples."""
        new = self._unique(coords[self.id_at[tuple(coords.T)] < 0])
        if not len(new):
            return
        self.id_at[tuple(new.T)] = len(self.coords) + np.arange(len(new), dtype=np.int32)
        first, last = len(self.coords), len(self.coords) + len(new)
        self.coords = np.concatenate([self.coords, new])
        self.active = np.concatenate([self.active, np.zeros(len(new), dtype=bool)])
        if last > len(self.values):
            self.values, self.known, self.requested = (
                _enlarged(stored, first, last) for stored in (self.values, self.known, self.requested)
            )
        if self.compiled:
            cpu_bricks.fill(self, first)
        else:
            self._fill(slice(first, last))

    def _fill(self, stored: slice) -> None:
        """Initialize new bricks from the coarse samples, chunk by chunk."""
        per, stride = self.side // self.coarse.stride, self.coarse.stride
        for part in self.chunks(np.arange(stored.start, stored.stop)):
            new = self.coords[part]
            x, y, z = (
                np.minimum(new[:, k, None] * per + np.arange(per), self.coarse.values.shape[k] - 1) for k in range(3)
            )
            where = (x[:, :, None, None], y[:, None, :, None], z[:, None, None, :])
            values = self.coarse.values[where]
            for axis in (1, 2, 3):
                values = values.repeat(stride, axis)
            self.values[part] = values
            self.known[part[0] : part[-1] + 1, ::stride, ::stride, ::stride] = self.coarse.known[where]

    def _unique(self, coords: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, "m 3"]:
        """Unique coordinates of bricks in row-major order."""
        found = np.zeros(self.id_at.shape, dtype=bool)
        found[tuple(coords.T)] = True
        return np.argwhere(found)

    def at(self, index: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Values that the extraction assumes at any samples, known or not."""
        brick, sample = np.divmod(index, self.side)
        ids = self.id_at[tuple(brick.T)]
        values = self.coarse.values[tuple((index // self.coarse.stride).T)]
        stored = ids >= 0
        values[stored] = self.values[(ids[stored], *sample[stored].T)]
        return values

    def chunks(self, ids: Int[np.ndarray, " n"]) -> Iterator[Int[np.ndarray, " m"]]:
        """The ids in chunks that are processed at once."""
        size = max(1, CHUNK_SAMPLES // (self.side + 1) ** 3)
        for start in range(0, len(ids), size):
            yield ids[start : start + size]

    def process(self, work: Callable[[np.ndarray], T], ids: Int[np.ndarray, " n"]) -> Iterator[T]:
        """Apply ``work`` to chunks of ids and yield the results in order, on as many threads as torch uses.

        NumPy releases the GIL; ``work`` must not write to anything that other bricks read.
        """
        parts, threads = list(self.chunks(ids)), min(torch.get_num_threads(), MAX_THREADS)
        if threads == 1:
            yield from map(work, parts)
            return
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(parts), threads):  # bounds the memory of pending results
                yield from pool.map(work, parts[start : start + threads])

    def read(self, stored: np.ndarray, ids: Int[np.ndarray, " n"], stride: int = 1) -> np.ndarray:
        """One of the stored arrays at the samples of active bricks, including the shared layer."""
        m = self.side // stride
        out = np.empty((len(ids), m + 1, m + 1, m + 1), dtype=stored.dtype)
        for owner, there, here in self._shared(ids, stride):
            out[(slice(None), *here)] = stored[(slice(None), *there)][owner]
        return out

    def request(self, ids: Int[np.ndarray, " n"], samples: Bool[np.ndarray, "n x y z"], stride: int = 1) -> None:
        """Mark samples of active bricks, including the shared layer, for evaluation."""
        for owner, there, here in self._shared(ids, stride):
            view = self.requested[(slice(None), *there)]
            view[owner] |= samples[(slice(None), *here)]

    def _shared(
        self, ids: Int[np.ndarray, " n"], stride: int
    ) -> Iterator[tuple[np.ndarray, tuple[slice, ...], tuple[slice, ...]]]:
        """Eight parts of bricks with their shared layer: owners' ids, slices in the owner, slices in the brick."""
        m = self.side // stride
        for offset in OFFSETS:
            owner = self.id_at[tuple((self.coords[ids] + offset).T)]
            there = tuple(slice(0, 1) if o else slice(None, None, stride) for o in offset)
            here = tuple(slice(m, m + 1) if o else slice(0, m) for o in offset)
            yield owner, there, here

    def evaluate(self) -> Int[np.ndarray, " n"]:
        """Evaluate the field at requested samples that are not known; returns the ids of the bricks that own them."""
        if self.compiled:
            return cpu_bricks.evaluate(self)
        found = [np.zeros(0, dtype=np.int64)]
        for part in self.chunks(np.arange(len(self.coords))):
            some = slice(part[0], part[-1] + 1)
            found.append(np.flatnonzero(self.requested[some] & ~self.known[some]) + part[0] * self.side**3)
            self.requested[some] = False
        flat = np.concatenate(found)
        for start in range(0, len(flat), CHUNK_SAMPLES):
            part = flat[start : start + CHUNK_SAMPLES]
            self.values.ravel()[part] = self.sampler.values(self._index(part))
            self.known.ravel()[part] = True
        owner = np.zeros(len(self.coords), dtype=bool)
        owner[flat >> 3 * (self.side.bit_length() - 1)] = True
        return np.flatnonzero(owner)

    def _index(self, flat: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n 3"]:
        """Lattice indices of samples, given their positions in the flattened arrays."""
        bits = self.side.bit_length() - 1
        index = self.coords[flat >> 3 * bits] << bits
        for axis in range(3):
            index[:, axis] |= (flat >> (2 - axis) * bits) & (self.side - 1)
        return index

    def refine(self, slope: float | int | None) -> None:
        """Halve the stride in candidate cells until it is 1."""
        stride = self.coarse.stride
        first = True
        while stride > 1:
            if self.coarse.surface_cells is not None:
                shape = tuple(n * self.side // stride for n in self.id_at.shape)
                self.surface_cells = self.coarse.surface_cells.mask(self.sampler.lattice, stride, shape)
            self._request_candidates(stride, slope, first)
            self.evaluate()
            stride, first = stride // 2, False
            if stride > 1:
                self._spread_all(stride)

    def _request_candidates(self, stride: int, slope: float | int | None, first: bool) -> None:
        """Request the samples of half the stride in candidate cells of active bricks."""
        active = np.flatnonzero(self.active)
        if self.compiled:
            cpu_bricks.request_candidates(self, active, stride, slope, first)
            return
        for ids, samples in self.process(partial(self._to_evaluate, stride, slope, first), active):
            self.request(ids, samples, stride // 2)

    def _spread_all(self, stride: int) -> None:
        """Fill unknown samples of all bricks with the value at their index rounded down to the stride."""
        if self.compiled:
            cpu_bricks.spread(self, stride)
            return
        for _ in self.process(partial(self._spread, stride), np.arange(len(self.coords))):
            pass

    def _to_evaluate(
        self, stride: int, slope: float | int | None, first: bool, ids: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, "n x y z"]]:
        """The ids, and the samples of half the stride that their candidate cells consist of."""
        found = self._initial_candidates(ids) if first else self._candidates(ids, stride, slope)
        return ids, cell_bounds.halved(found)

    def _spread(self, stride: int, stored: Int[np.ndarray, " n"]) -> None:
        """Fill unknown samples with the value at their index rounded down to the stride."""
        self.values[stored] = cell_bounds.spread(self.values[stored], self.known[stored], stride)

    def _initial_candidates(self, ids: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "n u v w"]:
        """Return a mask of the cells in each brick that may contain the surface, from the coarse grid alone."""
        per = self.side // self.coarse.stride
        x, y, z = (self.coords[ids].T[..., None] * per + np.arange(per)).astype(np.int64)
        return self.coarse.candidates[x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]]

    def _candidates(
        self, ids: Int[np.ndarray, " n"], stride: int, slope: float | int | None
    ) -> Bool[np.ndarray, "n u v w"]:
        """Candidate cells of the given stride among those whose corners are known."""
        values, sides = self.read(self.values, ids, stride), self.sampler.lattice.spacing * stride
        valid = cell_bounds.of_corners(self.read(self.known, ids, stride), np.logical_and)
        valid &= self.within(ids, stride)
        if slope is None:
            measured = np.where(valid, cell_bounds.squared_slope(values, sides), 0)
            squared = cell_bounds.slope_bound(measured, cell_bounds.safety(stride))
        else:
            squared = np.full((1, 1, 1, 1), float(slope) ** 2, dtype=np.float32)
        found = cell_bounds.candidates(values, sides, squared)
        if self.surface_cells is not None:
            per = self.side // stride
            x, y, z = self.coords[ids].T[..., None] * per + np.arange(per)
            found |= self.surface_cells[x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]]
        return found & valid

    def within(self, ids: Int[np.ndarray, " n"], stride: int = 1) -> Bool[np.ndarray, "n u v w"]:
        """Whether cells of bricks lie within the lattice."""
        steps = np.arange(0, self.side, stride)
        x, y, z = (
            self.coords[ids, k, None] * self.side + steps < count - 1
            for k, count in enumerate(self.sampler.lattice.counts)
        )
        return x[:, :, None, None] & y[:, None, :, None] & z[:, None, None, :]

    def track_surface(self) -> None:
        """Evaluate further, across bricks, until every corner of a cell with a sign change is known."""
        frontier = np.flatnonzero(self.active)
        while len(frontier):
            activated = self.activate(self._track(frontier))
            frontier = np.union1d(activated, self._readers(self.evaluate()))

    def _track(self, ids: Int[np.ndarray, " n"]) -> Int[np.ndarray, "m 3"]:
        """Request unknown corners of cells with a sign change; returns the coordinates of bricks beyond."""
        if self.compiled:
            return cpu_bricks.track(self, ids)
        new: list[np.ndarray] = []
        for some, samples, beyond in self.process(self._incomplete, ids):
            self.request(some, samples)
            new.append(beyond)
        return np.concatenate(new)

    def triangles(self) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
        """Vertices and faces of all cells with a sign change."""
        active = np.flatnonzero(self.active)
        if self.compiled:
            return cpu_bricks.triangles(self, active)
        builder = MeshBuilder(self.sampler.lattice)
        for ids, values, within in self.process(self.crossing, active):
            builder.add(values, self.coords[ids] * self.side, within)
        return builder.welded()

    def _incomplete(
        self, ids: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " k"], Bool[np.ndarray, "k x y z"], Int[np.ndarray, "m 3"]]:
        """Bricks with sign changes at unknown corners, these corners, and coordinates of bricks the surface enters."""
        inside = self.read(self.values, ids) >= 0
        known = self.read(self.known, ids)
        open_ended = cell_bounds.sign_change(inside) & ~cell_bounds.of_corners(known, np.logical_and) & self.within(ids)
        some = open_ended.any((1, 2, 3))
        samples = cell_bounds.corners(open_ended[some]) & ~known[some]
        return ids[some], samples, self._across_faces(ids, inside)

    def crossing(
        self, ids: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "k x y z"], Bool[np.ndarray, "k u v w"]]:
        """The bricks that the surface crosses, their values, and which of their cells lie within the lattice."""
        values = self.read(self.values, ids)
        inside = values >= 0
        some = inside.any((1, 2, 3)) & ~inside.all((1, 2, 3))
        return ids[some], values[some], self.within(ids[some])

    def _across_faces(self, ids: Int[np.ndarray, " n"], inside: Bool[np.ndarray, "n x y z"]) -> Int[np.ndarray, "m 3"]:
        """Coordinates of the bricks beyond those faces that the surface crosses."""
        coords = []
        for axis, end in itertools.product(range(3), (0, -1)):
            face = inside.take(end, axis + 1)
            crossed = face.any((1, 2)) & ~face.all((1, 2))
            coords.append(self.coords[ids[crossed]] + np.eye(3, dtype=np.int64)[axis] * (1 if end else -1))
        return np.concatenate(coords)

    def _readers(self, owners: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
        """Ids of active bricks that read samples of these owners."""
        coords = np.concatenate([self.coords[owners] - offset for offset in OFFSETS])
        ids = self.id_at[tuple(coords[(coords >= 0).all(1)].T)]
        return np.unique(ids[(ids >= 0) & self.active[ids]]).astype(np.int64)


def _enlarged(stored: np.ndarray, count: int, needed: int) -> np.ndarray:
    """An array with capacity for ``needed`` bricks and more, starting with the first ``count`` ones; flags are false.

    ``np.empty`` gets large pages from the operating system, ``np.zeros`` does not.
    """
    larger = np.empty((int(GROWTH * needed) if count else needed, *stored.shape[1:]), dtype=stored.dtype)
    larger[:count] = stored[:count]
    if stored.dtype == bool:
        larger[count:] = False
    return larger
