"""Report of runs as one HTML page: what is measured, drawn, missing, and how to make it again."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enerf.core import environment, files, io
from enerf.core.errors import InputError
from enerf.experiments import report_charts, report_pictures, report_tables, reported_runs, reproduction
from enerf.experiments.options import ReportOptions
from enerf.experiments.reported_runs import COMPARISON, ReportedRun
from enerf.reporting import html_page
from enerf.reporting.html_page import Command, Page, Section

log = logging.getLogger("enerf")
_MOST_PAGE = 1 << 28  # bytes of an embedded page
_HEADINGS = {"nerf": "Radiance fields", "shape": "Shapes", "classifier": "Classifiers"}


@dataclass(frozen=True)
class Written:
    """A written report: its file, its size in bytes, and what it says is missing."""

    path: Path
    size: int
    notes: list[str]


def write(folders: Sequence[Path], chosen: ReportOptions, version: str) -> Written:
    """Write the report of runs, or of folders that contain runs, to ``chosen.out``.

    Nothing is trained or rendered, except pictures of meshes and of fitted images.

    Raises
    ------
    InputError
        If no run can be read, the page to embed is missing, or the file cannot be written.
    """
    out = Path(chosen.out).expanduser()
    if out.is_dir():
        raise InputError(f"{out}: found a folder, expected the name of a file such as {out / 'report.html'}")
    embedded = _embedded(Path(chosen.page).expanduser()) if chosen.page else None
    runs, notes = reported_runs.read_all(folders)
    sections = []
    for kind in dict.fromkeys(run.task.kind for run in runs):
        section, more = _section(kind, [run for run in runs if run.task.kind == kind], folders, chosen)
        sections.append(section)
        notes += more
    page = Page(
        title=chosen.title or _title(runs, folders),
        created=time.strftime("%Y-%m-%d"),
        version=version,
        sections=sections,
        notes=[*_notes(runs), *notes],
        embedded=embedded,
        embedded_name=Path(chosen.page).name if chosen.page else "",
        environment=list(environment.describe().items()),
    )
    text = html_page.render(page)
    if out.parent.is_dir():
        io.remove_leftovers(out.parent, levels=0)
    io.write_atomic(out, text)
    return Written(out, len(text.encode()), list(page.notes))


def _section(
    kind: str, runs: Sequence[ReportedRun], folders: Sequence[Path], chosen: ReportOptions
) -> tuple[Section, list[str]]:
    """Return the section of the runs of one task, and sentences about what is missing."""
    results, notes = report_tables.results(runs)
    groups = list(dict.fromkeys(run.group for run in runs))
    views, view_notes = report_pictures.views(runs, chosen)
    videos = report_pictures.videos(runs, chosen.video_mb)
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


def _embedded(path: Path) -> str:
    """Return the text of a page to embed.

    Raises
    ------
    InputError
        If it cannot be read, or is no HTML.
    """
    try:
        text: str = files.read_text(path, _MOST_PAGE)
    except OSError as error:
        raise InputError(f"option --page: {path} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise InputError(f"option --page: {path} cannot be read ({error})") from None
    if "<html" not in text[:4096].lower() and "<!doctype" not in text[:4096].lower():
        raise InputError(f"option --page: {path} is no HTML page, expected one that contains all that it shows")
    return text


def summary(written: Written) -> str:
    """Return the path of a report and its size, as text."""
    return f"{written.path} ({written.size / 1e6:.1f} MB)"
