"""Comparison of methods: several variants and seeds of one configuration, to a table and curves.

The variants have the same code, seeds, batches and steps, each in a folder of its own. They differ by the options of
their method and share every other one. A finished variant is not run again, a half-finished one is resumed. A variant
whose loss is not finite has failed and is listed below the table. The variants are trained one after another by this
process, or by another executor; see ``enerf.experiments.sweep``.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from enerf.config.parser import C
from enerf.experiments import sweep
from enerf.experiments.options import CompareOptions, ExecutorOptions
from enerf.experiments.run_queue import Results
from enerf.tasks import registry

log = logging.getLogger("enerf")


def compare(base: C, chosen: CompareOptions, how: ExecutorOptions | None = None) -> str:
    """Train and measure all variants; return the table, which is written after each of them.

    Raises
    ------
    InputError
        For an unknown method, an invalid seed or learning rate, or a variant trained with other options.
    NotFinite
        If every variant failed by a loss that is not finite.
    SomeFailed
        If one failed for another reason; the others are trained first.
    KeyboardInterrupt
        If interrupted; the same call resumes.
    """
    text, results = measured(base, chosen, how)
    sweep.require_success(results)
    return text


def measured(base: C, chosen: CompareOptions, how: ExecutorOptions | None = None) -> tuple[str, Results]:
    """Train and measure all variants as ``compare``; return table and results also if some failed."""
    how = how or ExecutorOptions()
    how = replace(how, executor="serial") if how.executor == "auto" else how
    task, text = registry.task(base.kind), ""
    written: dict[str, Any] = {}

    def write(full: Mapping[str, C], results: Results) -> None:
        nonlocal text
        if (runs := results.of_scene("")) != written:
            written.update(runs)
            text = task.load("write_comparison")(runs, full[""])

    full, results = sweep.train_all({"": base}, chosen, how, base.folder, write)
    failed = [f"{variant.label}, failed: {failure.reason}" for variant, failure in results.failed.items()]
    if results.metrics and task.has("draw_comparison"):
        first = {each.name: each.config for each in reversed(results.variants)}  # of the first seed
        task.load("draw_comparison")(full[""], {each.name: first[each.name] for each in results.variants})
    return "\n".join([*([text] if text else []), *failed]), results
