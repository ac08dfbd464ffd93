"""Which views are test views: every n-th, those that the scene's files hold out, or those that the user names."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float64

from enerf.core import files, image_files, io
from enerf.core.errors import InputError, shown
from enerf.datasets.scenes import poses

REPORT, MADE_BY = "report.json", "enerf process"  # what a scene that it has made says in which file
WITH_TEST_VIEWS = "computed from all photographs, the test views among them"


def cameras_of(folder: Path) -> str | None:
    """How the cameras of a scene's folder were computed, if ``enerf process`` did that; else None."""
    try:
        report = io.read_object(folder / REPORT)
    except InputError:
        return None
    return WITH_TEST_VIEWS if report.get("made_by") == MADE_BY else None


@dataclass(frozen=True)
class Split:
    """Training and test views, and how they were chosen.

    Attributes
    ----------
    train, test
        Indices of views; disjoint. Training views are all that are not test views.
    rule
        How the test views were chosen, for the protocol.
    """

    train: tuple[int, ...]
    test: tuple[int, ...]
    rule: str


def choose(
    names: Sequence[str],
    c2w: Float64[np.ndarray, "n 3 4"],
    llffhold: int,
    test_views: str = "",
    stated: Sequence[int] | None = None,
) -> Split:
    """Choose the test views of a scene.

    Parameters
    ----------
    names
        Image name of each view; in their order every n-th view is taken.
    c2w
        Poses, OpenGL axes.
    llffhold
        Views 0, n, 2n … are test views for a value of n; for 0, only the most central view is.
    test_views
        Names of test views, separated by commas, or a text file with a name on each line; with or without folder and
        suffix, if that is unique. Empty: none are named.
    stated
        The views that the scene's own files hold out; None if they do not say. Used if there are some, and
        the user names none.

    Raises
    ------
    InputError
        If a named view does not exist or is ambiguous, a value is out of range, or no view is left to train on.
    """
    if llffhold < 0 or llffhold == 1:
        found = "1, which holds out every view" if llffhold == 1 else llffhold
        raise InputError(f"option --llffhold: found {found}, expected 2 or more, or 0 for the central view")
    n = len(names)
    if test_views:
        test, rule = tuple(sorted({_index_of(name, names) for name in _named(test_views)})), "named by --test_views"
    elif stated:
        test, rule = tuple(sorted(stated)), "held out by the scene's files"
    elif llffhold:
        test, rule = tuple(range(0, n, llffhold)), f"one in {llffhold}, from the first"
    else:
        test, rule = (poses.central_view(c2w),), "the most central one"
    train = tuple(i for i in range(n) if i not in test)
    if not train:
        raise InputError(f"all {n} views are test views ({rule}), expected some to train on (--test_views, --llffhold)")
    return Split(train, test, rule)


def is_file(test_views: str) -> bool:
    """Whether test views are named in a file."""
    return bool(test_views) and not image_files.has_image_suffix(test_views) and os.path.isfile(test_views)


def _named(test_views: str) -> list[str]:
    """Names of an option: the lines of a file, or parts between commas."""
    text = _read(Path(test_views)) if is_file(test_views) else test_views.replace(",", "\n")
    names = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise InputError(f"option --test_views: {shown(test_views)} has no names, expected the names of photographs")
    return names


def _read(file: Path) -> str:
    try:
        return files.read_text(file)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"option --test_views: {file} cannot be read ({reason}), expected text") from None


def _index_of(name: str, names: Sequence[str]) -> int:
    """Index of the view with a name; without its suffix or folder if no other has the same."""
    for form in (_posix, _bare, lambda text: _file_name(_posix(text)), lambda text: _file_name(_bare(text))):
        wanted = form(name)
        matching = [i for i, each in enumerate(names) if form(each) == wanted]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise InputError(
                f"option --test_views: {shown(name)} is ambiguous ({names[matching[0]]}, {names[matching[1]]}), "
                "expected the name of one photograph"
            )
    raise InputError(f"option --test_views: found {shown(name)}, expected one of {image_files.some(names)}")


def _posix(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _bare(name: str) -> str:
    """A name without the suffix of an image."""
    return _posix(name).rsplit(".", 1)[0] if image_files.has_image_suffix(name) else _posix(name)


def _file_name(name: str) -> str:
    return name.rsplit("/", 1)[-1]
