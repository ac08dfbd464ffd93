"""When and where checkpoints are saved: by time the newest few, elsewhere if the folder fails, never a broken state."""

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from enerf.config import parser
from enerf.core import io
from enerf.engine import checkpoint, optimizers, saver, writer_lock
from enerf.engine.checkpoint import State
from enerf.engine.saver import Saver
from enerf.tasks.nerf.config import NerfConfig
from tests.contents import refusal

NAME = f"enerf_rescue_a_run_{os.getpid()}"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's configuration; the working folder and that for temporary files are others."""
    for name in ("here", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(saver.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    return parser.from_dict(
        NerfConfig, {"basedir": str(tmp_path / "logs"), "expname": "a/run", "checkpoint_minutes": 1.0}
    )


def state(step: int = 0) -> State:
    model = nn.Linear(2, 1)
    return State(model, optimizers.adam(model, 1e-3), step)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.pt"))


def fail_in(monkeypatch, *folders: Path) -> None:
    """Let every new file in these folders fail as on a full disk."""
    opened = Path.open

    def full(path, mode="r", *args, **options):
        if "w" in mode and any(folder in path.parents for folder in folders):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)


def test_by_time_the_newest_are_kept_by_step_all_and_the_end_replaces_those_by_time(run, monkeypatch):
    clock, training = [0.0], state()
    monkeypatch.setattr(saver.time, "monotonic", lambda: clock[0])
    saves = Saver(run, {}, -1)
    for training.step in range(1, 12):
        clock[0] += 30
        if training.step == 6:
            saves.by_step(training)
        saves.by_time(training)
    assert names(run.folder) == ["checkpoints/000006.pt", *(f"checkpoints/recent/{n:06d}.pt" for n in (4, 8, 10))]
    assert [int(path.stem) for path in checkpoint.checkpoints(run.folder)] == [4, 6, 8, 10]
    assert saves.at_end(training) == run.folder / "checkpoints" / "000011.pt"
    assert names(run.folder) == ["checkpoints/000006.pt", "checkpoints/000011.pt"]
    assert not (run.folder / "checkpoints" / "recent").exists()


def test_zero_minutes_save_nothing_by_time(run, monkeypatch):
    monkeypatch.setattr(saver.time, "monotonic", lambda: 1e9)
    Saver(parser.replace(run, checkpoint_minutes=0.0), {}, -1).by_time(state(3))
    assert names(run.folder) == []


def test_if_the_folder_is_full_the_state_is_saved_elsewhere_and_the_training_goes_on(
    run, tmp_path, monkeypatch, caplog
):
    saves, training = Saver(run, {"kind": "nerf"}, -1), state(7)
    saves.by_step(training)
    fail_in(monkeypatch, tmp_path / "logs")
    for training.step in (8, 9):
        saves.by_step(training)
        assert f"{NAME}/checkpoints/{training.step:06d}.pt instead" in caplog.messages[-1]
    rescued = tmp_path / "here" / NAME
    assert names(tmp_path / "here") == [f"{NAME}/checkpoints/000009.pt"]
    assert parser.read_text(NerfConfig, rescued / "config.txt") == run
    training.step = 10
    told = refusal(saves.at_end, training)
    assert "No space left on device" in told
    assert str(rescued / "checkpoints" / "000010.pt") in told
    content = checkpoint.read(rescued / "checkpoints" / "000010.pt")
    assert all(torch.equal(value, training.model.state_dict()[name]) for name, value in content["model"].items())
    fail_in(monkeypatch, tmp_path / "here")
    training.step = 11
    assert str(tmp_path / "temporary") in refusal(saves.at_end, training)
    fail_in(monkeypatch, tmp_path)
    assert "could not be saved elsewhere either" in refusal(saves.at_end, training)
    assert checkpoint.checkpoints(run.folder) == [run.folder / "checkpoints" / "000007.pt"]
    caplog.clear()
    saver.mention_rescued(run)
    assert caplog.messages[0].endswith(f"000011.pt: --basedir {tmp_path / 'temporary'} --expname {NAME} resumes it")


def test_where_nothing_can_be_saved_no_empty_folder_remains(run, tmp_path, monkeypatch):
    saves = Saver(run, {}, -1)
    fail_in(monkeypatch, tmp_path)
    assert "could not be saved elsewhere either" in refusal(saves.at_end, state(1))
    assert not list(tmp_path.rglob("enerf_rescue*"))


def test_after_a_failure_the_state_before_it_is_saved_unless_it_is_broken(run):
    saves, training = Saver(run, {}, -1), state(0)
    assert saves.after_failure(training) == "no step was taken, and none is saved"
    training.step = 5
    path = run.folder / "checkpoints" / "000005.pt"
    assert saves.after_failure(training) == f"the state before it is saved: {path}"
    assert saves.after_failure(training) == f"the state before it is {path}"
    training.step, training.is_consistent = 6, False
    assert saves.after_failure(training) == f"the newest checkpoint is {path}"
    training.is_consistent = True
    with torch.no_grad():
        training.model.bias.fill_(torch.nan)
    assert saves.after_failure(training) == f"the newest checkpoint is {path}"
    path.unlink()
    assert saves.after_failure(training) == "there is no checkpoint"
    io.remove_leftovers(run.folder)
    assert names(run.folder) == []


def test_a_folder_that_vanished_is_made_again(run, tmp_path):
    saves, training = Saver(run, {}, -1), state(3)
    assert not run.folder.exists()
    saves.at_end(training)
    assert names(run.folder) == ["checkpoints/000003.pt"]


def test_a_folder_that_was_replaced_by_another_runs_gets_no_checkpoint(run, tmp_path):
    with writer_lock.writing(run.folder):
        saves, training = Saver(run, {"kind": "nerf"}, -1), state(3)
        run.folder.rename(tmp_path / "away")
        saves.by_step(training)  # it has only vanished: made and locked again
        assert names(run.folder) == ["checkpoints/000003.pt"]
        run.folder.rename(tmp_path / "away2")
        run.folder.mkdir()
        (run.folder / writer_lock.NAME).write_text("of another process")
        training.step = 4
        told = refusal(saves.at_end, training)
        assert "found another folder than the one that the run began in" in told
        assert str(tmp_path / "here" / NAME) in told
    assert sorted(os.listdir(run.folder)) == [writer_lock.NAME]
