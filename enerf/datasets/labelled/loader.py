"""The batch of each training step, bit for bit independent of which batches were loaded before.

An *epoch* is one pass over the split in random order; an incomplete last batch is dropped. The order depends on (seed,
epoch) only and the augmentation on (seed, step) only, so that a resumed run continues with the same batches, and all
variants of a comparison see the same ones.
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

ORDER, AUGMENTATION = 1, 2  # purposes of random numbers
_Batch = tuple[UInt8[Tensor, "b c h w"], Int64[Tensor, " b"]]


class Batches:
    """Batches of ``n`` images and their labels, on the CPU.

    As a context manager it prefetches in the background if the split decodes on demand.

    Parameters
    ----------
    split
        Source of the images.
    n
        Batch size; limited to the size of the split.
    seed
        Seed of orders and augmentations.
    augment
        One of ``augmentation.AUGMENTS``.
    ahead
        Number of batches that are prefetched.
    """

    def __init__(self, split: Split, n: int, seed: int, augment: str, ahead: int = 2) -> None:
        if n < 1 or not len(split):
            raise InputError(f"found batches of {n} out of {len(split)} images, expected 1 or more of each")
        self.split, self.n, self.seed, self.augment, self.ahead = split, min(n, len(split)), seed, augment, ahead
        self._order = functools.lru_cache(maxsize=2)(self._permutation)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[int, Future[_Batch]] = {}

    def __enter__(self) -> "Batches":
        """Start prefetching."""
        if self.split.on_demand and self.ahead > 0 and self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop prefetching; later batches are loaded synchronously."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._pending = None, {}

    @property
    def steps_per_epoch(self) -> int:
        """Number of complete batches in the split."""
        return len(self.split) // self.n

    def at(self, step: int) -> _Batch:
        """Images and labels of a step.

        Raises
        ------
        InputError
            If an image cannot be read or the split does not support the augmentation.
        """
        if self._pool is None:
            return self._load(step)
        wanted = range(step, step + self.ahead + 1)
        for other in [other for other in self._pending if other not in wanted]:
            self._pending.pop(other).cancel()
        for other in wanted:
            if other not in self._pending:
                self._pending[other] = self._pool.submit(self._load, other)
        return self._pending[step].result()

    def _load(self, step: int) -> _Batch:
        """Images and labels of a step, computed from its number alone."""
        epoch, place = divmod(step, self.steps_per_epoch)
        numbers = self._order(epoch)[place * self.n : (place + 1) * self.n]
        images = self.split.batch(numbers, self.augment, _stream(AUGMENTATION, self.seed, step))
        return images, self.split.labels[numbers]

    def _permutation(self, epoch: int) -> Int64[Tensor, " n"]:
        return torch.randperm(len(self.split), generator=_stream(ORDER, self.seed, epoch))


def _stream(purpose: int, seed: int, number: int) -> torch.Generator:
    """Generator for one purpose and number, independent of others with the same seed."""
    return rng.generator_for(rng.stream_seed(seed, purpose), number)
