"""Images of differing sizes in one tensor of pixels."""

from collections.abc import Iterable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


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
    """

    def __init__(self, pixels: Shaped[Tensor, "p c"], sizes: Int[Tensor, "n 2"]) -> None:
        areas = sizes.prod(1)
        if int(areas.sum()) != len(pixels):
            raise ValueError(f"found {len(pixels)} pixels, expected {int(areas.sum())}, as the sizes say")
        self.pixels, self.sizes = pixels, sizes.to(pixels.device)
        self._first = (areas.cumsum(0) - areas).to(pixels.device)
        self._extents = [(int(a), int(b), int(c)) for a, (b, c) in zip(self._first, sizes.tolist(), strict=True)]

    @classmethod
    def of(cls, images: Iterable[Shaped[Tensor, "_ _ c"]]) -> "PackedImages":
        """Pack images of the same type and number of channels."""
        found = list(images)
        sizes = torch.tensor([image.shape[:2] for image in found])
        return cls(torch.cat([image.reshape(-1, image.shape[-1]) for image in found]), sizes)

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
        return PackedImages(self.pixels.to(device), self.sizes.cpu())
