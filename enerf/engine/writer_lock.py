"""Lock of a run's folder: one process writes to it at a time; readers need no lock."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from enerf.core import io
from enerf.core.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("enerf")
NAME = ".writer"
_held: set[str] = set()  # folders that this process writes to: the system's locks do not exclude the same process


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is created; delete temporary files that killed processes left in it.

    The system releases the lock when the process ends, however it ends, so that no stale lock remains. A folder that
    was created and is still empty is removed again.

    Raises
    ------
    InputError
        If another process writes to the folder; the message names its process number and host. Or if the folder
        cannot be created.
    """
    key = os.path.realpath(folder)
    if key in _held:
        raise InputError(f"{folder}: this process already writes to it, expected one writer of a run")
    created = _create(folder)
    _held.add(key)
    try:
        with _locked(folder):
            for path in io.remove_leftovers(folder):
                log.info("removed %s, left by a process that was killed", path)
            yield
    finally:
        _held.discard(key)
        for path in created:
            with suppress(OSError):
                path.rmdir()


def _create(folder: Path) -> list[Path]:
    """Create a folder; return it and the parents that did not exist, innermost first."""
    with io.os_errors_as_input_errors(folder):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    return missing


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / NAME
    with io.os_errors_as_input_errors(path):
        file = _acquire(path)
    if file is None:
        yield
        return
    try:
        with suppress(OSError):  # on a full disk the lock holds too, and nobody is told by whom
            file.write(json.dumps({"pid": os.getpid(), "host": io.host(), "since": _now()}).encode())
            file.flush()
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):
            file.close()


def _acquire(path: Path) -> BinaryIO | None:
    """Open and lock the lock file; None, with a warning, if the file system has no locks.

    Another process may have deleted the file between opening and locking; then it is opened again.
    """
    while True:
        file = path.open("a+b")
        try:
            if fcntl is None:
                raise OSError("this system has no file locks")
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise _occupied(path, file) from None
        except OSError as error:
            log.warning("%s: not protected against a second writer (%s)", path.parent, error.strerror or error)
            file.close()
            return None
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                return file
        file.close()


def _occupied(path: Path, file: BinaryIO) -> InputError:
    """Return the exception for a folder that another process writes to; closes the file."""
    with file:
        file.seek(0)
        try:
            found = json.loads(file.read(4096))
            who = f"process {found['pid']} on {found['host']}, since {found['since']}"
        except (ValueError, KeyError, TypeError, OSError):
            who = "another process"
    return InputError(f"{path.parent}: {who} writes to this run; expected no other: stop it, or give another --expname")


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
