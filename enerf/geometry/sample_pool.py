"""Pools of samples, prepared in the background while training takes its batches from the previous one.

Pool n is ``make(n)`` and batch k of a stream is always the same, independent of timing: if a pool is late, training
waits for it (``Pools.waited`` is the total time). A run resumed at batch k gets the same samples.

The background is a process, because libigl holds the GIL while it labels samples: a thread would stall training. It
runs at low priority with one thread, ignores Ctrl-C, and ends with its parent process in any case.
"""

import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Generic, Literal, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from enerf.core import rng
from enerf.geometry.samples import ShapeSamples

log = logging.getLogger("enerf")

T = TypeVar("T")
NICE = 10  # niceness of the background process
# A terminal sends these to the whole process group, also when it is closed: the parent decides what follows.
_PARENTS_SIGNALS = {getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)}


class Pools(Generic[T]):
    """The sequence ``make(0)``, ``make(1)``, …, computed ahead in the background.

    Parameters
    ----------
    make
        Index to pool; picklable for a process, as ``functools.partial(samples.pool, solid, …)`` is.
    ahead
        Number of pools prepared in advance.
    background
        ``process``; ``thread`` for work that releases the GIL; ``none`` makes each pool on demand.
    """

    def __init__(
        self, make: Callable[[int], T], ahead: int = 1, background: Literal["process", "thread", "none"] = "process"
    ) -> None:
        self.make, self.ahead = make, ahead
        self.waited = 0.0  # seconds that ``take`` blocked its caller
        self._made: dict[int, T] = {}
        self._requested: set[int] = set()
        self._pipe: connection.Connection | None = None
        self._worker: BaseProcess | threading.Thread | None = None
        if background != "none" and ahead > 0:
            self._pipe, self._worker = _start(make, background)

    def take(self, index: int) -> T:
        """The pool of an index, waiting for it if necessary; requests the next ones.

        Raises
        ------
        Exception
            Whatever ``make`` raised.
        """
        if index not in self._made:
            began = time.perf_counter()
            self._request(index)
            self._made[index] = self._receive(index) if index in self._requested else self.make(index)
            self.waited += time.perf_counter() - began
        self._made = {i: made for i, made in self._made.items() if i >= index}
        self._request(index)
        return self._made[index]

    def close(self) -> None:
        """Stop the background worker at once and discard the pools."""
        self._end()
        self._made = {}

    def __enter__(self) -> "Pools[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, index: int) -> None:
        """Request the pools after this one."""
        for i in range(index + 1, index + 1 + self.ahead):
            if self._pipe is not None and i not in self._requested and i not in self._made:
                try:
                    self._pipe.send_bytes(pickle.dumps(i))
                    self._requested.add(i)
                except OSError:
                    self._give_up()

    def _receive(self, index: int) -> T:
        """A requested pool; others that arrive meanwhile are stored, older ones discarded."""
        while index in self._requested and self._pipe is not None:
            try:
                i, made, error = pickle.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                self._give_up()
                break
            self._requested.discard(i)
            if error is not None and i == index:
                raise error
            if error is None and i >= index:
                self._made[i] = made
        return self._made[index] if index in self._made else self.make(index)

    def _give_up(self) -> None:
        """Continue without a background worker after it ended unexpectedly."""
        log.warning("the background process that makes samples has ended; samples are now made between steps")
        self._end()

    def _end(self) -> None:
        """Stop the background worker and drop its requests."""
        pipe, worker, self._pipe, self._worker, self._requested = self._pipe, self._worker, None, None, set()
        if isinstance(worker, BaseProcess):
            worker.terminate()
        if pipe is not None:
            pipe.close()
        if worker is not None:
            worker.join()


class Stream:
    """Batches of samples; the k-th batch depends on the arguments only.

    Parameters
    ----------
    pools
        Pools of ``size`` samples in random order.
    size, batch
        Number of samples in a pool, and in a batch.
    uses
        Number of passes over each pool, each in another order, before the next.
    seed
        Seed of these orders.
    """

    def __init__(self, pools: Pools[ShapeSamples], size: int, batch: int, uses: int, seed: int) -> None:
        if not 0 < batch <= size or uses < 1:
            raise ValueError(f"a pool of {size} samples cannot give batches of {batch}, {uses} times")
        self.pools, self.size, self.length, self.uses, self.seed = pools, size, batch, uses, seed
        self._order: tuple[int, int, Int[Tensor, " n"]] = (-1, -1, torch.empty(0, dtype=torch.int64))

    def batch(self, step: int) -> ShapeSamples:
        """Batch of a step; steps count from 0."""
        each = self.size // self.length
        index, within = divmod(step, each * self.uses)
        turn, i = divmod(within, each)
        if self._order[:2] != (index, turn):
            generator = rng.generator_for(self.seed, index * self.uses + turn)
            self._order = (index, turn, torch.randperm(self.size, generator=generator))
        return self.pools.take(index)[self._order[2][i * self.length : (i + 1) * self.length]]


def _start(
    make: Callable[[int], T], background: Literal["process", "thread", "none"]
) -> tuple[connection.Connection, BaseProcess | threading.Thread]:
    """Start a worker; returns the pipe that takes indices and yields pools, and the worker."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    if background == "thread":
        thread = threading.Thread(target=_serve, args=(theirs, make), daemon=True)
        thread.start()
        return ours, thread
    process = context.Process(target=_process, args=(theirs, pickle.dumps(make)), daemon=True)
    with _interrupts_blocked():
        process.start()
    theirs.close()  # the worker has its own copy: when it ends, ours reads end-of-file
    return ours, process


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block ``_PARENTS_SIGNALS`` temporarily; a process started meanwhile inherits the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _process(pipe: connection.Connection, make: bytes) -> None:
    """Main function of the background process: low priority, one thread; it ends when its parent does."""
    for number in _PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with suppress(AttributeError, OSError):
        os.nice(NICE)  # not available on all systems
    os.environ["IGL_NUM_THREADS"] = "1"  # read at libigl's first use, which is when the solid is unpickled
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _serve(pipe, pickle.loads(make))


def _end_with_parent() -> None:
    """Exit this process at once when its parent has ended."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _serve(pipe: connection.Connection, make: Callable[[int], object]) -> None:
    """Make requested pools until the pipe is closed."""
    with suppress(EOFError, OSError), pipe:
        while True:
            index = pickle.loads(pipe.recv_bytes())
            try:
                reply = pickle.dumps((index, make(index), None))
            except Exception as error:  # raised again in the parent
                reply = pickle.dumps((index, None, error))
            pipe.send_bytes(reply)
