"""Samples near the surface, in bricks that share one layer with the next: halved, followed, read.

``lattice`` fixes the words. A brick owns the samples [0, side)³ counted from its first one. To see its own cells it
needs one more layer, which the bricks after it own; so an **active** brick, whose cells are looked at, has all seven
neighbours after it stored, and a value is stored, and asked for, in one place.
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from enerf.geometry.isosurface import cell_bounds
from enerf.geometry.isosurface.coarse import Coarse
from enerf.geometry.isosurface.sample_grid import Asking

AT_ONCE = 1 << 20  # samples that are worked on together
BYTES = 6  # of a sample in single precision: value, whether it is known, whether it is wanted
ROOM = 1.5  # times the bricks that are known of, when room is made
MOST_THREADS = 4  # each works on memory of its own
OFFSETS = tuple(itertools.product((0, 1), repeat=3))
T = TypeVar("T")


class Bricks:
    """The stored bricks: ``values``, ``known`` and ``wanted`` of their samples, and which of them are ``active``.

    Samples' arrays have room for more bricks than there are, so that storing some copies nothing; the system hands out
    memory for what is written to alone.
    """

    def __init__(self, asking: Asking, coarse: Coarse, side: int) -> None:
        self.asking, self.coarse, self.side = asking, coarse, side
        grid = tuple((n - 1) * coarse.stride // side + 1 for n in coarse.values.shape)
        self.number = np.full(grid, -1, dtype=np.int32)
        self.place = np.zeros((0, 3), dtype=np.int64)
        self.values = np.zeros((0, side, side, side), dtype=asking.dtype)
        self.known, self.wanted = np.zeros(self.values.shape, bool), np.zeros(self.values.shape, bool)
        self.active = np.zeros(0, dtype=bool)
        blocks = [n for g in grid for n in (g - 1, side // coarse.stride)]
        self.steep = coarse.steep.reshape(blocks).max((1, 3, 5))
        self.activate(np.argwhere(coarse.suspicious.reshape(blocks).any((1, 3, 5))))

    def activate(self, place: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, " m"]:
        """Make bricks at places of the grid active, with what lies after them stored; numbers of those that were not.

        Places outside of the lattice are left out.
        """
        most = -(-(np.array(self.asking.lattice.counts) - 1) // self.side)
        place = self._once(place[((place >= 0) & (place < most)).all(1)])
        self._store(np.concatenate([place + offset for offset in OFFSETS]))
        numbers = self.number[tuple(place.T)].astype(np.int64)
        numbers = numbers[~self.active[numbers]]
        self.active[numbers] = True
        return numbers

    def _store(self, place: Int[np.ndarray, "n 3"]) -> None:
        """Store bricks that are not, with what the coarse samples say of them."""
        new = self._once(place[self.number[tuple(place.T)] < 0])
        if not len(new):
            return
        self.number[tuple(new.T)] = len(self.place) + np.arange(len(new), dtype=np.int32)
        first, last = len(self.place), len(self.place) + len(new)
        self.place = np.concatenate([self.place, new])
        self.active = np.concatenate([self.active, np.zeros(len(new), dtype=bool)])
        if last > len(self.values):
            self.values, self.known, self.wanted = (
                _with_room(stored, first, last) for stored in (self.values, self.known, self.wanted)
            )
        self._fill(slice(first, last))

    def _fill(self, stored: slice) -> None:
        """Give new bricks what the coarse samples say of them, some at a time."""
        per, stride = self.side // self.coarse.stride, self.coarse.stride
        for part in self.parts(np.arange(stored.start, stored.stop)):
            new = self.place[part]
            x, y, z = (
                np.minimum(new[:, k, None] * per + np.arange(per), self.coarse.values.shape[k] - 1) for k in range(3)
            )
            where = (x[:, :, None, None], y[:, None, :, None], z[:, None, None, :])
            values = self.coarse.values[where]
            for axis in (1, 2, 3):
                values = values.repeat(stride, axis)
            self.values[part] = values
            self.known[part[0] : part[-1] + 1, ::stride, ::stride, ::stride] = self.coarse.known[where]

    def _once(self, place: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, "m 3"]:
        """Places of the grid, each once, in its order."""
        flat = np.unique(np.ravel_multi_index(tuple(place.T), self.number.shape))
        return np.stack(np.unravel_index(flat, self.number.shape), 1)

    def at(self, index: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Values of any samples as they are taken to be, asked for or not."""
        brick, sample = np.divmod(index, self.side)
        number = self.number[tuple(brick.T)]
        values = self.coarse.values[tuple((index // self.coarse.stride).T)]
        stored = number >= 0
        values[stored] = self.values[(number[stored], *sample[stored].T)]
        return values

    def parts(self, numbers: Int[np.ndarray, " n"]) -> Iterator[Int[np.ndarray, " m"]]:
        """The same numbers, as many together as are worked on at once."""
        many = max(1, AT_ONCE // (self.side + 1) ** 3)
        for start in range(0, len(numbers), many):
            yield numbers[start : start + many]

    def each(self, work: Callable[[np.ndarray], T], numbers: Int[np.ndarray, " n"]) -> Iterator[T]:
        """What work makes of bricks, some at a time and in order, on as many threads as torch computes with.

        NumPy lets go of Python's lock; work must write to nothing that other bricks read.
        """
        parts, threads = list(self.parts(numbers)), min(torch.get_num_threads(), MOST_THREADS)
        if threads == 1:
            yield from map(work, parts)
            return
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(parts), threads):  # what waits to be taken takes memory
                yield from pool.map(work, parts[start : start + threads])

    def read(self, stored: np.ndarray, numbers: Int[np.ndarray, " n"], stride: int = 1) -> np.ndarray:
        """What is stored of active bricks' samples, the shared layer included."""
        m = self.side // stride
        seen = np.empty((len(numbers), m + 1, m + 1, m + 1), dtype=stored.dtype)
        for owner, there, here in self._shared(numbers, stride):
            seen[(slice(None), *here)] = stored[(slice(None), *there)][owner]
        return seen

    def want(self, numbers: Int[np.ndarray, " n"], samples: Bool[np.ndarray, "n x y z"], stride: int = 1) -> None:
        """Mark samples of active bricks, the shared layer included, to be asked for."""
        for owner, there, here in self._shared(numbers, stride):
            view = self.wanted[(slice(None), *there)]
            view[owner] |= samples[(slice(None), *here)]

    def _shared(
        self, numbers: Int[np.ndarray, " n"], stride: int
    ) -> Iterator[tuple[np.ndarray, tuple[slice, ...], tuple[slice, ...]]]:
        """For each of eight parts of bricks with their shared layer: who owns it, where it lies there and here."""
        m = self.side // stride
        for offset in OFFSETS:
            owner = self.number[tuple((self.place[numbers] + offset).T)]
            there = tuple(slice(0, 1) if o else slice(None, None, stride) for o in offset)
            here = tuple(slice(m, m + 1) if o else slice(0, m) for o in offset)
            yield owner, there, here

    def ask(self) -> Int[np.ndarray, " n"]:
        """Ask the field for what is wanted and not known; numbers of the bricks that got new values."""
        found = [np.zeros(0, dtype=np.int64)]
        for part in self.parts(np.arange(len(self.place))):
            some = slice(part[0], part[-1] + 1)
            found.append(np.flatnonzero(self.wanted[some] & ~self.known[some]) + part[0] * self.side**3)
            self.wanted[some] = False
        flat = np.concatenate(found)
        for start in range(0, len(flat), AT_ONCE):
            part = flat[start : start + AT_ONCE]
            self.values.ravel()[part] = self.asking.values(self._index(part))
            self.known.ravel()[part] = True
        owner = np.zeros(len(self.place), dtype=bool)
        owner[flat >> 3 * (self.side.bit_length() - 1)] = True
        return np.flatnonzero(owner)

    def _index(self, flat: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n 3"]:
        """Samples of the lattice that are stored at these places of the flattened arrays."""
        bits = self.side.bit_length() - 1
        index = self.place[flat >> 3 * bits] << bits
        for axis in range(3):
            index[:, axis] |= (flat >> (2 - axis) * bits) & (self.side - 1)
        return index

    def refine(self, slope: float | int | None) -> None:
        """Ask for samples of half the stride in suspicious cells, again and again until the stride is 1."""
        stride = self.coarse.stride
        first = True
        while stride > 1:
            for numbers, samples in self.each(partial(self._to_ask, stride, slope, first), np.flatnonzero(self.active)):
                self.want(numbers, samples, stride // 2)
            self.ask()
            stride, first = stride // 2, False
            if stride > 1:
                for _ in self.each(partial(self._spread, stride), np.arange(len(self.place))):
                    pass

    def _to_ask(
        self, stride: int, slope: float | int | None, first: bool, numbers: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, "n x y z"]]:
        """Bricks, and their samples of half the stride that suspicious cells are made of."""
        found = self._announced(numbers) if first else self._suspicious(numbers, stride, slope)
        return numbers, cell_bounds.halved(found)

    def _spread(self, stride: int, stored: Int[np.ndarray, " n"]) -> None:
        """Give unknown samples of bricks the values of those that their indices are rounded down to."""
        self.values[stored] = cell_bounds.spread(self.values[stored], self.known[stored], stride)

    def _announced(self, numbers: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "n u v w"]:
        """Cells of bricks that were suspicious when the coarse samples were looked at."""
        per = self.side // self.coarse.stride
        x, y, z = (self.place[numbers].T[..., None] * per + np.arange(per)).astype(np.int64)
        return self.coarse.suspicious[x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]]

    def _suspicious(
        self, numbers: Int[np.ndarray, " n"], stride: int, slope: float | int | None
    ) -> Bool[np.ndarray, "n u v w"]:
        """Cells of bricks, ``stride`` wide, that have known corners and are suspicious."""
        values, sides = self.read(self.values, numbers, stride), self.asking.lattice.spacing * stride
        judged = cell_bounds.of_corners(self.read(self.known, numbers, stride), np.logical_and)
        judged &= self.within(numbers, stride)
        steep = self.steep[tuple(self.place[numbers].T)][:, None, None, None]
        if slope is None:
            measured = np.where(judged, cell_bounds.squared_slope(values, sides), 0)
            steep = np.maximum(steep, cell_bounds.granted(measured))
        return cell_bounds.within_reach(values, sides, steep) & judged

    def within(self, numbers: Int[np.ndarray, " n"], stride: int = 1) -> Bool[np.ndarray, "n u v w"]:
        """Cells of bricks that begin before the lattice ends."""
        steps = np.arange(0, self.side, stride)
        x, y, z = (
            self.place[numbers, k, None] * self.side + steps < count - 1
            for k, count in enumerate(self.asking.lattice.counts)
        )
        return x[:, :, None, None] & y[:, None, :, None] & z[:, None, None, :]

    def follow(self) -> None:
        """Ask on until no mixed cell has an unknown corner, in this brick or the next: the surface has no loose end."""
        frontier = np.flatnonzero(self.active)
        while len(frontier):
            new: list[np.ndarray] = []
            for numbers, samples, beyond in self.each(self._loose_ends, frontier):
                self.want(numbers, samples)
                new.append(beyond)
            awake = self.activate(np.concatenate(new))
            frontier = np.union1d(awake, self._seeing(self.ask()))

    def _loose_ends(
        self, numbers: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " k"], Bool[np.ndarray, "k x y z"], Int[np.ndarray, "m 3"]]:
        """Bricks with mixed cells that have unknown corners, these corners, and the places that the surface goes to."""
        inside = self.read(self.values, numbers) >= 0
        known = self.read(self.known, numbers)
        open_ended = cell_bounds.mixed(inside) & ~cell_bounds.of_corners(known, np.logical_and) & self.within(numbers)
        some = open_ended.any((1, 2, 3))
        samples = cell_bounds.corners(open_ended[some]) & ~known[some]
        return numbers[some], samples, self._crossed_into(numbers, inside)

    def crossed(
        self, numbers: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "k x y z"], Bool[np.ndarray, "k u v w"]]:
        """Those of some bricks that the surface goes through, their values, and their cells within the lattice."""
        values = self.read(self.values, numbers)
        inside = values >= 0
        some = inside.any((1, 2, 3)) & ~inside.all((1, 2, 3))
        return numbers[some], values[some], self.within(numbers[some])

    def _crossed_into(
        self, numbers: Int[np.ndarray, " n"], inside: Bool[np.ndarray, "n x y z"]
    ) -> Int[np.ndarray, "m 3"]:
        """Places of the bricks beyond those faces of bricks that are mixed."""
        places = []
        for axis, end in itertools.product(range(3), (0, -1)):
            face = inside.take(end, axis + 1)
            crossed = face.any((1, 2)) & ~face.all((1, 2))
            places.append(self.place[numbers[crossed]] + np.eye(3, dtype=np.int64)[axis] * (1 if end else -1))
        return np.concatenate(places)

    def _seeing(self, owners: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
        """Active bricks with samples that these own."""
        places = np.concatenate([self.place[owners] - offset for offset in OFFSETS])
        numbers = self.number[tuple(places[(places >= 0).all(1)].T)]
        return np.unique(numbers[(numbers >= 0) & self.active[numbers]]).astype(np.int64)


def _with_room(stored: np.ndarray, count: int, wanted: int) -> np.ndarray:
    """A larger array that begins with ``count`` of the old one's bricks; the others' samples are zero."""
    room = np.zeros((int(ROOM * wanted), *stored.shape[1:]), dtype=stored.dtype)
    room[:count] = stored[:count]
    return room
