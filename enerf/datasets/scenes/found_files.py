"""Files of a scene by names that were written on another machine, or before the scene's folder was arranged."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath


class FileFinder:
    r"""Finds files below a folder by the last parts of their names.

    Programs write absolute paths of the computer that they ran on (``D:\project\photos\a.jpg``), paths relative to
    another folder (``../images/a.jpg``), and names in another case than the file system's (``A.JPG``).

    Parameters
    ----------
    folder
        Folder in which files are looked for; nothing outside of it is found, but for links in it.
    places
        Folders below it, ``""`` for itself, in the order in which they are tried.

    >>> FileFinder(Path("nowhere")).find("a.jpg")
    """

    def __init__(self, folder: Path, places: Sequence[str] = ("",)) -> None:
        self._folder, self._places = folder, tuple(places)
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """POSIX path, relative to the folder, of the file with the most last parts of a name; None if there is none.

        Exact names precede those that differ in case.
        """
        parts = parts_of(name)
        for found in (self._exact, self._in_any_case):
            for start in range(len(parts)):
                for place in self._places:
                    path = found(PurePosixPath(place, *parts[start:]))
                    if path is not None:
                        return path.as_posix()
        return None

    def _exact(self, path: PurePosixPath) -> PurePosixPath | None:
        return path if os.path.isfile(self._folder / path) else None

    def _in_any_case(self, path: PurePosixPath) -> PurePosixPath | None:
        at = PurePosixPath()
        for part in path.parts:
            actual = self._names(self._folder / at).get(part.casefold())
            if actual is None:
                return None
            at /= actual
        return self._exact(at)

    def _names(self, folder: Path) -> dict[str, str]:
        """Names in a folder by their case-folded form; empty if it cannot be listed."""
        if folder not in self._listed:
            try:
                self._listed[folder] = {name.casefold(): name for name in sorted(os.listdir(folder))}
            except OSError:
                self._listed[folder] = {}
        return self._listed[folder]


def is_absolute(name: str) -> bool:
    r"""Whether a name is an absolute path, of Windows or another system.

    >>> [is_absolute(name) for name in ("C:\\a.jpg", "/a.jpg", "\\a.jpg", "c/a.jpg")]
    [True, True, True, False]
    """
    return bool(PureWindowsPath(name).anchor)


def parts_of(name: str) -> tuple[str, ...]:
    r"""Folders and name of a path, without drive, root, and what a later ``..`` undoes or leads out to.

    >>> parts_of("D:\\project\\photos\\a.jpg"), parts_of("../images/./a.jpg")
    (('project', 'photos', 'a.jpg'), ('images', 'a.jpg'))
    """
    path = PureWindowsPath(name)
    parts = path.parts[1:] if path.anchor else path.parts
    last = max((i + 1 for i, part in enumerate(parts) if part == ".."), default=0)
    return tuple(part for part in parts[last:] if part != ".")
