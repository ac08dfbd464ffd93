"""The state of runs is told from their files: finished, running, interrupted, waiting, failed."""

import json
import subprocess
import sys

import pytest

from enerf.core.errors import InputError
from enerf.engine import writer_lock
from enerf.experiments import status


def make(folder, records=(), metrics=None, **options):
    folder.mkdir(parents=True)
    text = "".join(f"{name} = {value}\n" for name, value in {"N_iters": 100, "max_seconds": 0.0, **options}.items())
    (folder / "config.txt").write_text(f"# Training\n{text}")
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if metrics:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


HALF = ({"step": 20, "seconds": 10.0, "psnr": 15.0}, {"step": 50, "seconds": 40.0, "psnr": 17.0})


def test_an_unfinished_run_has_progress_speed_and_its_last_score(tmp_path):
    folder = make(tmp_path / "a", [*HALF, {"step": 50, "test_psnr": 16.5}])
    with (folder / "train.jsonl").open("a") as journal:
        journal.write('{"step": 5')  # half a line of a process that was killed
    found = status.read(folder, {})
    assert (found.state, found.step, found.steps, found.seconds) == ("interrupted", 50, 100, 40.0)
    assert found.seconds_left == 50.0  # a second for each of the last 30 steps
    assert (found.score, found.unit) == (16.5, "dB")


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": null}', '{"runs": [{"folder": "a\\u0000b"}, 3]}'])
def test_what_a_damaged_sweep_planned_is_said_to_be_missing(text, tmp_path, caplog):
    make(tmp_path / "a", HALF)
    (tmp_path / "sweep.json").write_text(text)
    assert [run.state for run in status.read_all([tmp_path])] == ["interrupted"]
    assert "not listed" in caplog.text


def test_a_run_limited_by_seconds_ends_by_them(tmp_path):
    found = status.read(make(tmp_path / "a", HALF, N_iters=10_000, max_seconds=60.0), {})
    assert found.seconds_left == 20.0


def test_a_finished_run_has_the_score_of_its_metrics(tmp_path):
    metrics = {"steps": 100, "seconds": {"train": 80.0}, "mean": {"psnr": 21.0}}
    found = status.read(make(tmp_path / "a", [*HALF, {"step": 100, "seconds": 80.0}], metrics), {})
    assert (found.state, found.step, found.score) == ("finished", 100, 21.0)
    longer = make(tmp_path / "b", [{"step": 150, "seconds": 120.0}], metrics, N_iters=200)
    assert status.read(longer, {}).state == "interrupted"  # continued since


