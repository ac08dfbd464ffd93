"""Start of the process that runs COLMAP, its progress, and its result.

COLMAP runs in a process of its own: it may abort instead of raising an error, it does not hear Ctrl-C, its memory is
returned with it, and its libraries crash OpenCV's in the same process. Nobody else opens its database meanwhile.
"""

import importlib.metadata
import importlib.util
import json
import logging
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from enerf.core import io
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.preprocessing.camera_groups import CameraGroup

log = logging.getLogger("enerf")
LOG = "log.txt"
_MODULE = "enerf.preprocessing.colmap_worker"
_ROOT = Path(__file__).resolve().parent.parent.parent
_STAGES = {
    "extract": ("find key points", "image"),
    "match": ("match pairs", "pair"),
    "map": ("register photographs", "image"),
    "global": ("register all photographs at once", "step"),
    "refine": ("refine the model", "step"),
}


@dataclass(frozen=True)
class Job:
    """What the process shall do; written to ``job.json``.

    Attributes
    ----------
    names
        Names of the photographs in the work folder's ``images``, without spaces.
    originals
        Their names in the scene.
    cameras
        Groups of photographs with one camera.
    masks
        Whether the work folder has masks, ``masks/NAME.png``.
    features, max_size
        Number of key points of a photograph, and the size it is reduced to for them.
    pairs
        ``exhaustive`` or ``sequential``.
    mapper
        ``incremental`` or ``global``.
    pixels
        Reprojection error up to which a match counts.
    principal_point
        ``auto``, ``center`` or ``free``.
    threads
        Number of threads.
    """

    names: list[str]
    originals: list[str]
    cameras: list[CameraGroup]
    masks: bool
    features: int
    max_size: int
    pairs: str
    mapper: str
    pixels: float
    principal_point: str
    threads: int


@dataclass(frozen=True)
class Outcome:
    """What the process found.

    Attributes
    ----------
    features
        Number of key points of each photograph; -1 where COLMAP could not read it.
    pairs
        Rows: index, index, configuration by COLMAP's number, matches, median distance of matches in pixels.
    registered
        Indices of the photographs of the model; empty if there is none.
    models
        Photographs and points of each model that was built.
    details
        Points, tracks, errors and cameras of the chosen model.
    """

    features: list[int]
    pairs: list[list[float | int]]
    registered: list[int]
    models: list[list[int]]
    details: dict[str, Any] = field(default_factory=dict)


def version() -> str:
    """Version of pycolmap, which is not imported.

    Raises
    ------
    InputError
        If it is not installed.
    """
    if importlib.util.find_spec("pycolmap") is None:
        raise InputError(
            "the package pycolmap is not installed; processing photographs needs the extra sfm: "
            "pip install 'enerf[sfm]'"
        )
    try:
        return importlib.metadata.version("pycolmap")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def run(folder: Path, job: Job) -> Outcome:
    """Run a job in its work folder, with progress bars; what an earlier call has finished there is not done again.

    Raises
    ------
    InputError
        If the process fails; the message names its log.
    KeyboardInterrupt
        If interrupted; the process is ended.
    """
    io.write_json(folder / "job.json", asdict(job))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path[1:]])}
    environment |= {name: str(job.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    with io.os_errors_as_input_errors(folder / LOG):
        output = (folder / LOG).open("ab")
    with output:
        logged = output.tell()  # by earlier calls
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, str(folder.absolute())],  # -P: no modules of the working folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=environment,
            start_new_session=True,
            text=True,
            encoding="utf-8",
        )
    try:
        events = _follow(process)
        code = process.wait()
    finally:
        process.kill()
        with suppress(OSError), process:
            pass  # closes the pipes and waits
    if code or "result" not in events:
        raise InputError(_failed(folder / LOG, logged, code))
    result = events["result"]
    matched = events["matched"]
    known = ("event", "registered", "models")
    details = {name: value for name, value in result.items() if name not in known}
    return Outcome(matched["features"], matched["pairs"], result["registered"], result["models"], details)


def _follow(process: "subprocess.Popen[str]") -> dict[str, dict[str, Any]]:
    """Show progress until the process closes its output; returns its last event of each kind."""
    assert process.stdout is not None
    events: dict[str, dict[str, Any]] = {}
    bar, stage = None, ""
    try:
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # the process was killed while it wrote the line
                break
            events[event["event"]] = event
            if event["event"] != "progress":
                continue
            if event["stage"] != stage:
                bar = _next_bar(bar, event)
                stage = event["stage"]
            if bar is not None:
                bar.update(max(0, event["done"] - bar.n))
    finally:
        if bar is not None:
            bar.close()
    return events


def _next_bar(bar: Any, event: dict[str, Any]) -> Any:
    """Bar of the next stage; says what an earlier call has done of it."""
    if bar is not None:
        bar.close()
    description, unit = _STAGES[event["stage"]]
    done, total = event["done"], event["total"]
    if done and event["stage"] in ("extract", "match"):
        log.info("%s: %d of %d %ss are done already", description, done, total, unit)
    return progress_bar(total, description, unit, initial=done, leave=False)


def _failed(path: Path, start: int, code: int) -> str:
    """Message for a process that failed, with the last error in its part of the log, which begins at ``start``."""
    text = ""
    with suppress(OSError):
        text = path.read_bytes()[start:][-20_000:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    thrown = [line.removeprefix("what():").strip() for line in lines if line.startswith("what():")]
    told = [line for line in lines if line and not line.startswith(("I2", "W2", "@", "***", "PC: @"))]
    errors = [line for line in told if line.startswith(("E2", "F2")) or "Error" in line]
    reason = next((f" ({found[-1][:300]})" for found in (thrown, errors, told) if found), "")
    how = {-9: "signal 9, as if memory had run out"}.get(code, f"signal {-code}" if code < 0 else f"exit code {code}")
    return f"{path}: COLMAP ended with {how}{reason}, expected a result"
