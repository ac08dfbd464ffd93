"""Volumes of occupied and empty voxels as training targets: the tight box, its coordinates, random voxels of it.

- The *tight box* is the smallest block of voxels with all occupied ones.
- *Coordinates*: the centers of the first and the last voxel along each axis are at −1 and 1, so axes are scaled
  independently; the array's axes are x, y, z in this order.
- *File coordinates* are the indices of voxels in the array of the file, of which centers have whole numbers.

This is the protocol of WIRE (Saragadam et al., CVPR 2023: ``wire_occupancy.py`` and ``get_coords`` of its authors'
code) and of Fourier reparameterized training (Shi et al., CVPR 2024: ``3D_occupance.py``), with two differences: their
box leaves out the last layer of each axis, and their x and y are exchanged.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped, UInt8
from torch import Tensor

from enerf.core.errors import InputError
from enerf.geometry import volume_files

log = logging.getLogger("enerf")

MOST_VALUE = 255  # of a voxel


@dataclass(frozen=True)
class AxisNormalization:
    """The map between file coordinates and the box by axis: ``box = (file − center) · scale``."""

    center: tuple[float, float, float]
    scale: tuple[float, float, float]

    def to_box(self, points: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """File coordinates to box coordinates.

        >>> AxisNormalization((2.0, 0.0, 0.0), (0.5, 1.0, 1.0)).to_box(np.array([4.0, 1.0, 0.0]))
        array([1., 1., 0.])
        """
        return (points - np.array(self.center)) * np.array(self.scale)

    def to_file(self, points: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """Box coordinates to file coordinates."""
        return points / np.array(self.scale) + np.array(self.center)


@dataclass(frozen=True, eq=False)
class Volume:
    """The voxels of a tight box.

    Attributes
    ----------
    name, source
        The file's name without its suffixes, and the file.
    voxels
        1 where occupied, else 0.
    first
        Index of the box's first voxel in the array of the file.
    file_shape
        Shape of that array.
    """

    name: str
    source: str
    voxels: UInt8[Tensor, "x y z"]
    first: tuple[int, int, int]
    file_shape: tuple[int, int, int]

    @property
    def normalization(self) -> AxisNormalization:
        """The map between indices of voxels in the file and the box [−1, 1]³."""
        spans = [side - 1 for side in self.voxels.shape]
        x, y, z = (first + span / 2 for first, span in zip(self.first, spans, strict=True))
        a, b, c = (2 / span for span in spans)
        return AxisNormalization((x, y, z), (a, b, c))

    def points(self, index: Int64[Tensor, " n"]) -> Float32[Tensor, "n 3"]:
        """Return the centers of voxels in the box by their flat (row-major) indices, on the device of these."""
        _, ny, nz = self.voxels.shape
        by_axis = (index // (ny * nz), index // nz % ny, index % nz)
        tables = (torch.linspace(-1, 1, side, dtype=torch.float64).float() for side in self.voxels.shape)
        return torch.stack([table.to(index.device)[i] for table, i in zip(tables, by_axis, strict=True)], -1)

    def labels(self, index: Int64[Tensor, " n"]) -> UInt8[Tensor, " n"]:
        """Return whether voxels are occupied, by their flat indices on the device of the voxels."""
        return self.voxels.view(-1)[index]

    def to(self, device: torch.device) -> "Volume":
        """Return the volume with its voxels on a device."""
        return Volume(self.name, self.source, self.voxels.to(device), self.first, self.file_shape)


def load(path: str | os.PathLike[str]) -> Volume:
    """Load a volume from a file of voxels, cropped to its tight box, and log its size.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another format or too large, or ``from_array`` refuses its array.
    """
    path = Path(path)
    made = from_array(volume_files.read(path), path.as_posix())
    occupied = int(torch.count_nonzero(made.voxels))
    log.info(
        "%s: %s voxels, tight box %s (%s voxels, %.1f %% occupied)", path, _sides(made.file_shape),
        _sides(tuple(made.voxels.shape)), f"{made.voxels.numel():,}", 100 * occupied / made.voxels.numel(),
    )  # fmt: skip
    return made


def from_array(values: Shaped[np.ndarray, "..."], source: str) -> Volume:
    """Make a volume from an array of booleans, or of numbers from 0 to 255: above half of the largest is occupied.

    Raises
    ------
    InputError
        If the array has another number of axes or other values, no voxel or all voxels of the tight box are occupied,
        or that box has a single layer.
    """
    if values.ndim != 3 or not values.size:
        raise InputError(f"{source}: found an array of shape {values.shape}, expected three axes of voxels")
    occupied = _occupied(values, source)
    ends = [np.flatnonzero(occupied.any(tuple(j for j in range(3) if j != axis)))[[0, -1]] for axis in range(3)]
    box = np.ascontiguousarray(occupied[tuple(slice(low, high + 1) for low, high in ends)])
    if min(box.shape) < 2 or box.all():
        raise InputError(
            f"{source}: found {box.sum():,} occupied voxels in a tight box of {_sides(box.shape)}, expected a "
            "shape with empty voxels beside it, of at least two layers along each axis"
        )
    x, y, z = (int(low) for low, _ in ends)
    a, b, c = values.shape
    stem = Path(source).stem
    name = Path(stem).stem if stem.endswith((".mat", ".npy")) else stem
    return Volume(name, source, torch.from_numpy(box.view(np.uint8)), (x, y, z), (a, b, c))


def _occupied(values: Shaped[np.ndarray, "a b c"], source: str) -> Bool[np.ndarray, "a b c"]:
    """Return which voxels are occupied, with a warning if there are values between the two extremes."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= MOST_VALUE):  # also for NaN
        raise InputError(f"{source}: found values from {low:g} to {high:g}, expected 0 to 1, or 0 to {MOST_VALUE}")
    if high == 0:
        raise InputError(
            f"{source}: found no occupied voxel: all values are 0, expected 0 and 1, or 0 and {MOST_VALUE}"
        )
    if values.dtype == np.bool_:
        return values
    occupied = values > float(high) / 2
    between = np.count_nonzero(values) - np.count_nonzero(values == high)
    if between:
        log.warning(
            "%s: %s voxels have values between 0 and %g: those above half of it are occupied",
            source,
            f"{between:,}",
            high,
        )
    return occupied


def _sides(shape: tuple[int, ...]) -> str:
    """A shape as text.

    >>> _sides((2, 3, 4))
    '2×3×4'
    """
    return "×".join(map(str, shape))
