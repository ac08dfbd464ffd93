"""Uniform access to the files of a data set in a folder or an archive.

Names are relative to the data set's own folder, separated by ``/``. Files left by operating systems (``.DS_Store``,
``._a.png``, ``Thumbs.db``, ``__MACOSX``) are ignored. Archives are read into memory; nothing is written to disk.
What an archive says about its sizes is checked before anything is unpacked: see ``_Budget``.
"""

import bz2
import dataclasses
import gzip
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from enerf.core import files
from enerf.core.errors import InputError, shown
from enerf.core.progress import progress_bar

MEMBER = 1 << 30  # largest file size in bytes
TOTAL = 8 << 30  # largest unpacked size of an archive in bytes
RATIO = 32  # largest ratio of an archive's unpacked size to its own, above FREE; images compress 2 to 10 times
FREE = 64 << 20  # unpacked bytes that any archive may have
_STEP = 1 << 24  # bytes after which the available memory is looked up again
_HEADER = 1 << 16  # largest size of a tar header's extension in bytes: a long name, or records of pax
_DEPTH = 4  # of nested folders
_PADDING = 1 << 20  # bytes that may follow the last member
_SHOWN = 5  # names listed in an error message
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open, b"BZh": bz2.open}
_DAMAGED = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError),
    *(ValueError, OverflowError, IndexError, RecursionError, struct.error),  # of header fields that are no numbers
)
_EXTENSIONS = b"LKxgX"  # types of tar headers whose content describes the next one
_KINDS = {  # format to a pattern of its files, in the order they are tried; folder names end in /
    "CIFAR-10, binary": r"(data_batch_[1-5]|test_batch)\.bin",
    "CIFAR-10, python": r"data_batch_[1-5]|test_batch",
    "CIFAR-100, binary": r"(train|test)\.bin",
    "CIFAR-100, python": r"train",
    "idx": r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?",
    "folders": r"train/",
}
EXPECTED = (
    "the files of CIFAR-10 or CIFAR-100 (binary or python version), idx files (train-images-idx3-ubyte.gz and its "
    "like), folders train/CLASS/ and test/CLASS/ of images, or an archive (.tar, .tar.gz, .tar.xz, .zip) of these"
)


@dataclass(frozen=True)
class Archive:
    """The files of a data set.

    Attributes
    ----------
    path
        The folder or archive given by the user.
    root
        Folder of the data set in it: "" or a name that ends in /.
    kind
        One of ``CIFAR-10, binary``, ``CIFAR-10, python``, the same of CIFAR-100, ``idx`` and ``folders``.
    names, folders
        Sorted files and folders, relative to the root.
    contents
        Name to bytes for an archive; None for a folder on disk.
    """

    path: Path
    root: str
    kind: str
    names: tuple[str, ...]
    folders: tuple[str, ...]
    contents: dict[str, bytes] | None

    @property
    def name(self) -> str:
        """Name of the data set: its folder, or the archive without suffixes."""
        if self.root:
            return PurePosixPath(self.root).name
        resolved = self.path.resolve().name
        return resolved if self.contents is None else re.sub(r"(\.tar)?\.\w+$|\.tar$", "", resolved)

    def where(self, name: str = "") -> str:
        """Path of a file for messages; ``archive.zip:name`` inside an archive."""
        inner = f"{self.root}{name}".rstrip("/")
        return str(self.path / inner) if self.contents is None else f"{self.path}{':' if inner else ''}{inner}"

    def read(self, name: str) -> bytes:
        """Bytes of a file.

        Raises
        ------
        InputError
            If it cannot be read or is too large.
        """
        if self.contents is not None:
            return self.contents[self.root + name]
        try:
            return files.read_bytes(self.path / self.root / name, MEMBER)
        except OSError as error:
            raise InputError(f"{self.where(name)} cannot be read ({_reason(error)}), expected a file") from None


