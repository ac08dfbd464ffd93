"""Kills at random moments of training, checkpoint writing, videos, meshes, evaluation; started again until the end.

A *life* is a run, or a command on a finished run, that is killed a few times: by a signal after a random time, or
before a chosen file operation. After each kill all results in the folder are whole or absent. The last start is not
disturbed, and the end equals that of the undisturbed run bit for bit.
"""

import os
import random
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from enerf.engine import checkpoint
from tests.faults import cases, operations, outcome, processes
from tests.faults.cases import Case
from tests.faults.findings import Findings
from tests.faults.operations import Operation
from tests.faults.outcome import Outcome
from tests.faults.processes import Child, Ended

SIGNALS = (*[signal.SIGKILL] * 6, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
MOST = 4  # kills of a life


@dataclass(frozen=True)
class Task:
    """A command of a case, the working folder from which it starts (None: a new run), and its undisturbed end.

    ``seconds`` and ``operations`` are those of the undisturbed command.
    """

    case: Case
    name: str
    words: Sequence[str]
    start: Path | None
    expected: Outcome
    seconds: float
    operations: list[Operation]

    def begin(self, work: Path) -> Path:
        """Make the working folder of a life; returns the folder of the run."""
        if not (work / cases.BASEDIR).is_mount():
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        if self.start is not None:
            shutil.copytree(cases.folder_of(self.start), cases.folder_of(work))
        return cases.folder_of(work)


def campaign(work: Path, data: Path, pattern: str, count: int, seed: int) -> Findings:
    """Kill ``count`` times; returns what was found."""
    found, chance = Findings("kills", "kills"), random.Random(seed)
    tasks = [task for case in cases.chosen(pattern) for task in undisturbed(case, work, data, found)]
    training = [task for task in tasks if task.start is None]
    others = [task for task in tasks if task.start is not None]
    lives, n = 0, 0
    while tasks and found.total < count:
        n += 1
        task = others[(n // 3) % len(others)] if n % 3 == 0 else training[n % len(training)]
        live(task, work / "life", min(chance.randint(1, MOST), count - found.total), chance, found)
        lives += 1
        if lives % 10 == 0:
            print(f"{found.total} of {count} kills", flush=True)
    found.figures["lives"] = lives
    return found


def undisturbed(case: Case, work: Path, data: Path, found: Findings, *, only_training: bool = False) -> list[Task]:
    """Run a case and its other commands without disturbance: what is to be killed, and the ends to compare with."""
    start = work / case.name.replace(" ", "_")
    shutil.rmtree(start, ignore_errors=True)
    start.mkdir(parents=True)
    tasks: list[Task] = []
    for name, words in {"train": case.words(data), **({} if only_training else case.others())}.items():
        place = start / name
        place.mkdir()
        if tasks:
            shutil.copytree(cases.folder_of(start / "train"), cases.folder_of(place))
        noted = start / f"{name}.operations"
        ended = processes.run(words, place, operations.counted(cases.folder_of(place), noted))
        if faults := ended.faults(0):
            found.fault(f"{case.name}, {name}, undisturbed", faults)
            return []
        expected, seconds = outcome.of_run(cases.folder_of(place)), ended.seconds
        if not tasks:
            again = processes.run(words, _new(start / "again"))
            seconds = again.seconds
            faults = outcome.of_run(cases.folder_of(start / "again")).differences(expected)
            found.fault(f"{case.name}, undisturbed twice", faults)
        origin = start / "train" if tasks else None
        tasks.append(Task(case, name, words, origin, expected, seconds, operations.read_counted(noted)))
    return tasks


def half_finished(case: Case, work: Path, data: Path, found: Findings) -> Task | None:
    """Run a case with three kept checkpoints, and make the run without the last: as if it was killed before its end.

    Returns the task that continues it; its operations are those of the continuation.
    """
    case = replace(case, command=f"{case.command} --i_weights {-(-case.steps // 3)}")
    tasks = undisturbed(case, work, data, found, only_training=True)
    if not tasks:
        return None
    start = work / f"{case.name.replace(' ', '_')}_half"
    shutil.rmtree(start, ignore_errors=True)
    shutil.copytree(cases.folder_of(work / case.name.replace(" ", "_") / "train"), cases.folder_of(start))
    folder = cases.folder_of(start)
    checkpoint.checkpoints(folder)[-1].unlink()
    for name in ("metrics.json", "mesh.ply"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "test" / "final", ignore_errors=True)
    task, noted = replace(tasks[0], start=start), work / "continued"
    noted.unlink(missing_ok=True)
    folder = task.begin(work / "continued_run")
    ended = processes.run(task.words, work / "continued_run", operations.counted(folder, noted))
    found.fault(f"{case.name}, continued", ended.faults(0) + outcome.of_run(folder).differences(task.expected))
    return replace(task, operations=operations.read_counted(noted), seconds=ended.seconds)


def live(task: Task, work: Path, kills: int, chance: random.Random, found: Findings) -> None:
    """Start a task, kill it so many times, and let it end; note what is wrong."""
    folder, story = task.begin(work), []
    before = outcome.files(folder)
    for _ in range(kills):
        told, ended = kill(task, work, chance)
        where = f"{task.case.name}, {task.name}, {told}"
        story.append(told)
        faults = ended.faults(*_codes(told)) + outcome.broken(folder, before, task.expected.files)
        if "stopping after this step" in ended.text and ended.code == 0:
            faults.append("received the signal, and went on to its end")
        if "SIGKILL" not in told:
            faults += [f"{name} is left" for name in outcome.temporary(folder, ended.pid)]
        found.fault(where, faults)
        if ended.code == 0:
            break
        found.count(f"{task.name} {task.case.task}", told.split(" at ")[0])
    ended = processes.run(task.words, work)
    where = f"{task.case.name}, {task.name}, after {'; '.join(story)}"
    if faults := ended.faults(0):
        found.fault(where, faults)
        return
    faults = outcome.of_run(folder).differences(task.expected)
    faults += [f"{name} is left" for name in outcome.remains(folder)]
    found.fault(where, faults)


def kill(task: Task, work: Path, chance: random.Random) -> tuple[str, Ended]:
    """Start a task and kill it; returns the signal and the moment in words, and the end."""
    number = chance.choice(SIGNALS)
    name = signal.Signals(number).name
    if task.operations and chance.random() < 0.6:
        categories = sorted({each.name for each in task.operations if each.kind not in ("mkdir", "list")})
        category = chance.choice(categories)
        last = max((each for each in task.operations if each.name == category), key=lambda each: each.number)
        chosen = Operation(last.kind, last.category, int((last.number + 1) * chance.random() ** 2))
        child = Child(task.words, work, operations.killed_at(cases.folder_of(work), chosen, number))
        return f"{name} at {chosen.name} {chosen.number}", child.wait()
    delay = task.seconds * chance.random()
    child = Child(task.words, work)
    child.is_running(delay)
    if task.case.name == "shape grid" and task.start is None and chance.random() < 0.2:
        for worker in child.workers():
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        child.is_running(0.3 * task.seconds * chance.random())
        name = f"{name} (worker killed before)"
    child.send(number)
    return f"{name} at {delay:.2f} s of {task.seconds:.2f}", child.wait()


def _codes(told: str) -> tuple[int, ...]:
    """Exit codes of a command that got a signal: it may have ended before."""
    number = signal.Signals[told.split(maxsplit=1)[0]]
    return (0, -number) if number == signal.SIGKILL else (0, 130, -number)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
