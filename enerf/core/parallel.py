"""Threads for work that releases Python's global lock: decoding and resizing images, compression, OpenCV."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from enerf.core import files

A = TypeVar("A")
B = TypeVar("B")
MOST = 8  # threads


def cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_for(bytes_each: int = 0) -> int:
    """Number of threads for work that needs so many bytes in each: the cores, within half of the available memory.

    At most ``MOST``, and at least 1, for work that needs more memory than that.
    """
    most = min(cores(), MOST)
    return most if bytes_each == 0 else max(1, min(most, files.available_memory() // (2 * bytes_each)))


def in_order(function: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """Results of a function for each item, in order, computed by threads while earlier results are used.

    At most ``threads`` results are computed or waiting at a time, so that memory is bounded. The first error in the
    order of the items is raised where its result would come; no further work is started after it, nor once the iterator
    is closed. An error of ``items`` itself is raised at once. With one thread it is ``map``.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="enerf") as pool:
        try:
            for item in items:
                if len(waiting) == threads:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
