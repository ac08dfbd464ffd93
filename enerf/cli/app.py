"""Command-line wrapper: logging, error messages, exit codes. Imports the standard library only."""

import argparse
import difflib
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from enerf.core.errors import InputError, NotFinite

EXIT_INPUT_ERROR, EXIT_NOT_FINITE, EXIT_INTERRUPTED = 2, 3, 130

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
    """A text stream that drops what it cannot write because its reader has gone; training goes on without it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        with suppress(BrokenPipeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop what is left."""
        with suppress(BrokenPipeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run(main: Callable[[], int | None]) -> None:
    """Run a command and exit.

    Exit codes: 0 on success, 2 for invalid input or a missing package, 3 if training met a value that is not finite,
    130 if interrupted.
    """
    log = logging.getLogger("enerf")
    log.setLevel(logging.INFO)
    log.handlers[:] = [ProgressBarHandler()]
    before, sys.stderr = sys.stderr, ClosedPipeIsSilent(sys.stderr)
    try:
        sys.exit(main() or 0)
    except InputError as error:
        _exit(f"error: {error}", EXIT_INPUT_ERROR)
    except NotFinite as error:
        _exit(f"error: training stopped: {error}; the last good checkpoint is kept", EXIT_NOT_FINITE)
    except ModuleNotFoundError as error:
        if (error.name or "enerf").split(".")[0] == "enerf":
            raise
        _exit(f"error: {missing(error.name or '')}", EXIT_INPUT_ERROR)
    except KeyboardInterrupt:
        _exit("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of the output has closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    finally:
        sys.stderr = before


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


def _exit(message: str, code: int) -> None:
    sys.stderr.write(message + "\n")
    sys.exit(code)
