"""Decoded photographs in files of the cache folder, which are mapped into memory rather than read.

Pages of a mapped file are read when they are used, and the system drops them when memory is needed, so that photographs
of any size need no memory of the process of their own. A file has the pixels of all photographs, one after the other,
then a description in JSON, its length, and ``MAGIC``. Its name is a hash of what the pixels depend on. It is written
under another name and renamed, so that no reader sees a part of it. A file is used only if its size and its time of
modification are those that it was left with, and CRC-32 of a sample of its photographs, of all of them in small files,
are those of its description; others are removed and made again. The time of access of a file is that of its last use:
if a new file would exceed the bound, those used longest ago are removed. Processes that have mapped them keep them.
"""

import json
import logging
import os
import shutil
import time
import warnings
import weakref
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from enerf.core import build_cache, files, images
from enerf.core import io as core_io
from enerf.core.errors import InputError
from enerf.datasets.scenes.packed_images import PackedImages
from enerf.datasets.scenes.photographs import Photographs

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("enerf")
MAGIC = b"enerf decoded 1\n"
SUFFIX = ".pixels"
CHECKED = 1 << 28  # bytes of photographs whose checksums are verified when a file is opened
SPARE = 1 << 28  # bytes that are left free on the disk
_in_use: weakref.WeakValueDictionary[Path, np.ndarray] = weakref.WeakValueDictionary()  # files mapped here


class NoRoom(Exception):
    """The cache, or its disk, has no room for the photographs; the message says which.

    ``n_bytes`` is what they need, if that is known: floats need more than bytes.
    """

    def __init__(self, message: str, n_bytes: int = 0) -> None:
        super().__init__(message)
        self.n_bytes = n_bytes


class _OtherLayout(Exception):
    """The photographs need another number of channels, or floats."""


@dataclass(frozen=True)
class Layout:
    """Number of channels and type of the pixels: uint8 or float32."""

    channels: int = 3
    dtype: str = "uint8"

    def n_bytes(self, pixels: int) -> int:
        """Bytes of so many pixels."""
        return pixels * self.channels * np.dtype(self.dtype).itemsize


def folder() -> Path | None:
    """Folder of the files; None if the user has no cache folder."""
    found = build_cache.cache_folder()
    return None if found is None else found / "decoded"