def open_archive(path: Path) -> Archive:
    """Open the data set in a folder, in its only subfolder that contains one, or in an archive.

    Raises
    ------
    InputError
        If the path does not exist, no or several data sets are recognized, or an archive is damaged, too large or has
        members with paths outside of it.
    """
    if not os.path.exists(path):  # False for a path that is too long
        raise InputError(f"{path} does not exist, expected {EXPECTED} (--images)")
    if path.is_dir():
        root, kind = _root(path, list(_walk(path, 2, strict=False)))
        found = list(_walk(path / root, _DEPTH if kind == "folders" else 1))
        return Archive(path, root, kind, *_files_and_folders(found), contents=None)
    contents = _unpack(path)
    root, kind = _root(path, sorted(contents))
    inside = [name.removeprefix(root) for name in contents if name.startswith(root) and name != root]
    parents = {name[: slash.start() + 1] for name in inside for slash in re.finditer("/", name)}
    return Archive(path, root, kind, *_files_and_folders({*inside, *parents}), contents=contents)


def fingerprint(path: Path) -> str:
    """Digest of the names, sizes and times of all files of a data set; empty if it does not exist.

    Two equal ones mean that no file has been added, removed, replaced or written to meanwhile.
    """
    if not os.path.exists(path):
        return ""
    return files.stamp(path, _walk(path, _DEPTH + 1, strict=False) if os.path.isdir(path) else [""])


def _root(path: Path, names: list[str]) -> tuple[str, str]:
    """Folder of the data set and its format; ``names`` are those of at least the two upper levels."""
    inside: dict[str, set[str]] = {"": set()}  # folder of the upper level -> names in it
    for name in names:
        top, slash, rest = name.partition("/")
        inside[""].add(top + slash)
        if rest:
            inside.setdefault(f"{top}/", set()).add(re.sub("/.*", "/", rest))
    candidates = [(root, _kind(found)) for root, found in sorted(inside.items())]
    known = [(root, kind) for root, kind in candidates if kind]
    if not known:
        found = sorted(inside[""])
        listed = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        raise InputError(f"{path} holds {listed or 'nothing'}, expected {EXPECTED} (--images)")
    if known[0][0] and len(known) > 1:
        raise InputError(
            f"{path} holds {len(known)} data sets ({', '.join(root for root, _ in known[:_SHOWN])}), expected one: "
            "name its own folder (--images)"
        )
    return known[0]


def _kind(names: set[str]) -> str:
    """Format of the data set of a folder with these files and folders; empty if none is recognized."""
    return next((kind for kind, mark in _KINDS.items() if any(re.fullmatch(mark, name) for name in names)), "")


