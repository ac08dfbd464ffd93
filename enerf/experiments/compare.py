"""Comparison of methods: several variants and seeds of one configuration, to a table and curves.

The variants have the same code, seeds, batches and steps, each in a folder of its own. They differ by the options of
their method and share every other one. A finished variant is not run again, a half-finished one is resumed. A variant
whose loss is not finite has failed and is listed below the table. The variants are trained one after another by this
process, or by another executor; see ``enerf.experiments.sweep``.
"""

from collections.abc import Mapping
from dataclasses import replace

from enerf.config.parser import C
from enerf.core.errors import NotFinite
from enerf.experiments import sweep
from enerf.experiments.options import CompareOptions, ExecutorOptions
from enerf.experiments.run_queue import Results
from enerf.tasks import registry


def compare(base: C, chosen: CompareOptions, how: ExecutorOptions | None = None) -> str:
    """Train and measure all variants; return the table, which is written after each of them.

    Raises
    ------
    InputError
        For an unknown method, an invalid seed or learning rate, or a variant trained with other options.
    NotFinite
        If every variant failed.
    KeyboardInterrupt
        If interrupted; the same call resumes.
    """
    how = how or ExecutorOptions()
    how = replace(how, executor="serial") if how.executor == "auto" else how
    task, text = registry.task(base.kind), ""

    def write(full: Mapping[str, C], results: Results) -> None:
        nonlocal text
        text = task.load("write_comparison")(results.of_scene(""), full[""])

    full, results = sweep.train_all({"": base}, chosen, how, base.folder, write)
    failed = [f"{variant.label}, failed: {reason}" for variant, reason in results.failed.items()]
    if not results.metrics:
        raise NotFinite(f"all variants failed; {failed[-1]}")
    if task.has("draw_comparison"):
        first = {each.name: each.config for each in reversed(results.variants)}  # of the first seed
        task.load("draw_comparison")(full[""], {each.name: first[each.name] for each in results.variants})
    return "\n".join([text, *failed])
