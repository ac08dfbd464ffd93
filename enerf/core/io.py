"""Files written whole or not at all, and what is said when they cannot be."""

import json
import math
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from enerf.core.errors import InputError


def write_atomic(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with replacing(path) as temporary, blaming(path):
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON whole or not at all; numbers that are not finite become null.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    write_atomic(path, json.dumps(finite(content), indent=1, allow_nan=False) + "\n")


def finite(content: Any) -> Any:
    """The content with None in the place of every number that JSON cannot hold.

    >>> finite({"a": [1.0, float("inf")]})
    {'a': [1.0, None]}
    """
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises
    ------
    InputError
        If it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; expected the result of a finished run") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None


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
