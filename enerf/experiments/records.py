"""Cache of the measurements of checkpoints in one JSON file.

A **record** contains the measurements of one checkpoint; it is valid as long as the checkpoint file is unchanged.
"""

import logging
from pathlib import Path
from typing import Any

from enerf.core import io
from enerf.engine.checkpoint import RECENT, MissingCheckpoint

log = logging.getLogger("enerf")


class Records:
    """Records by run and checkpoint, saved after each change; records made with other ``settings`` are discarded.

    Raises
    ------
    InputError
        If the file exists and cannot be read, or later if it cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        found = io.read_json(path) if path.is_file() else {}
        same = isinstance(found, dict) and found.get("settings") == settings
        if found and not same:
            log.info("%s was made with other settings: all checkpoints are measured again", path)
        self.runs: dict[str, Any] = found["runs"] if same else {}

    def get(self, checkpoint: Path) -> dict[str, Any] | None:
        """Return the record of a checkpoint, or None."""
        run = self.runs.get(_run_key(checkpoint), {"records": []})
        try:
            stamp = _file_stamp(checkpoint)
        except MissingCheckpoint:
            return None
        return next((record for record in run["records"] if record["file"] == stamp), None)

    def add(self, checkpoint: Path, metadata: dict[str, Any], record: dict[str, Any]) -> None:
        """Save the record of a checkpoint, replacing an older one; ``metadata`` describes its run.

        Raises
        ------
        MissingCheckpoint
            If the checkpoint has been deleted meanwhile.
        """
        run = self.runs.setdefault(_run_key(checkpoint), {"records": []})
        run |= metadata
        kept = [old for old in run["records"] if old["file"][0] != checkpoint.name]
        added = io.nan_to_none({**record, "file": _file_stamp(checkpoint)})
        run["records"] = sorted([*kept, added], key=lambda each: each["step"])
        io.write_json(self.path, {"settings": self.settings, "runs": self.runs})

    def history(self, checkpoints: list[Path]) -> dict[str, Any] | None:
        """Return the metadata of a run and the records of its checkpoints; None if there are no records."""
        records = [record for checkpoint in checkpoints if (record := self.get(checkpoint)) is not None]
        return {**self.runs[_run_key(checkpoints[0])], "records": records} if records else None


def _run_key(checkpoint: Path) -> str:
    """Return the run's folder as a POSIX path."""
    folder = checkpoint.resolve().parent
    depth = RECENT.count("/") if folder.name == Path(RECENT).name else 0
    return folder.parents[depth].as_posix()


def _file_stamp(checkpoint: Path) -> list[Any]:
    """Return what identifies the content of a file: name, size and modification time."""
    try:
        status = checkpoint.stat()
    except FileNotFoundError:
        raise MissingCheckpoint(f"{checkpoint}: no such checkpoint") from None
    return [checkpoint.name, status.st_size, status.st_mtime_ns]
