"""The regular grid on which a field is sampled, and the evaluation of the field at its samples.

Terms used in this package
--------------------------
- **field**: a function of points ``*b 3`` with values ``*b``; the surface is where it equals the **iso value**.
- **value**: the field minus the iso value, negated where needed so that the inside is positive. A sample whose value is
  0 counts as inside.
- **sample**: a point of the lattice, addressed by three indices; **cell**: the box between eight neighboring samples. A
  cell of **stride** s is the box between samples s apart.
- **sign change**: a cell with corners on both sides of the surface. Marching cubes makes triangles in these cells only.
- **candidate cell**: a cell that may contain part of the surface and is therefore refined.
- **brick**: a cube of ``side``³ samples, the unit of storage.
- **known**: whether the field has been evaluated at a sample. No sample is evaluated twice, so bricks that share
  samples agree bit for bit.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.core.types import ScalarField

Inside = Literal["above", "below"]
# like map: function, items -> results in order
InOrder = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
# Value of samples around a closed box: outside, without information on distance. It is a normal number: subnormal ones
# count as 0, which is inside, where the processor flushes them.
BEYOND = np.float32(-1e-30)


@dataclass(frozen=True)
class Lattice:
    """Samples that divide a box into cells.

    Attributes
    ----------
    box
        Lowest and highest corner. The field is evaluated in its dtype and on its device.
    cells
        Number of cells along each axis.
    closed
        Add one layer of samples around the box, located on its surface and outside the shape, so that the mesh is
        closed where the box cuts it. The samples' indices start at that layer.
    """

    box: Float[Tensor, "2 3"]
    cells: tuple[int, int, int]
    closed: bool = False

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of samples along each axis.

        >>> Lattice(torch.tensor([[0.0] * 3, [1.0] * 3]), (4, 4, 8)).counts
        (5, 5, 9)
        """
        more = 3 if self.closed else 1
        return self.cells[0] + more, self.cells[1] + more, self.cells[2] + more

    @property
    def spacing(self) -> Float[np.ndarray, " 3"]:
        """Side lengths of a cell."""
        low, high = self.box.double().cpu().numpy()
        return (high - low) / np.array(self.cells)

    def nearest(self, index: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, "n 3"]:
        """Indices clipped to the samples in or on the box; the closing layer maps to the samples at its location."""
        edge = int(self.closed)
        return np.clip(index, edge, np.array(self.cells) + edge)

    def at(self, index: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Coordinates of samples in double precision; the corners of the box are exact.

        >>> lattice = Lattice(torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 3.0]]), (2, 2, 2))
        >>> lattice.at(np.array([[0, 1, 1], [2, 2, 5]])).tolist()
        [[0.0, 0.5, 1.5], [1.0, 1.0, 3.0]]
        """
        return np.stack([np.take(self.along[k], index[:, k], mode="clip") for k in range(3)], 1)

    @functools.cached_property
    def along(self) -> tuple[np.ndarray, ...]:
        """Coordinates of the samples along each axis."""
        low, high = self.box.double().cpu().numpy()
        axes = []
        for k, cells in enumerate(self.cells):
            fraction = np.arange(cells + 1) / cells
            along = low[k] * (1.0 - fraction) + high[k] * fraction
            axes.append(np.pad(along, int(self.closed), mode="edge"))
        return tuple(axes)

    def is_beyond(self, index: Int[np.ndarray, "n 3"]) -> np.ndarray:
        """Whether samples belong to the closing layer."""
        if not self.closed:
            return np.zeros(len(index), dtype=bool)
        return np.asarray(((index < 1) | (index > np.array(self.cells) + 1)).any(-1))


@dataclass
class FieldSampler:
    """Evaluates a field at samples in chunks; counts the evaluations and records the range of the field.

    Attributes
    ----------
    field, lattice, iso_value, inside
        The field, where it is sampled, and which side of the iso value is inside: ``above`` or ``below``.
    points_at_once
        Largest number of points in one call of the field.
    bar
        A progress bar that is advanced by the number of points evaluated, or None.
    in_order
        Function like ``map`` that calls the field for each part of the points.
    """

    field: ScalarField
    lattice: Lattice
    iso_value: float | int
    inside: Inside
    points_at_once: int
    bar: Any = None
    evaluations: int = 0
    lowest: float = math.inf
    highest: float = -math.inf
    in_order: InOrder = map

    @torch.no_grad()
    def values(self, index: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Values at samples, in the precision of the box.

        Raises
        ------
        ValueError
            If the field returns an unexpected shape or values that are not finite.
        """
        beyond = self.lattice.is_beyond(index)
        if beyond.any():
            values = np.full(len(index), BEYOND, dtype=self.dtype)
            values[~beyond] = self.values(index[~beyond])
            return values
        values = np.empty(len(index), dtype=self.dtype)
        chunks = [slice(start, start + self.points_at_once) for start in range(0, len(index), self.points_at_once)]
        for chunk, found in zip(chunks, self.in_order(lambda chunk: self._found(index[chunk]), chunks), strict=True):
            values[chunk] = self._relative(found, index[chunk])
        return values

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The precision of the values."""
        return np.dtype(np.float64 if self.lattice.box.dtype == torch.float64 else np.float32)

    def _found(self, index: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Values of the field at samples."""
        return np.asarray(self.at(torch.from_numpy(self.lattice.at(index))).double().cpu().numpy())

    def _relative(self, found: Float[np.ndarray, " n"], index: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Values of the field at samples, relative to the iso value and positive inside."""
        if not np.isfinite(found).all():
            self.refuse(found, self.lattice.at(index))
        self.record(float(found.min()), float(found.max()), len(found))
        found -= self.iso_value
        return found if self.inside == "above" else -found

    def at(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """The field at points, which are moved to its device and precision.

        Raises
        ------
        ValueError
            If the field returns an unexpected shape.
        """
        points = points.to(self.lattice.box)
        output = self.field(points)
        if output.shape != points.shape[:-1]:
            raise ValueError(f"the field returned shape {tuple(output.shape)} for points {tuple(points.shape)}")
        return output

    def refuse(self, found: Float[np.ndarray, " n"], at: Float[np.ndarray, "n 3"]) -> NoReturn:
        """Raise ``ValueError`` because values found at points are not all finite."""
        wrong = ~np.isfinite(found)
        where = ", ".join(f"{x:.6g}" for x in at[wrong.argmax()])
        raise ValueError(f"the field is not finite at {wrong.sum()} of {len(found)} points, first at ({where})")

    def record(self, lowest: float | int, highest: float | int, count: int) -> None:
        """Update the range, the count and the bar."""
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        self.evaluations += count
        if self.bar is not None:
            self.bar.update(count)
