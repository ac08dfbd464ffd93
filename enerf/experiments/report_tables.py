"""Tables of a report: results beside published ones, the state of runs, their options and environment."""

import logging
from collections.abc import Sequence
from typing import Any

from enerf.config import options, parser
from enerf.experiments.reported_runs import COMPARISON, ReportedRun
from enerf.reporting.html_page import Table
from enerf.reporting.plots import DASH
from enerf.reporting.presentation import value

log = logging.getLogger("enerf")
_INCOMPLETE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
)  # of metrics of another or damaged version
_MOST_COLUMNS = 12  # runs in the table of differences; more are shown by group


def results(runs: Sequence[ReportedRun]) -> tuple[list[Table], list[str]]:
    """Return the tables of results of runs of one task, and sentences about metrics that are left out."""
    measured, notes = _complete([run for run in runs if run.metrics is not None])
    try:
        tables = _of_results(measured)
    except _INCOMPLETE:  # each alone is complete, but they do not go together
        notes.append("the results of the runs cannot be shown in one table; each has its own")
        tables = [table for run in measured for table in _of_results([run])]
    return [*_comparisons(runs), *tables, state(runs)], notes


def _of_results(runs: Sequence[ReportedRun]) -> list[Table]:
    """Return the table of results of runs, and that of published ones if it is another."""
    if not runs:
        return []
    metrics = [run.metrics or {} for run in runs]
    rows = runs[0].task.load("table")(metrics)
    note = "Runs that differ in their seed only are averaged."
    if any(row[0].startswith("published") for row in rows):
        note += " Rows of published results are set apart, each with its protocol."
    tables = [Table("Results", rows, note)]
    published = runs[0].presentation.published
    if published is not None and len(rows := published(metrics)) > 1:
        marked = [[f"published: {row[0]}", *row[1:]] for row in rows[1:]]
        tables.append(Table("Published results", [rows[0], *marked]))
    return tables


def _complete(runs: Sequence[ReportedRun]) -> tuple[list[ReportedRun], list[str]]:
    """Return the runs whose metrics the table of their task can show, and sentences about the others."""
    shown, notes = [], []
    for run in runs:
        try:
            cells = [cell for table in _of_results([run]) for row in table.rows for cell in row]
        except _INCOMPLETE as error:
            notes.append(f"{run.name}: its metrics.json is incomplete ({type(error).__name__}: {error})")
            continue
        if all(isinstance(cell, str) for cell in cells):
            shown.append(run)
        else:
            notes.append(f"{run.name}: its metrics.json has numbers in the place of names")
    return shown, notes


def _comparisons(runs: Sequence[ReportedRun]) -> list[Table]:
    """Return the tables that comparisons have written, which contain measures and success rates by variant."""
    import csv

    found = []
    for parent in dict.fromkeys(run.folder.parent for run in runs):
        path = parent / COMPARISON.replace(".json", ".csv")
        inside = [run for run in runs if run.folder.parent == parent and run.group != run.name]
        if not inside or not path.is_file():
            continue
        try:
            rows = [row for row in csv.reader(path.read_text(encoding="utf-8").splitlines()) if row]
        except (OSError, ValueError, csv.Error):
            continue
        if len(rows) > 1 and len({len(row) for row in rows}) == 1:
            unfinished = sum(not run.is_measured for run in inside)
            note = f"{unfinished} of its {len(inside)} runs are not measured at their last step." if unfinished else ""
            found.append(Table(f"Comparison {parent.resolve().name}, mean ± standard deviation over seeds", rows, note))
    return found


def state(runs: Sequence[ReportedRun]) -> Table:
    """Return the table of runs: state, time, seed and figures."""
    figures = [f for f in runs[0].presentation.figures if any(value(run.metrics, f.path) is not None for run in runs)]
    rows = [["run", "state", "training [s]", "seed", *(figure.heading for figure in figures)]]
    for run in runs:
        numbers = [value(run.metrics, figure.path) for figure in figures]
        cells = [DASH if n is None else f"{n:.{f.digits}f}" for n, f in zip(numbers, figures, strict=True)]
        marked = run.state if run.is_measured or run.metrics is None else f"{run.state}; figures of another step"
        rows.append([run.name, marked, f"{run.seconds:.1f}", str(run.options.get("seed", DASH)), *cells])
    return Table("Runs", rows, f"{DASH}: not measured.")


