"""One writer of a run's folder: a second one is refused and told the first, whose end frees the folder in any case."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from enerf.core import io
from enerf.engine import writer_lock
from tests.contents import refusal


def enter(folder) -> None:
    with writer_lock.writing(folder):
        pass


@pytest.fixture
def other(tmp_path):
    """Another process that writes to the folder ``run``."""
    code = f"""
        import sys, time
        from pathlib import Path
        from enerf.engine import writer_lock
        with writer_lock.writing(Path({str(tmp_path / "run")!r})):
            print("locked", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_with_the_first_ones_number_and_host_until_it_is_killed(other, tmp_path):
    for _ in range(2):
        told = refusal(enter, tmp_path / "run")
        assert told.startswith(f"{tmp_path / 'run'}: process {other.pid} on {io.host()}, since 2")
    enter(tmp_path / "elsewhere")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "run" / writer_lock.NAME).exists()
    leftover = tmp_path / "run" / f".{io.host()}-{other.pid}-0123456789ab.tmp.pt"
    leftover.write_text("half")
    with writer_lock.writing(tmp_path / "run"):
        assert not leftover.exists()
        (tmp_path / "run" / "kept").write_text("")
    assert os.listdir(tmp_path / "run") == ["kept"]


def test_the_same_process_is_refused_too_and_nothing_remains_of_an_empty_folder(tmp_path):
    with writer_lock.writing(tmp_path / "a" / "run"):
        assert "this process already writes to it" in refusal(enter, tmp_path / "a" / "run")
        assert (tmp_path / "a" / "run").is_dir()
    assert os.listdir(tmp_path) == []


def test_a_lock_file_that_was_deleted_meanwhile_is_made_again(tmp_path, monkeypatch):
    lockf, first = writer_lock.fcntl.lockf, []

    def delete_first(file, how):
        if not first:
            first.append(1)
            (tmp_path / writer_lock.NAME).unlink()
        return lockf(file, how)

    monkeypatch.setattr(writer_lock.fcntl, "lockf", delete_first)
    with writer_lock.writing(tmp_path):
        assert (tmp_path / writer_lock.NAME).exists()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def fail(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(writer_lock.fcntl, "lockf", fail)
    enter(tmp_path)
    assert f"{tmp_path}: not protected against a second writer (Operation not supported)" in caplog.messages


def test_on_a_full_disk_the_lock_holds_without_its_content(tmp_path, monkeypatch):
    acquire = writer_lock._acquire

    class Full:
        def __init__(self, file):
            self.close, self.fileno = file.close, file.fileno

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_lock, "_acquire", lambda path: Full(acquire(path)))
    with writer_lock.writing(tmp_path):
        code = f"import pathlib, enerf.engine.writer_lock as w; w.writing(pathlib.Path({str(tmp_path)!r})).__enter__()"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"{tmp_path}: another process writes to this run" in other.stderr
        assert "another --expname or --out" in other.stderr
    enter(tmp_path)


def test_a_folder_that_cannot_be_created_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(enter, tmp_path / "file" / "run")
