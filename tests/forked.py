"""The child's side of a fork: run a program of this project as if it had been started from a shell, and exit."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn


def run_and_exit(
    program: Callable[[], object], argv: Sequence[str], folder: Path, output: Path, encoding: str = "utf-8"
) -> NoReturn:
    """Run a program in this process, in a session and a folder of its own, and exit with its code.

    Parameters
    ----------
    program
        The function to call; its ``SystemExit`` gives the exit code, any other exception a traceback and 1.
    argv
        ``sys.argv``.
    folder, output
        Working folder, and the file for standard output and standard error.
    encoding
        That of the two streams, as in ``PYTHONIOENCODING``: ``ascii:strict``.
    """
    code = 1
    try:
        os.setsid()
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        name, _, errors = encoding.partition(":")
        sys.stdout = _stream(1, name, errors or "strict")
        sys.stderr = _stream(2, name, "backslashreplace")
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = list(argv)
        program()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            _end_daemons()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _stream(descriptor: int, encoding: str, errors: str) -> io.TextIOWrapper:
    raw = os.fdopen(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(raw, encoding, errors, line_buffering=True)


def _end_daemons() -> None:
    """What the interpreter does at its end for background processes; ``os._exit`` does not."""
    from multiprocessing import active_children

    for each in active_children():
        each.terminate()
        each.join()
