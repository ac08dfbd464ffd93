"""Photographs that are yet to be decoded: their files and sizes, and how one of them is read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enerf.core import files, images, parallel
from enerf.core.progress import progress_bar
from enerf.datasets.scenes import transparency
from enerf.datasets.scenes.transparency import Stored


@dataclass(frozen=True)
class Photographs:
    """Files of photographs, in the order of the views.

    Attributes
    ----------
    files
        The files.
    sizes
        Height and width of each as it is read.
    read
        Decodes the photograph of an index at its size, with these channels or alpha too, as bytes where that is exact;
        safe to be called by several threads.
    threads
        Number of threads that read them within the available memory.
    folder
        Where they come from, for messages.
    white, keep_alpha
        As for ``transparency.flattened``.
    variant
        Whatever else the pixels depend on.
    channels
        Number of channels, without alpha.
    """

    files: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    read: Callable[[int], Stored]
    threads: Callable[[], int]
    folder: Path
    white: bool = False
    keep_alpha: bool = False
    variant: str = ""
    channels: int = 3

    def __len__(self) -> int:
        return len(self.files)

    @property
    def pixels(self) -> int:
        """Number of pixels of all photographs."""
        return sum(height * width for height, width in self.sizes)

    @property
    def common_size(self) -> tuple[int, int] | None:
        """Height and width, if all have the same."""
        return self.sizes[0] if len(set(self.sizes)) == 1 else None

    def each(self) -> Iterator[Stored]:
        """The photographs in order, decoded by several threads, with a progress bar; few are in memory at a time."""
        decoded = parallel.in_order(self.read, range(len(self)), self.threads())
        label = f"read {self.folder.name}"
        return iter(progress_bar(len(self), label, "image", iterable=decoded, delay=2, leave=False, enabled=None))

    def flattened(self) -> Iterator[Stored]:
        """``each``, without alpha or with it as the options say."""
        return transparency.flattened(self.each(), self.folder, white=self.white, keep_alpha=self.keep_alpha)

    def one(self, index: int, channels: int) -> Stored:
        """One photograph as ``flattened`` gives it, with an opaque alpha channel if ``channels`` is 4 and it has none.

        An alpha channel that is not asked for is dropped.
        """
        picture = transparency.flat(self.read(index), white=self.white, keep_alpha=self.keep_alpha)
        if picture.shape[-1] < channels:
            return images.opaque(picture)
        return np.ascontiguousarray(picture[..., :channels])

    def key(self) -> str:
        """Hash of all that the pixels depend on: names, sizes and times of the files, and the options."""
        options = f"{self.white},{self.keep_alpha},{self.variant},{self.sizes}"
        return files.stamp(self.folder, [*(str(file.absolute()) for file in self.files), options])
