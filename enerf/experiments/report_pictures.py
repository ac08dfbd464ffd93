"""Pictures and videos of a report."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from enerf.core.errors import InputError
from enerf.engine import checkpoint
from enerf.experiments.options import ReportOptions
from enerf.experiments.reported_runs import ReportedRun
from enerf.reporting import embedding, grouping
from enerf.reporting.html_page import Shown, Video, View
from enerf.reporting.presentation import PictureOf

_COPYING = 60.0  # seconds by which files may seem older than others that were copied before them
NOTE = (
    f"Pictures are stored as WebP of quality {embedding.QUALITY}; figures beside them are of the unquantized ones. "
    f"Error maps show the mean absolute error of the color channels, from 0 (black) to "
    f"{embedding.ERROR_RANGE:g} and above (brightest)."
)


def views(runs: Sequence[ReportedRun], chosen: ReportOptions) -> tuple[list[View], list[str]]:
    """Return pictures of runs beside their references, grouped by what they show, and what is missing.

    Of each variant the run of the first seed is shown.
    """
    if not chosen.views or runs[0].presentation.pictures is None:
        return [], []
    first = of_first_seeds(runs)
    shown, notes = first[: chosen.compared], []
    if left := [run.name for run in first[chosen.compared :]]:
        notes.append(f"{', '.join(left[:4])}{' and others' if len(left) > 4 else ''}: no pictures; see --compared")
    found: dict[tuple[str, str], list[tuple[ReportedRun, PictureOf]]] = {}
    for run in shown:
        pictures, missing = _pictures_of(run, chosen)
        notes += [f"{run.name} {sentence}" for sentence in missing]
        for each in pictures:
            found.setdefault((each.name, _shows(run, each)), []).append((run, each))
    if len(shown) > 1:  # the views of the first run: others may have chosen their own worst and best
        found = dict(sorted(found.items(), key=lambda item: -len(item[1])))
    names = [name for name, _ in found]
    headings = [name if names.count(name) == 1 else _heading(name, some) for (name, _), some in found.items()]
    pairs = zip(headings, found.values(), strict=True)
    return [_view(heading, some, chosen.width) for heading, some in pairs], notes


def _shows(run: ReportedRun, each: PictureOf) -> str:
    """Return what distinguishes pictures of one name: a hash of the reference, or else the data of the run."""
    if each.reference is None:
        return grouping.digest(run.metrics or {}) or " ".join(run.sources)
    return hashlib.blake2b(np.ascontiguousarray(each.reference).tobytes(), digest_size=16).hexdigest()


def _heading(name: str, some: Sequence[tuple[ReportedRun, PictureOf]]) -> str:
    """Return the name of a view with that of its data and its size, for names that several views have."""
    places = ", ".join(dict.fromkeys(Path(place).name for run, _ in some for place in run.sources))
    height, width = some[0][1].picture.shape[:2]
    return f"{places}: {name}, {width}×{height}"


def of_first_seeds(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Return the first run of each variant."""
    return list({run.group: run for run in reversed(runs)}.values())[::-1]


def _pictures_of(run: ReportedRun, chosen: ReportOptions) -> tuple[list[PictureOf], list[str]]:
    """Return pictures of one run; a sentence if they cannot be read."""
    make = run.presentation.pictures
    assert make is not None
    try:
        return make(run.folder, run.options, run.metrics, chosen.datadir, chosen.views)
    except InputError as error:
        return [], [f"has no pictures: {error}"]


def _view(name: str, some: Sequence[tuple[ReportedRun, PictureOf]], width: int) -> View:
    """Return the pictures of several runs of one view: the reference first, then pictures, then error maps."""
    first = next((each for _, each in some if each.reference is not None), some[0][1])
    shown, errors = [], []
    if first.reference is not None:
        uri = embedding.picture(embedding.fitted(first.reference, width))
        shown.append(Shown(first.reference_name, "", uri, "reference"))
    for run, each in some:
        shown.append(Shown(run.name, each.caption, embedding.picture(embedding.fitted(each.picture, width)), "picture"))
        if each.reference is not None and each.has_error:
            colors = embedding.error_map(each.picture, each.reference, each.mask)
            error = np.abs(each.picture - each.reference).mean(-1)
            counted = error if each.mask is None else error[each.mask]
            uri = embedding.picture(embedding.fitted(colors, width))
            caption = f"mean {float(counted.mean()):.4f}" if counted.size else "masks exclude all pixels"
            errors.append(Shown(f"error of {run.name}", caption, uri, "error"))
    height, full = first.picture.shape[:2]
    shown_width = min(full, width)
    return View(name, [*shown, *errors], shown_width, max(1, round(height * shown_width / full)))


def videos(runs: Sequence[ReportedRun], megabytes: float) -> dict[str, list[Video]]:
    """Return the videos in the folders of runs by kind of task, those of color first.

    They are embedded as long as they fit into a size together.
    """
    left, found = int(megabytes * 1e6), {run.task.kind: list[Video]() for run in runs}
    files = [(run, path) for run in runs if megabytes for path in _video_files(run.folder)]
    for run, path in sorted(files, key=lambda each: "depth" in each[1].name):
        name = f"{run.name}: {path.relative_to(run.folder).as_posix()}"
        try:
            uri, bytes_ = embedding.video(path, left), path.stat().st_size
            newest = checkpoint.checkpoints(run.folder)[-1].stat().st_mtime
            is_old = path.stat().st_mtime < newest - _COPYING
        except (InputError, OSError, IndexError) as error:
            found[run.task.kind].append(Video(name, None, str(error)))
            continue
        left -= bytes_ if uri else 0
        size = f"{bytes_ / 1e6:.1f} MB" + (", older than the newest checkpoint of its run" if is_old else "")
        limit = f"not embedded: {size}, more than what is left of --video_mb {megabytes:g}"
        found[run.task.kind].append(Video(name, uri, size if uri else limit))
    return found


def _video_files(folder: Path) -> list[Path]:
    """Return the mp4 files of a run, newer ones first."""
    paths = [*folder.glob("*.mp4"), *folder.glob("*_views/*.mp4"), *folder.glob("renderonly_*/*.mp4")]
    files = [path for path in paths if path.is_file()]
    return sorted(files, key=lambda path: (-path.stat().st_mtime, path.name))
