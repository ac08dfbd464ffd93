"""Commands of enerf in forked children of this process, which has imported all of it."""

import importlib
import os
import random
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests import forked

LIMIT = 300.0  # seconds after which a command counts as hanging
PRELOADED = (
    *(f"enerf.cli.{name}" for name in ("main", "train", "evaluate", "render", "extract", "analyze")),
    *("enerf.experiments.extract", "enerf.experiments.analyze", "enerf.fields.backends.registry"),
    *("torch.utils.tensorboard", "matplotlib.pyplot", "scipy.spatial", "trimesh", "igl", "cv2", "imageio_ffmpeg"),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: process, exit code (negative: number of the signal), output, seconds, processes left."""

    pid: int
    code: int
    text: str
    seconds: float
    orphans: int = 0
    hung: bool = False

    @property
    def last_line(self) -> str:
        """The last line of the output."""
        lines = [line for line in self.text.replace("\r", "\n").split("\n") if line.strip()]
        return lines[-1] if lines else ""

    def faults(self, *codes: int) -> list[str]:
        """What is wrong with any command that ends so: a traceback, a hang, a process left behind, another code."""
        found = []
        if "Traceback (most recent call last)" in self.text:
            found.append(f"traceback: {self.last_line}")
        if self.hung:
            found.append("hangs")
        elif self.code not in codes:
            found.append(f"exit code {self.code}, expected {' or '.join(map(str, codes))}: {self.last_line}")
        if self.orphans:
            found.append(f"{self.orphans} processes left running")
        return found


class Child:
    """A command that runs in a forked child, in a session of its own.

    Parameters
    ----------
    words
        Command line after ``enerf``.
    folder
        Working folder of the child.
    prepare
        Called in the child before the command.
    """

    def __init__(self, words: Sequence[str], folder: Path, prepare: Callable[[], None] | None = None) -> None:
        self.output = folder / f"output-{random.getrandbits(48):012x}.log"
        self.output.touch()  # a child killed at once writes none
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(words, folder, self.output, prepare)
        self._descriptor = os.pidfd_open(self.pid)
        self._status: int | None = None

    def is_running(self, seconds: float = 0.0) -> bool:
        """Wait at most so many seconds for the end; whether the command still runs."""
        if self._status is None and select.select([self._descriptor], [], [], max(seconds, 0.0))[0]:
            _, self._status = os.waitpid(self.pid, 0)
            os.close(self._descriptor)
        return self._status is None

    def send(self, number: int) -> bool:
        """Send a signal; whether the command still ran."""
        if self.is_running():
            os.kill(self.pid, number)
            return True
        return False

    def wait(self, seconds: float = LIMIT) -> Ended:
        """Wait for the end; a command that takes longer is killed and counts as hanging."""
        hung = self.is_running(seconds)
        if hung:
            os.kill(self.pid, signal.SIGKILL)
            self.is_running(60.0)
        took = time.monotonic() - self.began
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        orphans = _end_session(self.pid)
        text = self.output.read_text(encoding="utf-8", errors="replace")
        self.output.unlink()
        return Ended(self.pid, code, text, took, orphans, hung)

    def workers(self) -> list[int]:
        """Numbers of the processes that the command has started."""
        return [pid for pid, state, parent, session in _processes() if session == self.pid and pid != self.pid]


def run(words: Sequence[str], folder: Path, prepare: Callable[[], None] | None = None) -> Ended:
    """Run a command to its end."""
    return Child(words, folder, prepare).wait()


def preload() -> None:
    """Import what the commands use, on one thread; shapes are evaluated at fewer points."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in PRELOADED:
        importlib.import_module(name)
    from enerf.tasks import registry

    for task in registry.tasks():
        for part in ("config", "train", "evaluate", "table", "mesh_source", "views", "probe", "input_files"):
            if task.has(part):
                task.load(part)
    from enerf.tasks.shape import eval_points, setup

    setup.EVAL_SETTINGS = eval_points.EvalSettings(grid=24, shell=0.05, shell_points=500, surface_points=500)


def _run(words: Sequence[str], folder: Path, output: Path, prepare: Callable[[], None] | None) -> None:
    """Run a command in the child; never returns."""

    def program() -> None:
        from enerf.cli import app
        from enerf.cli.main import main

        if prepare is not None:
            prepare()
        app.run(lambda: main(list(words)))

    forked.run_and_exit(program, ["enerf", *words], folder, output)


def _processes() -> list[tuple[int, str, int, int]]:
    """Number, state, parent and session of all processes."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                state, parent, _, session = Path("/proc", name, "stat").read_text().rsplit(")", 1)[1].split()[:4]
                found.append((int(name), state, int(parent), int(session)))
    return found


def _end_session(leader: int, seconds: float = 15.0) -> int:
    """Number of processes of an ended command that still run after some time; they are killed."""
    until = time.monotonic() + seconds
    while left := [pid for pid, state, _, session in _processes() if session == leader and state not in "ZX"]:
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    for pid in left:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def memory(pid: int) -> int:
    """Bytes of resident memory of a process; 0 if it has ended."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
