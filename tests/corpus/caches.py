"""The cache of decoded photographs: damaged, replaced, without room, in places where it cannot be."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.corpus.damage import cut, flipped, zeroed
from tests.corpus.inputs import copied, nerf, special_file
from tests.corpus.registry import Command, table


def use(cache: Path) -> None:
    """Map all photographs from files of a cache folder."""
    from enerf.datasets.scenes import storage

    os.environ["ENERF_CACHE"] = str(cache)
    storage.IN_MEMORY = 0


def _trained(folder: Path, *more: Any, writes: str = "") -> Command:
    """The command that trains on mapped photographs of ``in``, whose cache is ``cache``."""
    made = nerf(folder, folder / "in", *more)
    return Command(made.script, made.arguments, True, writes, prepare=partial(use, folder / "cache"))


def _cached(folder: Path) -> Path:
    """Decode the photographs of ``in`` into the cache; returns the file."""
    from enerf.datasets.scenes import llff
    from enerf.datasets.scenes.storage import Limits

    before = os.environ.get("ENERF_CACHE")
    os.environ["ENERF_CACHE"] = str(folder / "cache")
    try:
        llff.load(copied("llff", folder), factor=1, limits=Limits(in_memory=0, cached=10**9))
    finally:
        os.environ.pop("ENERF_CACHE")
        os.environ.update({} if before is None else {"ENERF_CACHE": before})
    (file,) = (folder / "cache/decoded").glob("*.pixels")
    return file


def _with_time(path: Path, data: bytes) -> None:
    """Replace the content, and keep the time of modification, as a failing disk does."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _changed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: _with_time(path, change(path.read_bytes()))


# A damaged file is removed and made again: the run trains in all cases.
FILES: dict[str, Callable[[Path], Any]] = {
    "good": lambda path: None,
    "touched": os.utime,
    "empty": _changed(lambda data: b""),
    "half": _changed(lambda data: cut(data, 1, 2)),
    "magic_only": _changed(lambda data: data[-16:]),
    "longer": _changed(lambda data: data + b"x"),
    "text": _changed(lambda data: b"hello\n" * 99),
    "flipped": _changed(lambda data: flipped(data, 1, 1)),
    "zeroed": _changed(lambda data: zeroed(data, 2)),
    "description_flipped": _changed(lambda data: data[:-60] + flipped(data[-60:-24], 3, 3) + data[-24:]),
    "length_huge": _changed(lambda data: data[:-24] + b"\xff" * 8 + data[-16:]),
    "length_0": _changed(lambda data: data[:-24] + bytes(8) + data[-16:]),
    "zeros": _changed(lambda data: bytes(len(data))),
    "sparse": lambda path: os.truncate(path, 1 << 40),
    "unreadable": lambda path: path.chmod(0),
    **{
        kind: lambda path, kind=kind: (path.unlink(), special_file(path, kind))
        for kind in ("fifo", "folder", "loop", "devzero", "dangling")
    },
}


@table("cache_file", FILES, "accept")
def _(folder: Path, change: Callable[[Path], Any]) -> Command:
    change(_cached(folder))
    return _trained(folder)


# Where the cache, its folder of photographs or its lock should be.
PLACES = {
    f"{name.replace('/', '_')}_{kind}": (name, kind)
    for name in ("cache", "cache/decoded", "cache/decoded.lock")
    for kind in ("fifo", "folder", "loop", "devzero", "dangling", "empty")
}


@table("cache_place", PLACES, "accept")
def _(folder: Path, place: tuple[str, str]) -> Command:
    copied("llff", folder)
    path = folder / place[0]
    path.parent.mkdir(mode=0o700, exist_ok=True)
    special_file(path, place[1])
    return _trained(folder)


OPTIONS = {
    "cache_0": ("accept", ["--cache_gb", "0"]),
    "cache_1e-9": ("accept", ["--cache_gb", "1e-9"]),
    "cache_nan": ("refuse", ["--cache_gb", "nan"]),
    "cache_-1": ("refuse", ["--cache_gb=-1"]),
    "cache_inf": ("refuse", ["--cache_gb", "inf"]),
    "cache_1e300": ("refuse", ["--cache_gb", "1e300"]),
    "batches_unknown": ("refuse", ["--batches", "some"]),
    "batches_blocks": ("accept", ["--batches", "blocks"]),
    "block_gb_0": ("refuse", ["--batches", "blocks", "--block_gb", "0"]),
    "block_gb_nan": ("refuse", ["--batches", "blocks", "--block_gb", "nan"]),
    "block_gb_1e-9": ("accept", ["--batches", "blocks", "--block_gb", "1e-9"]),
    "block_steps_0": ("accept", ["--batches", "blocks", "--block_steps", "0"]),
    "block_steps_2e63": ("refuse", ["--batches", "blocks", "--block_steps", str(2**63)]),
}


@table("cache", OPTIONS)
def _(folder: Path, more: list[str]) -> Command:
    copied("llff", folder)
    return _trained(folder, *more)


# A photograph that is damaged when it is decoded on demand, or into the cache.
PHOTOGRAPHS = {
    "cut": lambda data: cut(data, 1, 2),
    "empty": lambda data: b"",
    "zeroed": lambda data: zeroed(data, 3, 200),
}


@table(
    "cache_photograph", {f"{k}_{gb}": (change, gb) for k, change in PHOTOGRAPHS.items() for gb in ("0", "1")}, "refuse"
)
def _(folder: Path, chosen: tuple[Callable[[bytes], bytes], str]) -> Command:
    change, gigabytes = chosen
    path = copied("llff", folder) / "images/image003.png"
    path.write_bytes(change(path.read_bytes()))
    return _trained(folder, "--cache_gb", gigabytes)
