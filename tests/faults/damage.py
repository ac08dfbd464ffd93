"""Damaged checkpoints: the newest one of a run that was killed before its end, damaged in many ways.

Each is either read with the same content, or named in a warning and the one before is taken, by every command; the
training then goes on and ends as the undisturbed run bit for bit.
"""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from enerf.core.errors import InputError
from enerf.engine import checkpoint
from tests.contents import same
from tests.faults import cases, kills, outcome, processes
from tests.faults.findings import Findings
from tests.faults.kills import Task

Seen = tuple[int, dict[str, bytes]]  # exit code and result files of a command
Damage = Callable[[bytes, random.Random], bytes]


def _flip(data: bytes, chance: random.Random, bits: int) -> bytes:
    damaged = bytearray(data)
    for _ in range(bits):
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _zeroed(data: bytes, chance: random.Random) -> bytes:
    start, length = chance.randrange(len(data)), chance.choice((1, 16, 512, 4096, len(data)))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def _swapped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(1, len(data))
    return data[at:] + data[:at]


def _doubled(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[chance.randrange(at + 1) :]


DAMAGES: dict[str, Damage] = {
    "one bit flipped": lambda data, chance: _flip(data, chance, 1),
    "bits flipped": lambda data, chance: _flip(data, chance, chance.randint(2, 50)),
    "truncated": lambda data, chance: data[: chance.randrange(1, len(data))],
    "tail lost": lambda data, chance: data[: -chance.randint(1, 30)],
    "range zeroed": _zeroed,
    "halves swapped": _swapped,
    "part repeated": _doubled,
    "garbage appended": lambda data, chance: data + chance.randbytes(chance.choice((1, 100, 70_000))),
    "garbage before": lambda data, chance: chance.randbytes(chance.choice((1, 100))) + data,
    "empty": lambda data, chance: b"",
    "zeros": lambda data, chance: bytes(len(data)),
    "other file": lambda data, chance: chance.choice((b"\x89PNG\r\n\x1a\n", b"PK\x05\x06" + bytes(18), b"text\n" * 99)),
}


def campaign(work: Path, data: Path, pattern: str, count: int, seed: int) -> Findings:
    """Damage ``count`` checkpoints, and read each by one command, in turn."""
    found, chance = Findings("damage", "damaged checkpoints"), random.Random(seed)
    halves = [kills.half_finished(case, work, data, found) for case in cases.chosen(pattern)]
    tasks = [task for task in halves if task is not None]
    before = {task.case.name: _results_before(task, work / "before") for task in tasks}
    for n in range(count if tasks else 0):
        task, name = tasks[n % len(tasks)], list(DAMAGES)[n % len(DAMAGES) - n // len(DAMAGES) % len(DAMAGES)]
        folder = task.begin(work / "trial")
        newest = checkpoint.checkpoints(folder)[-1]
        original = checkpoint.read(newest)
        newest.write_bytes(DAMAGES[name](newest.read_bytes(), chance))
        accepted = read_as(newest, original)
        commands = ["train", *before[task.case.name]]
        if n and n % 50 == 0:
            print(f"{n} of {count} damaged checkpoints", flush=True)
        command = commands[(n // len(tasks)) % len(commands)]
        found.count(f"{name}, {'same content' if accepted else 'refused'}", command)
        where = f"{task.case.name}, {name}, {command} ({newest.stat().st_size} bytes)"
        if accepted is None:
            found.fault(where, ["read with other content"])
        elif command == "train":
            found.fault(where, trained(task, work / "trial", newest, accepted))
        else:
            expected = before[task.case.name][command][int(accepted)]
            found.fault(where, looked_at(task, work / "trial", command, newest, accepted, expected))
    return found


def read_as(path: Path, original: dict[str, object]) -> bool | None:
    """Whether a damaged file is read with the original content; False if it is refused, None for other content."""
    try:
        content = checkpoint.read(path)
    except InputError as error:
        return False if str(path) in str(error) and "\n" not in str(error) else None
    return True if same(content, original) else None


def trained(task: Task, work: Path, newest: Path, accepted: bool) -> list[str]:
    """Continue the training; what is wrong."""
    ended = processes.run(task.words, work)
    faults = ended.faults(0) + _names(ended.text, newest, accepted)
    if ended.code == 0:
        faults += outcome.of_run(cases.folder_of(work)).differences(task.expected)
        faults += [f"{name} is left" for name in outcome.remains(cases.folder_of(work))]
    return faults


def looked_at(task: Task, work: Path, command: str, newest: Path, accepted: bool, expected: Seen) -> list[str]:
    """Run a command on the unfinished run; what is wrong: its results must be those of the checkpoint that it took.

    They include the exit code: a field after few steps may have no surface to extract.
    """
    data, (code, results) = newest.read_bytes(), expected
    ended = processes.run(task.case.others()[command], work)
    faults = ended.faults(code) + _names(ended.text, newest, accepted)
    if newest.read_bytes() != data:
        faults.append("the damaged file was changed")
    own = outcome.files(cases.folder_of(work)) | _metrics(cases.folder_of(work))
    if command != "analyze":  # it shows all checkpoints
        faults += [f"{name} is of another checkpoint" for name in results if own.get(name) != results[name]]
    return faults


def _results_before(task: Task, work: Path) -> dict[str, tuple[Seen, Seen]]:
    """What each other command ends with if the newest checkpoint is missing, and if it is whole."""
    found: dict[str, tuple[Seen, Seen]] = {}
    for name, words in task.case.others().items():
        results = []
        for without in (True, False):
            folder = task.begin(work)
            if without:
                checkpoint.checkpoints(folder)[-1].unlink()
            ended = processes.run(words, work)
            results.append((ended.code, outcome.files(folder) | _metrics(folder)))
        found[name] = (results[0], results[1])
    shutil.rmtree(work, ignore_errors=True)
    return found


def _metrics(folder: Path) -> dict[str, bytes]:
    """The metrics without times, as bytes; empty if there are none."""
    return {"metrics.json": repr(outcome.metrics(folder)).encode()} if (folder / "metrics.json").exists() else {}


def _names(text: str, newest: Path, accepted: bool) -> list[str]:
    """What is wrong with the warning about the damaged file."""
    named = re.search(rf"^warning: \S*{re.escape(newest.name)}: .*$", text, re.MULTILINE)
    if accepted == bool(named):
        return ["a file that is read is warned of" if accepted else "the damaged file is not named"]
    return []
