"""What a journal does when its folder cannot be written: no traceback, and a sentence about what is lost."""

import errno
import threading
import time
from pathlib import Path

import pytest

from enerf.core.errors import InputError
from enerf.engine.journal import Journal


def test_a_write_error_of_tensorboards_thread_is_a_warning_not_a_traceback(tmp_path, monkeypatch, caplog, capfd):
    before = threading.excepthook
    journal = Journal(tmp_path, 0)
    worker = journal.board.file_writer.event_writer._async_writer._worker

    def full(data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker._record_writer, "write", full)
    journal.record(1, {"loss": 1.0})
    for _ in range(100):
        if worker.exception is not None:
            break
        time.sleep(0.05)
    journal.record(2, {"loss": 1.0})
    journal.close()
    assert [message.split(": ")[1] for message in caplog.messages] == [
        "cannot be written (No space left on device); no more is written there"
    ]
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook is before


def test_a_writer_that_fails_at_once_is_one_sentence(tmp_path, monkeypatch, capfd):
    class Failing(threading.Thread):
        __module__ = "tensorboard.writer"

        def run(self):
            raise OSError(errno.EROFS, "Read-only file system")

    def writer(*args, **options):
        thread = Failing()
        thread.start()
        thread.join()
        thread.run()

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # restored after the test
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", writer)
    with pytest.raises(InputError, match=r"tensorboard: cannot be written \(Read-only file system\), expected"):
        Journal(tmp_path, 0)
    assert "Traceback" not in capfd.readouterr().err


def test_records_that_cannot_be_written_to_the_end_are_counted(tmp_path, monkeypatch, caplog):
    journal, opened = Journal(tmp_path, 0), Path.open

    def full(path, *args, **options):
        if path.name == "train.jsonl":
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, *args, **options)

    journal.record(1, {"loss": 1.0})
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        journal.record(2, {"loss": 1.0})
        journal.record(3, {"loss": 1.0})
    journal.record(4, {"loss": 1.0})
    assert len(journal.path.read_text().splitlines()) == 4
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        journal.record(5, {"loss": 1.0})
        journal.close()
    assert caplog.messages[-1] == f"{tmp_path / 'train.jsonl'}: the last 1 records are lost: it cannot be written"


def test_errors_of_other_threads_are_left_to_the_hook_before(tmp_path, monkeypatch):
    seen, error = [], OSError()
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    journal = Journal(tmp_path, 0)

    def fail():
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    journal.close()
    assert seen == [error]
