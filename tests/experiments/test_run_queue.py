"""A queue trains each run once, repeats failures once, and tells what is missing."""

import json
from dataclasses import replace

import pytest

from enerf.cli import job
from enerf.config import parser
from enerf.core.errors import InputError
from enerf.experiments import run_queue, variants
from enerf.experiments.executors.registry import Job, Outcome
from enerf.experiments.options import CompareOptions
from enerf.experiments.run_queue import Failure, Queue
from enerf.tasks import registry
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
    assert seen == [0, 1, 2, 3, 4, 4]  # at the beginning, after each run, at the end
    assert not results.missing()
    assert states(tmp_path) == ["finished"] * 4
    assert executor.stopped == 1


def test_a_failure_is_repeated_once_and_then_listed(planned, tmp_path):
    executor = Script({LABELS[0]: [1, 0], LABELS[1]: [-9, 2, 0]})
    results, _ = run(planned, tmp_path, executor)
    assert sorted(executor.submitted) == sorted([*LABELS, *LABELS[:2]])
    assert {v.label: failure for v, failure in results.failed.items()} == {LABELS[1]: Failure(2, "code 2")}
    assert [v.label for v in results.missing()] == [LABELS[1]]
    rows = json.loads((tmp_path / run_queue.STATE).read_text())["runs"]
    assert [(row["state"], row["attempts"]) for row in rows] == [
        *[("finished", 2), ("failed", 2)],
        *[("finished", 1)] * 2,
    ]
    assert rows[1]["reason"] == "code 2"


def test_a_run_that_the_cluster_interrupts_is_continued_without_being_counted(planned, tmp_path):
    class Cluster(Script):
        """It interrupts the first run three times."""

        def wait(self):
            (outcome,) = super().wait()
            return [replace(outcome, counts=outcome.code != 130)]

    executor = Cluster({LABELS[0]: [130, 130, 1, 130, 0]})
    results, _ = run(planned, tmp_path, executor)
    assert not results.missing()
    assert executor.submitted.count(LABELS[0]) == 5
    assert [job.is_first for job in executor.jobs if job.variant.label == LABELS[0]] == [True, *[False] * 4]


def test_a_run_that_is_interrupted_for_ever_fails(planned, tmp_path, monkeypatch):
    class Cluster(Script):
        """It interrupts every run."""

        def wait(self):
            (outcome,) = super().wait()
            return [replace(outcome, counts=False)]

    monkeypatch.setattr(run_queue, "INTERRUPTIONS", 3)
    results, _ = run(planned[:1], tmp_path, Cluster({LABELS[0]: [130] * 9}))
    assert results.failed[planned[0]].code == 130
    assert results.attempts[planned[0]] == 3 + run_queue.ATTEMPTS


def test_the_executor_is_stopped_if_the_state_cannot_be_written(planned, tmp_path):
    (tmp_path / run_queue.STATE).mkdir()
    executor = Script({})
    with pytest.raises(InputError, match=r"sweep\.json: cannot be written"):
        run(planned, tmp_path, executor)
    assert executor.stopped == 1


def test_a_loss_that_is_not_finite_is_not_repeated(planned, tmp_path):
    executor = Script({LABELS[2]: [3]})
    results, _ = run(planned, tmp_path, executor)
    assert executor.submitted == LABELS
    assert [v.label for v in results.failed] == [LABELS[2]]
    assert states(tmp_path) == ["finished", "finished", "diverged", "finished"]
    assert run_queue.progress(results, None) == "3 of 4 runs finished, 1 diverged"


def test_the_progress_has_the_time_left_of_runs_side_by_side(planned, tmp_path, caplog):
    class Timed(Script):
        def wait(self):
            (outcome,) = super().wait()
            return [replace(outcome, metrics={**outcome.metrics, "seconds": {"train": 50.0}})]

    caplog.set_level("INFO")
    run(planned, tmp_path, Timed({}, slots=2))
    said = [record.message for record in caplog.records if " of 4 runs finished" in record.message]
    # one of the two that run, of which nothing is known, and two that wait, two at a time
    assert said[0] == "1 of 4 runs finished; about 1 min 15 s left"
    assert said[-1] == "4 of 4 runs finished"