def mapped(photographs: Photographs, most_bytes: int) -> PackedImages:
    """The photographs in a mapped file, which is written if the cache lacks it.

    Parameters
    ----------
    photographs
        What to decode.
    most_bytes
        Bound of the bytes of all files of the cache.

    Raises
    ------
    NoRoom
        If they do not fit within the bound or on the disk, or there is no cache folder that can be written.
    InputError
        If a photograph is damaged.
    """
    place = folder()
    if place is None:
        raise NoRoom("the user has no cache folder (ENERF_CACHE names one)")
    path = place / f"{photographs.key()}{SUFFIX}"
    if (found := _opened(path, photographs)) is not None:
        return found
    with _writing(place):
        if (found := _opened(path, photographs)) is not None:  # another process has written it meanwhile
            return found
        layout = Layout(photographs.channels)
        while True:
            try:
                _write(path, photographs, layout, most_bytes)
                break
            except _OtherLayout as other:
                layout = other.args[0]
        found = _opened(path, photographs)
    if found is None:
        raise NoRoom(f"{path} cannot be read again")
    return found


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Wait while another process writes to the cache, whose bound counts what both need.

    Without file locks each process writes its file, and the last one stays.
    """
    with ExitStack() as stack:
        if fcntl is not None:
            with suppress(OSError, InputError):
                place.parent.mkdir(parents=True, exist_ok=True)
                files.is_regular(lock := place.with_suffix(".lock"))  # a named pipe would be waited for
                file = stack.enter_context(lock.open("ab"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    log.info("%s: waiting for another process, which decodes photographs into it", place)
                    fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _opened(path: Path, photographs: Photographs) -> PackedImages | None:
    """The photographs of a file; None if there is none, or it is damaged, which is logged: then it is removed."""
    try:
        file = files.open_regular(path)
    except (OSError, InputError):
        return None
    with file:  # another process may replace or remove what has this name meanwhile
        try:
            description = _description(file)
            layout = Layout(int(description["channels"]), str(description["dtype"]))
            flat = _mapped(file, (photographs.pixels, layout.channels), layout.dtype)
            _verify(flat, description, photographs)
        except (OSError, ValueError, KeyError, TypeError, InputError) as error:
            log.warning("%s: %s; the photographs are decoded again", path, _reason(error))
            with suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    path.unlink()
            return None
        with suppress(OSError):  # of another user
            name: Any = file.fileno() if os.utime in os.supports_fd else path
            os.utime(name, ns=(time.time_ns(), int(description["time"])))
    _in_use[path] = flat
    size = files.format_bytes(flat.nbytes)
    log.info("%s: %d photographs are mapped from %s (%s)", photographs.folder, len(photographs), path, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch has no read-only tensors; nothing writes to photographs
        pixels = torch.from_numpy(flat)
    return PackedImages(pixels, torch.tensor(photographs.sizes), is_mapped=True)


def _mapped(file: BinaryIO, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """An array that is mapped for reading: writable private mappings are limited by the memory of the computer."""
    try:
        return np.memmap(file, np.dtype(dtype), "r", shape=shape)
    except OSError as error:
        raise NoRoom(f"{file.name} cannot be mapped ({error.strerror or error})") from None


def _description(file: BinaryIO) -> dict[str, Any]:
    """The description at the end of a file; ValueError if the file is not whole or was changed."""
    status = os.fstat(file.fileno())
    end = len(MAGIC) + 8
    file.seek(max(0, status.st_size - end))
    tail = file.read(end)
    length = int.from_bytes(tail[:8], "little")
    if tail[8:] != MAGIC or length > status.st_size - end:
        raise ValueError("found a file that is not whole")
    file.seek(status.st_size - end - length)
    content = json.loads(file.read(length))
    if not isinstance(content, dict) or content.get("pixels") != status.st_size - end - length:
        raise ValueError("found a file of another size than it was written with")
    if content.get("time") != status.st_mtime_ns:
        raise ValueError("found a file that was changed after it was written")
    return content


def _verify(flat: np.ndarray, description: dict[str, Any], photographs: Photographs) -> None:
    """Compare checksums of photographs spread over the file; ValueError if one differs."""
    sums, n = description["crc32"], len(photographs)
    if len(sums) != n:
        raise ValueError(f"found {len(sums)} photographs, expected {n}")
    ends = np.cumsum([height * width for height, width in photographs.sizes])
    some = max(1, min(n, int(n * CHECKED / max(1, flat.nbytes))))
    for i in np.unique(np.linspace(0, n - 1, some).round().astype(int)).tolist():
        if zlib.crc32(flat[ends[i - 1] if i else 0 : ends[i]].data.cast("B")) != sums[i]:
            raise ValueError(f"found other pixels of {photographs.files[i].name} than were written")


def _write(path: Path, photographs: Photographs, layout: Layout, most_bytes: int) -> None:
    """Decode the photographs into a file; ``_OtherLayout`` if they do not fit the layout."""
    needed = layout.n_bytes(photographs.pixels)
    if needed > most_bytes:
        allowed = f"--cache_gb allows {_gigabytes(most_bytes)}"
        raise NoRoom(f"they need {files.format_bytes(needed)}, of which {allowed}", needed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        core_io.remove_leftovers(path.parent, 0)
        if not make_room(path.parent, most_bytes - needed):
            others = "which --cache_gb counts too"
            raise NoRoom(f"they need {files.format_bytes(needed)} beside files in use, {others}", needed)
        free = shutil.disk_usage(path.parent).free
        if needed + SPARE > free:
            raise NoRoom(
                f"they need {files.format_bytes(needed)}, {path.parent} has {files.format_bytes(free)} free", needed
            )
        log.info(
            "%s: %d photographs are decoded into %s (%s, once; --cache_gb)",
            *(photographs.folder, len(photographs), path, files.format_bytes(needed)),
        )
        with core_io.temporary_path(path) as temporary:
            written = _stream(temporary, photographs, layout)
            os.utime(temporary, ns=(time.time_ns(), written))
            os.replace(temporary, path)
    except OSError as error:
        raise NoRoom(f"{path.parent} cannot be written ({error.strerror or error})", needed) from None


def _stream(path: Path, photographs: Photographs, layout: Layout) -> int:
    """Write pixels and description; returns the time of modification that the file has to be given."""
    sums, total, now = [], 0, int(time.time()) // 2 * 2 * 10**9  # a time that every file system stores exactly
    with path.open("wb") as file:
        for part in _parts(photographs, layout):
            content = np.ascontiguousarray(part).data.cast("B")
            sums.append(zlib.crc32(content))
            total += file.write(content)
        text = json.dumps(
            {"pixels": total, "channels": layout.channels, "dtype": layout.dtype, "time": now, "crc32": sums}
        ).encode()
        file.write(text + len(text).to_bytes(8, "little") + MAGIC)
        file.flush()
        os.fsync(file.fileno())  # before it is renamed: a power failure leaves no file with parts missing
    return now


def _parts(photographs: Photographs, layout: Layout) -> Iterator[np.ndarray]:
    """The pixels of each photograph in a layout."""
    for picture in photographs.flattened():
        if picture.shape[-1] > layout.channels:
            raise _OtherLayout(Layout(picture.shape[-1], layout.dtype))
        values = images.opaque(picture) if picture.shape[-1] < layout.channels else picture
        if layout.dtype == "float32":
            yield images.to_floats(values)
            continue
        exact = images.exact_bytes(values)
        if exact is None:
            raise _OtherLayout(Layout(layout.channels, "float32"))
        yield exact


def make_room(place: Path, most_bytes: int) -> bool:
    """Remove the files used longest ago until the others, those being written included, have at most these bytes.

    Files that this process has mapped stay, such as the photographs when their masks are written. Returns whether it
    succeeded; nothing is removed if it cannot.
    """
    found = []
    for each in place.iterdir():
        with suppress(OSError):
            status = each.stat()
            found.append((status.st_atime_ns, status.st_size, each))
    total = sum(size for _, size, _ in found)
    removable = [
        (size, each)
        for _, size, each in sorted(found)
        if each.suffix == SUFFIX and not each.name.startswith(".") and each not in _in_use
    ]
    if total - sum(size for size, _ in removable) > most_bytes:
        return False
    for size, each in removable:
        if total <= most_bytes:
            break
        with suppress(OSError):
            each.unlink()
            total -= size
            log.info("%s: removed to make room for other decoded photographs (--cache_gb)", each)
    return total <= most_bytes


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:g} GB"


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") if isinstance(error, ValueError | InputError) else f"cannot be read ({error!r})"
