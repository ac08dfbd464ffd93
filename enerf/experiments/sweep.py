"""Sweep: runs of several scenes, methods, learning rates and seeds, by one queue, to one table.

``enerf compare`` is a sweep over one scene with a report of it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from enerf.config import parser
from enerf.config.options import RunConfig
from enerf.config.parser import C
from enerf.core import files, io
from enerf.core.errors import InputError, NotFinite, shown
from enerf.engine import resume
from enerf.experiments import variants
from enerf.experiments.executors.registry import executor
from enerf.experiments.options import CompareOptions, ExecutorOptions, SweepOptions
from enerf.experiments.run_queue import Queue, Results
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
    task = registry.task(next(iter(bases.values())).kind)
    variants.plan(bases, chosen)  # wrong options are refused before anything is read
    variants.warn_of_overridden(next(iter(bases.values())))
    io.remove_leftovers(folder)
    resolve = task.load("resolve") if task.has("resolve") else None
    full = {scene: resolve(base) if resolve else base for scene, base in bases.items()}
    planned = variants.plan(full, chosen)
    left = [each for each in planned if variants.finished(each.config) is None]
    for each in left:
        variants.check_unchanged(each.config)
    _check_measured_here(next(iter(full.values())), how)
    shared = variants.shared_backend(next(iter(full.values())), [each.config for each in planned])
    made = executor(how.executor if left else "serial", how, left, folder)
    results = Queue(made, folder, shared, lambda found: write(full, found)).run(planned)
    return full, results


def _check_measured_here(base: RunConfig, how: ExecutorOptions) -> None:
    """Check that backend and precision of all runs can be chosen on this computer."""
    if how.executor not in ("ray", "slurm"):
        return
    options = parser.to_dict(base)
    if str(options["device"]).startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                f"option --device: found {options['device']}, but backend and precision of the runs are chosen on this "
                "computer, which has no GPU; expected --device auto with --gpus_per_run 1, --backend and --precision"
            )


def sweep(base: C, chosen: SweepOptions, how: ExecutorOptions) -> str:
    """Train all runs and return the table; it and those of the scenes are written after each run.

    Raises
    ------
    InputError
        As ``train_all``; or if a scene does not exist.
    NotFinite
        If every run failed.
    KeyboardInterrupt
        If interrupted; the same call resumes.
    """
    bases, task, folder = scenes_of(base, chosen.scenes), registry.task(base.kind), base.folder
    written: dict[str, int] = {}

    def write(full: Mapping[str, C], results: Results) -> None:
        for scene, config in full.items():
            runs = results.of_scene(scene)
            if (n := sum(map(len, runs.values()))) > written.get(scene, 0):
                task.load("write_comparison")(runs, config)
                written[scene] = n
        io.write_atomic(folder / TABLE, as_markdown(results))

    _, results = train_all(bases, chosen, how, folder, write)
    io.write_atomic(folder / TABLE, as_markdown(results))
    if not results.metrics:
        raise NotFinite(f"all runs failed; {next(iter(results.failed.values()))}")
    return as_text(results)


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
    beside = Path(parser.to_dict(base)[option] or ".").expanduser().parent
    found: dict[str, C] = {}
    for word in words:
        scene = parser.replace(base, **{option: str(_path_of(word, beside))})
        if scene.scene in found:
            raise InputError(f"option --scenes: found {scene.scene} twice, expected different names")
        top = base.run.expname or base.scene
        found[scene.scene] = parser.replace(scene, expname=f"{top}/{scene.scene}")
    return found


def _path_of(word: str, beside: Path) -> Path:
    """Return the path that a word of ``--scenes`` means."""
    path = Path(files.expanded(word, "option --scenes"))
    for each in (beside / word, path):
        if not files.is_missing(each):
            return each
    if named := sorted(beside.glob(f"{word}.*")):
        return named[0]
    there = ", ".join(sorted(each.name for each in beside.iterdir())[:20]) if beside.is_dir() else "nothing"
    raise InputError(f"option --scenes: found {shown(word)}, expected a path, or a name in {beside}: {there}")


def figure_of(results: Results) -> Figure:
    """Return the value that the table shows: the first figure of the task that the runs have."""
    task = registry.task(results.variants[0].config.kind)
    figures: tuple[Figure, ...] = task.load("presentation").figures if task.has("presentation") else ()
    runs = list(results.metrics.values())
    return next((f for f in figures if any(value(run, f.path) is not None for run in runs)), Figure("", (), 0))


def table(results: Results) -> list[list[str]]:
    """Return one row for each variant, one column for each scene: mean ± standard deviation over seeds, their number.

    The mean over scenes is empty unless all of their runs have finished.
    """
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
            row.append(text if len(known) == len(runs) else f"{text} ({len(known)} of {len(runs)})".strip())
        complete = [each for each in means if each is not None]
        mean = f"{sum(complete) / len(means):.{figure.digits}f}" if len(complete) == len(means) else ""
        rows.append([*row, *([mean] if several else [])])
    return rows


def missing(results: Results) -> list[str]:
    """Return a sentence about each run without metrics."""
    lines: list[str] = []
    for variant in results.missing():
        reason: Any = results.failed.get(variant)
        lines.append(f"{variant.label}: " + (f"failed: {reason}" if reason else results.state_of(variant)))
    return lines


def as_text(results: Results) -> str:
    """Return table and missing runs for a terminal."""
    absent = missing(results)
    return "\n".join([tables.as_text(table(results)), *(["", "missing:", *absent] if absent else [])])


def as_markdown(results: Results) -> str:
    """Return table and missing runs for a page."""
    absent = [f"- {line}" for line in missing(results)]
    return "\n".join([tables.as_markdown(table(results)), *(["", "Missing:", "", *absent] if absent else []), ""])
