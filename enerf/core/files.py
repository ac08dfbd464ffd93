"""Reading files: named pipes, devices and folders in the place of a file are refused, as is what exceeds the memory.

Every reader of user files opens them by one of these functions, since reading a named pipe blocks for ever, and reading
a device such as ``/dev/zero`` does not end.
"""

import hashlib
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from enerf.core.errors import InputError, shown

NAME_BYTES, PATH_BYTES = 255, 4095  # limits of file systems and of Linux for a name and for a path
AnyPath = str | os.PathLike[str]
_LARGE = 1 << 24  # bytes of a file from which on the memory is checked
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)
# Limit of a container, its usage, statistics, and the prefix in these of numbers that include inner groups.
_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", ""),
    (
        *("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        *("/sys/fs/cgroup/memory/memory.stat", "total_"),
    ),
)


def require_regular(path: AnyPath) -> int:
    """Size of a file in bytes, after a check that it is a regular one; links are followed.

    Raises
    ------
    InputError
        If it is a folder, a named pipe, a device or a socket.
    OSError
        If it is missing or cannot be examined.
    """
    return _size_of_regular(os.stat(path), path)


def is_regular(path: AnyPath) -> bool:
    """Whether a regular file exists; links are followed.

    Raises
    ------
    InputError
        If a folder, a named pipe, a device or a socket has its place.
    """
    try:
        require_regular(path)
    except OSError:
        return False
    return True


def open_regular(path: AnyPath) -> BinaryIO:
    """Open a regular file for reading bytes; never blocks.

    Raises
    ------
    InputError
        If it is a folder, a named pipe, a device or a socket.
    OSError
        If it is missing or cannot be opened.
    """
    require_regular(path)  # a device may act on being opened
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        _size_of_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise


def read_bytes(path: AnyPath, max_bytes: int = sys.maxsize, *, start: int | None = None) -> bytes:
    """Content of a regular file, or only its first ``start`` bytes.

    Raises
    ------
    InputError
        If it is not a regular file, or is larger than ``max_bytes`` or than the available memory.
    OSError
        If it is missing or cannot be read.
    """
    with open_regular(path) as file:
        if start is not None:
            return file.read(start)
        found = os.fstat(file.fileno()).st_size
        if found > max_bytes:
            raise InputError(f"{Path(path)}: found a file of {found:,} bytes, expected at most {max_bytes:,}")
        if found > _LARGE:  # the memory is looked up in several files
            require_memory(found, str(Path(path)))
        return file.read()


def read_end(path: AnyPath, n: int) -> bytes:
    """The last ``n`` bytes of a regular file, or all if it has fewer; raises as ``read_bytes``."""
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - n))
        return file.read(n)


def read_text(path: AnyPath, max_bytes: int = sys.maxsize) -> str:
    """Content of a regular text file in UTF-8, without a byte order mark.

    Raises
    ------
    InputError
        If it is not a regular file, is too large, or is not UTF-8.
    OSError
        If it is missing or cannot be read.
    """
    try:
        return read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{Path(path)}: found bytes that are not UTF-8 ({error.reason}), expected text") from None


def expanded(path: str, what: str) -> str:
    """A path with ``~`` and ``~user`` replaced by a home folder, as shells do; an empty one stays empty.

    Parameters
    ----------
    path
        As a user gave it.
    what
        The option or argument that gave it; begins the message.

    Raises
    ------
    InputError
        If the user is unknown, or no file can have such a path: a zero byte, bytes that are not UTF-8, a name of more
        than 255 bytes.

    >>> expanded("~/a", "option --out") == os.path.expanduser("~") + "/a"
    True
    """
    found = os.path.expanduser(path)  # not Path's, which raises RuntimeError
    if found.startswith("~"):
        user = found.split("/")[0]
        raise InputError(
            f"{what}: found {shown(path)}, expected a path that exists: there is no home folder of {user} "
            "(./ before it makes it a name)"
        )
    if wrong := _impossible(found):
        raise InputError(f"{what}: found {shown(path)}, expected a path {wrong}")
    return found


