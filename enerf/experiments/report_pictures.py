"""Pictures and videos of a report."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from enerf.core.errors import InputError
from enerf.experiments.options import ReportOptions
from enerf.experiments.reported_runs import ReportedRun
from enerf.reporting import embedding
from enerf.reporting.html_page import Shown, Video, View
from enerf.reporting.presentation import PictureOf

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
    first = list({run.group: run for run in reversed(runs)}.values())[::-1]
    shown, notes = first[: chosen.compared], []
    if left := [run.name for run in first[chosen.compared :]]:
        notes.append(f"{', '.join(left[:4])}{' and others' if len(left) > 4 else ''}: no pictures; see --compared")
    found: dict[str, list[tuple[ReportedRun, PictureOf]]] = {}
    for run in shown:
        pictures, missing = _pictures_of(run, chosen)
        notes += [f"{run.name} {sentence}" for sentence in missing]
        for each in pictures:
            found.setdefault(each.name, []).append((run, each))
    if len(shown) > 1:  # the views of the first run: others may have chosen their own worst and best
        found = dict(sorted(found.items(), key=lambda item: -len(item[1])))
    return [_view(name, some, chosen.width) for name, some in found.items()], notes


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
            mean = float(np.abs(each.picture - each.reference).mean())
            uri = embedding.picture(embedding.fitted(colors, width))
            errors.append(Shown(f"error of {run.name}", f"mean {mean:.4f}", uri, "error"))
    height, full = first.picture.shape[:2]
    shown_width = min(full, width)
    return View(name, [*shown, *errors], shown_width, max(1, round(height * shown_width / full)))


def videos(runs: Sequence[ReportedRun], megabytes: float) -> list[Video]:
    """Return the videos in the folders of runs, as long as they fit into a size together; of color before depth."""
    left, found = int(megabytes * 1e6), []
    for run in runs:
        for path in _video_files(run.folder):
            name = f"{run.name}: {path.relative_to(run.folder).as_posix()}"
            if not megabytes:
                continue
            try:
                uri = embedding.video(path, left)
            except InputError as error:
                found.append(Video(name, None, str(error)))
                continue
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            left -= path.stat().st_size if uri else 0
            limit = f"not embedded: {size}, more than what is left of --video_mb {megabytes:g}"
            found.append(Video(name, uri, size if uri else limit))
    return found


def _video_files(folder: Path) -> list[Path]:
    """Return the mp4 files of a run, those of depth last, newer ones first."""
    paths = [*folder.glob("*.mp4"), *folder.glob("*_views/*.mp4"), *folder.glob("renderonly_*/*.mp4")]
    files = [path for path in paths if path.is_file()]
    return sorted(files, key=lambda path: ("depth" in path.name, -path.stat().st_mtime, path.name))
