"""Results of threads come in order, with bounded memory, and errors where they belong."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enerf.core import files, parallel


@given(st.lists(st.integers(), max_size=12), st.integers(1, 4))
def test_results_are_those_of_map_in_order(items, threads):
    assert list(parallel.in_order(lambda x: 3 * x, items, threads)) == [3 * x for x in items]


def test_no_more_results_wait_than_there_are_threads():
    lock, begun = threading.Lock(), [0]

    def work(i):
        with lock:
            begun[0] += 1
        return i

    for used in parallel.in_order(work, range(1, 21), 3):
        time.sleep(0.002)  # the threads would run ahead
        assert begun[0] - used <= 3


def test_the_first_error_in_order_is_raised_after_the_results_before_it():
    def work(i):
        if i == 2:
            time.sleep(0.05)
        if i >= 2:
            raise ValueError(str(i))
        return i

    results = parallel.in_order(work, range(50), 4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match=r"^2$"):
        next(results)


def test_no_further_work_is_started_after_an_error():
    begun = []

    def work(i):
        begun.append(i)
        if i == 1:
            raise ValueError(str(i))
        return i

    with pytest.raises(ValueError, match=r"^1$"):
        list(parallel.in_order(work, range(1000), 3))
    assert len(begun) <= 4


def test_a_closed_iterator_computes_nothing_more():
    begun = []
    results = parallel.in_order(lambda i: begun.append(i) or i, range(1000), 2)
    next(results)
    results.close()
    count = len(begun)
    time.sleep(0.02)
    assert count == len(begun) <= 4
    assert not [t for t in threading.enumerate() if t.name.startswith("enerf")]


def test_threads_are_bounded_by_cores_and_memory(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 6)
    monkeypatch.setattr(files, "available_memory", lambda: 1000)
    assert [parallel.threads_for(n) for n in (0, 1, 100, 250, 251, 10**9)] == [6, 6, 5, 2, 1, 1]
