"""Lock of a run's folder: one process writes to it at a time; readers need no lock."""

import json
import logging
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from enerf.core import io
from enerf.core.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("enerf")
NAME = ".writer"
PATIENCE = 10.0  # seconds to wait for a process that only moves files
_held: dict[str, "_Held"] = {}  # what this process writes to: the system's locks do not exclude the same process


@dataclass
class _Held:
    """A folder that this process writes to: its identity, and the locked file, None without file locks."""

    folder: os.stat_result
    file: Any  # binary, or None


@contextmanager
def writing(folder: Path, *, briefly: bool = False) -> Iterator[None]:
    """Hold the lock of a run's folder, which is created; delete temporary files that killed processes left in it.

    ``briefly`` is for those who only move files: others wait for them.

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
    try:
        with io.os_errors_as_input_errors(folder):
            _held[key] = _Held(folder.stat(), _locked_file(folder, briefly))
        for path in io.remove_leftovers(folder):
            log.info("removed %s, left by a process that was killed", path)
        yield
    finally:
        if (held := _held.pop(key, None)) is not None:
            _release(folder / NAME, held.file)
        for path in created:
            with suppress(OSError):
                path.rmdir()


def holder(folder: Path) -> dict[str, Any] | None:
    """Return who writes to a folder: ``pid``, ``host`` and ``since`` as far as they are known; None if nobody does.

    The lock is not taken for that on Linux; elsewhere for a moment, shared. Without file locks nobody is known of.
    """
    if os.path.realpath(folder) in _held:  # to open and close the file would release the lock of this process
        return {"pid": os.getpid(), "host": io.host()}
    try:
        file = (folder / NAME).open("rb")
    except OSError:
        return None
    with file:
        return _holder(file) if _is_locked(file) else None


def _is_locked(file: BinaryIO) -> bool:
    """Return whether another process has locked a file."""
    try:
        if fcntl is None:
            return False
        if sys.platform == "linux":  # struct flock: type, whence, start, length, process
            asked = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            return bool(struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    return False


def wait_until_free(folder: Path) -> None:
    """Wait while another process writes to a folder; says so once."""
    told = False
    while (found := holder(folder)) is not None:
        if not told:
            log.info("%s: waiting for process %s on %s, which writes to it", folder, *map(found.get, ("pid", "host")))
        told = True
        time.sleep(1.0)


def require_held(folder: Path) -> None:
    """Check that a folder that ``writing`` has locked is still the same one; a vanished one is created and locked anew.

    Folders that are not locked are not checked.

    Raises
    ------
    InputError
        If it has been replaced by another folder, or another process writes to it now.
    """
    key = os.path.realpath(folder)
    held = _held.get(key)
    if held is None or held.file is None:
        return
    with io.os_errors_as_input_errors(folder):
        if not folder.exists():
            log.warning("%s: the folder has vanished; it is created again", folder)
            _create(folder)
            _release(folder / NAME, held.file)
            _held[key] = _Held(folder.stat(), _locked_file(folder))
        elif not os.path.samestat(held.folder, folder.stat()):
            raise InputError(f"{folder}: found another folder than the one that the run began in, expected the same")
        elif not _is_at(folder / NAME, held.file):
            _held[key] = _Held(held.folder, _locked_file(folder))
            held.file.close()


def _create(folder: Path) -> list[Path]:
    """Create a folder; return it and the parents that did not exist, innermost first."""
    with io.os_errors_as_input_errors(folder):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _locked_file(folder: Path, briefly: bool = False) -> Any:
    """Lock the lock file of a folder and write into it who holds it."""
    file = _acquire(folder / NAME)
    if file is not None:
        who = {"pid": os.getpid(), "host": io.host(), "since": _now(), **({"briefly": True} if briefly else {})}
        with suppress(OSError):  # on a full disk the lock holds too, and nobody is told by whom
            file.write(json.dumps(who).encode())
            file.flush()
    return file


def _release(path: Path, file: Any) -> None:
    """Unlock and close a lock file, and delete it unless another one has its place."""
    if file is None:
        return
    with suppress(OSError):
        if _is_at(path, file):
            path.unlink()
    with suppress(OSError):
        file.close()


def _is_at(path: Path, file: Any) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _acquire(path: Path) -> BinaryIO | None:
    """Open and lock the lock file; None, with a warning, if the file system has no locks.

    Another process may have deleted the file between opening and locking; then it is opened again. Likewise while one
    holds it that only moves files, for some seconds.
    """
    patient_until = time.monotonic() + PATIENCE
    while True:
        file = path.open("a+b")
        try:
            if fcntl is None:
                raise OSError("this system has no file locks")
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            who = _holder(file)
            if not who.get("briefly") or time.monotonic() > patient_until:
                raise _occupied(path, who) from None
            time.sleep(0.02)
            continue
        except OSError as error:
            log.warning("%s: not protected against a second writer (%s)", path.parent, error.strerror or error)
            file.close()
            return None
        if _is_at(path, file):
            file.truncate(0)
            return file
        file.close()


def _holder(file: BinaryIO) -> dict[str, Any]:
    """Return what a lock file says of its holder, empty if nothing; closes the file."""
    with file, suppress(ValueError, OSError):
        file.seek(0)
        found = json.loads(file.read(4096))
        return found if isinstance(found, dict) else {}
    return {}


def _occupied(path: Path, holder: dict[str, Any]) -> InputError:
    """Return the exception that names the process which holds the lock of a folder."""
    who = "another process"
    if {"pid", "host", "since"} <= holder.keys():
        who = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return InputError(
        f"{path.parent}: {who} writes to this run; expected no other: stop it, or give another --expname or --out"
    )


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
