"""Pools of samples, prepared in the background while training takes its batches from the last one.

Whatever the timing, pool n is what ``make(n)`` gives, and batch k of a stream is always the same: if a pool is late,
training waits for it (``Pools.waited`` says how long), and never goes on with another. A run that is resumed at batch k
asks for the pool that k belongs to and finds the same samples.

The background is a process, because libigl holds Python's lock while it labels: a thread would stall training. It runs
at low priority with one thread, ignores Ctrl-C, and ends with its parent, however that ends.
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
NICE = 10  # how much the background process gives way


class Pools(Generic[T]):
    """What ``make(0)``, ``make(1)``, … give, the next ones made while the present one is used.

    Parameters
    ----------
    make
        Pool of an index; for a process it must be picklable, as ``functools.partial(points.pool, solid, …)`` is.
    ahead
        How many pools are prepared before they are asked for.
    background
        Where: ``process``; ``thread`` for work that lets go of Python's lock; ``none`` makes each when asked for.
    """

    def __init__(
        self, make: Callable[[int], T], ahead: int = 1, background: Literal["process", "thread", "none"] = "process"
    ) -> None:
        self.make, self.ahead = make, ahead
        self.waited = 0.0  # seconds that ``take`` kept its caller
        self._made: dict[int, T] = {}
        self._ordered: set[int] = set()
        self._pipe: connection.Connection | None = None
        self._worker: BaseProcess | threading.Thread | None = None
        if background != "none" and ahead > 0:
            self._pipe, self._worker = _start(make, background)

    def take(self, index: int) -> T:
        """Pool of an index, as soon as it is there; the next ones are begun.

        Raises
        ------
        Exception
            Whatever ``make`` raised.
        """
        if index not in self._made:
            begun = time.perf_counter()
            self._order(index)
            self._made[index] = self._receive(index) if index in self._ordered else self.make(index)
            self.waited += time.perf_counter() - begun
        self._made = {i: made for i, made in self._made.items() if i >= index}
        self._order(index)
        return self._made[index]

    def close(self) -> None:
        """End the background, whatever it is at, and forget what was made."""
        self._end()
        self._made = {}

    def __enter__(self) -> "Pools[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _order(self, index: int) -> None:
        """Have the pools after this one begun, if they are not."""
        for i in range(index + 1, index + 1 + self.ahead):
            if self._pipe is not None and i not in self._ordered and i not in self._made:
                try:
                    self._pipe.send_bytes(pickle.dumps(i))
                    self._ordered.add(i)
                except OSError:
                    self._give_up()

    def _receive(self, index: int) -> T:
        """A pool that was ordered; those that come before it are kept or, if older, forgotten."""
        while index in self._ordered and self._pipe is not None:
            try:
                i, made, error = pickle.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                self._give_up()
                break
            self._ordered.discard(i)
            if error is not None and i == index:
                raise error
            if error is None and i >= index:
                self._made[i] = made
        return self._made[index] if index in self._made else self.make(index)

    def _give_up(self) -> None:
        """Go on without a background that ended by itself."""
        log.warning("the background process that makes samples has ended: they are made between steps from now on")
        self._end()

    def _end(self) -> None:
        """End the background; what was ordered is given up."""
        pipe, worker, self._pipe, self._worker, self._ordered = self._pipe, self._worker, None, None, set()
        if isinstance(worker, BaseProcess):
            worker.terminate()
        if pipe is not None:
            pipe.close()
        if worker is not None:
            worker.join()


class Stream:
    """Batches of samples: the k-th is the same whenever it is asked for.

    Parameters
    ----------
    pools
        Pools of ``size`` samples in random order.
    size, batch
        Samples of a pool, and of a batch.
    uses
        How often each pool is gone through, each time in another order, before the next.
    seed
        Of those orders.
    """

    def __init__(self, pools: Pools[ShapeSamples], size: int, batch: int, uses: int, seed: int) -> None:
        if not 0 < batch <= size or uses < 1:
            raise ValueError(f"a pool of {size} samples cannot give batches of {batch}, {uses} times")
        self.pools, self.size, self.length, self.uses, self.seed = pools, size, batch, uses, seed
        self._order: tuple[int, int, Int[Tensor, " n"]] = (-1, -1, torch.empty(0, dtype=torch.int64))

    def batch(self, step: int) -> ShapeSamples:
        """Batch of a step, counted from 0."""
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
    """A worker that makes the pools it is sent the index of, and the pipe to it."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    if background == "thread":
        thread = threading.Thread(target=_serve, args=(theirs, make), daemon=True)
        thread.start()
        return ours, thread
    process = context.Process(target=_process, args=(theirs, pickle.dumps(make)), daemon=True)
    with _interrupts_held():
        process.start()
    theirs.close()  # the worker has its own: when it ends, ours reads the end of the pipe
    return ours, process


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; a process that starts meanwhile never gets one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _process(pipe: connection.Connection, make: bytes) -> None:
    """The background process: quiet, patient, with one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(AttributeError, OSError):
        os.nice(NICE)  # where there is such a thing
    os.environ["IGL_NUM_THREADS"] = "1"  # read when libigl is first asked, so before the solid is unpickled
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _serve(pipe, pickle.loads(make))


def _end_with_parent() -> None:
    """End this process, whatever it is at, when its parent has ended."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _serve(pipe: connection.Connection, make: Callable[[int], object]) -> None:
    """Make what is asked for until the pipe is closed."""
    with suppress(EOFError, OSError), pipe:
        while True:
            index = pickle.loads(pipe.recv_bytes())
            try:
                answer = pickle.dumps((index, make(index), None))
            except Exception as error:  # told to whoever asked
                answer = pickle.dumps((index, None, error))
            pipe.send_bytes(answer)
