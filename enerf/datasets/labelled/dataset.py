"""Images with labels, as they travel to training: two splits, their classes, and what to normalise by.

Images are bytes, channels before rows and columns, because networks take them so. A *label* is the number of a class.
A *number* is the place of an image in its split. Images are given *as for testing* with the augmentation ``none``.
"""

import dataclasses
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from enerf.core.errors import InputError
from enerf.datasets.labelled import augmentation

STD_FLOOR = 1 / 255  # a channel that is constant is not divided by 0
_SAMPLE = 4096  # images that mean and standard deviation are taken of, where images are decoded on demand
_PART = 1024


@runtime_checkable
class Split(Protocol):
    """Images that can be asked for by number."""

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """Class of each image."""

    @property
    def on_demand(self) -> bool:
        """Whether ``batch`` takes long enough to be called ahead."""

    def __len__(self) -> int:
        """How many images there are."""

    def batch(
        self, numbers: Int64[Tensor, " b"], augment: str = "none", generator: torch.Generator | None = None
    ) -> UInt8[Tensor, "b c h w"]:
        """Images of these numbers; augmented ones depend on nothing but them and the generator."""


@dataclass(frozen=True)
class Held:
    """A split whose images are in memory. Its augmentations are those that keep the size."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    on_demand: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, numbers: Int64[Tensor, " b"], augment: str = "none", generator: torch.Generator | None = None
    ) -> UInt8[Tensor, "b c h w"]:
        """Images of these numbers.

        Raises
        ------
        InputError
            If they are to be cropped at random: what lies beyond them is not held.
        """
        return augmentation.augmented(self.images[numbers], augment, generator)


@dataclass(frozen=True)
class Chosen:
    """Some images of a split, numbered anew."""

    split: Split
    numbers: Int64[Tensor, " n"]

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """Class of each image."""
        return self.split.labels[self.numbers]

    @property
    def on_demand(self) -> bool:
        """As the split that they are of."""
        return self.split.on_demand

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(
        self, numbers: Int64[Tensor, " b"], augment: str = "none", generator: torch.Generator | None = None
    ) -> UInt8[Tensor, "b c h w"]:
        """Images of these numbers."""
        return self.split.batch(self.numbers[numbers], augment, generator)


@dataclass(frozen=True)
class LabelledImages:
    """A data set for classifiers.

    Attributes
    ----------
    name
        Of the folder or archive it was read from.
    classes
        Their names; a label is a place among them.
    train, test
        The images, all of one size.
    channels, size
        1 or 3; the length of each side.
    mean, std
        Of each channel of the training images in [0, 1], augmentation left out; of up to 4096 of them, always the
        same, if they are decoded on demand. ``std`` is no less than 1/255.
    note
        How the images were stored, where that changed them: ``JPEG, lossy``; else empty.
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
        """Fixed random subsets of that many images, 0 for all; a smaller one is a part of each larger one.

        ``mean`` and ``std`` stay those of the whole, so that runs with more or fewer images see the same pixels.

        Raises
        ------
        InputError
            If there are not as many images.
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
    return Chosen(split, chosen) if 0 < n < len(split) else split


def statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in [0, 1], exact: from how often each of the 256 values occurs.

    >>> images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    >>> statistics(Held(images, torch.tensor([0, 1])))
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