def test_a_locked_folder_is_a_running_run_also_to_its_own_process(tmp_path):
    folder = make(tmp_path / "a", HALF)
    code = (
        "import sys, pathlib; from enerf.engine import writer_lock\n"
        "with writer_lock.writing(pathlib.Path(sys.argv[1])): print('locked', flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        found = status.read(folder, {})
        assert (found.state, found.note.split()[1]) == ("running", str(other.pid))
        assert status.read(folder, {}).state == "running"  # asking does not take the lock away
        other.stdin.write("\n")
        other.stdin.close()
        other.wait()
    assert status.read(folder, {}).state == "interrupted"
    with writer_lock.writing(folder):
        assert status.read(folder, {}).state == "running"
        assert status.read(folder, {}).state == "running"


def sweep_of(tmp_path):
    top = tmp_path / "logs" / "sweep"
    make(top / "a_seed0", [*HALF], {"steps": 100, "seconds": {"train": 100.0}, "mean": {"psnr": 21.0}})
    (make(top / "b_seed0", HALF) / writer_lock.NAME).touch()  # a lock that is not seen from here
    rows = [("a_seed0", "finished"), ("b_seed0", "running"), ("c_seed0", "waiting"), ("d_seed0", "failed")]
    rows = [{"folder": name, "state": state, "steps": 100, "reason": "no memory"} for name, state in rows]
    (top / "sweep.json").write_text(json.dumps({"runs": rows}))
    return top


def test_a_sweep_adds_the_runs_that_have_no_folder_yet(tmp_path):
    top = sweep_of(tmp_path)
    found = {run.folder.rpartition("/")[2]: run for run in status.read_all([top])}
    states = {name: run.state for name, run in found.items()}
    assert states == {"a_seed0": "finished", "b_seed0": "running", "c_seed0": "waiting", "d_seed0": "failed"}
    assert found["d_seed0"].note == "no memory"
    assert status.summary(list(found.values())) == (
        "4 runs: 1 finished, 1 failed, 1 waiting, 1 running; about 2 min 25 s left"
    )  # 50 s of b, and c as long as the mean of 100 s and 90 s
    text = status.table(list(found.values()), top)
    assert [row[0] for row in text[1:]] == ["b_seed0", "c_seed0", "d_seed0", "a_seed0"]
    assert text[1][2:5] == ["50 of 100", "17.00 dB", "50 s"]
    assert json.loads(status.as_json(list(found.values())))[0]["state"] == "finished"


def test_a_sweep_that_was_moved_is_read_where_it_is(tmp_path):
    moved = sweep_of(tmp_path).rename(tmp_path / "elsewhere")
    assert sorted(run.state for run in status.read_all([moved])) == ["failed", "finished", "running", "waiting"]


def test_runs_of_a_sweep_that_has_stopped_are_interrupted_or_wait(tmp_path):
    folder = make(tmp_path / "a", HALF)
    assert status.read(folder, {"state": "waiting", "steps": 100}).state == "interrupted"
    assert status.read(tmp_path / "b", {"state": "running", "steps": 100}).state == "waiting"  # handed to a cluster
    metrics = {"steps": 50, "seconds": {"train": 40.0}, "mean": {"psnr": 17.0}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert status.read(folder, {"state": "waiting", "steps": 50}).state == "finished"
    assert status.read(folder, {"state": "waiting", "steps": 100}).state == "interrupted"  # planned for longer


def test_runs_of_a_queue_that_was_killed_are_running_only_while_their_lock_file_is_there(tmp_path):
    folder, row = make(tmp_path / "a", HALF), {"state": "running", "steps": 100}
    assert status.read(folder, row).state == "interrupted"
    (folder / writer_lock.NAME).touch()
    assert status.read(folder, row).state == "running"


def test_the_step_is_that_of_the_newest_checkpoint_if_it_is_later_than_the_journal(tmp_path):
    folder = make(tmp_path / "a", HALF)
    (folder / "checkpoints").mkdir()
    for name in ("000040.pt", "000057.pt", "last.pt", "99.tmp"):
        (folder / "checkpoints" / name).touch()
    assert status.read(folder, {}).step == 57


@pytest.mark.parametrize(("at_a_time", "seconds"), [(0, 220.0), (1, 220.0), (2, 110.0), (9, 220 / 3)])
def test_the_time_left_counts_runs_side_by_side_and_what_they_have_done(at_a_time, seconds):
    done = status.RunStatus("a", "finished", seconds=100.0)
    half = status.RunStatus("b", "running", seconds=80.0, seconds_left=20.0)
    waiting = [status.RunStatus(name, "waiting") for name in "cd"]
    assert status.seconds_left([done, half, *waiting], at_a_time) == seconds
    assert status.seconds_left([done, *waiting], at_a_time) == (200 / min(at_a_time, 2) if at_a_time else None)
    assert status.seconds_left([half, done], at_a_time) == 20.0


def test_a_run_that_diverged_is_no_failure(tmp_path):
    row = {"state": "diverged", "steps": 100, "reason": "step 60: the loss is inf"}
    found = status.read(make(tmp_path / "a", HALF), row)
    assert (found.state, found.note) == ("diverged", row["reason"])
    assert status.summary([found]) == "1 run: 1 diverged"


def test_scenes_named_as_their_sweep_are_listed_once(tmp_path):
    top = tmp_path / "fern"
    make(top / "fern" / "plain_seed0", HALF)
    rows = [{"folder": "fern/plain_seed0", "state": "waiting", "steps": 100}]
    (top / "sweep.json").write_text(json.dumps({"runs": rows}))
    assert [run.folder for run in status.read_all([tmp_path])] == [str(top / "fern" / "plain_seed0")]


@pytest.mark.parametrize("value", ["many", None, -1, 1e300, True, {}])
def test_odd_values_in_files_are_passed_over(tmp_path, value):
    records = [{"step": 5, "seconds": value, "psnr": value}, {"step": value}]
    folder = make(tmp_path / "a", records, {"steps": value, "seconds": value}, max_seconds="abc", N_iters="x")
    runs = [status.read(folder, {"state": value, "steps": value})]
    assert runs[0].state in status.STATES
    assert status.table(runs, tmp_path)[1][0] == "a"
    assert "1 run" in status.summary(runs)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="found no run, expected folders with"):
        status.read_all([tmp_path])


def test_status_imports_no_torch():
    code = "import sys, enerf.experiments.status, enerf.cli.status; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
