"""Memory that Python allocates during a call."""

import gc
import tracemalloc
from collections.abc import Callable


def least_peak(call: Callable[[], object], repeats: int = 3) -> int:
    """Return the smallest peak of allocated bytes of several calls, after one that is not measured.

    The first call imports modules and fills caches, and another thread of the process may allocate during a call:
    neither is memory that the call needs.
    """
    call()
    peaks = []
    for _ in range(repeats):
        gc.collect()
        tracemalloc.start()
        try:
            call()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)
