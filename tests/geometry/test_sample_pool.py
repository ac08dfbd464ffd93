"""Tests of samples prepared in the background."""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from enerf.core.errors import InputError
from enerf.geometry import mesh, sample_pool
from enerf.geometry import samples as geometry_samples
from enerf.geometry import solid as geometry_solid
from tests.contents import same
from tests.geometry import solids

BACKGROUNDS = ["process", "thread", "none"]


def square(index):
    """A pool that says its index."""
    return index * index


def fails_at_two(index):
    """A pool that cannot be made."""
    if index == 2:
        raise InputError("thing.obj: no pool 2, expected one.")
    return index


def ends_its_process(index):
    """A pool whose making ends the background process, and no other."""
    if index == 1 and "PYTEST_CURRENT_TEST_PROCESS" not in os.environ:
        os.environ["PYTEST_CURRENT_TEST_PROCESS"] = "seen"
        if os.getpid() != int(os.environ["ENERF_TEST_PARENT"]):
            os._exit(9)
    return index


def _make(mixture=None, n=400):
    solid = geometry_solid.Solid(mesh.from_arrays(*solids.ellipsoid(2), "thing.obj"))
    return functools.partial(geometry_samples.pool, solid, mixture or geometry_samples.Mixture(), n, 5, distances=True)


def _fields(samples):
    return [samples.points, samples.labels, samples.distances]


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_pool_is_the_same_wherever_it_is_made(background):
    make = _make()
    with sample_pool.Pools(make, background=background) as made:
        for index in (0, 1, 2, 5):  # 5 was not expected next
            assert same(_fields(made.take(index)), _fields(make(index)))
            assert made.take(index) is made.take(index)


@pytest.mark.parametrize("ahead", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_pool_is_the_same_whatever_the_timing(ahead, seed):
    delays = torch.rand(8, generator=torch.Generator().manual_seed(seed)).tolist()

    def late(index):
        time.sleep(delays[index] * 0.02)
        return index * index

    with sample_pool.Pools(late, ahead=ahead, background="thread") as made:
        for index in range(8):
            time.sleep(delays[-1 - index] * 0.02)
            assert made.take(index) == index * index


def test_the_next_pool_is_made_while_this_one_is_used():
    begun = [threading.Event() for _ in range(4)]

    def make(index):
        begun[index].set()
        return index

    with sample_pool.Pools(make, background="thread") as made:
        made.take(0)
        assert begun[1].wait(10)
        assert not begun[2].is_set()
        made.take(1)
        assert begun[2].wait(10)


def test_pools_that_were_passed_are_forgotten():
    with sample_pool.Pools(square, ahead=2, background="thread") as made:
        for index in (0, 1, 2, 7, 8):
            made.take(index)
            assert min(made._made) == index
            assert len(made._made) <= 3
        assert made.take(0) == 0


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_what_fails_in_the_background_is_raised_where_it_is_asked_for(background):
    with sample_pool.Pools(fails_at_two, background=background) as made:
        assert [made.take(index) for index in (0, 1)] == [0, 1]
        with pytest.raises(InputError, match="no pool 2"):
            made.take(2)
        assert made.take(3) == 3


def test_a_background_that_dies_is_said_and_replaced_by_the_foreground(monkeypatch, caplog):
    monkeypatch.setenv("ENERF_TEST_PARENT", str(os.getpid()))
    with sample_pool.Pools(ends_its_process) as made:
        assert [made.take(index) for index in range(4)] == [0, 1, 2, 3]
    assert caplog.text.count("has ended") == 1


@pytest.mark.parametrize("background", ["process", "thread"])
def test_closing_leaves_nobody_behind(background):
    made = sample_pool.Pools(square, background=background)
    worker = made._worker
    made.take(0)
    made.close()
    made.close()
    assert not worker.is_alive()
    assert made.take(3) == 9  # and it still answers


def test_closing_does_not_wait_for_a_process_at_work():
    made = sample_pool.Pools(time.sleep)  # pool n takes n seconds
    made.take(0)
    made._request(59)
    begun = time.perf_counter()
    made.close()
    assert time.perf_counter() - begun < 20


ENDLESS = """
import signal, sys, time
from enerf.geometry import sample_pool
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
    with sample_pool.Pools(time.sleep) as made:
        made.take(0)
        made._request(599)
        print(made._worker.pid, flush=True)
        {then}
"""


def _runs(pid):
    """Whether a process of that number runs; one that has ended and waits to be fetched does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = pathlib.Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("then", "number"), [("time.sleep(600)", signal.SIGINT), ("time.sleep(600)", signal.SIGKILL), ("1 / 0", None)]
)
def test_the_background_ends_with_its_parent_however_that_ends(then, number, tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS.format(then=then))
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    worker = int(parent.stdout.readline())
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does: to parent and child
    elif number is not None:
        parent.send_signal(number)
    try:
        _, words = parent.communicate(timeout=120)
    finally:
        parent.kill()
    assert words.count("Traceback") == (0 if number == signal.SIGKILL else 1)
    for _ in range(300):
        if not _runs(worker):
            return
        time.sleep(0.1)
    raise AssertionError("the background goes on")


def test_a_stream_gives_the_same_batches_whenever_asked():
    make = _make(n=100)

    def stream(background):
        return sample_pool.Stream(sample_pool.Pools(make, background=background), 100, 30, 2, seed=7)

    one, other = stream("none"), stream("thread")
    forwards = [one.batch(k) for k in range(15)]
    for k in (0, 5, 6, 6, 13, 2, 14):  # jumps, as resuming does
        assert same(_fields(other.batch(k)), _fields(forwards[k]))
    other.pools.close()


def test_a_stream_goes_through_each_pool_as_often_as_it_says_each_time_in_another_order():
    make = _make(n=100)
    stream = sample_pool.Stream(sample_pool.Pools(make, background="none"), 100, 25, 2, seed=7)
    rows = [torch.cat([stream.batch(k).points for k in range(4 * i, 4 * i + 4)]) for i in range(4)]
    for i, found in enumerate(rows):
        assert torch.equal(found.unique(dim=0), make(i // 2).points.unique(dim=0))
    assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize(("batch", "uses"), [(0, 1), (101, 1), (10, 0)])
def test_a_stream_that_cannot_flow_is_refused(batch, uses):
    with pytest.raises(ValueError, match="cannot give batches"):
        sample_pool.Stream(sample_pool.Pools(square, background="none"), 100, batch, uses, seed=0)
