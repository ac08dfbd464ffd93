"""Runs cases of the corpus in forked processes with limits of time and memory, and judges them."""

import hashlib
import os
import re
import runpy
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests import forked
from tests.corpus import inputs
from tests.corpus.registry import Case, Command

ROOT = Path(__file__).resolve().parents[2]
SOFT, HARD = 2 << 30, int(3.5 * 2**30)  # resident bytes: a finding, and the end of the process
CODES = (0, 2, 3, 130)  # accepted, refused in a sentence, not finite, interrupted
SOME_FAILED = 5  # with a sentence that counts them
_COUNTED = re.compile(r"^error: .*\b\d+ of (its )?\d+ (runs failed|meshes could not)", re.MULTILINE)
_LEFTOVER = re.compile(r"(^|/)\.[^/]*([0-9a-f]{12}\.tmp|[0-9a-f]{32})")
_LARGE = 5 << 20  # bytes of a file whose size is compared instead of its content
_POLL = 0.02  # seconds


@dataclass(frozen=True)
class Result:
    """What a process did: exit code (negative: its signal), output, seconds, largest memory, why it was ended."""

    code: int
    output: str
    seconds: float
    peak_bytes: int
    ended: str


@dataclass(frozen=True)
class Verdict:
    """A case with its result; ``marks`` are the findings, empty if there are none.

    Marks: ``TRACEBACK``; ``HANG`` and ``MEMORY`` (over the limits); ``CODE`` with an exit code that is not in
    ``CODES``, nor ``SOME_FAILED`` with its sentence; ``LEFT`` (temporary files remain); ``CHANGED`` (inputs changed);
    ``ESCAPED`` (files made elsewhere); ``EXECUTED`` (a command in the input ran); ``EXPECT``; ``DRIVER`` (the case
    could not be made).
    """

    case: str
    expect: str
    marks: tuple[str, ...]
    code: int | None = None
    seconds: float = 0.0
    peak_mib: int = 0
    said: str = ""
    command: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=())

    def line(self) -> str:
        """Return the verdict as one line of a table."""
        head = f"{'FAIL' if self.marks else 'ok':4} {self.code!s:>4} {self.seconds:5.1f}s {self.peak_mib:5d}M"
        return f"{head} {','.join(self.marks):16} {self.case:38} {self.said[:150]}"


def prepare(work: Path, limit: float) -> None:
    """Make the valid inputs and finished runs, unless they are there; import what the cases need.

    Raises
    ------
    RuntimeError
        If a run fails.
    """
    import torch

    from enerf.experiments import compare, extract  # noqa: F401  # once, not in every child
    from enerf.tasks.classifier import train as _train_classifier  # noqa: F401
    from enerf.tasks.nerf import train as _train_nerf  # noqa: F401
    from enerf.tasks.shape import train as _train_shape  # noqa: F401

    torch.set_num_threads(1)
    inputs.use(work)
    done = inputs.base("done")
    if done.exists():
        return
    shutil.rmtree(inputs.base(), ignore_errors=True)
    inputs.base().mkdir(parents=True)
    inputs.make_data()
    for command in inputs.run_commands():
        result = execute(command, inputs.base(), max(limit, 300.0))
        if result.code:
            raise RuntimeError(f"{command.script} failed ({result.code}):\n{result.output[-2000:]}")
    done.touch()


def judge(case: Case, work: Path, limit: float, keep: bool = False) -> Verdict:
    """Make a case's input, run its command and compare the result with what is right."""
    folder = work / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        command = case.build(folder)
    except Exception as error:
        return Verdict(case.name, case.expect, ("DRIVER",), said=repr(error)[:300])
    words = tuple(_filled(word, folder) for word in command.arguments)
    before = _contents(folder)
    result = execute(command, folder, limit, words)
    after = _contents(folder)
    marks = [*_marks_of_output(result, case), *_marks_of_files(command, before, after)]
    verdict = Verdict(
        case.name,
        case.expect,
        tuple(marks),
        result.code,
        round(result.seconds, 1),
        result.peak_bytes >> 20,
        _said(result.output),
        (command.script, *words),
        tuple(sorted(after.keys() - before.keys())[:5]),
    )
    if not marks and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return verdict


def execute(command: Command, folder: Path, limit: float, words: Sequence[str] | None = None) -> Result:
    """Run a command in a forked process in a folder, with its output in ``FOLDER.out``."""
    arguments = list(map(str, command.arguments if words is None else words))
    log = Path(f"{folder}.out")
    began, peak, ended = time.monotonic(), 0, ""
    pid = os.fork()
    if pid == 0:
        forked.run_and_exit(partial(_run, command), [command.script, *arguments], folder, log, command.encoding)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        peak = max(peak, _resident_bytes(pid))
        if time.monotonic() - began > limit or peak > HARD:
            ended = "MEMORY" if peak > HARD else "HANG"
            _end_group(pid)
            status = os.waitpid(pid, 0)[1]
            break
        time.sleep(_POLL)
    _end_group(pid)  # background processes of the command
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    output = log.read_bytes().decode("utf-8", "replace")
    return Result(code, output, time.monotonic() - began, peak, ended)


def _run(command: Command) -> None:
    """Run a script or a module in this process."""
    if command.prepare is not None:
        command.prepare()
    if command.script.endswith(".py"):
        runpy.run_path(str(ROOT / "scripts" / command.script), run_name="__main__")
    else:
        runpy.run_module(command.script, run_name="__main__", alter_sys=True)


def _filled(word: object, folder: Path) -> str:
    """Return an argument with ``{folder}`` and ``{base}`` replaced by paths."""
    return str(word).replace("{folder}", str(folder)).replace("{base}", str(inputs.base()))


def _marks_of_output(result: Result, case: Case) -> list[str]:
    """Return the findings in exit code, output, time and memory."""
    marks = [result.ended] if result.ended else []
    if "Traceback (most recent call last)" in result.output:
        marks.append("TRACEBACK")
    elif not _is_answer(result) and not result.ended:
        marks.append(f"CODE{result.code}")
    if result.peak_bytes > SOFT and "MEMORY" not in marks:
        marks.append("MEMORY")
    if not marks and case.expect != "any" and (case.expect == "accept") != (result.code == 0):
        marks.append("EXPECT")
    return marks


def _is_answer(result: Result) -> bool:
    """Return whether an exit code is one that a user is told about."""
    return result.code in CODES or (result.code == SOME_FAILED and bool(_COUNTED.search(result.output)))


def _marks_of_files(command: Command, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the findings in the files that the command made or changed."""
    new = after.keys() - before.keys()
    marks = ["LEFT"] if any(_LEFTOVER.search(name) for name in new) else []
    if not command.changes_inputs and any(after.get(name) != content for name, content in before.items()):
        marks.append("CHANGED")
    if command.writes and not all(name.startswith(f"{command.writes}/") for name in new):
        marks.append("ESCAPED")
    return marks + (["EXECUTED"] if any(inputs.EXECUTED in name for name in new) else [])


def _contents(folder: Path) -> dict[str, str]:
    """Return a digest of each regular file in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        with suppress(OSError):
            if not path.is_symlink() and path.is_file():
                size = path.stat().st_size
                data = path.read_bytes() if size < _LARGE else str(size).encode()
                found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def _said(output: str) -> str:
    """Return the error message of an output, or its last line."""
    lines = [line for line in re.split(r"[\r\n]+", output) if line.strip()]
    error = next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "")
    return error[:300].encode("ascii", "backslashreplace").decode()


def _resident_bytes(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _end_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
