"""Batches of a split, one for each step: the same, bit for bit, whatever was asked for before.

An *epoch* is once through the split in an order of its own; images that do not fill a last batch are left out of it.
The order depends on (seed, epoch) and the augmentation on (seed, step) and on nothing else, so a resumed run goes on
with the batches it would have seen, and two arms of a comparison see the same ones.
"""

import functools
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from enerf.core import rng
from enerf.core.errors import InputError
from enerf.datasets.labelled.dataset import Split

ORDER, AUGMENTATION = 1, 2  # what random numbers are for
_Batch = tuple[UInt8[Tensor, "b c h w"], Int64[Tensor, " b"]]


class Batches:
    """Batches of ``n`` images and their labels, on the CPU.

    As a context manager it prepares the next ones in the background, where the split decodes on demand.

    Parameters
    ----------
    split
        Where the images are from.
    n
        How many a batch has; the whole split is one batch if it has fewer.
    seed
        Of the orders and augmentations.
    augment
        One of ``augmentation.AUGMENTS``.
    ahead
        How many batches are prepared before they are asked for.
    """

    def __init__(self, split: Split, n: int, seed: int, augment: str, ahead: int = 2) -> None:
        if n < 1 or not len(split):
            raise InputError(f"batches of {n} out of {len(split)} images are asked for, expected 1 or more of each")
        self.split, self.n, self.seed, self.augment, self.ahead = split, min(n, len(split)), seed, augment, ahead
        self._order = functools.lru_cache(maxsize=2)(self._permutation)
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[int, Future[_Batch]] = {}

    def __enter__(self) -> "Batches":
        """Begin to work in the background."""
        if self.split.on_demand and self.ahead > 0 and self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the background; batches that are asked for later are made then."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._begun = None, {}

    @property
    def steps_per_epoch(self) -> int:
        """How many whole batches the split has."""
        return len(self.split) // self.n

    def at(self, step: int) -> _Batch:
        """Images and labels of a step.

        Raises
        ------
        InputError
            If an image cannot be read or the augmentation is not for this split.
        """
        if self._pool is None:
            return self._made(step)
        wanted = range(step, step + self.ahead + 1)
        for other in [other for other in self._begun if other not in wanted]:
            self._begun.pop(other).cancel()
        for other in wanted:
            if other not in self._begun:
                self._begun[other] = self._pool.submit(self._made, other)
        return self._begun[step].result()

    def _made(self, step: int) -> _Batch:
        """Images and labels of a step, from nothing but its number."""
        epoch, place = divmod(step, self.steps_per_epoch)
        numbers = self._order(epoch)[place * self.n : (place + 1) * self.n]
        images = self.split.batch(numbers, self.augment, _stream(AUGMENTATION, self.seed, step))
        return images, self.split.labels[numbers]

    def _permutation(self, epoch: int) -> Int64[Tensor, " n"]:
        return torch.randperm(len(self.split), generator=_stream(ORDER, self.seed, epoch))


def _stream(purpose: int, seed: int, number: int) -> torch.Generator:
    """Random numbers of one purpose and number, whatever else is drawn of the same seed."""
    return rng.generator_for(rng.stream_seed(seed, purpose), number)
