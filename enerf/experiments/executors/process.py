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
    path = os.pathsep.join([str(parser.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    chosen = {**os.environ, "PYTHONPATH": path, PARENT: str(os.getpid())}
    chosen |= dict.fromkeys(names, str(threads)) if threads else {}
    return chosen | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})


def start(path: Path, output: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process of a run; its output is appended to a file. It has no terminal, so Ctrl-C is not for it.

    Raises
    ------
    InputError
        If the file of its output cannot be written, or is none.
    """
    with io.os_errors_as_input_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        files.is_regular(output)  # a named pipe would be waited for
        log = output.open("ab")
    with log:
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
        while (code := process.poll()) is None:  # Ray's interruption does not end a wait
            time.sleep(POLL)
    finally:
        end([process])
    return code, reason(code, Path(output))


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, which save their state, and wait for them; kill those that have not ended in two minutes.

    A further Ctrl-C kills them at once, but not within the first seconds: a terminal that is closed sends several
    signals.
    """
    began = time.monotonic()
    for process in processes:
        with suppress(ProcessLookupError):
            process.terminate()
    while any(process.poll() is None for process in processes):
        try:
            if time.monotonic() > began + GRACE:
                break
            time.sleep(POLL)
        except KeyboardInterrupt:
            if time.monotonic() > began + PATIENCE:
                break
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


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
        text = files.read_end(output, TAIL).decode(errors="replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
        last = lines[-1].removeprefix("error: ") if lines else ""
    return last or f"exit code {code}"
