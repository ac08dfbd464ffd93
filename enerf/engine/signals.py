"""Signals that ask a training to stop: Ctrl-C, termination, a closed terminal."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

log = logging.getLogger("enerf")

# SIGHUP: the terminal was closed; SIGQUIT: Ctrl-\\. Not all systems have all of them.
STOP = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK") if hasattr(signal, name)
)


_ignored: list[bool] = []


def ignore() -> None:
    """Ignore these signals from now on: the process is about to end with an error of its own."""
    _ignored.append(True)
    handle(lambda number, frame: None)


@contextmanager
def deferred(*, announced: bool = True) -> Iterator[Callable[[], bool]]:
    """Catch the signals that ask to stop; yield a function that returns whether one came.

    They are logged if ``announced``.

    A second SIGINT raises ``KeyboardInterrupt`` at once; repeated others do not, since a closed terminal sends several.
    A signal that is ignored, as SIGHUP under ``nohup``, stays ignored.
    """
    received: list[int] = []
    unlogged: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not received:
            try:
                if announced:
                    log_stop(number)
            except RuntimeError:  # the signal came while standard error was written, which cannot be entered again
                unlogged.append(number)
        received.append(number)

    def log_stop(number: int) -> None:
        log.warning("stopping after this step (%s)", signal.Signals(number).name)

    def came() -> bool:
        while unlogged:
            log_stop(unlogged.pop())
        return bool(received)

    before = handle(note)
    try:
        yield came
    finally:
        for number, handler in before.items() if not _ignored else ():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def handle(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set the handler of the signals that ask to stop and are not ignored; return the handlers before.

    Outside the main thread signals cannot be caught: nothing is set.
    """
    before: dict[int, Any] = {}
    for number in STOP:
        if signal.getsignal(number) == signal.SIG_IGN:
            continue
        try:
            before[number] = signal.signal(number, handler)
        except ValueError:
            break
    return before
