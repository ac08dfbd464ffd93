"""Sweep: runs of several scenes, methods, learning rates and seeds, by one queue, to one table.

``enerf compare`` is a sweep over one scene with a report of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from enerf.config import parser
from enerf.config.options import RunConfig
from enerf.config.parser import C
from enerf.core import files, io
from enerf.core.errors import InputError, NotFinite, SomeFailed, shown
from enerf.engine import resume, writer_lock
from enerf.experiments import status, variants
from enerf.experiments.executors.registry import NOT_FINITE, executor
from enerf.experiments.executors.resources import gpus_for
from enerf.experiments.options import CompareOptions, ExecutorOptions, SweepOptions
from enerf.experiments.run_queue import STATE, Queue, Results
from enerf.experiments.variants import Variant
from enerf.fields.backends.registry import Resolved
from enerf.reporting import tables
from enerf.reporting.plots import mean_and_std
from enerf.reporting.presentation import Figure, value
from enerf.tasks import registry

TABLE = "sweep.md"


def train_all(
    bases: Mapping[str, C],
    chosen: CompareOptions,
    how: ExecutorOptions,
    folder: Path,
    write: Callable[[Mapping[str, C], Results], None],
) -> tuple[dict[str, C], Results]:
    """Train the variants of some configurations by an executor.

    Parameters
    ----------
    bases
        Configuration of each scene.
    chosen, how
        What is varied, and what trains the runs.
    folder
        Of ``sweep.json`` and of what the executor writes.
    write
        Called with the configurations and the results after each run that has finished.

    Returns
    -------
    tuple
        The configurations, with values that depend on their data, and the results.

    Raises
    ------
    InputError
        For an unknown method, an invalid seed or learning rate, or a variant trained with other options.
    KeyboardInterrupt
        If interrupted; the same call resumes.
    """
    first = next(iter(bases.values()))
    variants.plan(bases, chosen)  # wrong options are refused before anything is read
    _require_same_layout(folder, with_scenes="" not in bases)
    for base in bases.values():
        base.require_source()
    if parser.to_dict(first).get("render_only"):
        raise InputError("option --render_only: found a comparison or a sweep, expected one run")
    variants.warn_of_overridden(first)
    task = registry.task(first.kind)
    resolve = task.load("resolve") if task.has("resolve") else None
    with writer_lock.writing(folder):
        full = {scene: resolve(base) if resolve else base for scene, base in bases.items()}
        planned, first = variants.plan(full, chosen), next(iter(full.values()))
        left = [each for each in planned if variants.finished(each.config) is None]
        for each in left:
            variants.check_unchanged(each.config)
        elsewhere = _backend_elsewhere(first, how, left)
        _require_readable({each.scene: full[each.scene] for each in left})
        made = executor(how.executor if left else "serial", how, planned, folder)
        try:
            shared = variants.shared_backend(first, [each.config for each in planned], elsewhere)
        except BaseException:
            made.stop()
            raise
        return full, Queue(made, folder, shared, lambda found: write(full, found)).run(planned)


def _require_readable(bases: Mapping[str, RunConfig]) -> None:
    """Check that the data of each scene are what the task reads, before the first run is trained."""
    for base in bases.values():
        task = registry.task(base.kind)
        if task.has("input_files"):
            task.load("input_files")(base)


def _backend_elsewhere(base: RunConfig, how: ExecutorOptions, left: list[Variant]) -> Resolved | None:
    """Return the backend and precision that the options name for runs on the GPUs of a cluster.

    None if the runs use no such GPUs, or this computer has one too, on which ``auto`` can be resolved.

    Raises
    ------
    InputError
        If this computer has no GPU on which they could be chosen, and they are not given.
    """
    if how.executor not in ("ray", "slurm") or not gpus_for(how, left):
        return None
    import torch

    if torch.cuda.is_available():
        return None
    options = parser.to_dict(base)
    named = {name: options.get(name, "torch") for name in ("backend", "precision")}
    if unknown := [f"--{name}" for name, value in named.items() if value == "auto"]:
        raise InputError(
            f"option {' and '.join(unknown)}: found auto, expected a name: those of all runs are chosen on this "
            "computer, which has no GPU"
        )
    return Resolved(**named)


def sweep(base: C, chosen: SweepOptions, how: ExecutorOptions) -> Results:
    """Train all runs; their table ``sweep.md`` and those of the scenes are written after each run.

    Raises
    ------
    InputError
        As ``train_all``; or if a scene does not exist.
    KeyboardInterrupt
        If interrupted; the same call resumes.
    """
    bases, task, folder = scenes_of(base, chosen.scenes), registry.task(base.kind), base.folder
    how = replace(how, executor="local") if how.executor == "auto" else how
    written: dict[str, int] = {}

    def write(full: Mapping[str, C], results: Results) -> None:
        for scene, config in full.items():
            runs = results.of_scene(scene)
            if (n := sum(map(len, runs.values()))) > written.get(scene, 0):
                task.load("write_comparison")(runs, config)
                written[scene] = n
        io.write_atomic(folder / TABLE, as_markdown(results))

    return train_all(bases, chosen, how, folder, write)[1]


def _require_same_layout(folder: Path, *, with_scenes: bool) -> None:
    """Check that runs are where an earlier call put them: with ``--scenes``, in a folder for each scene."""
    before = {bool(row.get("scene")) for row in status.planned(folder / STATE)}
    if before == {not with_scenes}:
        found, expected = ("with", "without") if with_scenes else ("without", "with")
        raise InputError(
            f"option --scenes: found runs {found} scenes in {folder}, whose runs were begun {expected} them and "
            "would be trained again; expected the same, or another --expname"
        )


def require_success(results: Results) -> None:
    """Raise if a run has failed. One that has diverged has not: that is a result of its method or learning rate.

    Raises
    ------
    NotFinite
        If all runs failed, each by a loss that is not finite.
    SomeFailed
        If others failed.
    """
    failed = {variant.label: failure for variant, failure in results.failed.items()}
    others = {label: failure for label, failure in failed.items() if failure.code != NOT_FINITE}
    if not others and (results.metrics or not failed):
        return
    label, failure = next(iter((others or failed).items()))
    words = f"{len(failed)} of {len(results.variants)} runs failed; {label}: {failure.reason}"
    if not others:
        raise NotFinite(words)
    raise SomeFailed(words, list(results.metrics.values()))


def scenes_of(base: C, text: str) -> dict[str, C]:
    """Return scene name -> configuration, in a folder of its own below that of the sweep.

    Raises
    ------
    InputError
        If a scene is neither a path nor the name of something beside the configuration's data, or is named twice.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        return {"": base}
    option = resume.source_option(base)
    own = Path(parser.to_dict(base)[option] or ".").expanduser()
    found: dict[str, C] = {}
    for word in words:
        scene = parser.replace(base, **{option: str(_path_of(word, own.parent, own.suffix))})
        if scene.scene in found:
            raise InputError(f"option --scenes: found {scene.scene} twice, expected different names")
        top = base.run.expname or base.scene
        found[scene.scene] = parser.replace(scene, expname=f"{top}/{scene.scene}")
    return found


