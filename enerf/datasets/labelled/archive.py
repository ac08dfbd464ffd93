"""Uniform access to the files of a data set in a folder or an archive.

Names are relative to the data set's own folder, separated by ``/``. Files left by operating systems (``.DS_Store``,
``._a.png``, ``Thumbs.db``, ``__MACOSX``) are ignored. Archives are read into memory; nothing is written to disk.
"""

import bz2
import gzip
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from enerf.core import files
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar

MEMBER = 1 << 30  # largest file size in bytes
TOTAL = 8 << 30  # largest unpacked size of an archive in bytes
_DEPTH = 4  # of nested folders
_PADDING = 1 << 20  # bytes that may follow the last member
_SHOWN = 5  # names listed in an error message
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open, b"BZh": bz2.open}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)
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
            with files.open_regular(self.path / self.root / name) as file:
                data = file.read(MEMBER + 1) if os.fstat(file.fileno()).st_size > MEMBER else file.read()
        except OSError as error:
            raise InputError(f"{self.where(name)} cannot be read ({_reason(error)}), expected a file") from None
        _check_size(self.where(name), len(data))
        return data


def open_archive(path: Path) -> Archive:
    """Open the data set in a folder, in its only subfolder that contains one, or in an archive.

    Raises
    ------
    InputError
        If the path does not exist, no or several data sets are recognized, or an archive is damaged, too large or has
        members with paths outside of it.
    """
    if not path.exists():
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


def _root(path: Path, names: list[str]) -> tuple[str, str]:
    """Folder of the data set and its format; ``names`` are those of at least the two upper levels."""
    tops = sorted({name.split("/")[0] + "/" for name in names if "/" in name})
    candidates = [("", _kind(names, ""))] + [(top, _kind(names, top)) for top in tops]
    known = [(root, kind) for root, kind in candidates if kind]
    if not known:
        shown = sorted({re.sub("/.*", "/", name) for name in names})
        listed = ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")
        raise InputError(f"{path} holds {listed or 'nothing'}, expected {EXPECTED} (--images)")
    if known[0][0] and len(known) > 1:
        raise InputError(
            f"{path} holds {len(known)} data sets ({', '.join(root for root, _ in known[:_SHOWN])}), expected one: "
            "name its own folder (--images)"
        )
    return known[0]


def _kind(names: list[str], root: str) -> str:
    """Format of the data set whose files lie in a folder; empty if none is recognized."""
    inside = [name.removeprefix(root) for name in names if name.startswith(root)]
    here = {re.sub("/.*", "/", name) for name in inside}
    return next((kind for kind, mark in _KINDS.items() if any(re.fullmatch(mark, name) for name in here)), "")


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


def _unpack(path: Path) -> dict[str, bytes]:
    """Contents of an archive: names to bytes; folders have names that end in / and no bytes."""
    contents, total = {}, 0
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
            if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                members = _zipped(path, file)
            else:
                members = _tarred(path, opener(file) if opener else file)
            for name, size, data in progress_bar(None, f"read {path.name}", "file", iterable=members, delay=2):
                total += size
                if total > TOTAL:
                    raise InputError(f"{path} unpacks to more than {TOTAL >> 30} GiB: unpack it and name the folder")
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
            return super().frombuf(buf, encoding, errors)
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None


def _tarred(path: Path, stream: Any) -> Iterator[tuple[str, int, bytes]]:
    """Name, size and bytes of each member of a tar archive, in one pass; links are skipped."""
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as tar:
        for member in tar:
            if not (member.isfile() or member.isdir()):
                continue
            name = _inner(path, member.name, member.isdir())
            _check_size(f"{path}:{name}", member.size)
            file = tar.extractfile(member) if member.isfile() else None
            yield name, member.size, file.read() if file else b""
    stream.read(_PADDING)  # verifies the checksum at the end of the compressed stream


def _zipped(path: Path, file: Any) -> Iterator[tuple[str, int, bytes]]:
    """Name, size and bytes of each member of a zip archive; links are skipped."""
    with zipfile.ZipFile(file) as zipped:
        for member in zipped.infolist():
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                continue
            name = _inner(path, member.filename, member.is_dir())
            _check_size(f"{path}:{name}", member.file_size)
            if member.flag_bits & 1:
                raise InputError(f"{path}:{name} is encrypted, expected an archive without a password")
            yield name, member.file_size, b"" if member.is_dir() else zipped.read(member)


def _inner(path: Path, name: str, is_folder: bool) -> str:
    """Normalized name of a member; raises for paths outside of the archive."""
    if re.match(r"[/\\]|\w:", name) or ".." in re.split(r"[/\\]", name):
        raise InputError(f"{path} holds a member named {name!r}, expected names without '..' that lie inside of it")
    return "/".join(part for part in name.split("/") if part not in ("", ".")) + ("/" if is_folder else "")


def _check_size(where: str, size: int) -> None:
    if size > MEMBER:
        raise InputError(f"{where} has more than {MEMBER >> 30} GiB, expected a smaller file")


def _reason(error: Exception) -> str:
    """Short description of an error."""
    if isinstance(error, EOFError):
        return "it ends too soon"
    words = (getattr(error, "strerror", None) or " ".join(str(error).split())).rstrip(".")
    return (words[:1].lower() + words[1:])[:120] or type(error).__name__
