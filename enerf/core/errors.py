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


class NotFinite(Exception):
    """A loss, gradient or weight became NaN or infinite; the message names the step and the quantity."""
