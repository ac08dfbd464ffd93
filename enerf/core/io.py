"""Atomic file writing, JSON, and error messages for files that cannot be written."""

import json
import math
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from enerf.core import files
from enerf.core.errors import InputError

_TEMPORARY = re.compile(r"\.(?P<host>\w{1,32})-(?P<pid>[0-9]{1,18})-[0-9a-f]{12}\.tmp(\..*)?", re.ASCII)
_WEEK = 7 * 24 * 3600.0
_writing: set[str] = set()  # names of temporary files of this process

ErrorFor = Callable[[Path, str], InputError]


def write_atomic(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with atomic_path(path) as temporary, os_errors_as_input_errors(path):
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON atomically; numbers that are not finite become null.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    write_atomic(path, json.dumps(nan_to_none(content), indent=1, allow_nan=False) + "\n")


def nan_to_none(content: Any) -> Any:
    """The content with every NaN and infinity replaced by None, since JSON has no such numbers.

    >>> nan_to_none({"a": [1.0, float("inf")]})
    {'a': [1.0, None]}
    """
    if isinstance(content, dict):
        return {key: nan_to_none(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [nan_to_none(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises
    ------
    InputError
        If it is missing or not valid JSON.
    """
    try:
        return json.loads(files.read_text(path))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; expected the result of a finished run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}), expected a whole file") from None


def read_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object, as metrics and records do.

    Raises
    ------
    InputError
        If it is missing, not valid JSON, or something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: found JSON of type {type(content).__name__}, expected an object with names")
    return content


def write_error(path: Path, reason: str) -> InputError:
    """The exception for a file that cannot be written, not raised.

    >>> print(write_error(Path("a.png"), "No space left on device"))
    a.png: cannot be written (No space left on device), expected a writable folder with free space
    """
    return InputError(f"{path}: cannot be written ({reason}), expected a writable folder with free space")


@contextmanager
def atomic_path(path: Path, *, fsync: bool = False, error: ErrorFor = write_error) -> Iterator[Path]:
    """Temporary path in the folder of ``path``, which is created; renamed to ``path`` on success, deleted on failure.

    Parameters
    ----------
    path
        The file to create or replace.
    fsync
        Whether to flush the data to disk before the rename, so that a power failure leaves no truncated file.
    error
        Makes the InputError of the path and a reason.

    Raises
    ------
    InputError
        If the folder cannot be created, or the file not flushed or renamed.
    """
    with temporary_path(path) as temporary:
        with os_errors_as_input_errors(path, error):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with os_errors_as_input_errors(path, error):
            if fsync:
                with temporary.open("r+b") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)


@contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Unused path beside ``path``, for a file or a folder that will be renamed to it; what is left there is deleted.

    Its name is unique and tells process and host, so that ``remove_leftovers`` finds it after the process was killed.
    """
    temporary = path.with_name(f".{host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    _writing.add(temporary.name)
    try:
        yield temporary
    finally:
        _writing.discard(temporary.name)
        _delete(temporary)


def replace_folder(made: Path, target: Path) -> None:
    """Rename a folder to a path at which there may be another one, which is deleted.

    On Linux the two folders are exchanged in one step. Elsewhere, and on file systems that cannot do that, the earlier
    folder is first renamed to a temporary path beside its own, and renamed back if the new one cannot take its place.

    Raises
    ------
    OSError
        If a folder cannot be renamed; the earlier one has its place then.
    """
    if not os.path.lexists(target):
        os.rename(made, target)
    elif _exchanged(made, target):
        shutil.rmtree(made, ignore_errors=True)
    else:
        with temporary_path(target) as earlier:
            os.rename(target, earlier)  # a folder cannot replace one that is not empty
            try:
                os.rename(made, target)
            except BaseException:
                os.rename(earlier, target)
                raise


def _exchanged(a: Path, b: Path) -> bool:
    """Exchange two paths in one step by ``renameat2`` of Linux; return False if that cannot be done here."""
    import ctypes

    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # no Linux, or a C library from before 2018
        return False
    return rename(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0


def remove_leftovers(folder: Path, levels: int = 3) -> list[Path]:
    """Delete what killed processes left at temporary paths in a folder and folders below it; return these paths.

    ``levels`` is how many levels of folders below it are searched; 0: only the folder itself.

    A file or folder is left over if its process ran on this host and is gone, or if it is of another host and unchanged
    for a week. Those of running processes, and all others, are left alone.
    """
    removed: list[Path] = []
    for name, inner, names in os.walk(folder):
        found = [path for path in (Path(name, each) for each in sorted([*names, *inner])) if _is_leftover(path)]
        is_last = len(Path(name).relative_to(folder).parts) >= levels
        inner[:] = [] if is_last else [each for each in inner if Path(name, each) not in found]
        removed += [path for path in found if _delete(path)]
    return removed


def host() -> str:
    """Name of this host in file names: letters, digits and underscores only, at most 32."""
    return re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:32] or "host"


def is_running(pid: int) -> bool:
    """Whether a process of this host exists.

    >>> is_running(os.getpid())
    True
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # of another user; or unknown
    return True


def _delete(path: Path) -> bool:
    """Delete a file, or a folder with all that is in it; return whether nothing is left there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
    return not os.path.lexists(path)


def _is_leftover(path: Path) -> bool:
    found = _TEMPORARY.fullmatch(path.name)
    if found is None:
        return False
    if found["host"] == host():
        pid = int(found["pid"])  # in a container that is restarted, that of this process
        return path.name not in _writing if pid == os.getpid() else not is_running(pid)
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > _WEEK
    return False


@contextmanager
def os_errors_as_input_errors(path: Path, error: ErrorFor = write_error) -> Iterator[None]:
    """Re-raise any ``OSError`` as the InputError that ``error`` makes of ``path`` and the reason.

    Raises
    ------
    InputError
        Instead of an ``OSError``.
    """
    try:
        yield
    except OSError as cause:
        raise error(path, cause.strerror or str(cause)) from None
