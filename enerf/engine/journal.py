"""Training log of a run: ``train.jsonl`` and TensorBoard event files."""

import json
import logging
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from enerf.core import files
from enerf.core import io as core_io
from enerf.core.errors import InputError
from enerf.core.io import nan_to_none, write_atomic
from enerf.engine import writer_lock

log = logging.getLogger("enerf")
MAX_PENDING = 100_000  # records kept in memory while they cannot be written


class Journal:
    """Writer of a run's ``train.jsonl`` and TensorBoard event files.

    Existing records after ``step`` are dropped: they belong to steps after the checkpoint from which the run is
    resumed. If the folder cannot be written later (full disk, unmounted), a warning says so once, and the records are
    written as soon as it can be again.

    Raises
    ------
    InputError
        If the folder cannot be written at the start.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "train.jsonl"
        self._pending: list[str] = []
        self._failed = False
        kept = [line for line in self._lines() if _step_of(line) <= step]
        write_atomic(self.path, "".join(f"{line}\n" for line in kept))
        self._excepthook = threading.excepthook
        threading.excepthook = self._no_traceback  # first: the writer's thread may fail before its constructor returns
        with core_io.os_errors_as_input_errors(folder / "tensorboard"):
            self.board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def record(self, step: int, values: dict[str, Any]) -> None:
        """Append one line; its numbers are also written to TensorBoard, nested ones as ``group/name``."""
        self._pending.append(json.dumps(nan_to_none({"step": step, **values}), allow_nan=False))
        self._write_pending()
        with self._board() as board:
            for name, value in flat(values).items():
                if isinstance(value, int | float):
                    board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Float[Tensor, "h w 3"]) -> None:
        """Write an image with values in [0, 1] to TensorBoard."""
        with self._board() as board:
            board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the TensorBoard file; a warning tells how many records could not be written."""
        self._write_pending()
        if self._pending:
            log.warning("%s: the last %d records are lost: it cannot be written", self.path, len(self._pending))
        with self._board() as board:
            board.close()
        threading.excepthook = self._excepthook

    def _write_pending(self) -> None:
        """Append the records that are not yet written; keep them if that fails."""
        size = -1
        try:
            writer_lock.require_held(self.path.parent)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                size = file.tell()
                file.write("".join(f"{line}\n" for line in self._pending))
        except (OSError, InputError) as error:
            with suppress(OSError):
                if size >= 0:
                    os.truncate(self.path, size)  # no half lines
            if not self._failed:
                reason = getattr(error, "strerror", None) or error
                log.warning("%s: cannot be written (%s); records are kept in memory", self.path, reason)
            self._failed, self._pending = True, self._pending[-MAX_PENDING:]
            return
        self._failed, self._pending = False, []

    @contextmanager
    def _board(self) -> Iterator[Any]:
        """The TensorBoard writer; after a write error, one that writes nothing, with a warning."""
        try:
            yield self.board
        except OSError as error:
            folder = self.path.with_name("tensorboard")
            log.warning("%s: cannot be written (%s); no more is written there", folder, error.strerror or error)
            self.board = _NoBoard()

    def _no_traceback(self, args: threading.ExceptHookArgs) -> None:
        """Ignore a write error of TensorBoard's thread: its writer raises it again at the next call."""
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard")):
            self._excepthook(args)

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        with core_io.os_errors_as_input_errors(self.path):
            return files.read_bytes(self.path).decode(errors="replace").splitlines()


class _NoBoard:
    """Stands for a TensorBoard writer that cannot write."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as a flat one, keys joined by slashes.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a/b': 1, 'c': 2}
    """
    joined: dict[str, Any] = {}
    for key, value in values.items():
        joined |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return joined


def _step_of(line: str) -> float:
    """Return the step of a journal line; infinity for a truncated line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
