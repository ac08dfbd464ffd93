"""The process of one run: how it is started, watched and ended, on this computer or by a worker on another one."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from enerf.config import parser
from enerf.core import files, io

PARENT = "ENERF_QUEUE_PROCESS"  # environment variable: the process whose end interrupts the run
GRACE = 120.0  # seconds in which an interrupted run saves its state
PATIENCE = 3.0  # seconds in which further signals are ignored then
POLL = 0.1  # seconds
TAIL = 1 << 14  # bytes of the output that are searched for a message


def command(path: Path) -> list[str]:
    """Return the command line of the process that trains the run of a job file."""
    return [sys.executable, "-P", "-m", "enerf.cli.job", str(path)]  # -P: not with modules of the working folder


def environment(threads: int, device: str | None = None) -> dict[str, str]:
    """Return the environment of a run's process.

    Parameters
    ----------
    threads
        Number of its threads; 0: as many as the library chooses.
    device
        Number of its GPU; None: those that this process sees.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    chosen = {**os.environ, "PYTHONPATH": python_path(), PARENT: str(os.getpid())}
    chosen |= dict.fromkeys(names, str(threads)) if threads else {}
    return chosen | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})


def python_path() -> str:
    """Return the search path of modules with which another process finds this package."""
    return os.pathsep.join([str(parser.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def start(path: Path, output: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process of a run; its output is appended to a file. It has no terminal, so Ctrl-C is not for it.

    Raises
    ------
    InputError
        If the file of its output cannot be written, or is none, or the system has no room for a process.
    """
    with io.os_errors_as_input_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        files.is_regular(output)  # a named pipe would be waited for
        log = output.open("ab")
    with log, io.os_errors_as_input_errors(Path(sys.executable)):
        return subprocess.Popen(
            command(path),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(variables),
            start_new_session=True,
        )


def run_to_end(path: str, output: str, threads: int) -> tuple[int, str]:
    """Train the run of a job file in a process of its own and wait; return its exit code, and why it failed.

    For workers of clusters: if the worker is interrupted, so is the run.
    """
    return to_end(start(Path(path), Path(output), environment(threads)), Path(output))


def to_end(process: subprocess.Popen[bytes], output: Path) -> tuple[int, str]:
    """Wait for the process of a run; return its exit code, and why it failed.

    If the wait is interrupted, so is the run. ``Popen.wait`` would hold a lock, for which a signal handler that ends
    the process would wait for ever, and Ray's interruption does not end it.
    """
    try:
        while (code := process.poll()) is None:
            time.sleep(POLL)
    finally:
        end([process])
    return code, reason(code, output)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, which save their state, and wait for them; kill those that have not ended in two minutes.

    A further Ctrl-C kills them at once, but not within the first seconds: a terminal that is closed sends several
    signals.
    """
    began, waiting = time.monotonic(), list(processes)
    is_told = is_over = False
    while waiting:
        try:
            while waiting:  # within: a signal that another thread receives is noticed where a loop goes round
                is_over = is_over or time.monotonic() > began + GRACE
                for process in [] if is_told and not is_over else waiting:  # without effect on those that have ended
                    process.kill() if is_over else process.terminate()
                is_told = True
                waiting = [process for process in waiting if process.poll() is None]
                time.sleep(POLL if waiting else 0.0)
        except KeyboardInterrupt:
            is_over = time.monotonic() > began + PATIENCE


def reason(code: int, output: Path) -> str:
    """Return why a process failed, from its exit code and the last line of its output; empty if it did not.

    >>> reason(0, Path("none")), reason(-9, Path("none"))
    ('', 'killed by signal 9')
    """
    if code == 0:
        return ""
    if code < 0:
        return f"killed by signal {-code}"
    last = ""
    with suppress(OSError):
        last = last_line(files.read_end(output, TAIL).decode(errors="replace")).removeprefix("error: ")
    return last or f"exit code {code}"


def last_line(text: str) -> str:
    r"""Return the last line of a text that is not empty.

    >>> last_line("a\n b \r\n\n"), last_line("")
    ('b', '')
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return lines[-1] if lines else ""
