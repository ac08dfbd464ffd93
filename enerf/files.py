"""Files written whole or not at all, and what is said when they cannot be."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from enerf.types import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden name beside ``path``, in a folder that exists, that takes its place at the end or else vanishes.

    Raises
    ------
    InputError
        If the folder cannot be made or the file not replaced.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        with blaming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with blaming(path):
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn an operating system's error into a sentence about ``path``.

    Raises
    ------
    InputError
        In the place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from None


def unwritable(path: Path, reason: str) -> InputError:
    """The sentence for a file that cannot be written.

    >>> print(unwritable(Path("a.png"), "No space left on device"))
    a.png: cannot be written (No space left on device), expected a writable folder with free space.
    """
    return InputError(f"{path}: cannot be written ({reason}), expected a writable folder with free space.")
