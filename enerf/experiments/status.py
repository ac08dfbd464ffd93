"""State and progress of runs and sweeps, read from their files alone. Imports no torch.

A run's folder has ``config.txt``, ``train.jsonl`` and, when it is finished, ``metrics.json``; that of a sweep has
``sweep.json``, which lists runs that have no folder yet.
"""

import json
import logging
import math
import os
import re
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enerf.core import files, io
from enerf.core.errors import InputError
from enerf.engine import writer_lock

log = logging.getLogger("enerf")
CONFIG, JOURNAL, METRICS, SWEEP = "config.txt", "train.jsonl", "metrics.json", "sweep.json"
CHECKPOINTS = "checkpoints"
STATES = ("running", "waiting", "interrupted", "diverged", "failed", "finished")
DEEPEST = 5  # levels below the folders that are searched
TAIL = 1 << 18  # bytes of the journal that are read
LARGEST = 1e15  # of numbers that are believed
NOTE = 160  # characters of a note in the table
RECENT = 120.0  # seconds since the last record of a run whose lock cannot be seen from here
# Names that lead to the score, in the metrics of a finished run and in the journal of another: the first one found.
MEASURED = (
    *(("dB", ("mean", "psnr")), ("IoU", ("field", "iou")), ("dB", ("picture", "psnr_heldout"))),
    *(("dB", ("picture", "psnr")), ("%", ("test", "accuracy"))),
)
LOGGED = (("dB", "test_psnr"), ("IoU", "iou"), ("dB", "psnr_heldout"), ("%", "test_accuracy"), ("dB", "psnr"))


@dataclass(frozen=True)
class RunStatus:
    """State of one run.

    Attributes
    ----------
    folder, state
        Its folder, and one of ``STATES``.
    step, steps
        Steps done, and to do; None if they are not known.
    seconds, seconds_left
        Seconds of training so far, and left by its last speed; None if they are not known.
    score, unit
        Last score: of test data if it was measured.
    idle
        Seconds since its files were changed.
    note
        Why it failed, or who trains it.
    """

    folder: str
    state: str
    step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    score: float | None = None
    unit: str = ""
    idle: float | None = None
    note: str = ""


