"""Comparisons of classifier runs: table, curves, and each method at its best learning rate."""

from typing import Any

from enerf.core import io
from enerf.reporting import learning_rates, tables
from enerf.tasks.classifier import curves, report
from enerf.tasks.classifier.config import ClassifierConfig


def write_all(variants: dict[str, list[dict[str, Any]]], base: ClassifierConfig) -> str:
    """Write table and curves of a comparison, with published results; return the tables as text."""
    measured = _labeled(variants)
    rows = report.table(measured)
    has_rates = len({name.partition("@")[2] for name in variants}) > 1
    best = learning_rates.at_best_rate(variants, "test", "accuracy") if has_rates else {}
    known = report.published(measured)
    parts = [
        ("", rows),
        (learning_rates.BEST, report.table(_labeled(best))),
        (report.PROTOCOL, known),
    ]
    shown = [(words, table) for words, table in parts if len(table) > 1]
    io.write_json(base.folder / "comparison.json", measured)
    markdown = [
        f"{words}:\n\n{tables.as_markdown(table)}" if words else tables.as_markdown(table) for words, table in shown
    ]
    io.write_atomic(base.folder / "comparison.md", "\n\n".join(markdown) + "\n")
    title = f"{rows[1][0]}, {rows[1][1]}"
    curves.draw(measured, base.folder / "curves.png", title)
    curves.draw_rates(measured, base.folder / "rates.png", title)
    return "\n\n".join(
        f"{words}:\n{tables.as_text(table)}" if words else tables.as_text(table) for words, table in shown
    )


def _labeled(variants: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the metrics of all variants, each with its name under the key ``arm``."""
    return [{**run, "arm": name} for name, runs in variants.items() for run in runs]
