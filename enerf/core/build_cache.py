"""Cache of compiled kernels: where it is, which folders and files are trusted, storing and finding libraries.

A library is executed when it is loaded, so that only folders and files are used that nobody else can write: owned by
this user (or by root), without write permission for group and others. The name of a file contains a hash of its
content, which is verified before it is loaded: a library that is truncated or overwritten would otherwise end the
process by a signal. Files are written under unique names and renamed, so that any number of processes may store
libraries at the same time.
"""

import functools
import hashlib
import logging
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from enerf.core.errors import InputError
from enerf.core.files import open_regular

log = logging.getLogger("enerf")

SUFFIX = ".so"
LEFT_OVER = "writing-"  # prefix of files that are being written
LEFT_OVER_AGE = 3600.0  # seconds after which such a file is that of a process that was killed
_warned: set[str] = set()


def cache_folder() -> Path | None:
    """Folder of the compiled kernels: the environment variable ``ENERF_CACHE``, or the user's cache folder.

    The latter is ``$XDG_CACHE_HOME/enerf``, else ``~/.cache/enerf``; on Windows it is in ``%LOCALAPPDATA%``. None if
    the user has no home folder. Only ``ENERF_CACHE`` may be relative.
    """
    if chosen := os.environ.get("ENERF_CACHE"):
        return Path(os.path.expanduser(chosen)).absolute()
    variable, below_home = (
        ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_CACHE_HOME", ".cache")
    )
    base = os.environ.get(variable, "")
    if not os.path.isabs(base) and os.environ.get("HOME") != "":
        base = os.path.join(os.path.expanduser("~"), below_home)
    return Path(base, "enerf") if os.path.isabs(base) else None


def libraries(key: str, build: Callable[[], bytes]) -> Iterator[Path]:
    """Paths of a library, in the order in which they are to be tried: a path may turn out not to be loadable.

    First those with verified content in the cache, then newly built ones. The folders are ``cache_folder()``; a folder
    of this user among the temporary files; and, for new ones only, a folder of this process. What cannot be used is
    logged.

    Parameters
    ----------
    key
        Name of the library, without the hash of its content.
    build
        Returns its content; called at most once, only when needed.
    """
    for folder in _folders(make=False):
        yield from _verified(folder, key)
    content = build()
    for folder in _folders(make=True):
        try:
            yield _stored(folder, key, content)
        except OSError as error:  # full or read-only
            _warn(folder, f"cannot be written to ({error.strerror or error}); compiled kernels are kept elsewhere")
    yield _stored(_process_folder(), key, content)


def _folders(*, make: bool) -> Iterator[Path]:
    """Trusted folders that exist, or can be made."""
    chosen = cache_folder()
    if chosen is None:
        _warn("this user has no home folder", "ENERF_CACHE is not set either, so compiled kernels are temporary files")
    elif problem := _problem_of_folder(_tightened(chosen), make):
        _warn(chosen, f"{problem}; compiled kernels are kept elsewhere")
    elif chosen.is_dir():
        yield chosen
    user = Path(tempfile.gettempdir()) / f"enerf-cache-{getattr(os, 'geteuid', lambda: 'user')()}"
    if not _problem_of_folder(user, make) and user.is_dir():
        yield user


def _tightened(folder: Path) -> Path:
    """The folder; if it is the default one and of this user, others may no longer write to it.

    Versions that made it with the user's umask, 002 on many systems, left it writable for the group. What is in it is
    verified file by file.
    """
    with suppress(OSError, ValueError):
        found = os.lstat(folder)
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == getattr(os, "geteuid", lambda: None)()
        if own and found.st_mode & 0o022 and not os.environ.get("ENERF_CACHE"):
            folder.chmod(stat.S_IMODE(found.st_mode) & ~0o022)
    return folder


def _verified(folder: Path, key: str) -> Iterator[Path]:
    """The libraries of a key in a folder with the content that their names say; others are removed with a warning."""
    for path in sorted(folder.glob(f"{key}-*{SUFFIX}")):
        if problem := _problem_of_file(path):
            _warn(path, f"{problem}; the kernel is compiled again")
            with suppress(OSError):
                path.unlink()
        else:
            yield path


def _stored(folder: Path, key: str, content: bytes) -> Path:
    """Write a library to a folder and return its path; raises ``OSError`` if that fails."""
    _remove_left_overs(folder)
    path = folder / f"{key}-{_digest(content)}{SUFFIX}"
    handle, name = tempfile.mkstemp(prefix=LEFT_OVER, dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    return path


def _problem_of_folder(folder: Path, make: bool) -> str | None:
    """Why a folder cannot be used, or None if it can or is only missing; ``make`` makes it."""
    try:
        if not os.path.lexists(folder):
            if not make:
                return None
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        link = os.lstat(folder)
        if stat.S_ISLNK(link.st_mode) and (problem := _problem_of_owner(link, is_link=True)):
            return problem
        found = os.stat(folder)
    except (OSError, ValueError) as error:
        return f"the cache folder cannot be made ({getattr(error, 'strerror', None) or error})"
    return _problem_of_owner(found) if stat.S_ISDIR(found.st_mode) else "expected the cache folder, found a file"


def _problem_of_file(path: Path) -> str | None:
    """Why a library must not be loaded, or None if it may."""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return "found a link, expected a file"
        with open_regular(path) as file:
            if problem := _problem_of_owner(os.fstat(file.fileno())):
                return problem
            content = file.read()
    except (OSError, InputError) as error:
        return f"cannot be read ({error})"
    return None if path.stem.endswith(f"-{_digest(content)}") else "the content is damaged"


def _problem_of_owner(found: os.stat_result, *, is_link: bool = False) -> str | None:
    """Why somebody else could write a file or folder, or None."""
    if not hasattr(os, "geteuid"):
        return None
    if found.st_uid not in (0, os.geteuid()):
        return f"owned by another user (number {found.st_uid})"
    if found.st_mode & 0o022 and not is_link:
        return f"other users may write to it (mode {stat.S_IMODE(found.st_mode):o}, expected {0o700:o})"
    return None


@functools.cache
def _process_folder() -> Path:
    """An empty folder that is removed when the process ends."""
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="enerf-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_left_overs(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    for path in folder.glob(f"{LEFT_OVER}*"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > LEFT_OVER_AGE:
                path.unlink()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _warn(about: Path | str, problem: str) -> None:
    """Log a warning, once for each file or folder."""
    if str(about) not in _warned:
        _warned.add(str(about))
        log.warning("%s: %s", about, problem)
