"""Results of readers: never in the place of newer ones, never beside a training."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from enerf.core import io
from enerf.core.errors import InputError
from enerf.engine import results, writer_lock


def evaluate(folder, step):
    with results.published(folder, step) as out:
        io.write_json(out / "metrics.json", {"steps": step})
        (out / "test" / "final").mkdir(parents=True)
        (out / "test" / "final" / "a.png").write_text(f"picture of {step}")


def content(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_results_replace_those_of_the_same_or_an_earlier_step_and_nothing_else(tmp_path):
    evaluate(tmp_path, 5)
    (tmp_path / "test" / "final" / "b.png").write_text("kept")
    for step in (5, 7):
        evaluate(tmp_path, step)
        found = content(tmp_path)
        assert found["test/final/a.png"] == f"picture of {step}"
        assert sorted(found) == ["metrics.json", "test/final/a.png", "test/final/b.png"]
    assert results.stored_step(tmp_path) == 7


def test_a_later_step_that_was_evaluated_meanwhile_stays(tmp_path, caplog):
    evaluate(tmp_path, 7)
    before = content(tmp_path)
    evaluate(tmp_path, 5)
    assert content(tmp_path) == before
    assert caplog.messages == [
        f"the results are not stored: {tmp_path / 'metrics.json'}: found metrics of step 7, evaluated is step 5"
    ]


def test_nothing_is_stored_while_the_run_is_trained(tmp_path, caplog):
    with writer_lock.writing(tmp_path):
        evaluate(tmp_path, 5)
    assert content(tmp_path) == {}
    assert "the results are not stored" in caplog.text


def test_an_evaluation_that_fails_leaves_nothing(tmp_path):
    def fail():
        with results.published(tmp_path, 1) as out:
            (out / "metrics.json").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert content(tmp_path) == {}
    assert results.stored_step(tmp_path) == -1


HOLDER = """
    import sys, time
    from pathlib import Path
    from enerf.engine import writer_lock
    with writer_lock.writing(Path(sys.argv[1]), briefly=sys.argv[2] == "briefly"):
        print("held", flush=True)
        time.sleep(1 if sys.argv[2] == "briefly" else 60)
"""


def test_where_nothing_can_be_written_results_are_returned_and_not_stored(tmp_path, monkeypatch, caplog):
    def fail(path, *args, **options):
        if path.is_relative_to(tmp_path):
            raise OSError(30, "Read-only file system")
        return made(path, *args, **options)

    made = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", fail)
    monkeypatch.setattr(Path, "open", lambda path, *args, **options: fail(path))
    with results.published(tmp_path, 5) as out:
        assert not out.is_relative_to(tmp_path)
    assert "cannot be written (Read-only file system)" in caplog.text
    assert content(tmp_path) == {}


@pytest.mark.parametrize("how", ["briefly", "for long"])
def test_a_training_waits_for_whom_only_moves_files(tmp_path, how):
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as holder:
        assert holder.stdout.readline() == b"held\n"
        if how == "briefly":
            with writer_lock.writing(tmp_path):
                assert holder.wait(10) == 0
        else:
            with pytest.raises(InputError, match=rf"process {holder.pid} on"), writer_lock.writing(tmp_path):
                pass
        holder.kill()