def test_an_interruption_stops_the_executor_and_leaves_the_state_readable(planned, tmp_path):
    executor = Script({}, slots=1, interrupt_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(planned, tmp_path, executor)
    assert executor.stopped == 1
    assert states(tmp_path) == ["finished", "finished", "interrupted", "waiting"]


def test_runs_that_cannot_be_started_fail_alone(planned, tmp_path):
    class Refusing(Script):
        def submit(self, job):
            if job.variant.label == LABELS[0]:
                raise InputError("its folder cannot be written")
            return super().submit(job)

    results, _ = run(planned, tmp_path, Refusing({}))
    assert {v.label: failure.reason for v, failure in results.failed.items()} == {
        LABELS[0]: "its folder cannot be written"
    }
    assert len(results.metrics) == 3


def test_a_run_without_room_waits_for_it(planned, tmp_path):
    class Full(Script):
        def submit(self, job):
            return not self.running and super().submit(job)

    executor = Full({}, slots=4)
    results, _ = run(planned, tmp_path, executor)
    assert (executor.submitted, executor.most) == (LABELS, 1)
    assert set(results.attempts.values()) == {1}


def test_a_run_that_leaves_damaged_metrics_fails_and_others_go_on(planned, tmp_path):
    class Damaging(Script):
        def wait(self):
            (outcome,) = super().wait()
            folder = outcome.job.variant.config.folder
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").write_text("{")
            return [outcome if outcome.job.variant.seed else Outcome(outcome.job, 0)]

    results, _ = run(planned, tmp_path, Damaging({}))
    assert [v.label for v in results.failed] == LABELS[:2]
    assert all("metrics.json" in failure.reason for failure in results.failed.values())


def test_earlier_results_are_set_aside_once(tmp_path):
    run_folder = tmp_path / "sweep" / "plain_seed0"
    run_folder.mkdir(parents=True)
    (run_folder / "metrics.json").write_text("{}")
    base = config("none", tmp_path, no_reload=True)
    (variant,) = variants.plan({"": base}, CompareOptions(methods="plain"))
    first = Job(variant, None)
    first.write()
    assert job._begun_anew(first.path, json.loads(first.path.read_text()), variant.config).run.no_reload
    assert [path.name for path in run_folder.glob("metrics*")] == ["metrics.json.1"]
    (run_folder / "checkpoints").mkdir()
    (run_folder / "checkpoints" / "000005.pt").touch()
    again = Job(variant, None, is_first=False)
    again.write()  # keeps what the first attempt has noted
    assert not job._begun_anew(again.path, json.loads(again.path.read_text()), variant.config).run.no_reload
    assert (run_folder / "checkpoints" / "000005.pt").is_file()


@pytest.mark.parametrize("task", registry.tasks(), ids=lambda task: task.kind)
def test_a_job_file_holds_every_option_exactly(task, tmp_path):
    kind = task.load("config")
    source = {"nerf": "--datadir", "shape": "--mesh", "classifier": "--images"}[task.kind]
    words = ["--lrate", "0.1000000000000001", "--expname", "a b", "--basedir", str(tmp_path), source, " odd='name'.ply"]
    base, _ = parser.parse(kind, words)
    values = json.loads(json.dumps(parser.to_dict(base)))
    assert job._config(tmp_path, task, values) == base


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cwd": None}, "no valid value of cwd"),
        ({"begun": 1}, "no valid value of begun"),
        ({"kind": "no"}, "no valid value of kind"),
        ({"options": {"N_iters": "x"}}, "job.json: option --N_iters"),
        ({"options": {"nosuch": 1}}, "job.json: found the option .nosuch"),
        ({"options": {"N_rand": 0}}, "job.json: option --N_rand"),
    ],
)
def test_a_damaged_job_file_is_refused(changes, words, tmp_path, monkeypatch):
    path = tmp_path / "job.json"
    content = {"kind": "nerf", "options": {}, "backend": None, "cwd": str(tmp_path), "begun": False}
    path.write_text(json.dumps({**content, **changes}))
    monkeypatch.setattr("sys.argv", ["job", str(path)])
    with pytest.raises(InputError, match=words):
        job.main()
