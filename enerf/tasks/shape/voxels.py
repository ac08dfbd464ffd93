"""Volumes as training targets: batches in which each voxel occurs once in an epoch, and the IoU over all voxels."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from enerf.core import rng
from enerf.core.permutation import IndexPermutation
from enerf.core.progress import progress_bar
from enerf.geometry.occupancy_volume import Volume

POINTS_PER_CALL = 1 << 20  # voxels of which coordinates and values are kept at a time
QUICK_VOXELS = 1 << 17  # of a quick measurement
_QUICK_STREAM = 1 << 41  # of the permutation that selects them, the same for all runs


def steps_per_epoch(volume: Volume, n: int) -> int:
    """Return the number of batches of ``n`` voxels that contain every voxel once; the last one may be smaller."""
    return math.ceil(volume.voxels.numel() / n)


def batch(volume: Volume, n: int, step: int, seed: int) -> tuple[Float32[Tensor, "m 3"], Float32[Tensor, " m"]]:
    """Return the points and labels (1: occupied, 0: empty) of the voxels of a step, on the device of the volume.

    Every epoch is another random order of all voxels, of which no list is kept; the result depends on the arguments
    only.
    """
    epoch, i = divmod(step, steps_per_epoch(volume, n))
    size, device = volume.voxels.numel(), volume.voxels.device
    positions = torch.arange(i * n, min((i + 1) * n, size), device=device)
    index = IndexPermutation(size, rng.stream_seed(seed, epoch))(positions)
    return volume.points(index), volume.labels(index).float()


@torch.no_grad()
def measure(
    inside: Callable[[Tensor], Tensor], volume: Volume, *, quick: bool = False, chunk: int = POINTS_PER_CALL
) -> dict[str, Any]:
    """Return the IoU of a field over all voxels, and their number; ``quick``: over a fixed random selection.

    ``inside`` maps points to booleans on the device of the points.
    """
    size, device = volume.voxels.numel(), volume.voxels.device
    n = min(QUICK_VOXELS, size) if quick else size
    starts = range(0, n, chunk)
    counts = torch.zeros(3, dtype=torch.int64, device=device)
    chosen = IndexPermutation(size, rng.stream_seed(0, _QUICK_STREAM))
    for start in progress_bar(None, "IoU", "chunk", iterable=starts, delay=2, leave=False, enabled=not quick):
        index = torch.arange(start, min(start + chunk, n), device=device)
        index = chosen(index) if quick else index
        found, truth = inside(volume.points(index)), volume.labels(index).bool()
        counts += torch.stack([(found & truth).sum(), (found | truth).sum(), truth.sum()])
    shared, either, occupied = counts.tolist()
    return {"iou": shared / either if either else None, "voxels": n, "occupied": occupied}


def protocol(volume: Volume, loss: str, level: float | int) -> dict[str, Any]:
    """Return a description of training target and evaluation, to be saved with the metrics."""
    return {
        "box": list(volume.voxels.shape),
        "first_voxel": list(volume.first),
        "file_shape": list(volume.file_shape),
        "crop": "smallest box of all occupied voxels, its last layers included",
        "coordinates": "centers of the first and last voxels at -1 and 1 along each axis",
        "loss": {"mse": "mean squared error to 0 or 1", "bce": "binary cross entropy of logits"}[loss],
        "batches": "random voxels, each once in an epoch",
        "iou": f"all voxels of the box, inside where the field is above {level:g}",
        "iou_of_curve": f"{min(QUICK_VOXELS, volume.voxels.numel())} of these voxels, the same at each step",
    }
