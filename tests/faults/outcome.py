"""What remains of a run, without times: compared bit for bit with that of the undisturbed run."""

import io
import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from enerf.core.errors import InputError
from enerf.engine import checkpoint
from tests.contents import same

TIMES = re.compile(r".*seconds|.*_per_second|.*_ms")  # keys of journal and metrics
RESULTS = ("png", "mp4", "ply", "obj", "stl", "glb", "npz", "html", "js", "bin")
TEMPORARY = re.compile(r"\..+\.tmp(\..*)?")


@dataclass(frozen=True)
class Outcome:
    """Content of a run's folder: kept checkpoints by step, journal, metrics, result files by name, options as text."""

    checkpoints: dict[int, dict[str, Any]]
    journal: list[dict[str, Any]]
    metrics: dict[str, Any]
    files: dict[str, bytes]
    options: str

    def differences(self, expected: "Outcome") -> list[str]:
        """What differs from the undisturbed run's.

        A run that was asked to stop has further checkpoints, at the steps where it stopped.
        """
        found = []
        for step, content in expected.checkpoints.items():
            if step not in self.checkpoints:
                found.append(f"checkpoint {step} is missing")
            else:
                own = self.checkpoints[step]
                found += [f"{name} of checkpoint {step}" for name in content if not same(own[name], content[name])]
        if max(self.checkpoints, default=0) != max(expected.checkpoints):
            found.append(f"ends at step {max(self.checkpoints, default=0)}, expected {max(expected.checkpoints)}")
        if self.journal != expected.journal:
            found.append(f"journal: {_first_difference(self.journal, expected.journal)}")
        names = sorted({*self.metrics, *expected.metrics})
        found += [f"metrics: {name}" for name in names if self.metrics.get(name) != expected.metrics.get(name)]
        for name in sorted({*self.files, *expected.files}):
            if self.files.get(name) != expected.files.get(name):
                missing = "is missing" if name not in self.files else "is new" if name not in expected.files else ""
                found.append(f"{name} {missing or 'differs'}")
        if self.options != expected.options:
            found.append("config.txt")
        return found


def of_run(folder: Path) -> Outcome:
    """Read what remains of a finished run."""
    kept = {int(path.stem): _checkpoint(path) for path in checkpoint.checkpoints(folder)}
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return Outcome(
        kept,
        [_without_times(json.loads(line)) for line in lines],
        metrics(folder),
        files(folder),
        (folder / "config.txt").read_text(encoding="utf-8"),
    )


def metrics(folder: Path) -> dict[str, Any]:
    """Metrics of a run without times; empty if there are none."""
    path = folder / "metrics.json"
    found: dict[str, Any] = _without_times(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Content of the pictures, videos and meshes of a run, without those that are being written."""
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lstrip(".") in RESULTS]
    return {
        str(path.relative_to(folder)): _content(path)
        for path in found
        if not any(TEMPORARY.fullmatch(part) or "_frames" in part for part in path.relative_to(folder).parts)
        and path.is_file()
    }


def _content(path: Path) -> bytes:
    """Content of a file without times: of an archive the arrays, of a page whether it is whole."""
    data = path.read_bytes()
    if path.suffix == ".html":
        return data.rstrip()[-7:]
    if path.suffix != ".npz":
        return data
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return b"".join(name.encode() + arrays[name].tobytes() for name in arrays)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        return b"damaged"


def remains(folder: Path) -> list[str]:
    """Files that a finished run must not leave: temporary ones, frames of videos, the lock, checkpoints by time."""
    wrong = re.compile(r"\..+\.tmp(\..*)?|.*_frames|\.writer|recent")
    return [
        str(Path(where, name).relative_to(folder))
        for where, folders, names in os.walk(folder)
        for name in [*folders, *names]
        if wrong.fullmatch(name) and not (name.endswith("_frames") and list(Path(where, name).glob("[0-9]*.png")))
    ]


def temporary(folder: Path, pid: int) -> list[str]:
    """Temporary files of a process in a run's folder."""
    found = (path for path in folder.rglob(f".*-{pid}-*") if TEMPORARY.fullmatch(path.name))
    return [str(path.relative_to(folder)) for path in found]


def broken(folder: Path, *whole: dict[str, bytes]) -> list[str]:
    """Results in the folder of a killed run that are neither absent nor whole: one of those of ``whole``.

    Plots of an interrupted analysis show what was measured until then; they are not compared here.
    """
    found = []
    for path in checkpoint.checkpoints(folder) if folder.is_dir() else []:
        try:
            checkpoint.read(path)
        except InputError as error:
            found.append(str(error))
    for name, data in files(folder).items():
        if data not in [each.get(name) for each in whole] and not name.startswith("analysis/"):
            found.append(f"{name} of the killed run differs")
    if (folder / "metrics.json").exists():
        json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def _checkpoint(path: Path) -> dict[str, Any]:
    content = checkpoint.read(path)
    kind = checkpoint.kind_of(content["config"])
    start = 1 if kind == "nerf" else 2  # the curves of the other tasks have seconds after the step
    curve = [[row[0], *row[start:]] for row in content["curve"]]
    names = ("step", "collapsed", "blank_for", "config", "model", "optimiser")
    return {**{name: content[name] for name in names}, "curve": curve}


def _without_times(content: Any, is_curve: bool = False) -> Any:
    if isinstance(content, dict):
        return {
            key: _without_times(value, key == "curve") for key, value in content.items() if not TIMES.fullmatch(key)
        }
    if is_curve and content and len(content[0]) > 2:
        return [[step, *values] for step, _, *values in content]
    return content


def _first_difference(own: list[Any], expected: list[Any]) -> str:
    for a, b in zip(own, expected, strict=False):
        if a != b:
            return f"{a} instead of {b}"
    return f"{len(own)} records instead of {len(expected)}"
