"""When checkpoints are saved, and where else if the run's folder cannot be written."""

import glob
import logging
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from enerf.config import parser
from enerf.config.options import RunConfig
from enerf.core import io
from enerf.core.errors import InputError, ProcessLost
from enerf.engine import checkpoint, writer_lock
from enerf.engine.checkpoint import State

log = logging.getLogger("enerf")


class Saver:
    """Saves the checkpoints of a run: by steps, by time, and at its end.

    If the folder cannot be written (full disk, unmounted), a checkpoint is saved in the working folder or the system's
    folder for temporary files instead, which a warning names; the training goes on.

    Parameters
    ----------
    config
        The run.
    saved
        Options and other entries of the checkpoints' ``config``.
    step
        Step of the checkpoint from which the run was resumed; -1 for a new run.
    """

    def __init__(self, config: RunConfig, saved: dict[str, Any], step: int) -> None:
        self.config, self.saved = config, saved
        self._seconds = 60 * config.run.checkpoint_minutes
        self._last_time, self._last_step = time.monotonic(), step
        self._elsewhere: Path | None = None

    def by_step(self, training: State) -> None:
        """Save a checkpoint that is kept."""
        self._save(training)

    def by_time(self, training: State) -> None:
        """Save a checkpoint if the last one is older than ``checkpoint_minutes``; keep the newest of these."""
        if 0 < self._seconds <= time.monotonic() - self._last_time:
            self._save(training, recent=True)
            checkpoint.prune_recent(self.config.folder, self.config.run.checkpoints_kept)

    def at_end(self, training: State) -> Path:
        """Save the last checkpoint and delete those that were saved by time; return its path.

        Raises
        ------
        InputError
            If it could not be saved in the run's folder; the message tells where it was saved instead.
        """
        path, error = self._save(training)
        if error is not None:
            raise InputError(f"{error}; {_place(path)}")
        assert path is not None
        checkpoint.prune_recent(self.config.folder, 0)
        return path

    def after_failure(self, training: State) -> str:
        """Save the state before a step that failed, if it is consistent; return where the last good state is."""
        if not training.is_consistent or not _is_finite(training):
            found = checkpoint.checkpoints(self.config.folder)
            return f"the newest checkpoint is {found[-1]}" if found else "there is no checkpoint"
        if training.step == self._last_step:
            found = checkpoint.checkpoints(self.config.folder)
            return f"the state before it is {found[-1]}" if found else "there is no checkpoint"
        if training.step == 0:
            return "no step was taken, and none is saved"
        path, error = self._save(training)
        return f"the state before it is saved: {path}" if error is None else f"{error}; {_place(path)}"

    def after_loss(self, training: State, error: ProcessLost) -> ProcessLost:
        """Save the state before a step in which another process ended; return the error that says where it is."""
        where = Saver.after_failure(self, training)
        return ProcessLost(f"training stopped: {error}; {where}", is_shown_here=True)

    def _save(self, training: State, *, recent: bool = False) -> tuple[Path | None, InputError | None]:
        """Save a checkpoint, elsewhere if the folder cannot be written; return its path, or the error or both."""
        self._last_time = time.monotonic()
        try:
            writer_lock.require_held(self.config.folder)
            path = checkpoint.save(training, self.config.folder, self.saved, recent=recent)
        except InputError as error:
            elsewhere = self._save_elsewhere(training)
            log.warning("%s; %s", error, _place(elsewhere))
            return elsewhere, error
        self._last_step = training.step
        return path, None

    def _save_elsewhere(self, training: State) -> Path | None:
        """Save a checkpoint in another folder, which is a run's folder too, and delete the one before; or None."""
        name = f"{_rescue_name(self.config)}_{os.getpid()}"
        for place in _rescue_places():
            try:
                path = checkpoint.save(training, place / name, self.saved)
                io.write_atomic(place / name / "config.txt", config_text(self.config))
            except (InputError, OSError):
                with suppress(OSError):  # nothing was saved there: no empty folders remain
                    (place / name / "checkpoints").rmdir()
                    (place / name).rmdir()
                continue
            if self._elsewhere is not None and self._elsewhere != path:
                self._elsewhere.unlink(missing_ok=True)
            self._elsewhere = path
            return path
        return None


def config_text(config: RunConfig) -> str:
    """Return the content of ``config.txt``, by which the run is resumed with ``--config``."""
    return parser.to_text(parser.replace(config, no_reload=False, resume_with_changes=False))


def mention_rescued(config: RunConfig) -> None:
    """Log which checkpoints of an earlier run of this name were saved elsewhere, if there are any."""
    name = glob.escape(_rescue_name(config))
    for folder in (path for place in _rescue_places() for path in sorted(place.glob(f"{name}_[0-9]*"))):
        with suppress(InputError):
            if found := checkpoint.checkpoints(folder):
                log.warning("a run of this name was saved in %s: %s", found[-1], _how_to_resume(folder))


def _rescue_name(config: RunConfig) -> str:
    """Return the beginning of the name of the folders in which a run's state is saved if its own cannot be written."""
    return "enerf_rescue_" + (config.run.expname or config.scene).replace("/", "_")[-100:]


def _rescue_places() -> tuple[Path, Path]:
    return Path.cwd(), Path(tempfile.gettempdir())


def _place(path: Path | None) -> str:
    if path is None:
        return "the state could not be saved elsewhere either"
    return f"the state is saved in {path} instead: {_how_to_resume(path.parent.parent)}"


def _how_to_resume(folder: Path) -> str:
    return f"--basedir {folder.parent} --expname {folder.name} resumes it"


def _is_finite(training: State) -> bool:
    """Return whether all weights are finite."""
    return all(bool(value.isfinite().all()) for value in training.model.state_dict().values())
