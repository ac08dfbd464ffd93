"""Which of several processes of one run this is, by the environment that ``torchrun`` sets. Imports no torch.

Processes are numbered by their **rank**, from 0. The first one, of rank 0, writes files, log lines and tables for all.
"""

import os

from enerf.core.errors import InputError


def size() -> int:
    """Number of processes that were started together; 1 without ``torchrun``."""
    return max(1, _number("WORLD_SIZE", 1)) if "MASTER_ADDR" in os.environ and "RANK" in os.environ else 1


def rank() -> int:
    """Number of this process among all; 0 without ``torchrun``."""
    return _number("RANK", 0) if size() > 1 else 0


def local_rank() -> int:
    """Number of this process among those of this computer; 0 without ``torchrun``."""
    return _number("LOCAL_RANK", rank()) if size() > 1 else 0


def local_size() -> int:
    """Number of the processes of this computer; 1 without ``torchrun``."""
    return _number("LOCAL_WORLD_SIZE", size()) if size() > 1 else 1


def is_first() -> bool:
    """Whether this process writes files, log lines and tables for all."""
    return rank() == 0


def require_alone(words: str) -> None:
    """Check that ``torchrun`` has not started several processes of what works alone.

    Raises
    ------
    InputError
        If it has; ``words``, the command or option, begin the message.
    """
    if size() > 1:
        raise InputError(f"{words}: found {size()} processes of torchrun, expected one")


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
