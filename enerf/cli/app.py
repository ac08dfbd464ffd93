"""Command-line wrapper: logging, error messages, exit codes. Imports the standard library only."""

import argparse
import difflib
import io
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from enerf.core import files, openmp, ranks
from enerf.core.errors import InputError, NotFinite, ProcessLost, SomeFailed, shown

openmp.wait_briefly()  # before torch is imported

EXIT_INPUT_ERROR, EXIT_NOT_FINITE, EXIT_PROCESS_LOST, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 2, 3, 4, 5, 130

# Name of the imported module -> name of the distribution in the extra `app`, where they differ.
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "pillow", "igl": "libigl"}


class ProgressBarHandler(logging.Handler):
    """Log handler that writes to standard error without breaking progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as a line."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        line = prefix + record.getMessage()
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            sys.stderr.write(line + "\n")


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors are one sentence; it needs no package, unlike ``config.parser.Parser``."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as ``InputError``, with the nearest known option or choice."""
        if unknown := re.match(r"unrecognized arguments: --?(\w+)", message):
            known = [name.lstrip("-") for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(unknown[1], known, n=3, cutoff=0.5)
            message = f"unknown option {unknown[1]!r}" + (
                f"; nearest known: {', '.join(near)}" if near else "; see --help"
            )
        raise InputError(message)


class ClosedPipeIsSilent:
    """A text stream that drops what it cannot write because its reader or terminal has gone; training goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; it is discarded if the stream cannot be written to."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, if it can be written to."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def escape_unprintable(stream: Any) -> None:
    """Make a text stream write backslash escapes for characters that its encoding lacks, instead of raising.

    An ASCII terminal has no ×, and names of files have any character.
    """
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def path(text: str) -> Path:
    """Path of a command-line argument, for argparse's ``type``; ``~`` is expanded.

    Raises
    ------
    InputError
        If no file can have such a path, or it is empty.
    """
    found = text_path(text)
    if not found:
        raise InputError("found an empty path, expected a file or a folder (. is the current one)")
    return Path(found)


def require_existing(*paths: Path, expected: str = "the folder of a training run") -> None:
    """Check that there is something at paths, before torch is imported; the command checks what is there.

    Raises
    ------
    InputError
        If there is nothing.
    """
    for each in paths:
        if files.is_missing(each):
            raise InputError(f"{each} does not exist, expected {expected}")


def text_path(text: str) -> str:
    """The same as a text, which may be empty; raises as ``path``."""
    return files.expanded(text, "the path")


def whole(at_most: int) -> Callable[[str], int]:
    """Reader of a whole number with an upper bound, for argparse's ``type``."""

    def read(text: str) -> int:
        with suppress(ValueError):
            if abs(value := int(text)) <= at_most:
                return value
        raise argparse.ArgumentTypeError(f"found {shown(text)}, expected a whole number of at most {at_most}")

    return read


def finite(text: str) -> float:
    """Reader of a finite number, for argparse's ``type``."""
    with suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f"found {shown(text)}, expected a finite number")


def run(main: Callable[[], int | None], *, jointly: bool = False) -> None:
    """Run a command and exit; ``jointly``: several processes that ``torchrun`` has started can run it together.

    Exit codes: 0 on success, 2 for invalid input or a missing package, 3 if training met a value that is not finite, 4
    if another process of a run of several has ended, 5 if some of several runs failed, 130 if interrupted, by Ctrl-C,
    termination or a closed terminal.

    Of several processes that ``torchrun`` has started, the first one writes log lines, tables and error messages.
    """
    log = logging.getLogger("enerf")
    log.setLevel(logging.INFO if ranks.is_first() else logging.CRITICAL)
    if not ranks.is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    log.handlers[:] = [ProgressBarHandler()]
    escape_unprintable(sys.stdout)
    before, sys.stderr = sys.stderr, ClosedPipeIsSilent(sys.stderr)
    _interrupt_on_signals()
    try:
        code = _code(main if jointly else partial(_alone, main))
    finally:
        sys.stderr = before
    sys.exit(code)  # outside of the handlers: what an error holds would outlive the modules


def _alone(main: Callable[[], int | None]) -> int | None:
    """Run a command that works alone."""
    ranks.require_alone(Path(sys.argv[0]).name)
    return main()


def _code(main: Callable[[], int | None]) -> int:
    """Run a command and write its error message; returns the exit code."""
    try:
        return main() or 0
    except InputError as error:
        code = EXIT_SOME_FAILED if isinstance(error, SomeFailed) else EXIT_INPUT_ERROR
        return _failed(f"error: {error}", code)
    except (NotFinite, ProcessLost) as error:
        words, code = (
            ("training stopped: ", EXIT_NOT_FINITE) if isinstance(error, NotFinite) else ("", EXIT_PROCESS_LOST)
        )
        return _failed(f"error: {words}{error}", code, is_shown_here=getattr(error, "is_shown_here", False))
    except ModuleNotFoundError as error:
        if (error.name or "enerf").split(".")[0] == "enerf":
            raise
        return _failed(f"error: {missing(error.name or '')}", EXIT_INPUT_ERROR)
    except KeyboardInterrupt:
        return _failed("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of the output has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _interrupt_on_signals() -> None:
    """Let termination and a closed terminal end a command as Ctrl-C does, so that it deletes its temporary files."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, interrupt)


def missing(module: str) -> str:
    """Return the error message for a package that is not installed.

    >>> missing("cv2.ximgproc")
    "the package opencv-python-headless is not installed; the commands need the extra app: pip install 'enerf[app]'"
    """
    name = module.split(".", maxsplit=1)[0]
    return (
        f"the package {DISTRIBUTIONS.get(name, name)} is not installed; the commands need the extra app: "
        "pip install 'enerf[app]'"
    )


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Context in which the processes that ``torchrun`` has started work together; without it nothing is imported.

    ``device`` is the value of the option ``--device``.
    """
    if ranks.size() == 1:
        yield
        return
    from enerf.engine import distributed

    with distributed.joined(device):
        yield


def _failed(message: str, code: int, *, is_shown_here: bool = False) -> int:
    """Write the message of an error and return the exit code.

    Of several processes, the first one writes it, and any that ``is_shown_here`` names. If the input is invalid, which
    may differ between computers, the first one of each computer does.
    """
    if is_shown_here or ranks.is_first() or (code == EXIT_INPUT_ERROR and ranks.local_rank() == 0):
        sys.stderr.write(message + "\n")
    return code
