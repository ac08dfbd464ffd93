"""Runs as a report reads them: checkpoint, metrics and journal, each of which may be missing or unfinished."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enerf.config import options
from enerf.core import files, io
from enerf.core.errors import InputError
from enerf.engine import checkpoint
from enerf.engine.journal import flat
from enerf.reporting.charts import Point
from enerf.reporting.presentation import Presentation
from enerf.tasks import registry
from enerf.tasks.registry import Task

JOURNAL, COMPARISON, ANALYSIS = "train.jsonl", "comparison.json", "analysis/analysis.json"
_SEED = re.compile(r"(.+)_seed([0-9]{1,19})")
_MOST_JOURNAL = 1 << 28  # bytes that are read


@dataclass
class ReportedRun:
    """A run of a report.

    Attributes
    ----------
    folder
        The run's folder, as it was given.
    name
        Unique name in the report.
    group
        Name of its variant, without the seed, if it is part of a comparison; else ``name``.
    task
        Its task.
    options
        Content of the newest checkpoint that describes the run: options, and what it was trained with.
    step, seconds, curve
        State of that checkpoint.
    metrics
        Content of ``metrics.json``; None if there is none, or it is damaged.
    journal
        Records of ``train.jsonl``, with nested values as ``group/name``.
    notes
        Sentences on what is missing or wrong.
    """

    folder: Path
    name: str
    group: str
    task: Task
    options: dict[str, Any]
    step: int
    seconds: float
    curve: list[Any]
    metrics: dict[str, Any] | None = None
    journal: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_measured(self) -> bool:
        """Whether the metrics are those of the newest checkpoint."""
        return self.metrics is not None and self.metrics.get("steps") == self.step

    @property
    def sources(self) -> list[str]:
        """Where its data are, by its options."""
        declared = options.declared(self.task.load("config"))
        named = [name for name, item in declared.items() if item.metadata["is_source"]]
        return [str(self.options[name]) for name in named if self.options.get(name)]

    @property
    def presentation(self) -> Presentation:
        """How its task presents runs."""
        return self.task.load("presentation") if self.task.has("presentation") else Presentation((), ())

    @property
    def state(self) -> str:
        """Where the training stands, in words."""
        total, limit = self.options.get("N_iters"), self.options.get("max_seconds") or 0
        if isinstance(total, int) and self.step < total and not 0 < limit <= self.seconds:
            return f"unfinished: step {self.step:,} of {total:,}"
        by_time = isinstance(total, int) and self.step < total
        return f"finished after {limit:g} s, at step {self.step:,}" if by_time else f"finished at step {self.step:,}"

    def series(self, key: str) -> list[Point]:
        """Return steps and values of the journal."""
        found = [(record["step"], record[key]) for record in self.journal if key in record]
        return [(float(step), float(value)) for step, value in found if _is_number(value)]

    def seconds_at(self, steps: Sequence[float]) -> list[float] | None:
        """Return the seconds of training at steps, interpolated between the times known; None if there are too few."""
        import numpy as np

        column = self.presentation.seconds_column
        known = dict(self.series("seconds"))
        for row in self.curve if column is not None else ():
            if isinstance(row, list) and len(row) > (column or 0) and all(map(_is_number, (row[0], row[column or 0]))):
                known[row[0]] = float(row[column or 0])
        known |= {0: 0.0, self.step: float(self.seconds)}
        if len(known) < 2 or len(steps) == 0:
            return None
        at = sorted(known)
        return [float(value) for value in np.interp(steps, at, [known[step] for step in at])]


def read_all(folders: Sequence[Path]) -> tuple[list[ReportedRun], list[str]]:
    """Return the runs in some folders, and sentences about runs that are left out.

    Raises
    ------
    InputError
        If a folder is neither a run nor contains one, or no run can be read.
    """
    found = list(dict.fromkeys(checkpoint.find_runs([folder.expanduser() for folder in folders])))
    names = unique_names(found)
    runs, left_out = [], _without_checkpoint(folders, found)
    for folder, name in zip(found, names, strict=True):
        try:
            runs.append(read(folder, name))
        except InputError as error:
            if len(found) == 1:
                raise
            left_out.append(f"{name} is left out: {error}")
    if not runs:
        raise InputError(f"no run can be read; {left_out[0]}")
    _distinguish_groups(runs)
    return runs, left_out


def read(folder: Path, name: str) -> ReportedRun:
    """Return one run.

    Raises
    ------
    InputError
        If it has no checkpoint that can be read, or is of an unknown task.
    """
    task, content = registry.with_part("config", folder)
    is_variant = (folder.parent / COMPARISON).is_file() or _has_siblings(folder)
    named = _SEED.fullmatch(folder.name) if is_variant else None
    group = name.removesuffix(folder.name) + named[1] if named else name
    curve = content.get("curve") or []
    run = ReportedRun(folder, name, group, task, content["config"], content["step"], content["seconds"], curve)
    _read_metrics(run)
    _read_journal(run)
    if run.state.startswith("unfinished"):
        run.notes.append(f"the training has not ended ({run.state.partition(': ')[2]})")
    if content.get("collapsed"):
        run.notes.append("the training has collapsed to a blank image")
    return run


def _distinguish_groups(runs: Sequence[ReportedRun]) -> None:
    """Put the folder of a comparison before the names of its variants where another one has such a variant."""
    parents: dict[str, set[Path]] = {}
    for run in runs:
        parents.setdefault(run.group, set()).add(run.folder.resolve().parent)
    for run in runs:
        if len(parents[run.group]) > 1 and run.group != run.name:
            run.group = f"{run.folder.resolve().parent.name}/{run.group.rpartition('/')[2]}"


def unique_names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each folder: its own, with as many folders above it as make it unique.

    >>> unique_names([Path("logs/a/x"), Path("logs/b/x"), Path("logs/y")])
    ['a/x', 'b/x', 'y']
    """
    paths = [folder.resolve() for folder in folders]
    names = [path.name for path in paths]
    for depth in range(2, 6):
        repeated = {name for name, count in Counter(names).items() if count > 1}
        names = [
            "/".join(path.parts[-depth:]) if name in repeated else name for path, name in zip(paths, names, strict=True)
        ]
    return names


