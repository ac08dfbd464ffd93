"""Images of differing sizes in one tensor of pixels."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


@runtime_checkable
class IndexedImages(Protocol):
    """Images of views, of any sizes, indexed as a tensor of shape (n, h, w, c) is: by a view, or by pixels."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels."""

    @property
    def device(self) -> torch.device:
        """Where results are."""

    def __getitem__(self, index: int | tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The image of a view, (h, w, c), or pixels at indices of views, rows and columns."""

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image of a view."""

    def to(self, device: torch.device | str) -> "IndexedImages":
        """The images on a device, or themselves if they cannot be there."""


class PackedImages:
    r"""Images of differing sizes, indexed as a tensor of shape (n, h, w, c) is.

    ``images[view]`` is an image (h, w, c), a view of the memory; ``images[view, y, x]``, with three index tensors of
    one shape, are pixels (\*b, c). Nothing is copied to pad images to a common size, and ``y`` and ``x``, which are not
    checked, must be within the image.

    Parameters
    ----------
    pixels
        Pixels of all images, row by row, image after image.
    sizes
        Height and width of each image.
    which
        Index of the stored image of each view, for views that share images; None: one for each.
    is_mapped
        Whether the pixels are those of a mapped file.
    """

    def __init__(
        self,
        pixels: Shaped[Tensor, "p c"],
        sizes: Int[Tensor, "n 2"],
        which: Int[Tensor, " v"] | None = None,
        *,
        is_mapped: bool = False,
    ) -> None:
        areas = sizes.prod(1)
        if int(areas.sum()) != len(pixels):
            raise ValueError(f"found {len(pixels)} pixels, expected {int(areas.sum())}, as the sizes say")
        self._stored, self._which, self.is_mapped = sizes, which, is_mapped
        first = areas.cumsum(0) - areas
        sizes, first = (sizes, first) if which is None else (sizes[which], first[which])
        self.pixels, self.sizes, self._first = pixels, sizes.to(pixels.device), first.to(pixels.device)
        self._extents = [(int(a), int(b), int(c)) for a, (b, c) in zip(first.tolist(), sizes.tolist(), strict=True)]

    @classmethod
    def of(cls, images: Iterable[Shaped[Tensor, "_ _ c"]], which: Sequence[int] | None = None) -> "PackedImages":
        """Pack images of the same type and number of channels; ``which`` as above."""
        found = list(images)
        sizes = torch.tensor([image.shape[:2] for image in found])
        pixels = torch.cat([image.reshape(-1, image.shape[-1]) for image in found])
        return cls(pixels, sizes, None if which is None else torch.tensor(which))

    def __len__(self) -> int:
        return len(self._extents)

    def __getitem__(self, index: int | tuple[Tensor, Tensor, Tensor]) -> Tensor:
        if isinstance(index, tuple):
            view, y, x = index
            return self.pixels[self._first[view] + y * self.sizes[view, 1] + x]
        first, height, width = self._extents[index]
        return self.pixels[first : first + height * width].reshape(height, width, -1)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image."""
        return self._extents[index][1:]

    @property
    def channels(self) -> int:
        """Number of channels: 3, or 4 with alpha."""
        return self.pixels.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels."""
        return self.pixels.dtype

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device

    def to(self, device: torch.device | str) -> "PackedImages":
        """Return the images on a device."""
        pixels = self.pixels.to(device)
        return PackedImages(pixels, self._stored, self._which, is_mapped=self.is_mapped and pixels is self.pixels)
