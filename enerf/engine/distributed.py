"""Several processes that train one run together, started by ``torchrun``: exchanges, sums of gradients, splitting work.

Each process computes its share of the joint batch (``core.shares``). Losses are parts of the joint loss, so that the
**sum** of the processes' gradients is the gradient of the joint batch, whatever their shares are. Every process then
takes the same optimizer step on the same gradient. Fields are called as functions, which ``DistributedDataParallel``
would not notice: the gradients are summed here, after the backward pass, whichever kernel wrote them.

Exchanges of numbers run on the CPUs (gloo) before each sum of gradients, which runs on the GPUs (nccl) if there are
any: a process that has died is noticed in the exchange, and the others still have the weights of the last whole step.
"""

import datetime
import hashlib
import logging
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from enerf.core import ranks
from enerf.core.errors import InputError, ProcessLost
from enerf.core.shares import Share

log = logging.getLogger("enerf")

BUCKET = 25 << 20  # bytes of small gradients that are summed at once; larger ones are summed where they are
TIMEOUT = datetime.timedelta(days=1)  # the first process may render for hours; a process that ends is noticed at once
_CLOSED = re.compile(r"connection (was )?(closed|reset|refused)|socket (error|closed)|broken pipe", re.IGNORECASE)
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Team:
    """The processes of a run; by default this one alone, for which every method does nothing or returns its argument.

    Attributes
    ----------
    rank, size
        Number of this process, from 0, and number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes for all."""
        return self.rank == 0

    @property
    def is_joint(self) -> bool:
        """Whether there are several processes."""
        return self.size > 1

    @cached_property
    def share(self) -> Share:
        """The share of this process in each batch."""
        return Share(self.rank, self.size)

    def exchange(self, own: Sequence[float]) -> list[list[float]]:
        """Return the numbers of all processes, by rank; each gives equally many.

        Raises
        ------
        ProcessLost
            If another process has ended.
        """
        if not self.is_joint:
            return [list(own)]
        values = torch.tensor(own, dtype=torch.float64)
        found = [torch.empty_like(values) for _ in range(self.size)]
        with _lost(self.size):
            torch.distributed.all_gather(found, values)
        return [each.tolist() for each in found]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank; raises as ``exchange``."""
        if not self.is_joint:
            return [value]
        found: list[Any] = [None] * self.size
        with _lost(self.size):
            torch.distributed.all_gather_object(found, value)
        return found

    def of_first(self, function: Callable[[], T]) -> T:
        """Return what a function returns in the first process; the others do not call it. Raises as ``exchange``.

        An ``InputError`` of the function is raised in all processes.
        """
        if not self.is_joint:
            return function()
        outcome: list[Any] = [_outcome(function) if self.is_first else None]
        with _lost(self.size):
            torch.distributed.broadcast_object_list(outcome, 0)
        return _value(outcome[0])

    def map(self, function: Callable[[A], B], items: Sequence[A]) -> Generator[B, None, None]:
        """Yield the results for all items, in order, in all processes; each computes every ``size``-th one.

        As many results as there are processes are in memory at a time. Each result is that of one process, as if there
        were no others. A caller whose own work between the results may fail closes the generator then
        (``contextlib.closing``), so that the others do not wait for it.

        Raises
        ------
        InputError
            That of the function, in all processes.
        ProcessLost
            As ``exchange``.
        """
        if not self.is_joint:
            yield from map(function, items)
            return
        for start in range(0, len(items), self.size):
            chosen = list(items[start : start + self.size])
            own = _outcome(lambda: function(chosen[self.rank])) if self.rank < len(chosen) else None  # noqa: B023
            found = self.gather(own)
            values = [_value(outcome) for outcome in found if outcome is not None]  # the first error, of any process
            for value in values:
                try:
                    yield value
                except GeneratorExit:
                    self.gather((None, f"process {self.rank} could not go on"))
                    raise
        for outcome in self.gather((None, None)):  # a caller may have failed after the last results
            _value(outcome)

    def sum_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Replace gradients by their sums over all processes, bit for bit the same in each; raises as ``exchange``."""
        if not self.is_joint:
            return
        for bucket in buckets(gradients):
            is_in_place = len(bucket) == 1 and bucket[0].is_contiguous()
            flat = bucket[0] if is_in_place else torch.cat([each.reshape(-1) for each in bucket])
            with _lost(self.size):
                torch.distributed.all_reduce(flat)
            if is_in_place:
                continue
            for each, part in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                each.copy_(part.view_as(each))

    def start_alike(self, model: nn.Module) -> None:
        """Give all processes the parameters and buffers of the first one; raises as ``exchange``."""
        if not self.is_joint:
            return
        with _lost(self.size), torch.no_grad():
            for value in (*model.parameters(), *model.buffers()):
                whole = value.detach().contiguous()
                torch.distributed.broadcast(whole, 0)
                value.copy_(whole)

    def require_share(self, option: str, n: int) -> None:
        """Check that a batch has a row for each process.

        Raises
        ------
        InputError
            If it has fewer.
        """
        if n < self.size:
            raise InputError(f"option --{option}: found {n}, expected at least 1 for each of the {self.size} processes")