def _files_and_folders(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sorted file names and sorted folder names."""
    ordered = sorted(names)
    return tuple(n for n in ordered if not n.endswith("/")), tuple(n for n in ordered if n.endswith("/"))


def _is_ignored(name: str) -> bool:
    """Whether a name is hidden or a file left by an operating system."""
    return any(part.startswith(".") or part in ("Thumbs.db", "__MACOSX", "desktop.ini") for part in name.split("/"))


def _walk(folder: Path, depth: int, prefix: str = "", strict: bool = True) -> Iterator[str]:
    """Names in a folder, recursively to a depth; folders end in /. ``strict``: unreadable subfolders are errors."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if prefix and not strict:
            return
        raise InputError(f"{folder} cannot be listed ({_reason(error)}), expected a folder") from None
    for entry in entries:
        if _is_ignored(entry.name):
            continue
        if not _is_folder(entry):
            if strict:
                _check_regular(entry)
            yield prefix + entry.name
            continue
        if entry.is_symlink() and folder.resolve().is_relative_to(Path(entry.path).resolve()):
            continue  # a cycle, listed already
        yield f"{prefix}{entry.name}/"
        if depth > 1:
            yield from _walk(Path(entry.path), depth - 1, f"{prefix}{entry.name}/", strict)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _check_regular(entry: os.DirEntry[str]) -> None:
    """Raise ``InputError`` for a pipe or a device; a link to nothing passes, and is reported if it is read."""
    with suppress(OSError):
        if not entry.is_file():
            files.require_regular(entry.path)


@dataclass
class _Budget:
    """Unpacked bytes that an archive may still have, checked before they are read.

    An archive may unpack to ``TOTAL`` bytes, to ``RATIO`` times its own size if that is above ``FREE``, and to the
    available memory.
    """

    path: Path
    left: int
    unchecked: int = 0  # bytes since the memory was looked up

    @classmethod
    def of(cls, path: Path, size: int) -> "_Budget":
        """Budget of an archive of a size."""
        return cls(path, min(TOTAL, max(FREE, RATIO * size)))

    def take(self, where: str, size: int) -> None:
        """Count a member of the archive.

        Raises
        ------
        InputError
            If it is larger than a member, the rest of the archive or the memory may be.
        """
        if size > MEMBER:
            raise InputError(f"{where} has more than {MEMBER >> 30} GiB, expected a smaller file")
        self.left -= size
        if self.left < 0:
            raise InputError(
                f"{self.path} unpacks to more than {RATIO} times its size or {TOTAL >> 30} GiB, expected images: "
                "unpack it and name the folder"
            )
        self.unchecked += size
        if self.unchecked > _STEP:
            self.unchecked = 0
            files.require_memory(size, where)


def _unpack(path: Path) -> dict[str, bytes]:
    """Contents of an archive: names to bytes; folders have names that end in / and no bytes."""
    contents = {}
    try:
        with files.open_regular(path) as file:
            start = file.read(6)
            file.seek(0)
            budget = _Budget.of(path, os.fstat(file.fileno()).st_size)
            opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
            if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                members = _zipped(path, file, budget)
            else:
                members = _tarred(path, opener(file) if opener else file, budget)
            for name, data in progress_bar(None, f"read {path.name}", "file", iterable=members, delay=2):
                if not _is_ignored(name):
                    contents[name] = data
    except tarfile.ReadError as error:
        what = "is no archive" if not contents else "is damaged"
        raise InputError(f"{path} {what} ({_reason(error)}), expected {EXPECTED} (--images)") from None
    except _DAMAGED as error:
        raise InputError(f"{path} cannot be read ({_reason(error)}), expected a whole archive") from None
    return contents


class _Header(tarfile.TarInfo):
    """A tar header that raises if it is damaged or missing, which tarfile takes for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        """Parse a header."""
        if not len(buf):
            raise tarfile.ReadError("it ends too soon")
        try:
            header = super().frombuf(buf, encoding, errors)
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None
        if header.type in _EXTENSIONS and not 0 <= header.size <= _HEADER:  # tarfile reads it whole, as a name
            raise tarfile.ReadError(f"it has a header of {header.size:,} bytes, of which {_HEADER:,} are read")
        return header


def _tarred(path: Path, stream: Any, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each member of a tar archive, in one pass; links are skipped."""
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar:
        for member in tar:
            if not (member.isfile() or member.isdir()):
                continue
            name = _inner(path, member.name, member.isdir())
            if member.issparse():
                raise InputError(f"{path}:{name} is a sparse file, expected an archive of files without holes")
            budget.take(f"{path}:{name}", member.size)
            file = tar.extractfile(member) if member.isfile() else None
            yield name, file.read() if file else b""
    stream.read(_PADDING)  # verifies the checksum at the end of the compressed stream


def _zipped(path: Path, file: Any, budget: _Budget) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each member of a zip archive; links are skipped."""
    with zipfile.ZipFile(file) as zipped:
        whole = dataclasses.replace(budget)
        for member in zipped.infolist():  # all of them, before the first one is read
            whole.take(f"{path}:{member.filename}", member.file_size)
        for member in zipped.infolist():
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                continue
            name = _inner(path, member.filename, member.is_dir())
            budget.take(f"{path}:{name}", member.file_size)
            if member.flag_bits & 1:
                raise InputError(f"{path}:{name} is encrypted, expected an archive without a password")
            yield name, b"" if member.is_dir() else zipped.read(member)


def _inner(path: Path, name: str, is_folder: bool) -> str:
    """Normalized name of a member; raises for paths outside of the archive."""
    if re.match(r"[/\\]|\w:", name) or ".." in re.split(r"[/\\]", name):
        raise InputError(
            f"{path} holds a member named {shown(name)}, expected names without '..' that lie inside of it"
        )
    return "/".join(part for part in name.split("/") if part not in ("", ".")) + ("/" if is_folder else "")


def _reason(error: Exception) -> str:
    """Short description of an error."""
    if isinstance(error, EOFError):
        return "it ends too soon"
    words = (getattr(error, "strerror", None) or " ".join(str(error).split())).rstrip(".")
    return (words[:1].lower() + words[1:])[:120] or type(error).__name__
