"""The regular lattice on which a field is sampled, and the asking of the field itself.

Vocabulary of the files that march
----------------------------------
- **field**: points ``*b 3`` -> numbers ``*b``; its surface is where it equals the **level**.
- **value**: what the field says minus the level, with the sign that makes the inside positive. A sample on the level
  counts as inside.
- **sample**: a point of the lattice, named by three indices; **cell**: the box between eight neighbouring samples. A
  cell of **stride** s is the box between samples s apart.
- **mixed**: a cell with corners on both sides; marching cubes makes triangles of mixed cells and of no others.
- **brick**: a cube of ``side``³ samples, the unit in which they are stored.
- **known**: whether the field was asked at a sample. It is asked once at most, so that what is seen from two sides is
  the same to the last bit.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from enerf.core.types import ScalarField

Inside = Literal["above", "below"]
BEYOND = np.float32(-1e-38)  # a value outside the shape that says nothing about distance


@dataclass(frozen=True)
class Lattice:
    """Samples that divide a box into cells.

    Attributes
    ----------
    box
        Lowest and highest corner. Points that the field is asked at have its dtype and device.
    cells
        How many cells lie along each axis.
    closed
        Whether one more layer of samples lies around the box, at its very surface and outside the shape: it closes
        what the box cuts open. The samples' indices start there.
    """

    box: Float[Tensor, "2 3"]
    cells: tuple[int, int, int]
    closed: bool = False

    @property
    def counts(self) -> tuple[int, int, int]:
        """Samples along each axis.

        >>> Lattice(torch.tensor([[0.0] * 3, [1.0] * 3]), (4, 4, 8)).counts
        (5, 5, 9)
        """
        more = 3 if self.closed else 1
        return self.cells[0] + more, self.cells[1] + more, self.cells[2] + more

    @property
    def spacing(self) -> Float[np.ndarray, " 3"]:
        """The sides of a cell."""
        low, high = self.box.double().cpu().numpy()
        return (high - low) / np.array(self.cells)

    def nearest(self, index: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, "n 3"]:
        """Indices of the samples in or on the box that lie where these lie; those beyond its surface lie on it."""
        edge = int(self.closed)
        return np.clip(index, edge, np.array(self.cells) + edge)

    def at(self, index: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Where samples lie, in double precision; the corners of the box exactly.

        >>> lattice = Lattice(torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 3.0]]), (2, 2, 2))
        >>> lattice.at(np.array([[0, 1, 1], [2, 2, 5]])).tolist()
        [[0.0, 0.5, 1.5], [1.0, 1.0, 3.0]]
        """
        return np.stack([np.take(self._along[k], index[:, k], mode="clip") for k in range(3)], 1)

    @functools.cached_property
    def _along(self) -> tuple[np.ndarray, ...]:
        """Where samples lie along each axis."""
        low, high = self.box.double().cpu().numpy()
        places = []
        for k, cells in enumerate(self.cells):
            fraction = np.arange(cells + 1) / cells
            along = low[k] * (1.0 - fraction) + high[k] * fraction
            places.append(np.pad(along, int(self.closed), mode="edge"))
        return tuple(places)

    def is_beyond(self, index: Int[np.ndarray, "n 3"]) -> np.ndarray:
        """Which samples belong to the layer that closes the shape."""
        if not self.closed:
            return np.zeros(len(index), dtype=bool)
        return np.asarray(((index < 1) | (index > np.array(self.cells) + 1)).any(-1))


@dataclass
class Asking:
    """A field that is asked for values at samples, some at a time; counts how often, and what it saw.

    Attributes
    ----------
    field, lattice, level, inside
        What is asked, where, and what counts as inside: what lies ``above`` the level or ``below`` it.
    points_at_once
        Most points in one call of the field.
    bar
        Moves with every point, if there is one.
    """

    field: ScalarField
    lattice: Lattice
    level: float | int
    inside: Inside
    points_at_once: int
    bar: "tqdm[Any] | None" = None
    evaluations: int = 0
    lowest: float = math.inf
    highest: float = -math.inf

    @torch.no_grad()
    def values(self, index: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Values at samples, in the precision of the box.

        Raises
        ------
        ValueError
            If the field returns another shape, or what is not finite.
        """
        beyond = self.lattice.is_beyond(index)
        if beyond.any():
            values = np.full(len(index), BEYOND, dtype=self.dtype)
            values[~beyond] = self.values(index[~beyond])
            return values
        values = np.empty(len(index), dtype=self.dtype)
        for start in range(0, len(index), self.points_at_once):
            part = slice(start, start + self.points_at_once)
            values[part] = self._signed(self.lattice.at(index[part]))
        return values

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The precision of the values."""
        return np.dtype(np.float64 if self.lattice.box.dtype == torch.float64 else np.float32)

    def _signed(self, at: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """The field's answer at some points, relative to the level and positive inside."""
        points = torch.from_numpy(at).to(self.lattice.box)
        answer = self.field(points)
        if answer.shape != points.shape[:-1]:
            raise ValueError(f"the field returned shape {tuple(answer.shape)} for points {tuple(points.shape)}")
        found = answer.double().cpu().numpy()
        wrong = ~np.isfinite(found)
        if wrong.any():
            where = ", ".join(f"{x:.6g}" for x in at[wrong.argmax()])
            raise ValueError(f"the field is not finite at {wrong.sum()} of {len(found)} points, first at ({where})")
        self._note(found)
        found -= self.level
        return found if self.inside == "above" else -found

    def _note(self, found: Float[np.ndarray, " n"]) -> None:
        """Remember the range, count, and move the bar."""
        self.lowest, self.highest = min(self.lowest, float(found.min())), max(self.highest, float(found.max()))
        self.evaluations += len(found)
        if self.bar is not None:
            self.bar.update(len(found))
