"""How every program here is entered and left: log lines beside progress bars, mistakes as one sentence, exit codes."""

import logging
import os
import sys
from collections.abc import Callable

from tqdm import tqdm

from enerf.core.errors import InputError, NotFinite

EXIT_MISTAKE, EXIT_NOT_FINITE, EXIT_INTERRUPTED = 2, 3, 130


class BesideBars(logging.Handler):
    """Writes log lines to standard error without tearing progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(prefix + record.getMessage(), file=sys.stderr)


def enter(main: Callable[[], int | None]) -> None:
    """Run a program and exit: 0 when done, 2 for a user's mistake, 3 for NaN, 130 when interrupted."""
    log = logging.getLogger("enerf")
    log.setLevel(logging.INFO)
    log.handlers[:] = [BesideBars()]
    try:
        sys.exit(main() or 0)
    except InputError as error:
        _leave(f"error: {error}", EXIT_MISTAKE)
    except NotFinite as error:
        _leave(f"error: training stopped: {error}; the last good checkpoint is kept", EXIT_NOT_FINITE)
    except KeyboardInterrupt:
        _leave("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, `| head` say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _leave(message: str, code: int) -> None:
    sys.stderr.write(message + "\n")
    sys.exit(code)