def spectra(run: ReportedRun, values: Sequence[str]) -> dict[str, dict[str, list[Point]]]:
    """Return statistics of weights over steps: statistic -> layer -> steps and values.

    From the journal; if it has none, from ``analysis/analysis.json`` in the run's folder or beside it.
    """
    found: dict[str, dict[str, list[Point]]] = {value: {} for value in values}
    for step, layer, report in _reports(run):
        for value in values:
            number = report.get(value)
            if isinstance(number, int | float) and _is_number(number):
                found[value].setdefault(layer, []).append((float(step), float(number)))
    return found


def _reports(run: ReportedRun) -> list[tuple[float, str, dict[str, Any]]]:
    """Return step, layer and statistics of each record of weights."""
    found: list[tuple[float, str, dict[str, Any]]] = []
    for record in run.journal:
        layers: dict[str, dict[str, Any]] = {}
        for key, value in record.items():
            part, _, rest = key.partition("/")
            layer, _, statistic = rest.rpartition("/")
            if part == "spectrum" and layer:
                layers.setdefault(layer, {})[statistic] = value
        found += [(float(record["step"]), layer, report) for layer, report in layers.items()]
    return found or _analyzed(run)


def _analyzed(run: ReportedRun) -> list[tuple[float, str, dict[str, Any]]]:
    """Return the same of an analysis of the run's checkpoints."""
    for folder in (run.folder, run.folder.parent):
        try:
            records = io.read_object(folder / ANALYSIS)["runs"][run.folder.resolve().as_posix()]["records"]
            rows = [
                (float(each["step"]), layer, report) for each in records for layer, report in each["layers"].items()
            ]
        except (InputError, KeyError, TypeError, ValueError, AttributeError):
            continue
        return [row for row in rows if _is_number(row[0]) and isinstance(row[2], dict)]
    return []


def _read_metrics(run: ReportedRun) -> None:
    """Read ``metrics.json``, and note if it is missing, damaged, or not of the newest checkpoint."""
    path = run.folder / "metrics.json"
    if not path.is_file():
        run.notes.append("it has not been evaluated: there is no metrics.json")
        return
    try:
        run.metrics = io.read_object(path)
    except InputError:
        run.notes.append("its metrics.json cannot be read; its figures are missing")
        return
    if run.metrics.get("steps") != run.step:
        measured = run.metrics.get("steps")
        run.notes.append(f"its figures are of step {measured}, its newest checkpoint is of step {run.step}")
    if run.metrics.get("eval_files"):
        run.notes.append("it was measured on other data than it was trained on")
    for name, kind in (("history", list), ("inputs", dict)):
        if not isinstance(run.metrics.get(name), kind):
            run.metrics.pop(name, None)
    for change in run.metrics.get("history", ()):
        step = change.get("step") if isinstance(change, dict) else "?"
        run.notes.append(f"options or data were changed at step {step} of its training")


def _read_journal(run: ReportedRun) -> None:
    """Read ``train.jsonl``, and note if it is missing or has damaged lines."""
    path = run.folder / JOURNAL
    try:
        lines = files.read_bytes(path, _MOST_JOURNAL).decode(errors="replace").splitlines()
    except (OSError, InputError):
        run.notes.append(f"its {JOURNAL} is missing or cannot be read; it has no curves")
        return
    damaged = 0
    for line in lines:
        try:
            record = json.loads(line)
            if not _is_number(record["step"]):
                raise ValueError
            run.journal.append(flat(record))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            damaged += 1
    if damaged:
        run.notes.append(f"{damaged} lines of its {JOURNAL} cannot be read and are left out")


def _without_checkpoint(folders: Sequence[Path], found: Sequence[Path]) -> list[str]:
    """Return sentences about runs without a checkpoint in folders of several runs."""
    begun = [path.parent for folder in folders for path in sorted(folder.expanduser().glob("*/config.txt"))]
    missing = [path for path in begun if path not in found and path not in folders]
    return [f"{path.name} is left out: it has no checkpoint yet" for path in missing]


def _has_siblings(folder: Path) -> bool:
    """Return whether the same variant was trained with several seeds beside a run."""
    named = _SEED.fullmatch(folder.name)
    return bool(named) and sum(1 for _ in folder.parent.glob("*_seed[0-9]*/checkpoints")) > 1


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False
