"""Disks that are full, read-only or failing, at every file operation of a run; folders that vanish.

- ``once``: one operation fails. The run ends as the undisturbed one, or with one sentence.
- ``lasting``: that operation and all later ones below the run's folder fail. The run saves its state elsewhere and says
  where; moved to the run's folder, as the message says, it is that of the run's end.
- ``moved``: the folder is renamed away, and a file or a dangling link may take its place, or it cannot be listed.
- ``full``: the folder is on a small file system in memory, which another file fills (only where root may mount one).

In all cases there is no traceback, the checkpoints and pictures from before stay as they were, and the same command
started again, the fault being gone, ends as the undisturbed run.
"""

import errno
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from enerf.core.errors import InputError
from enerf.engine import checkpoint
from tests.faults import cases, kills, operations, outcome, processes
from tests.faults.findings import Findings
from tests.faults.kills import Task
from tests.faults.operations import Operation
from tests.faults.processes import Child, Ended

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EIO)
SAVED = re.compile(r"the state is saved in (\S+\.pt) instead")
SENTENCE = re.compile(r"^error: [^\n]+$", re.MULTILINE)
# What a failure may cost besides a warning: pictures of steps, a checkpoint that is elsewhere, a free lock's file, a
# checkpoint that cannot be deleted; if it lasts, the journal's records of that time, which a warning counts.
OPTIONAL = re.compile(
    r"(test/0|video_0)\S+ is missing|\S+_frames is left|checkpoint \d+ is missing|\.writer is left|"
    r"checkpoints/recent is left"
)
JOURNAL = re.compile(r"journal: .*")
SIZE = 48 << 20  # bytes of the small file system


class Trial:
    """A half-finished run, to be continued on a failing disk, with what is wrong then (``faults``)."""

    def __init__(self, task: Task, work: Path) -> None:
        self.task, self.work, self.folder = task, work, task.begin(work)
        results = (*checkpoint.checkpoints(self.folder), *self.folder.rglob("*.png"), *self.folder.rglob("*.mp4"))
        self.before = {path.relative_to(self.folder): path.read_bytes() for path in results}
        self.faults: list[str] = []

    def check(self, ended: Ended, folder: Path) -> None:
        """Note what is wrong in ``folder``, where the earlier results are now, after a failure."""
        self.faults += ended.faults(0, 2)
        if ended.code == 2 and len(SENTENCE.findall(ended.text)) != 1:
            self.faults.append(f"no error message of one line: {ended.last_line}")
        for name, data in self.before.items():
            if not (folder / name).is_file() or (folder / name).read_bytes() != data:
                self.faults.append(f"{name} of the run before was changed")
        self.faults += outcome.broken(folder, self.task.expected.files)

    def check_result(self) -> None:
        """Note what is wrong with a run that ended although an operation failed."""
        found = outcome.of_run(self.folder).differences(self.task.expected)
        found += [f"{name} is left" for name in outcome.remains(self.folder)]
        self.faults += [each for each in found if not OPTIONAL.fullmatch(each)]

    def check_newest(self, ended: Ended) -> None:
        """Move the state that was saved elsewhere to the run's folder; it must be the run's last one if it trained."""
        for place in SAVED.findall(ended.text)[-1:]:
            path = self.work / place
            if not path.is_file():
                self.faults.append(f"{place} is not there")
                continue
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            shutil.move(path, self.folder / "checkpoints" / path.name)
        kept, last = checkpoint.checkpoints(self.folder), max(self.task.expected.checkpoints)
        newest = int(kept[-1].stem) if kept else 0
        if "train " in ended.text and newest != last:
            self.faults.append(f"the newest state is of step {newest}, expected {last}: {ended.last_line}")

    def check_again(self, *, journal: bool = True) -> None:
        """Start the same command again, without fault, and note what differs from the undisturbed run.

        ``journal``: whether the journal must be complete.
        """
        again = processes.run(self.task.words, self.work)
        self.faults += [f"started again: {each}" for each in again.faults(0)]
        if again.code == 0:
            found = outcome.of_run(self.folder).differences(self.task.expected)
            found += [f"{name} is left" for name in outcome.remains(self.folder)]
            allowed = [OPTIONAL] if journal else [OPTIONAL, JOURNAL]
            self.faults += [f"started again: {each}" for each in found if not any(a.fullmatch(each) for a in allowed)]