def _path_of(word: str, beside: Path, suffix: str) -> Path:
    """Return the path of one entry of ``--scenes``: a name in the folder ``beside``, with or without suffix, or a path.

    Of several files with that name, the one with the given suffix is taken.
    """
    path = Path(files.expanded(word, "option --scenes"))
    for each in (beside / word, path):
        if not files.is_missing(each):
            return each
    there = sorted(each.name for each in beside.iterdir()) if beside.is_dir() else []
    named = [name for name in there if Path(name).stem == word]
    named = [name for name in named if Path(name).suffix == suffix] or named
    if len(named) == 1:
        return beside / named[0]
    found = f"{shown(word)}, which may be {' or '.join(named)}" if named else shown(word)
    names = ", ".join(there[:20]) or "nothing is there"
    raise InputError(f"option --scenes: found {found}, expected a path, or a name in {beside}: {names}")


def figure_of(results: Results) -> Figure:
    """Return the value that the table shows: the first figure of the task that the runs have."""
    task = registry.task(results.variants[0].config.kind)
    figures: tuple[Figure, ...] = task.load("presentation").figures if task.has("presentation") else ()
    runs = list(results.metrics.values())
    return next((f for f in figures if any(value(run, f.path) is not None for run in runs)), Figure("", (), 0))


def table(results: Results) -> list[list[str]]:
    """Return one row for each variant, one column for each scene: mean ± standard deviation over seeds, their number.

    A value says how many of its runs have learned nothing. The mean over scenes is empty unless all of their runs have
    finished.
    """
    task = registry.task(results.variants[0].config.kind)
    figure, scenes = figure_of(results), list(dict.fromkeys(v.scene for v in results.variants))
    several = len(scenes) > 1
    rows = [[f"{figure.heading or 'method'}", *(scene or "all" for scene in scenes), *(["mean"] if several else [])]]
    for name in dict.fromkeys(v.name for v in results.variants):
        row, means = [name], []
        for scene in scenes:
            runs = [v for v in results.variants if (v.name, v.scene) == (name, scene)]
            scores = [value(results.metrics[v], figure.path) for v in runs if v in results.metrics]
            known = [score for score in scores if score is not None]
            means.append(sum(known) / len(known) if len(known) == len(runs) else None)
            text = mean_and_std(known, figure.digits) if known else ""
            finished = "" if len(known) == len(runs) else f"({len(known)} of {len(runs)})"
            failed = _learned_nothing([results.metrics[v] for v in runs if v in results.metrics], task)
            row.append(" ".join(part for part in (text, finished, failed) if part))
        complete = [each for each in means if each is not None]
        mean = f"{sum(complete) / len(means):.{figure.digits}f}" if len(complete) == len(means) else ""
        rows.append([*row, *([mean] if several else [])])
    return rows


def _learned_nothing(runs: list[dict[str, Any]], task: registry.Task) -> str:
    """How many of some finished runs have learned nothing, in words; empty if none has."""
    if not task.has("succeeded"):
        return ""
    succeeded = task.load("succeeded")
    failed = sum(not succeeded(run) for run in runs)
    return f"({failed} learned nothing)" if failed else ""


def missing(results: Results) -> list[str]:
    """Return a sentence about each run without metrics."""
    lines: list[str] = []
    for variant in results.missing():
        failure = results.failed.get(variant)
        lines.append(f"{variant.label}: {results.state_of(variant)}" + (f": {failure.reason}" if failure else ""))
    return lines


def as_text(results: Results) -> str:
    """Return table and missing runs for a terminal."""
    absent = missing(results)
    return "\n".join([tables.as_text(table(results)), *(["", "missing:", *absent] if absent else [])])


def as_markdown(results: Results) -> str:
    """Return table and missing runs for a page."""
    absent = [f"- {line}" for line in missing(results)]
    return "\n".join([tables.as_markdown(table(results)), *(["", "Missing:", "", *absent] if absent else []), ""])
