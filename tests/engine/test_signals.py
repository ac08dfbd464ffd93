"""Signals that ask a training to stop."""

import logging
import signal

import pytest

from enerf.engine import signals


class Busy(logging.Handler):
    """A handler of a stream that is being written and cannot be entered again, until it is freed."""

    def __init__(self):
        super().__init__()
        self.busy, self.lines = True, []

    def emit(self, record):
        if self.busy:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")
        self.lines.append(record.getMessage())


@pytest.fixture
def stream():
    handler, log = Busy(), logging.getLogger("enerf")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


def test_a_signal_that_comes_while_a_line_is_written_is_logged_after_it(stream):
    with signals.deferred() as came:
        signal.raise_signal(signal.SIGTERM)
        assert stream.lines == []
        stream.busy = False
        assert came()
        assert came()
        signal.raise_signal(signal.SIGTERM)
        assert came()
    assert stream.lines == ["stopping after this step (SIGTERM)"]


def test_a_second_interrupt_does_not_wait_for_the_step(stream):
    stream.busy = False
    with signals.deferred() as came:
        signal.raise_signal(signal.SIGINT)
        assert came()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
