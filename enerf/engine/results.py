"""Results of an evaluation by a process that does not train the run, while another one may."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enerf.core import io
from enerf.core.errors import InputError
from enerf.engine import writer_lock

log = logging.getLogger("enerf")
METRICS = "metrics.json"


@contextmanager
def published(folder: Path, step: int) -> Iterator[Path]:
    """A folder for results of a step of a run; at the end they replace those in the run's folder, metrics last.

    They are discarded, with a warning, if the run's folder cannot be written, or if another process trains the run
    then, or has evaluated a later step.
    """
    with _temporary(folder) as temporary:
        yield temporary
        try:
            with writer_lock.writing(folder, briefly=True):
                if (stored := stored_step(folder)) > step:
                    raise InputError(f"{folder / METRICS}: found metrics of step {stored}, evaluated is step {step}")
                with io.os_errors_as_input_errors(folder):
                    _move(temporary, folder)
        except InputError as error:
            log.warning("the results are not stored: %s", str(error).partition("; expected")[0])


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A new folder in the run's, which is deleted; elsewhere if it cannot be made there."""
    with io.temporary_path(folder / "evaluation") as temporary:
        try:
            temporary.mkdir()
        except OSError:
            with tempfile.TemporaryDirectory() as elsewhere:
                yield Path(elsewhere)
            return
        yield temporary


def stored_step(folder: Path) -> int:
    """Return the step of the metrics in a run's folder, −1 if there are none.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    path = folder / METRICS
    step = io.read_object(path).get("steps") if path.is_file() else None
    return step if isinstance(step, int) else -1


def _move(source: Path, target: Path) -> None:
    """Move all files of a folder into another one, the metrics last."""
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    for name in sorted(files, key=lambda each: (each.name == METRICS, each)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source / name, target / name)
