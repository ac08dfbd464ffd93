"""Content hashes of the files that a run is trained on.

They are stored in checkpoints and metrics, so that a run is not continued, or taken for finished, on other data of the
same name. Hashes are cached by the files' names, sizes and times: unchanged files are read once. Those of large inputs
are kept in ``inputs/`` of the cache folder, for all runs of a user.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from enerf.core import build_cache, files, io, parallel
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar

MAX_NAMED = 1000  # up to so many files, each has a hash of its own, so that messages can name what has changed
_BLOCK = 1 << 22
_LARGE = 1 << 28  # bytes from which on hashes are also kept in the user's cache folder
_cache: dict[str, dict[str, Any]] = {}


@dataclass(frozen=True)
class Inputs:
    """Hashes of some files.

    Attributes
    ----------
    digest
        BLAKE2b of all names and contents; of the content alone if there is one file.
    stamp
        BLAKE2b of folder, names, sizes and times of modification and change; equal stamps mean unchanged files.
    count, size
        Number of files, and their bytes in total.
    files
        Hash of each file's content by name; empty if there are more than ``MAX_NAMED``.
    """

    digest: str
    stamp: str
    count: int
    size: int
    files: dict[str, str] = field(default_factory=dict)

    def saved(self) -> dict[str, Any]:
        """Return the entries of a checkpoint."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """Return the entries of ``metrics.json``: without the hashes of single files."""
        return {name: value for name, value in asdict(self).items() if name != "files"}


_FIELDS = tuple(Inputs.__dataclass_fields__)


def of_files(paths: Iterable[Path], root: Path, saved: Mapping[str, Any] | None = None) -> Inputs:
    """Hash files, or return the ``saved`` hashes if names, sizes and times are those of the saved ones.

    Parameters
    ----------
    paths
        The files, in any order.
    root
        Names are relative to this folder.
    saved
        Result of ``Inputs.saved``.

    Raises
    ------
    InputError
        If a file is missing, no regular file, or cannot be read.
    """
    inside = os.path.join(root, "")
    named = {_name(path, root, inside): path for path in paths}
    stamp = files.stamp(root, sorted(named))
    for known in (saved, _cache.get(stamp), _recorded(stamp)):
        if known is not None and known.get("stamp") == stamp:
            return Inputs(**{name: known[name] for name in _FIELDS if name in known})
    found = _hashed(named, stamp)
    _cache[stamp] = found.saved()
    if found.size >= _LARGE and (file := _record(stamp)) is not None:
        with suppress(InputError, OSError):  # a cache: the next run reads the files again
            io.write_json(file, found.saved())
    return found


def _record(stamp: str) -> Path | None:
    """Return the file of the hashes of large inputs in the user's cache folder; None if there is no such folder."""
    folder = build_cache.cache_folder()
    return None if folder is None else folder / "inputs" / f"{stamp}.json"


def _recorded(stamp: str) -> dict[str, Any] | None:
    """Return the hashes that another run of this user has recorded, or None."""
    with suppress(InputError, OSError):
        if (file := _record(stamp)) is not None and file.is_file():
            return io.read_object(file)
    return None


def differences(saved: object, current: Inputs | None) -> str:
    """Return what distinguishes the files of a saved run from the present ones, as text; empty if nothing does.

    Runs of earlier versions have no hashes: nothing is known of their files, and the text is empty.

    >>> here = Inputs("2", "b", 2, 9, {"a.png": "1", "c.png": "3"})
    >>> differences({"digest": "1", "files": {"a.png": "0", "b.png": "2"}}, here)
    'a.png changed, b.png missing, c.png new'
    """
    if not isinstance(saved, dict) or current is None or saved.get("digest") == current.digest:
        return ""
    before, now = saved.get("files"), current.files
    if not before or not now:
        return f"{current.count:,} files of {current.size:,} bytes, not those that it was trained on"
    words = {name: "missing" if name not in now else "changed" for name in before if now.get(name) != before[name]}
    words |= {name: "new" for name in now if name not in before}
    named = [f"{name} {word}" for name, word in sorted(words.items())]
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def _name(path: Path, root: Path, inside: str) -> str:
    """Return a path relative to ``root``; ``inside`` is the beginning of the paths below it, the usual case."""
    text = path.as_posix()
    if os.sep == "/" and text.startswith(inside) and "/../" not in text:
        return text[len(inside) :]
    return Path(os.path.relpath(path, root)).as_posix()


def _hashed(named: Mapping[str, Path], stamp: str) -> Inputs:
    total, size = hashlib.blake2b(digest_size=16), 0
    each: dict[str, str] = {}
    names = sorted(named)
    hashes = parallel.in_order(_hash_of, (named[name] for name in names), parallel.threads_for())
    shown = progress_bar(len(names), "hash", "file", iterable=hashes, delay=3, leave=False, enabled=None)
    for name, (digest, n_bytes) in zip(names, shown, strict=True):
        each[name], size = digest, size + n_bytes
        total.update(os.fsencode(f"{name if len(named) > 1 else ''}\0{digest}\0"))  # one file may be renamed
    return Inputs(total.hexdigest(), stamp, len(each), size, each if len(each) <= MAX_NAMED else {})


def _hash_of(path: Path) -> tuple[str, int]:
    """Hash of a file's content, and its bytes."""
    one, size = hashlib.blake2b(digest_size=16), 0
    try:
        with files.open_regular(path) as file:
            while block := file.read(_BLOCK):
                one.update(block)
                size += len(block)
    except OSError as error:
        raise _unreadable(path, error) from None
    return one.hexdigest(), size


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror or error}), expected the data of the run")