def comparability(runs: Sequence[ReportedRun]) -> list[str]:
    """Return sentences on why runs cannot be compared with published results; those of several runs once."""
    by_sentence: dict[str, list[str]] = {}
    checked = runs[0].presentation.differences
    for run in runs if checked is not None else ():
        if run.metrics is None or checked is None:
            continue
        try:
            for sentence in checked(run.metrics):
                by_sentence.setdefault(sentence, []).append(run.name)
        except _INCOMPLETE as error:
            log.debug("%s: %s", run.folder, error)
    measured = sum(run.metrics is not None for run in runs)
    return [
        f"{'all runs' if len(names) == measured > 1 else _listed(names)}: {sentence}"
        for sentence, names in by_sentence.items()
    ]


def differences(runs: Sequence[ReportedRun]) -> Table | None:
    """Return the options in which runs differ, one column per run, or per variant if there are many; None if one."""
    if len(runs) < 2:
        return None
    by_group = len(runs) > _MOST_COLUMNS
    groups: dict[str, list[ReportedRun]] = {}
    for run in runs:
        groups.setdefault(run.group if by_group else run.name, []).append(run)
    rows = [["option", *groups]]
    for name in sorted({name for run in runs for name in _options(run)}):
        cells = [_distinct([_options(run).get(name) for run in some]) for some in groups.values()]
        if len({str(_options(run).get(name)) for run in runs}) > 1:
            rows.append([name, *cells])
    data = [str(((run.metrics or {}).get("inputs") or {}).get("digest") or "")[:8] for run in runs]
    if len(set(data) - {""}) > 1:
        by_run = {run.name: text or DASH for run, text in zip(runs, data, strict=True)}
        rows.append(["hash of the data", *(_distinct([by_run[run.name] for run in some]) for some in groups.values())])
    note = "" if len(rows) > 1 else "The runs have the same options."
    return Table(f"Options that differ between the {len(runs)} runs", rows, note)


def options_of(run: ReportedRun) -> Table:
    """Return all options of a run that affect model, data or training, those that are not the default marked."""
    config = parser.from_dict(run.task.load("config"), run.options)
    declared = options.declared(type(config))
    rows = [["option", "value", "default", "affects", "meaning"]]
    for name, chosen in parser.to_dict(config).items():
        item = declared[name]
        if item.metadata["affects"] != "neutral":
            mark = "" if chosen == item.default else " *"
            rows.append(
                [name + mark, _text(chosen), _text(item.default), item.metadata["affects"], item.metadata["help"]]
            )
    return Table(f"All options of {run.name}", rows, "* differs from the default.")


def environment_of(runs: Sequence[ReportedRun], heading: str) -> Table:
    """Return what runs were computed with, as far as they recorded it."""
    names = list(dict.fromkeys(name for run in runs for name in _environment(run)))
    rows = [["run", *(names or ["versions and hardware"])]]
    for run in runs:
        recorded = _environment(run)
        rows.append([run.name, *(str(recorded.get(name, DASH)) for name in names or ["versions and hardware"])])
    return Table(f"{heading}: what the last steps were trained with", rows, f"{DASH}: not recorded by the run.")


def _environment(run: ReportedRun) -> dict[str, str]:
    """Return device, backend and precision, versions and hardware of a run."""
    resolved = run.options.get("resolved")
    resolved = resolved if isinstance(resolved, dict) else {}
    metrics = run.metrics or {}
    found = {name: resolved.get(name) or metrics.get(name) for name in ("device", "backend", "precision")}
    recorded = run.options.get("environment")
    found |= recorded if isinstance(recorded, dict) else {}
    if resolved.get("earlier"):
        found["earlier steps"] = ", ".join(
            f"{each.get('backend')} {each.get('precision')} until step {each.get('until')}"
            for each in resolved["earlier"]
            if isinstance(each, dict)
        )
    return {name: str(each) for name, each in found.items() if each}


def _options(run: ReportedRun) -> dict[str, Any]:
    """Return the options of a run that affect model, data or training."""
    declared = options.declared(run.task.load("config"))
    return {
        name: run.options[name]
        for name, item in declared.items()
        if name in run.options and item.metadata["affects"] != "neutral"
    }


def _distinct(values: Sequence[Any]) -> str:
    """Return different values as one text."""
    return ", ".join(dict.fromkeys(DASH if each is None else _text(each) for each in values))


def _text(each: Any) -> str:
    return "(empty)" if each == "" else f"{each:g}" if isinstance(each, float) else str(each)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
