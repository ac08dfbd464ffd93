"""Labelled data sets: two splits, their classes, and the statistics to normalize by.

Images are uint8 with channels first. A *label* is the index of a class, a *number* the index of an image in its split.
The augmentation ``none`` gives images as used for testing.
"""

import dataclasses
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from enerf.core.errors import InputError
from enerf.datasets.labelled import augmentation

STD_FLOOR = 1 / 255  # avoids a division by 0 for constant channels
_SAMPLE = 4096  # images used for mean and standard deviation if images are decoded on demand
_PART = 1024


@runtime_checkable
class Split(Protocol):
    """Images addressed by number."""

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """Label of each image."""

    @property
    def on_demand(self) -> bool:
        """Whether images are decoded by ``batch``, so that batches should be prefetched."""

    def __len__(self) -> int:
        """Number of images."""

    def batch(
        self, numbers: Int64[Tensor, " b"], augment: str = "none", generator: torch.Generator | None = None
    ) -> UInt8[Tensor, "b c h w"]:
        """Images of the given numbers; augmentations depend on the numbers and the generator only."""


@dataclass(frozen=True)
class InMemorySplit:
    """A split whose images are in memory; supports augmentations that keep the size."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    on_demand: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, numbers: Int64[Tensor, " b"], augment: str = "none", generator: torch.Generator | None = None
    ) -> UInt8[Tensor, "b c h w"]:
        """Images of the given numbers.

        Raises
        ------
        InputError
            For random crops, which need the image files.
        """
        return augmentation.augmented(self.images[numbers], augment, generator)


@dataclass(frozen=True)
class Subset:
    """Some images of a split, renumbered from 0."""

    split: Split
    numbers: Int64[Tensor, " n"]

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """Label of each image."""
        return self.split.labels[self.numbers]

    @property
    def on_demand(self) -> bool:
        """As for the underlying split."""
        return self.split.on_demand

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(
        self, numbers: Int64[Tensor, " b"], augment: str = "none", generator: torch.Generator | None = None
    ) -> UInt8[Tensor, "b c h w"]:
        """Images of the given numbers."""
        return self.split.batch(self.numbers[numbers], augment, generator)


@dataclass(frozen=True)
class LabelledImages:
    """A data set for classifiers.

    Attributes
    ----------
    name
        Name of the folder or archive.
    classes
        Names of the classes, indexed by labels.
    train, test
        The images, all of the same size.
    channels, size
        1 or 3; the side length in pixels.
    mean, std
        Statistics per channel of the training images in [0, 1], without augmentation; of a fixed subset of up to 4096
        images if they are decoded on demand. ``std`` is at least 1/255.
    note
        ``JPEG, lossy`` if the images were stored with lossy compression, else empty.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    channels: int
    size: int
    mean: tuple[float | int, ...]
    std: tuple[float | int, ...]
    note: str = ""

    def fewer(self, n_train: int, n_test: int) -> "LabelledImages":
        """Fixed, nested random subsets of the given sizes; 0 for all images.

        ``mean`` and ``std`` stay those of the whole set, so that runs of different sizes see the same pixels.

        Raises
        ------
        InputError
            If there are fewer images.
        """
        train, test = (
            _fewer(split, n, option, self.name)
            for split, n, option in ((self.train, n_train, "--train_images"), (self.test, n_test, "--test_images"))
        )
        return dataclasses.replace(self, train=train, test=test)


def _fewer(split: Split, n: int, option: str, name: str) -> Split:
    if not 0 <= n <= len(split):
        raise InputError(f"{option} is {n}, expected 0 (all) to {len(split)}, as many as {name} has")
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:n]
    return Subset(split, chosen) if 0 < n < len(split) else split


def statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact mean and standard deviation of each channel in [0, 1], from histograms of the 256 values.

    >>> images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    >>> statistics(InMemorySplit(images, torch.tensor([0, 1])))
    ((0.5,), (0.5,))
    """
    numbers = torch.arange(len(split))
    if split.on_demand:
        numbers = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:_SAMPLE]
    counts: Tensor = torch.zeros((), dtype=torch.float64)
    for part in numbers.split(_PART):
        channels = split.batch(part).transpose(0, 1).flatten(1)
        counts = counts + torch.stack([torch.bincount(channel, minlength=256) for channel in channels])
    shares, values = counts / counts.sum(1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ values
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=STD_FLOOR)
    return tuple(mean.tolist()), tuple(std.tolist())
