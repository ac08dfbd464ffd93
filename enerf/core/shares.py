"""Shares of a joint batch: which rows each of several processes computes, with random numbers of the joint batch.

Every process draws the random numbers of the whole batch from one stream, and takes those of its own rows. So the
result does not depend on the number of processes, and a checkpoint has the state of one stream.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows of a batch that a process computes.

    Attributes
    ----------
    rows
        The rows, at least one.
    count
        How many of them count: all, or 0 if there are fewer rows than processes and another process has them.
    """

    rows: slice
    count: int


@dataclass(frozen=True)
class Share:
    """The share of process ``rank`` of ``size`` processes in a batch."""

    rank: int = 0
    size: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether the share is the whole batch."""
        return self.size == 1

    def of(self, start: int, stop: int) -> Rows:
        """Rows of this process, if the rows from ``start`` to ``stop`` (exclusive) are divided among all processes.

        The parts are consecutive, by rank, and differ in length by one at most.

        >>> [Share(rank, 3).of(10, 18).rows for rank in range(3)]
        [slice(10, 12, None), slice(12, 15, None), slice(15, 18, None)]
        >>> Share(0, 3).of(10, 12)
        Rows(rows=slice(10, 11, None), count=0)
        """
        n = stop - start
        first, last = (start + each * n // self.size for each in (self.rank, self.rank + 1))
        return Rows(slice(first, last), last - first) if last > first else Rows(slice(start, start + 1), 0)

    def parts(self, n: int, at_once: int, generator: torch.Generator | None = None) -> Iterator[Rows]:
        """The process's rows of each part of ``at_once`` rows of ``n``.

        Meanwhile ``rand`` and ``randn`` draw the numbers of the whole part from a ``JointGenerator``.
        """
        for start in range(0, n, at_once):
            stop = min(start + at_once, n)
            part = self.of(start, stop)
            if isinstance(generator, JointGenerator):
                generator.within = (slice(part.rows.start - start, part.rows.stop - start), stop - start)
            yield part
        if isinstance(generator, JointGenerator):
            generator.within = None


WHOLE = Share()


class JointGenerator(torch.Generator):
    """Generator of the random numbers of a joint batch; ``Share.parts`` sets the rows that a process takes of them.

    Attributes
    ----------
    within
        The rows within the present part of the batch, and the number of rows of that part; None: all rows are taken.
    """

    within: tuple[slice, int] | None = None


def generator(share: Share, device: torch.device | str) -> torch.Generator:
    """Return a generator for a share of batches: an ordinary one if the share is the whole."""
    return torch.Generator(device) if share.is_whole else JointGenerator(device)


def rand(shape: Sequence[int], generator: torch.Generator | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uniform random numbers as of ``torch.rand``; of a ``JointGenerator`` those of the process's rows, the first axis.

    Raises
    ------
    ValueError
        If the first axis is not that of the rows.
    """
    joint, rows = _joint(shape, generator)
    drawn = torch.rand(joint, generator=generator, dtype=dtype, device=device)
    return drawn if rows is None else drawn[rows]


def randn_like(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """Normal random numbers in the form of ``values``, whose first axis is that of the rows; raises as ``rand``."""
    joint, rows = _joint(values.shape, generator)
    if rows is None:
        return torch.empty_like(values).normal_(generator=generator)
    return values.new_empty(joint).normal_(generator=generator)[rows]


def _joint(shape: Sequence[int], generator: torch.Generator | None) -> tuple[Sequence[int], slice | None]:
    """Return the form of the numbers to be drawn, and the rows that are taken of them, None for all."""
    within = generator.within if isinstance(generator, JointGenerator) else None
    if within is None:
        return shape, None
    rows, total = within
    if not shape or shape[0] != rows.stop - rows.start:
        raise ValueError(f"random numbers of shape {tuple(shape)}: expected {rows.stop - rows.start} rows")
    return (total, *shape[1:]), rows
