"""File operations of a command, counted and disturbed: inside of the child, by audit events and wrapped files.

``sys.addaudithook`` sees each file that Python opens, renames, deletes, each folder that it makes or lists; an
exception of the hook becomes the exception of the operation. Writing and flushing have no events: files opened for
writing are wrapped, and ``os.fsync`` is. Other programs (ffmpeg) are not seen.
"""

import builtins
import errno
import io
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVENTS = {
    **{"os.rename": "rename", "os.remove": "delete", "os.rmdir": "delete", "os.mkdir": "mkdir"},
    **{"os.truncate": "truncate", "os.listdir": "list", "os.scandir": "list"},
}
READING = ("read", "list")
# What a file below a run's folder is, by the first pattern that fits its path there.
CATEGORIES = (
    ("lock", r"\.writer"),
    ("tensorboard", r"tensorboard.*"),
    ("recent checkpoint", r"checkpoints/recent.*"),
    ("checkpoint", r"checkpoints.*"),
    ("journal", r"train\.jsonl"),
    ("video", r".*_frames.*|.*\.mp4|.*\.tmp\.mp4"),
    ("points", r"\.?points.*"),
    ("images", r"test.*|.*\.png"),
    ("mesh", r".*\.(ply|obj|stl|glb)"),
    ("planes", r".*\.npz"),
    ("page", r"\.?web.*|.*\.html"),
    ("other", r".*"),
)


@dataclass(frozen=True)
class Operation:
    """An operation: its kind, the category of its file, and the number of earlier ones of this kind and category."""

    kind: str
    category: str
    number: int

    @property
    def name(self) -> str:
        """Kind and category."""
        return f"{self.kind} {self.category}"


Disturb = Callable[[Operation], None]


class Watch:
    """Calls ``disturb`` before each file operation below a folder, in this process, from now on."""

    def __init__(self, folder: Path, disturb: Disturb) -> None:
        self._root, self._disturb = os.path.realpath(folder), disturb
        self._counts: Counter[tuple[str, str]] = Counter()
        self._inside = threading.local()
        self._opened, self._fsync = io.open, os.fsync
        builtins.open = io.open = self._open
        os.fsync = self._flush  # type: ignore[assignment]
        sys.addaudithook(self._event)

    def _event(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = bool(set(mode) & set("wax+")) if mode else bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            self._note("open" if writes else "read", path)
        elif event in EVENTS and args:
            self._note(EVENTS[event], args[1] if event == "os.rename" else args[0])

    def _note(self, kind: str, path: Any) -> None:
        if getattr(self._inside, "busy", False) or not isinstance(path, str | bytes | os.PathLike):
            return
        self._inside.busy = True
        try:
            full = os.path.abspath(os.fsdecode(path))
            if full == self._root or full.startswith(self._root + "/"):
                category = category_of(full[len(self._root) + 1 :])
                self._counts[kind, category] += 1
                self._disturb(Operation(kind, category, self._counts[kind, category] - 1))
        finally:
            self._inside.busy = False

    def _open(self, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        opened = self._opened(file, mode, *args, **options)
        below = isinstance(file, str | os.PathLike) and os.path.abspath(file).startswith(self._root + "/")
        return _Written(opened, lambda: self._note("write", file)) if below and set(mode) & set("wax+") else opened

    def _flush(self, descriptor: int) -> None:
        self._note("flush", os.readlink(f"/proc/self/fd/{descriptor}"))
        self._fsync(descriptor)


class _Written:
    """A file opened for writing, each write of which is announced."""

    def __init__(self, file: Any, note: Callable[[], None]) -> None:
        self._file, self._note = file, note

    def write(self, data: Any) -> Any:
        self._note()
        return self._file.write(data)

    def __enter__(self) -> "_Written":
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def category_of(path: str) -> str:
    """What a file below a run's folder is, by its path there.

    >>> category_of("checkpoints/recent/.host-1-0123456789ab.tmp.pt"), category_of("mesh.ply"), category_of("")
    ('recent checkpoint', 'mesh', 'other')
    """
    return next(name for name, pattern in CATEGORIES if re.fullmatch(pattern, path))


def counted(folder: Path, result: Path) -> Callable[[], None]:
    """Prepare a child that writes the operations below a folder, in order, to a JSON file as it goes."""

    def prepare() -> None:
        descriptor = os.open(result, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def note(operation: Operation) -> None:
            os.write(descriptor, (json.dumps([operation.kind, operation.category, operation.number]) + "\n").encode())

        Watch(folder, note)

    return prepare


def read_counted(result: Path) -> list[Operation]:
    """The operations that ``counted`` wrote, without those of TensorBoard, whose thread has no fixed order."""
    rows = [Operation(*json.loads(line)) for line in result.read_text().splitlines()]
    return [each for each in rows if each.category != "tensorboard"]


def killed_at(folder: Path, chosen: Operation, number: int) -> Callable[[], None]:
    """Prepare a child that sends itself a signal before one operation."""

    def prepare() -> None:
        def disturb(operation: Operation) -> None:
            if operation == chosen:
                os.kill(os.getpid(), number)
                if number == signal.SIGKILL:
                    signal.pause()

        Watch(folder, disturb)

    return prepare


def failing(folder: Path, first: Operation, number: int, marker: Path, *, lasting: bool) -> Callable[[], None]:
    """Prepare a child in which one operation below a folder fails, or that one and all later ones.

    Later ones that fail: those that write, and with ``EIO`` those that read too. The marker file is created when the
    first one fails.
    """

    def prepare() -> None:
        failed = False

        def disturb(operation: Operation) -> None:
            nonlocal failed
            is_first = not failed and operation == first
            affected = operation.kind not in READING or number == errno.EIO
            if is_first or (lasting and failed and affected):
                if is_first:
                    os.close(os.open(marker, os.O_CREAT | os.O_WRONLY))
                failed = True
                raise OSError(number, os.strerror(number))

        Watch(folder, disturb)

    return prepare
