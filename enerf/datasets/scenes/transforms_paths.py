"""Resolves the paths in ``transforms.json`` to the files of images, masks, depth maps and points.

Converters write relative paths, with or without suffix, but also paths of the computer that they ran on (rc2nerf and
agi2nerf join the folder of images that the user gave, with backslashes on Windows) and paths beside the folder
(colmap2nerf's ``../images``). Of such paths the last parts count.
"""

import logging
import os
import posixpath
import re
from pathlib import Path

from enerf.core import files, image_files
from enerf.core.errors import InputError
from enerf.datasets.scenes.found_files import FileFinder
from enerf.datasets.scenes.transforms_json import short

log = logging.getLogger("enerf")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")  # that instant-ngp tries, in its order
_DRIVE = re.compile(r"[A-Za-z]:(/|$)")


def inner_path(file: Path, name: str, what: str) -> str:
    """A path of the file as a normalized POSIX path relative to its folder; backslashes separate folders too.

    Of a path that leads out of the folder, the last parts are taken if they lead to a file in it.

    Raises
    ------
    InputError
        If they do not; links in the folder are not examined. ``what`` begins the message.
    """
    inner = inside(file, name) or FileFinder(file.parent).find(name)
    return _required(file, name, what, inner)


def inside(file: Path, name: str) -> str | None:
    """A path as a normalized POSIX path relative to the file's folder; None if it leads out of it."""
    stated = name.replace("\\", "/")
    if stated.startswith("/"):
        for folder in (file.parent.absolute(), file.parent.resolve()):
            if Path(stated).is_relative_to(folder):
                stated = Path(stated).relative_to(folder).as_posix()
                break
    inner = posixpath.normpath(stated)
    return None if inner.startswith(("/", "../")) or inner in ("..", ".") or _DRIVE.match(inner) else inner


def _required(file: Path, name: str, what: str, inner: str | None) -> str:
    """The path; an InputError if there is none."""
    if inner is None:
        raise InputError(
            f"{file}: {what} is {short(name)}, expected a path inside of the folder {file.parent}, or one whose last "
            "parts lead to a file in it"
        )
    return inner


class Places:
    """Where the images of a file lie: at the stated paths or, by their last parts, in its folder or ``images``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._finder = FileFinder(file.parent, ("", "images"))
        self._moved: list[tuple[str, str]] = []

    def locate(self, stated: str, what: str) -> tuple[str, bool]:
        """Path relative to the folder, with suffix, of the image that a path means, and whether it exists.

        Raises
        ------
        InputError
            If it leads out of the folder and no image in it has its name.
        """
        inner = inside(self.file, stated)
        name, exists = ("", False) if inner is None else _located(self.file.parent, inner)
        if exists:
            return name, True
        has_suffix = image_files.has_image_suffix(posixpath.basename(stated.replace("\\", "/")))
        suffixes = ("",) if has_suffix else _SUFFIXES
        found = next(filter(None, (self._finder.find(stated + suffix) for suffix in suffixes)), None)
        if found is not None:
            self._moved.append((stated, found))
            return found, True
        return _required(self.file, stated, what, None if inner is None else name), False

    def log_moved(self) -> None:
        """Log how many images were found elsewhere than stated."""
        if self._moved:
            stated, found = self._moved[0]
            log.info(
                "%s: %d images are not where it says and are found by the last parts of their paths: %s is %s",
                *(self.file, len(self._moved), short(stated), found),
            )


def _located(folder: Path, inner: str) -> tuple[str, bool]:
    """The image file that a path with or without suffix means, and whether it exists."""
    if image_files.has_image_suffix(posixpath.basename(inner)) or os.path.isfile(folder / inner):
        return inner, files.is_regular(folder / inner)
    candidates = [inner + suffix for suffix in _SUFFIXES]
    existing = [name for name in candidates if files.is_regular(folder / name)]
    return (existing or candidates)[0], bool(existing)
