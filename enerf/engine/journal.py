"""Training log of a run: ``train.jsonl`` and TensorBoard event files."""

import json
import math
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from enerf.core import io as core_io
from enerf.core.io import nan_to_none, write_atomic


class Journal:
    """Writer of a run's ``train.jsonl`` and TensorBoard event files.

    Existing records after ``step`` are dropped: they belong to steps after the checkpoint from which the run is
    resumed. Every method raises ``InputError`` if the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "train.jsonl"
        kept = [line for line in self._lines() if _step_of(line) <= step]
        write_atomic(self.path, "".join(f"{line}\n" for line in kept))
        with core_io.os_errors_as_input_errors(folder / "tensorboard"):
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def record(self, step: int, values: dict[str, Any]) -> None:
        """Append one line; its numbers are also written to TensorBoard, nested ones as ``group/name``."""
        line = json.dumps(nan_to_none({"step": step, **values}), allow_nan=False)
        with core_io.os_errors_as_input_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        with core_io.os_errors_as_input_errors(self.path.with_name("tensorboard")):
            for name, value in flat(values).items():
                if isinstance(value, int | float):
                    self.board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Float[Tensor, "h w 3"]) -> None:
        """Write an image with values in [0, 1] to TensorBoard."""
        with core_io.os_errors_as_input_errors(self.path.with_name("tensorboard")):
            self.board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the TensorBoard file."""
        with core_io.os_errors_as_input_errors(self.path.with_name("tensorboard")):
            self.board.close()

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        with core_io.os_errors_as_input_errors(self.path):
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()


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
    except (ValueError, KeyError, TypeError):
        return math.inf
