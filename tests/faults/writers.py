"""Two starts of the same run at once, and readers beside a writer.

Of two starts that overlap, exactly one trains, the other is refused with the first one's process number and host; the
result is the undisturbed run's. Whoever reads (evaluation, video, mesh, analysis) is neither refused nor disturbs.
"""

import random
import re
import signal
from pathlib import Path

from enerf.core import io
from tests.faults import cases, kills, outcome
from tests.faults.findings import Findings
from tests.faults.kills import Task
from tests.faults.processes import Child


def campaign(work: Path, data: Path, pattern: str, count: int, seed: int) -> Findings:
    """Start ``count`` pairs."""
    found, chance = Findings("writers", "pairs"), random.Random(seed)
    halves = [kills.half_finished(case, work, data, found) for case in cases.chosen(pattern)]
    tasks = [task for task in halves if task is not None]
    for n in range(count if tasks else 0):
        task = tasks[n % len(tasks)]
        kind = (n // len(tasks)) % 3
        if kind == 0:
            told, faults = two_writers(task, work / "trial", chance)
        elif kind == 1:
            told, faults = after_a_kill(task, work / "trial", chance)
        else:
            told, faults = reader(task, work / "trial", chance)
        found.count(told, task.case.task)
        found.fault(f"{task.case.name}, {told}", faults)
    return found


def two_writers(task: Task, work: Path, chance: random.Random) -> tuple[str, list[str]]:
    """Start a run twice with a random delay."""
    folder = task.begin(work)
    first = Child(task.words, work)
    first.is_running(task.seconds * chance.choice((0.0, 0.0, 0.01, 0.1, chance.random())))
    second = Child(task.words, work)
    ends = [each.wait() for each in (first, second)]
    faults = [fault for each in ends for fault in each.faults(0, 2)]
    refused = [(own, other) for own, other, end in zip((0, 1), (1, 0), ends, strict=True) if end.code == 2]
    pids = (first.pid, second.pid)
    for own, other in refused:
        expected = rf"error: .*: process {pids[other]} on {io.host()}, since .* writes to this run"
        if not re.search(expected, ends[own].text):
            faults.append(f"refused otherwise: {ends[own].last_line}")
    if len(refused) == 2:
        faults.append("both were refused")
    if not refused and "nothing is left to train" not in ends[0].text + ends[1].text:
        faults.append("both trained")
    return "two writers, " + ("one refused" if refused else "one after the other"), faults + _result(task, folder)


def after_a_kill(task: Task, work: Path, chance: random.Random) -> tuple[str, list[str]]:
    """Kill a writer, and start another one at once: the lock is free."""
    folder = task.begin(work)
    first = Child(task.words, work)
    first.is_running(task.seconds * chance.random())
    first.send(signal.SIGKILL)
    first.wait()
    ended = Child(task.words, work).wait()
    return "second writer after a kill", ended.faults(0) + _result(task, folder)


def reader(task: Task, work: Path, chance: random.Random) -> tuple[str, list[str]]:
    """Read a run while it is trained."""
    folder = task.begin(work)
    name = chance.choice(sorted(task.case.others()))
    writer = Child(task.words, work)
    writer.is_running(task.seconds * chance.random() * 0.8)
    reading = Child(task.case.others()[name], work)
    faults = [f"reader: {each}" for each in reading.wait().faults(0)]
    faults += [f"writer: {each}" for each in writer.wait().faults(0)]
    made = re.compile(r"(video_interpolate|extracted|mesh|analysis)\S* is new")  # by the reader
    faults += [each for each in outcome.of_run(folder).differences(task.expected) if not made.match(each)]
    return f"writer and {name}", faults + [f"{each} is left" for each in outcome.remains(folder)]


def _result(task: Task, folder: Path) -> list[str]:
    found = outcome.of_run(folder).differences(task.expected)
    return found + [f"{each} is left" for each in outcome.remains(folder)]
