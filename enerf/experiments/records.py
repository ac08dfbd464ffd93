"""What is measured of checkpoints, kept in one JSON file, so that nothing is measured twice.

A **record** is what was measured of one checkpoint; it counts as long as the file is the one that was measured.
"""

import logging
from pathlib import Path
from typing import Any

from enerf.core import io

log = logging.getLogger("enerf")


class Records:
    """Records by run and checkpoint, written after each; those made with other ``settings`` do not count.

    Raises
    ------
    InputError
        If the file is there and cannot be read, or later if it cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        found = io.read_json(path) if path.is_file() else {}
        same = isinstance(found, dict) and found.get("settings") == settings
        if found and not same:
            log.info("%s was made with other settings: all is measured anew", path)
        self.runs: dict[str, Any] = found["runs"] if same else {}

    def of(self, checkpoint: Path) -> dict[str, Any] | None:
        """The record of a checkpoint, or None."""
        run = self.runs.get(_run_of(checkpoint), {"records": []})
        return next((record for record in run["records"] if record["file"] == _stamp(checkpoint)), None)

    def add(self, checkpoint: Path, about: dict[str, Any], record: dict[str, Any]) -> None:
        """Keep a record of a checkpoint in the place of older ones; ``about`` tells of its run."""
        run = self.runs.setdefault(_run_of(checkpoint), {"records": []})
        run |= about
        kept = [old for old in run["records"] if old["file"][0] != checkpoint.name]
        made = io.nan_to_none({**record, "file": _stamp(checkpoint)})
        run["records"] = sorted([*kept, made], key=lambda each: each["step"])
        io.write_json(self.path, {"settings": self.settings, "runs": self.runs})

    def history(self, checkpoints: list[Path]) -> dict[str, Any] | None:
        """What is told of a run, and its records of those of its checkpoints that have one; None if none has."""
        records = [record for checkpoint in checkpoints if (record := self.of(checkpoint)) is not None]
        return {**self.runs[_run_of(checkpoints[0])], "records": records} if records else None


def _run_of(checkpoint: Path) -> str:
    """The run's folder, as a text that is the same on every system."""
    return checkpoint.resolve().parent.parent.as_posix()


def _stamp(checkpoint: Path) -> list[Any]:
    """What changes if the file does: name, size, time."""
    told = checkpoint.stat()
    return [checkpoint.name, told.st_size, told.st_mtime_ns]
