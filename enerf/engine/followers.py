"""What the processes of a run but the first have in the place of its journal and checkpoints: nothing is written.

If the first process has ended, one of the others saves the checkpoint: all have the same weights.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from enerf.core.errors import InputError, ProcessLost
from enerf.engine import checkpoint, writer_lock
from enerf.engine.checkpoint import State
from enerf.engine.journal import Journal
from enerf.engine.saver import Saver

PATIENCE = 10.0  # seconds in which the lock of a process that has ended is released


class SilentJournal(Journal):
    """A journal that writes nothing."""

    def __init__(self) -> None:
        pass

    def record(self, step: int, values: dict[str, Any]) -> None:
        """Write nothing."""

    def picture(self, step: int, name: str, image: Float[Tensor, "h w 3"]) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Write nothing."""


class SilentSaver(Saver):
    """Saves nothing, unless the first process has ended."""

    def by_step(self, training: State) -> None:
        """Save nothing."""

    def by_time(self, training: State) -> None:
        """Save nothing."""

    def at_end(self, training: State) -> Path:
        """Save nothing; return the path of the checkpoint that the first process saves."""
        return self.config.folder / checkpoint.KEPT / f"{training.step:06d}.pt"

    def after_failure(self, training: State) -> str:
        """Save nothing."""
        return "the first process saves the state"

    def after_loss(self, training: State, error: ProcessLost) -> ProcessLost:
        """Save the state before a step in which another process ended, if that was the first one.

        A process that lives holds the lock of the run's folder, and the system releases it when the process ends, which
        may be some seconds after its connections were closed.
        """
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not checkpoint.is_kept(self.config.folder, training.step):
            with suppress(InputError), writer_lock.writing(self.config.folder):
                if not checkpoint.is_kept(self.config.folder, training.step):
                    return Saver.after_loss(self, training, error)
            time.sleep(0.2)
        return error