ALONE = Team()
_team = [ALONE]


def current() -> Team:
    """The processes that this one works with."""
    return _team[-1]


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """Join the processes that ``torchrun`` has started; alone without it, and without any effect.

    Parameters
    ----------
    device
        Value of the option ``--device``: on GPUs each process takes that of its number on its computer.

    Raises
    ------
    InputError
        If there are fewer GPUs than processes, or a single GPU is asked for.
    """
    if ranks.size() == 1:
        yield ALONE
        return
    on_gpu = _use_own_gpu(device)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    team = Team(ranks.rank(), ranks.size())
    _team.append(team)
    log.info("%d processes, gradients are summed by %s", team.size, "nccl" if on_gpu else "gloo")
    try:
        yield team
        team.exchange([0.0])  # nobody leaves while another one may still need it
    finally:
        _team.pop()
        torch.distributed.destroy_process_group()


def _use_own_gpu(device: str) -> bool:
    """Choose the GPU of this process, unless the device is the CPU; return whether there is one."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return False
    if device not in ("auto", "cuda"):
        raise InputError(f"option --device: found {device!r} for several processes, expected auto, cuda or cpu")
    if ranks.local_size() > torch.cuda.device_count():
        raise InputError(
            f"option --device: found {torch.cuda.device_count()} CUDA devices for the {ranks.local_size()} processes "
            "of this computer, expected one for each (torchrun --nproc_per_node)"
        )
    torch.cuda.set_device(ranks.local_rank())
    return True


def buckets(gradients: Sequence[Tensor], limit: int = BUCKET) -> Iterator[list[Tensor]]:
    """Yield gradients in groups of one type and device, each of at most ``limit`` bytes or of one gradient.

    >>> [[len(g) for g in group] for group in buckets([torch.zeros(n) for n in (9, 1, 2, 3)], 16)]
    [[9], [1, 2], [3]]
    """
    group: list[Tensor] = []
    size = 0
    for each in gradients:
        bytes_ = each.numel() * each.element_size()
        if group and (size + bytes_ > limit or (each.dtype, each.device) != (group[0].dtype, group[0].device)):
            yield group
            group, size = [], 0
        group.append(each)
        size += bytes_
    if group:
        yield group


def digest(values: Sequence[Tensor]) -> str:
    """Hash of the bits of tensors."""
    found = hashlib.sha256()
    for each in values:
        found.update(each.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _outcome(function: Callable[[], T]) -> tuple[T | None, str | None]:
    """Return what a function returns, or the message of its ``InputError``."""
    try:
        return function(), None
    except InputError as error:
        return None, str(error)


def _value(outcome: Any) -> Any:
    """Return what a function has returned; raise its ``InputError``."""
    value, message = outcome
    if message is not None:
        raise InputError(message)
    return value


@contextmanager
def _lost(size: int) -> Iterator[None]:
    """Convert the errors of exchanges between processes."""
    try:
        yield
    except RuntimeError as error:
        raise lost(error, size) from None


def is_closed_connection(error: BaseException) -> bool:
    """Whether an error is that of a connection to a process that has ended."""
    return isinstance(error, RuntimeError) and bool(_CLOSED.search(str(error)))


def lost(error: BaseException, size: int) -> ProcessLost:
    """Return the error of an exchange as one that says which run cannot go on, and why."""
    if is_closed_connection(error):
        return ProcessLost(f"one of the {size} processes has ended")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ProcessLost(f"one of the {size} processes has ended or cannot be reached ({reason})")