def read_all(folders: Sequence[Path]) -> list[RunStatus]:
    """Return the state of all runs in some folders, and of those that sweeps there have planned.

    Raises
    ------
    InputError
        If there is no run.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for place in _walk(folder):
            if (place / CONFIG).is_file():
                found.setdefault(os.path.realpath(place), {})
            for row in planned(place / SWEEP):
                found[os.path.realpath(place / row["folder"])] = row
    if not found:
        names = ", ".join(map(str, folders))
        raise InputError(f"{names}: found no run, expected folders with {CONFIG} or {SWEEP}")
    return [read(Path(place), row) for place, row in found.items()]


def read(folder: Path, row: dict[str, Any]) -> RunStatus:
    """Return the state of one run; ``row`` is its entry in ``sweep.json``, or empty."""
    config, records = _options(folder / CONFIG), list(_records(folder / JOURNAL))
    wanted, idle = _whole(row.get("steps")), _idle(folder)
    steps = _whole(_number_in(config.get("N_iters", ""))) if wanted is None else wanted
    step, seconds, speed = _progress(records)
    step = max(step, _saved_step(folder))
    writer = writer_lock.holder(folder) if folder.is_dir() else None
    metrics = _object(folder / METRICS) if writer is None else {}
    measured = _whole(metrics.get("steps"))
    limit = _number_in(config.get("max_seconds", "")) or 0.0
    is_whole = wanted is None or limit > 0 or (measured is not None and measured >= wanted)
    if measured is not None and step <= measured and is_whole:
        score, unit = _first((name, _value(metrics, path)) for name, path in MEASURED)
        seconds = _number(_value(metrics, ("seconds", "train")))
        return RunStatus(str(folder), "finished", measured, steps, seconds, 0.0, score, unit, idle)
    left = None if steps is None or speed is None else max(0, steps - step) * speed
    if left is not None and limit > 0 and seconds is not None:
        left = min(left, max(0.0, limit - seconds))
    last = {key: value for record in records for key, value in record.items()}
    score, unit = _first((name, last.get(key)) for name, key in LOGGED)
    is_recent = idle is not None and idle < RECENT and (folder / writer_lock.NAME).exists()
    state, note = _state(row.get("state"), writer is not None, step > 0, is_recent), str(row.get("reason", ""))
    if writer and "pid" in writer:
        note = f"process {writer['pid']} on {writer.get('host', 'another computer')}"
    return RunStatus(str(folder), state, step, steps, seconds, left, score, unit, idle, note)


def _state(noted: Any, is_locked: bool, has_begun: bool, is_recent: bool) -> str:
    """Return the state of a run that is not finished; ``noted`` is that of its sweep when that last wrote it.

    ``is_recent``: its files have changed recently, and its lock, which may be one that is not seen from here, remains.
    """
    if is_locked or (noted == "running" and has_begun and is_recent):
        return "running"
    if noted in ("diverged", "failed"):
        return str(noted)
    return "waiting" if noted is not None and not has_begun else "interrupted"


def _walk(folder: Path) -> Iterator[Path]:
    """Yield a folder and those below it, but not those inside runs."""
    top = len(folder.parts)
    for place, inner, names in os.walk(folder):
        here = Path(place)
        yield here
        inner.sort()
        if CONFIG in names or len(here.parts) - top >= DEEPEST:
            inner.clear()


def planned(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a ``sweep.json``; none if there is no such file, or it is damaged, which is logged."""
    if not os.path.lexists(path):
        return []
    try:
        rows = io.read_object(path).get("runs")
    except InputError as error:
        log.warning("%s: the runs that it plans are not listed", error)
        return []
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    valid = [row for row in found if _is_name(row.get("folder"))]
    if not isinstance(rows, list) or len(valid) < len(rows):
        log.warning("%s: found entries that are not those of runs, which are not listed", path)
    return valid


def _is_name(value: Any) -> bool:
    """Whether a value is a text that can be the path of a folder."""
    with suppress(InputError):
        return isinstance(value, str) and bool(files.expanded(f"./{value}", ""))
    return False


def _object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; empty if it cannot be read."""
    try:
        return io.read_object(path) if path.is_file() else {}
    except InputError:
        return {}


def _options(path: Path) -> dict[str, str]:
    """Return the options of a ``config.txt`` as text; values with quotes are not needed here."""
    try:
        text = files.read_text(path, 1 << 20)
    except (InputError, OSError):
        return {}
    return dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the last records of a journal, in their order; half lines are skipped."""
    try:
        text = files.read_end(path, TAIL).decode(errors="replace")
    except (InputError, OSError):
        return
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and _whole(record.get("step")) is not None:
                yield record


def _progress(records: Sequence[dict[str, Any]]) -> tuple[int, float | None, float | None]:
    """Return the last step, the seconds of training then, and the seconds of a step between the last two times."""
    step = max((int(record["step"]) for record in records), default=0)
    timed = [(r["step"], r["seconds"]) for r in records if _number(r.get("seconds")) is not None]
    if not timed:
        return step, None, None
    (n, seconds), (before, earlier) = timed[-1], timed[-2] if len(timed) > 1 else (0, 0.0)
    return step, float(seconds), (seconds - earlier) / (n - before) if n > before else None


def _saved_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, by the names of the files; 0 without any."""
    with suppress(OSError):
        names = (path.stem for path in (folder / CHECKPOINTS).glob("*.pt"))
        return max((int(name) for name in names if re.fullmatch(r"[0-9]{1,12}", name)), default=0)
    return 0


def _idle(folder: Path) -> float | None:
    """Return the seconds since the last change of a run's files; None without any."""
    times = []
    for name in (JOURNAL, METRICS, CONFIG):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(0.0, time.time() - max(times)) if times else None


