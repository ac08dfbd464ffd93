"""Exceptions for invalid user input and for non-finite values."""

from collections.abc import Sequence
from typing import Any


class InputError(Exception):
    """Invalid user input. The message is one sentence: the file or option, what was found, what was expected."""


class SomeFailed(InputError):
    """Some of several runs failed; ``measured`` contains the metrics of the others."""

    def __init__(self, message: str, measured: Sequence[dict[str, Any]]) -> None:
        super().__init__(message)
        self.measured = measured


class ProcessLost(Exception):
    """Another process of a run of several has ended; the message names what is left of the run.

    ``is_shown_here``: whether this process shows the message, rather than another one.
    """

    def __init__(self, message: str, *, is_shown_here: bool = False) -> None:
        super().__init__(message)
        self.is_shown_here = is_shown_here


class NotFinite(Exception):
    """A loss, gradient or weight became NaN or infinite; the message names the step and the quantity."""


def shown(value: object, limit: int = 60) -> str:
    """A value as text in quotes for an error message, shortened in its middle to about ``limit`` characters.

    >>> shown("a" * 100, 10), shown("b")
    ("'aaaaa...aaaaa'", "'b'")
    """
    text = str(value)
    return repr(text if len(text) <= limit else f"{text[: limit // 2]}...{text[-(limit // 2) :]}")