def inner_name(name: str, what: str) -> str:
    """A relative path that stays inside of the folder that it is meant for, unchanged; an empty one stays empty.

    Raises
    ------
    InputError
        If it is absolute, begins with ``~``, is ``.`` or has a part ``..``, or no file can have such a name.
    """
    parts = name.split("/")
    if name and (name[0] in "/~" or ".." in parts or all(part in ("", ".") for part in parts)):
        raise InputError(f"{what}: found {shown(name)}, expected a name inside of the folder of results, without '..'")
    if wrong := _impossible(name):
        raise InputError(f"{what}: found {shown(name)}, expected a name {wrong}")
    return name


def stamp(root: AnyPath, names: Iterable[str]) -> str:
    """Hash of a folder, and of the names, sizes and times of files in it, in the given order.

    Equal stamps mean that no file has been added, removed, replaced or written to: the time of change of a file is
    included, which cannot be set back.
    """
    hashed = hashlib.blake2b(os.fsencode(os.path.realpath(root)), digest_size=16)
    for name in names:
        times = "missing"
        with suppress(OSError):
            found = os.stat(os.path.join(root, name))
            times = f"{found.st_size},{found.st_mtime_ns},{found.st_ctime_ns}"
        hashed.update(os.fsencode(f"\0{name}\0{times}"))
    return hashed.hexdigest()


def require_memory(n_bytes: int, what: str) -> None:
    """Check that an allocation fits before it is made.

    Parameters
    ----------
    n_bytes
        Bytes that will be allocated.
    what
        The file or option that asks for them; begins the message.

    Raises
    ------
    InputError
        If they are more than the available memory of the host.
    """
    available = available_memory()
    if n_bytes > available:
        raise InputError(
            f"{what}: needs {format_bytes(n_bytes)} of memory, found {format_bytes(available)} available; expected less"
        )


def is_missing(path: str | os.PathLike[str]) -> bool:
    """Whether there is certainly nothing at a path; false where that cannot be known."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def available_memory() -> int:
    """Bytes of host memory that can be allocated: the system's estimate, or less if a container limits it.

    Where neither is known, 2^63 - 1.
    """
    found = [sys.maxsize]
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for limit, usage, statistics, prefix in _CGROUP_FILES:
        with suppress(OSError, ValueError):
            used = int(Path(usage).read_text()) - _cached_files(Path(statistics), prefix)
            found.append(max(0, int(Path(limit).read_text()) - used))
    return min(found)


def format_bytes(n_bytes: float | int) -> str:
    """A number of bytes in the largest binary unit below it.

    >>> format_bytes(3 * 2**30), format_bytes(512), format_bytes(2**90)
    ('3.0 GiB', '512 B', '1073741824.0 EiB')
    """
    size, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _cached_files(statistics: Path, prefix: str) -> int:
    """Bytes of a container's usage that cache files, which the system frees when memory is needed."""
    names = (f"{prefix}active_file", f"{prefix}inactive_file")
    with suppress(OSError, ValueError):
        rows = [line.split() for line in statistics.read_text().splitlines()]
        return sum(int(row[1]) for row in rows if row[0] in names)
    return 0


def _size_of_regular(found: os.stat_result, path: AnyPath) -> int:
    if not stat.S_ISREG(found.st_mode):
        kind = next((text for test, text in _KINDS if test(found.st_mode)), "a special file")
        raise InputError(f"{Path(path)}: found {kind}, expected a file")
    return found.st_size


def _impossible(path: str) -> str:
    """What a path lacks to be one of a file; empty if nothing."""
    try:
        length = max(len(part.encode()) for part in path.split("/"))
    except UnicodeEncodeError:
        return "in UTF-8"
    if "\0" in path:
        return "without zero bytes"
    if length > NAME_BYTES:
        return f"whose names have at most {NAME_BYTES} bytes each"
    return f"of at most {PATH_BYTES:,} bytes" if len(path.encode()) > PATH_BYTES else ""
