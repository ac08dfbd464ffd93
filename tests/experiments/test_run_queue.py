"""A queue trains each run once, repeats failures once, and tells what is missing."""

import json

import pytest

from enerf.experiments import run_queue, variants
from enerf.experiments.options import CompareOptions
from enerf.experiments.run_queue import Queue
from tests.experiments.sweeps import Script, config

LABELS = ["plain, seed 0", "he, seed 0", "plain, seed 1", "he, seed 1"]


@pytest.fixture
def planned(tmp_path):
    return variants.plan({"": config("none", tmp_path)}, CompareOptions(methods="plain,he", seeds="0,1"))


def run(planned, folder, executor):
    seen = []
    results = Queue(executor, folder, None, lambda r: seen.append(len(r.metrics))).run(planned)
    return results, seen


def states(folder):
    return [row["state"] for row in json.loads((folder / run_queue.STATE).read_text())["runs"]]


def test_each_run_is_trained_once_in_order_within_the_slots(planned, tmp_path):
    executor = Script({}, slots=3)
    results, seen = run(planned, tmp_path, executor)
    assert executor.submitted == LABELS
    assert executor.most == 3
    assert seen == [1, 2, 3, 4]
    assert not results.missing()
    assert states(tmp_path) == ["finished"] * 4
    assert executor.stopped == 1


def test_a_failure_is_repeated_once_and_then_listed(planned, tmp_path):
    executor = Script({LABELS[0]: [1, 0], LABELS[1]: [-9, 2, 0]})
    results, _ = run(planned, tmp_path, executor)
    assert sorted(executor.submitted) == sorted([*LABELS, *LABELS[:2]])
    assert {v.label: reason for v, reason in results.failed.items()} == {LABELS[1]: "code 2"}
    assert [v.label for v in results.missing()] == [LABELS[1]]
    rows = json.loads((tmp_path / run_queue.STATE).read_text())["runs"]
    assert [(row["state"], row["attempts"]) for row in rows] == [
        *[("finished", 2), ("failed", 2)],
        *[("finished", 1)] * 2,
    ]
    assert rows[1]["reason"] == "code 2"


def test_a_loss_that_is_not_finite_is_not_repeated(planned, tmp_path):
    executor = Script({LABELS[2]: [3]})
    results, _ = run(planned, tmp_path, executor)
    assert executor.submitted == LABELS
    assert [v.label for v in results.failed] == [LABELS[2]]


def test_an_interruption_stops_the_executor_and_leaves_the_state_readable(planned, tmp_path):
    executor = Script({}, slots=1, interrupt_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(planned, tmp_path, executor)
    assert executor.stopped == 1
    assert states(tmp_path) == ["finished", "finished", "waiting", "waiting"]


def test_a_second_attempt_resumes_even_if_the_first_was_to_start_anew(tmp_path):
    base = config("none", tmp_path, no_reload=True)
    planned = variants.plan({"": base}, CompareOptions(methods="plain"))
    seen = []

    class Reader(Script):
        def submit(self, job):
            seen.append(json.loads(job.path.read_text())["options"]["no_reload"])
            super().submit(job)

    run(planned, tmp_path, Reader({LABELS[0]: [1, 0]}))
    assert seen == [True, False]
