"""The process of one run: how it is started, watched and ended, on this computer or by a worker on another one."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from enerf.config import parser
from enerf.core import files

PARENT = "ENERF_QUEUE_PROCESS"  # environment variable: the process whose end interrupts the run
GRACE = 120.0  # seconds in which an interrupted run saves its state
TAIL = 1 << 14  # bytes of the output that are searched for a message


def command(path: Path) -> list[str]:
    """Return the command line of the process that trains the run of a job file."""
    return [sys.executable, "-m", "enerf.cli.job", str(path)]


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
    path = os.pathsep.join([str(parser.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    chosen = {**os.environ, "PYTHONPATH": path, PARENT: str(os.getpid())}
    chosen |= dict.fromkeys(names, str(threads)) if threads else {}
    return chosen | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})


def start(path: Path, output: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process of a run; its output is appended to a file. It has no terminal, so Ctrl-C is not for it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as log:
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
    process = start(Path(path), Path(output), environment(threads))
    try:
        code = process.wait()
    finally:
        end([process])
    return code, reason(code, Path(output))


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, which save their state, and wait for them; kill those that do not end in two minutes."""
    for process in processes:
        with suppress(ProcessLookupError):
            process.terminate()
    try:
        for process in processes:
            process.wait(GRACE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in processes:
            process.kill()
            process.wait()


def reason(code: int, output: Path) -> str:
    """Return why a process failed, from its exit code and its last words; empty if it did not.

    >>> reason(0, Path("none")), reason(-9, Path("none"))
    ('', 'killed by signal 9')
    """
    if code == 0:
        return ""
    if code < 0:
        return f"killed by signal {-code}"
    last = ""
    with suppress(OSError):
        text = files.read_end(output, TAIL).decode(errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
        last = lines[-1].removeprefix("error: ") if lines else ""
    return last or f"exit code {code}"