def _number(value: Any) -> float | None:
    """Return a finite number as it is in JSON, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:  # NaN is not above
        return None
    return float(value) if math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    """Return a whole number, or None."""
    number = _number(value)
    return None if number is None or number != int(number) else int(number)


def _number_in(text: str) -> float | None:
    """Return the number that a text is, or None."""
    with suppress(ValueError):
        return _number(float(text))
    return None


def _value(content: Any, path: Sequence[str]) -> Any:
    for name in path:
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _first(pairs: Iterator[tuple[str, Any]]) -> tuple[float | None, str]:
    """Return the first number and its unit."""
    return next(((v, unit) for unit, value in pairs if (v := _number(value)) is not None), (None, ""))


def table(runs: Sequence[RunStatus], root: Path) -> list[list[str]]:
    """Return a header and one row a run, ordered by state; runs are named by their paths relative to ``root``."""
    rows = [["run", "state", "step", "score", "left", "changed", ""]]
    for run in sorted(runs, key=lambda each: STATES.index(each.state)):
        inside = os.path.relpath(run.folder, root)
        inside = os.path.basename(run.folder) if inside == "." else inside
        step = "" if run.step is None or run.state == "waiting" else f"{run.step:,}"
        step += f" of {run.steps:,}" if step and run.steps and run.state != "finished" else ""
        digits = 4 if run.unit == "IoU" else 2
        score = "" if run.score is None else f"{run.score:.{digits}f} {run.unit}"
        left = duration(run.seconds_left) if run.state == "running" and run.seconds_left is not None else ""
        ago = "" if run.idle is None else f"{duration(run.idle)} ago"
        name = run.folder if inside.startswith("..") else inside
        note = textwrap.shorten(run.note, NOTE, placeholder=" ...")
        rows.append([name, run.state, step, score, left, ago, note])
    return rows


def summary(runs: Sequence[RunStatus]) -> str:
    """Return one line: how many runs are in which state, and about how long the unfinished ones take.

    Runs that have not begun are taken to last as long as the others do on average.
    """
    counts = Counter(run.state for run in runs)
    words = ", ".join(f"{counts[state]} {state}" for state in STATES[::-1] if counts[state])
    left = seconds_left(runs)
    n = f"{len(runs)} run" + "s" * (len(runs) != 1)
    return f"{n}: {words}" + ("" if left is None else f"; about {duration(left)} left")


def seconds_left(runs: Sequence[RunStatus], at_a_time: int = 0) -> float | None:
    """Return the seconds until all runs that are running or waiting are finished; None if nothing runs or is known.

    ``at_a_time`` runs work side by side, or those that are running now if they are more.
    """
    running = [run for run in runs if run.state == "running"]
    waiting = [run for run in runs if run.state == "waiting"]
    whole = [run.seconds for run in runs if run.state == "finished" and run.seconds]
    whole += [run.seconds + run.seconds_left for run in running if run.seconds and run.seconds_left is not None]
    side_by_side = max(len(running), min(at_a_time, len(running) + len(waiting)))
    if not side_by_side or not whole:
        return None
    mean = sum(whole) / len(whole)
    rest = [mean if run.seconds_left is None else run.seconds_left for run in running]
    return max([*rest, (sum(rest) + mean * len(waiting)) / side_by_side])


def duration(seconds: float | int) -> str:
    """Return a time in two units at most.

    >>> duration(42), duration(150), duration(7500), duration(200000)
    ('42 s', '2 min 30 s', '2 h 05 min', '2 d 7 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60:02d} s" if whole < 600 else "")
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def as_json(runs: Sequence[RunStatus]) -> str:
    """Return all runs as JSON."""
    return json.dumps(io.nan_to_none([asdict(run) for run in runs]), indent=2, allow_nan=False)
