"""Report of runs as one HTML page: what is measured, drawn, missing, and how to make it again."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from enerf.core import environment, files, io
from enerf.core.errors import InputError
from enerf.experiments import report_charts, report_pictures, report_tables, reported_runs, reproduction
from enerf.experiments.options import ReportOptions
from enerf.experiments.reported_runs import COMPARISON, ReportedRun
from enerf.reporting import grouping, html_page, page_files
from enerf.reporting.html_page import Command, Embedded, Page, Section, Video

log = logging.getLogger("enerf")
_MOST_PAGE = 1 << 28  # bytes of an embedded page
_SCRIPT_FILE = re.compile(r"""<script\b[^>]*\ssrc\s*=\s*["']?(?!data:|blob:)([^"'\s>]+)""", re.IGNORECASE)
PlanesPage = Callable[[Path, str], str]  # folder of a run, new path of its scene or "" -> text of a page
_HEADINGS = {"nerf": "Radiance fields", "shape": "Shapes", "classifier": "Classifiers"}


@dataclass(frozen=True)
class Written:
    """A written report: its file, its size in bytes, and what it says is missing."""

    path: Path
    size: int
    notes: list[str]


def write(
    folders: Sequence[Path], chosen: ReportOptions, version: str, planes_page: PlanesPage | None = None
) -> Written:
    """Write the report of runs, or of folders that contain runs, to ``chosen.out``.

    Nothing is trained or rendered, except pictures of meshes and of fitted images, and planes with ``chosen.planes``.

    Parameters
    ----------
    folders
        Folders of runs, or of several runs.
    chosen
        Options.
    version
        Of this package.
    planes_page
        Makes the pages of ``chosen.planes``; raises ``InputError`` for scenes that planes cannot show.

    Raises
    ------
    InputError
        If no run can be read, ``chosen.datadir`` is for runs of several scenes, the page to embed is missing, or the
        file cannot be written.
    """
    out = Path(chosen.out).expanduser()
    page_files.check_file(out)
    embedded = [_embedded(Path(chosen.page).expanduser())] if chosen.page else []
    runs, notes = reported_runs.read_all(folders)
    _check_source(runs, chosen.datadir)
    if chosen.planes and planes_page is not None:
        made, more = _planes(runs, chosen, planes_page)
        embedded += made
        notes += more
    videos = report_pictures.videos(runs, chosen.video_mb)
    sections = []
    for kind in dict.fromkeys(run.task.kind for run in runs):
        some = [run for run in runs if run.task.kind == kind]
        section, more = _section(kind, some, folders, chosen, videos[kind])
        sections.append(section)
        notes += more
    page = Page(
        title=chosen.title or _title(runs, folders),
        created=time.strftime("%Y-%m-%d"),
        version=version,
        sections=sections,
        notes=[*_notes(runs), *notes],
        embedded=embedded,
        environment=list(environment.describe().items()),
    )
    text = html_page.render(page)
    if out.parent.is_dir():
        io.remove_leftovers(out.parent, levels=0)
    io.write_atomic(out, text)
    return Written(out, len(text.encode()), list(page.notes))


def _section(
    kind: str, runs: Sequence[ReportedRun], folders: Sequence[Path], chosen: ReportOptions, videos: Sequence[Video]
) -> tuple[Section, list[str]]:
    """Return the section of the runs of one task, and sentences about what is missing."""
    results, notes = report_tables.results(runs)
    groups = list(dict.fromkeys(run.group for run in runs))
    views, view_notes = report_pictures.views(runs, chosen)
    commands, commands_note = _commands(runs, folders)
    curves, curve_notes = report_charts.all_charts(runs, groups)
    section = Section(
        kind=kind,
        heading=_HEADINGS.get(kind, kind),
        tables=results,
        comparability=report_tables.comparability(runs),
        published_note=runs[0].presentation.note,
        charts=curves,
        views=views,
        views_note=report_pictures.NOTE if views else "",
        videos=videos,
        differences=report_tables.differences(runs),
        options=[report_tables.options_of(run) for run in runs],
        environment=report_tables.environment_of(runs, _HEADINGS.get(kind, kind)),
        commands=commands,
        commands_note=commands_note,
    )
    return section, [*notes, *curve_notes, *view_notes]


def _check_source(runs: Sequence[ReportedRun], source: str) -> None:
    """Check that one new path of the data can be that of all runs: they have the same, or data of the same name.

    Raises
    ------
    InputError
        If not: runs would be shown beside the photographs or meshes of others.
    """
    if not source:
        return
    digests = {grouping.digest(run.metrics or {}) for run in runs}
    names = sorted({Path(place).name for run in runs for place in run.sources})
    if len(names) > 1 and (len(digests) > 1 or "" in digests):
        raise InputError(
            f"option --datadir: found one path for runs of {', '.join(names[:4])}, expected runs of the same data"
        )


def _planes(
    runs: Sequence[ReportedRun], chosen: ReportOptions, planes_page: PlanesPage
) -> tuple[list[Embedded], list[str]]:
    """Return pages of the planes of runs, of each variant that of the first seed, and what has none."""
    found, notes = [], []
    first = report_pictures.of_first_seeds([run for run in runs if run.task.has("planes")])
    for run in first[: chosen.compared]:
        try:
            found.append(Embedded(run.name, planes_page(run.folder, chosen.datadir)))
        except InputError as error:
            notes.append(f"{run.name} has no planes: {error}")
    if left := first[chosen.compared :]:
        notes.append(f"{left[0].name}{' and others' if len(left) > 1 else ''}: no planes; see --compared")
    if not first:
        notes.append("no run has planes: they show radiance fields of forward-facing scenes")
    return found, notes


def _commands(runs: Sequence[ReportedRun], folders: Sequence[Path]) -> tuple[list[Command], str]:
    """Return the commands that make the runs and comparisons again, and a sentence about them."""
    found, parts = [], set()
    given = {folder.expanduser().resolve() for folder in folders}
    for parent in dict.fromkeys(run.folder.resolve().parent for run in runs):
        inside = [run for run in runs if run.folder.resolve().parent == parent]
        if parent in given and (parent / COMPARISON).is_file():
            text = reproduction.comparison_command(inside)
            if text:
                found.append(Command(f"The comparison {parent.name}:", text))
                parts |= {run.name for run in inside}
    found += [Command(f"{run.name}:", reproduction.command(run), run.name in parts) for run in runs]
    timed = any(run.options.get("max_seconds") for run in runs)
    note = "Every option that differs from its default is given; paths are those of the machine that trained the runs."
    return found, note + (" Runs limited by seconds do more or fewer steps on another machine." if timed else "")


def _notes(runs: Sequence[ReportedRun]) -> list[str]:
    """Return what is missing or wrong in runs, one sentence each."""
    return [f"{run.name}: {note}" for run in runs for note in run.notes]


def _title(runs: Sequence[ReportedRun], folders: Sequence[Path]) -> str:
    """Return the names of what the report is about."""
    names = [folder.expanduser().resolve().name for folder in folders]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"Report of {shown}" + (f" ({len(runs)} runs)" if len(runs) > len(names) else "")


def _embedded(path: Path) -> Embedded:
    """Return a page to embed.

    Raises
    ------
    InputError
        If it cannot be read, is no HTML, or is a page of this package that loads other files.
    """
    try:
        text: str = files.read_text(path, _MOST_PAGE)
    except OSError as error:
        raise InputError(f"option --page: {path} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise InputError(f"option --page: {path} cannot be read ({error})") from None
    if "<html" not in text[:4096].lower() and "<!doctype" not in text[:4096].lower():
        raise InputError(f"option --page: {path} is no HTML page, expected one that contains all that it shows")
    if page_files.GENERATOR in text[:4096] and (other := _SCRIPT_FILE.search(text)):
        raise InputError(
            f"option --page: {path} loads {other[1]}, expected a page that contains all that it shows, as enerf "
            "export-web --single writes it"
        )
    return Embedded(path.name, text)


def summary(written: Written) -> str:
    """Return the path of a report and its size, as text."""
    return f"{written.path} ({written.size / 1e6:.1f} MB)"
