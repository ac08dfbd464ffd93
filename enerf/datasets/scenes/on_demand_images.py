"""Photographs that are decoded whenever one is asked for, because memory and disk hold too few of them."""

import threading
from collections.abc import Callable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


class OnDemandImages:
    r"""Images indexed as ``PackedImages`` are, each decoded when it is asked for; the last few are kept.

    ``images[view]`` is an image (h, w, c) on the CPU. ``images[view, y, x]`` decodes every view that occurs in
    ``view``: few of them in a call, as an evaluation does, not a random one for each pixel (see ``image_blocks``).

    Parameters
    ----------
    read
        Decodes the image of a view.
    sizes
        Height and width of each.
    channels, dtype
        Those of all images.
    kept
        Number of decoded images that are kept.
    """

    def __init__(
        self, read: Callable[[int], Tensor], sizes: Int[Tensor, "n 2"], channels: int, dtype: torch.dtype, kept: int = 2
    ) -> None:
        self._read, self.sizes, self.channels, self.dtype = read, sizes, channels, dtype
        self._kept, self._recent = kept, dict[int, Tensor]()
        self._lock = threading.Lock()
        self._extents = [(int(height), int(width)) for height, width in sizes.tolist()]

    def __len__(self) -> int:
        return len(self._extents)

    def __getitem__(self, index: int | tuple[Tensor, Tensor, Tensor]) -> Shaped[Tensor, "*b c"]:
        if isinstance(index, tuple):
            return self._pixels(*(part.cpu() for part in index))
        index = range(len(self))[index]
        with self._lock:
            found = self._recent.get(index)
        if found is None:
            found = self.decoded(index)
            with self._lock:
                self._recent[index] = found
                while len(self._recent) > self._kept:
                    del self._recent[next(iter(self._recent))]
        return found

    def decoded(self, index: int) -> Shaped[Tensor, "h w c"]:
        """The image of a view, which is not kept."""
        return self._read(index)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image."""
        return self._extents[index]

    @property
    def device(self) -> torch.device:
        """Where decoded images are: on the CPU."""
        return torch.device("cpu")

    def to(self, device: torch.device | str) -> "OnDemandImages":
        """The images themselves: they stay on the CPU."""
        return self

    def _pixels(self, view: Int[Tensor, "*b"], y: Int[Tensor, "*b"], x: Int[Tensor, "*b"]) -> Shaped[Tensor, "*b c"]:
        found = torch.empty(*view.shape, self.channels, dtype=self.dtype)
        for index in view.unique().tolist():
            here = view == index
            found[here] = self[index][y[here], x[here]].to(self.dtype)
        return found
