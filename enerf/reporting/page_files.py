"""Files of HTML pages: where one may be written."""

import os
import tempfile
from pathlib import Path

from enerf.core import files, io
from enerf.core.errors import InputError

GENERATOR = '<meta name="generator" content="enerf'  # at the beginning of every page
_HEAD = 1 << 12  # bytes in which it is


def check_file(out: Path, what: str = "--out") -> None:
    """Check that a page may be written to a file, before the work; nothing is left there.

    Parameters
    ----------
    out
        The file: a new one, or an earlier page, which will be replaced.
    what
        The option that names it.

    Raises
    ------
    InputError
        If it is a folder, has not the suffix of an HTML file, is something else than an earlier page, or cannot be
        written.
    """
    if out.is_dir():
        raise InputError(f"{out}: found a folder, expected the name of an .html file")
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"option {what}: found {out}, expected the name of an .html file")
    if os.path.lexists(out) and not is_page(out):
        raise InputError(f"{out}: found a file that enerf has not written, expected a new file, or an earlier page")
    check_folder(out)


def check_folder(out: Path) -> None:
    """Check that something can be written beside a path, or where its folder will be made.

    Raises
    ------
    InputError
        If not.
    """
    with io.os_errors_as_input_errors(out):
        there = next(place for place in out.absolute().parents if os.path.lexists(place))
        with tempfile.TemporaryFile(dir=there):
            pass


def is_page(path: Path) -> bool:
    """Whether a file is a page that this package has written."""
    try:
        with files.open_regular(path) as file:
            return GENERATOR.encode() in file.read(_HEAD)
    except (OSError, InputError):
        return False