def campaign(work: Path, data: Path, pattern: str, count: int, seed: int) -> Findings:
    """Continue ``count`` runs on failing disks."""
    found, chance = Findings("disk", "failures"), random.Random(seed)
    halves = [kills.half_finished(case, work, data, found) for case in cases.chosen(pattern)]
    tasks = [task for task in halves if task is not None]
    for n in range(count if tasks else 0):
        task, trial = tasks[n % len(tasks)], work / "trial"
        kind = (n // len(tasks)) % 8
        if kind == 3:
            told, faults = moved(task, trial, chance)
        elif kind == 6 and can_mount():
            told, faults = full(task, trial, chance)
        else:
            told, faults = injected(task, trial, chance, lasting=kind % 2 == 0)
        found.count(told.split(": ")[0], task.case.task)
        found.fault(f"{task.case.name}, {told}", faults)
    return found


def injected(task: Task, work: Path, chance: random.Random, *, lasting: bool) -> tuple[str, list[str]]:
    """Let one operation fail, or that one and all later ones."""
    chosen, number = choice(task.operations, chance), chance.choice(ERRORS)
    trial, marker = Trial(task, work), work / "failed"
    ended = processes.run(task.words, work, operations.failing(trial.folder, chosen, number, marker, lasting=lasting))
    happened = marker.exists()
    trial.check(ended, trial.folder)
    if lasting and happened:
        trial.check_newest(ended)
    elif ended.code == 0:
        trial.check_result()
    trial.check_again(journal=not (lasting and happened))
    how = ("lasting" if lasting else "once") if happened else "not reached"
    return f"{errno.errorcode[number]} {how}: {chosen.name} {chosen.number}", trial.faults


def choice(found: list[Operation], chance: random.Random) -> Operation:
    """Choose an operation: first its kind and file, since most are writes to checkpoints."""
    name = chance.choice(sorted({each.name for each in found}))
    return chance.choice([each for each in found if each.name == name])


def moved(task: Task, work: Path, chance: random.Random) -> tuple[str, list[str]]:
    """Rename the folder away, or its parent, or let something else take its place; move it back at the end."""
    trial, delay = Trial(task, work), task.seconds * chance.random()
    how = chance.choice(("renamed", "parent renamed", "replaced by a file", "replaced by a link", "unlistable"))
    child = Child(task.words, work, unlistable(trial.folder, chance.randrange(3)) if how == "unlistable" else None)
    running = child.is_running(delay)
    origin = trial.folder.parent if how == "parent renamed" else trial.folder
    away = work / "away"
    if how != "unlistable":
        origin.rename(away)
        if how == "replaced by a file":
            trial.folder.write_text("a file")
        elif how == "replaced by a link":
            trial.folder.symlink_to(work / "missing" / "folder")
    ended = child.wait()
    if how == "unlistable":
        trial.check(ended, trial.folder)
    else:
        trial.check(ended, away / cases.NAME if how == "parent renamed" else away)
        bring_back(origin, away, trial.folder)
    if running:
        trial.check_newest(ended)
    trial.check_again(journal=False)
    return f"{how}: after {delay:.2f} s of {task.seconds:.2f}", trial.faults


def bring_back(origin: Path, away: Path, folder: Path) -> None:
    """Move a folder back, and the newest checkpoint that was saved meanwhile, if the folder was made again."""
    saved: list[Path] = []
    with suppress(InputError, NotADirectoryError):
        saved = checkpoint.checkpoints(folder)[-1:]
    data = {path.name: path.read_bytes() for path in saved}
    if origin.is_dir() and not origin.is_symlink():
        shutil.rmtree(origin)
    else:
        origin.unlink(missing_ok=True)
    away.rename(origin)
    for name, content in data.items():
        (folder / "checkpoints" / name).write_bytes(content)


def unlistable(folder: Path, first: int) -> Callable[[], None]:
    """Prepare a child that cannot list the checkpoints of its run, from some time on."""

    def prepare() -> None:
        def disturb(operation: Operation) -> None:
            if operation.kind == "list" and "checkpoint" in operation.category and operation.number >= first:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        operations.Watch(folder, disturb)

    return prepare


def can_mount() -> bool:
    """Whether this process may mount file systems."""
    return os.geteuid() == 0 and shutil.which("mount") is not None and mount(Path("/mnt")) and unmount(Path("/mnt"))


def mount(folder: Path) -> bool:
    """Mount a small file system in memory; whether that succeeded."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(folder: Path) -> bool:
    """Unmount it; whether that succeeded."""
    return subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0


def full(task: Task, work: Path, chance: random.Random) -> tuple[str, list[str]]:
    """Continue a run on a small file system, fill it at a random time, and empty it at the end."""
    shutil.rmtree(work, ignore_errors=True)
    (work / cases.BASEDIR).mkdir(parents=True, exist_ok=True)
    if not mount(work / cases.BASEDIR):
        return "not mounted: ", []
    try:
        trial, filling = Trial(task, work), work / cases.BASEDIR / "filling"
        delay = task.seconds * chance.random()
        child = Child(task.words, work)
        child.is_running(delay)
        with suppress(OSError), filling.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        running = child.is_running()
        ended = child.wait()
        trial.check(ended, trial.folder)
        filling.unlink()
        if running:
            trial.check_newest(ended)
        trial.check_again(journal=False)
    finally:
        unmount(work / cases.BASEDIR)
    return f"full: after {delay:.2f} s of {task.seconds:.2f}", trial.faults
