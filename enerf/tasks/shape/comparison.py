"""Comparisons of shape runs: table and curves."""

from typing import Any

from enerf.core import io
from enerf.reporting import tables
from enerf.tasks.shape import report
from enerf.tasks.shape.config import ShapeConfig


def write_all(variants: dict[str, list[dict[str, Any]]], base: ShapeConfig) -> str:
    """Write the table and the curves of a comparison into the base's folder; return the table as text."""
    measured = [{**run, "method": name, "model": ""} for name, runs in variants.items() for run in runs]
    rows = report.table(measured)
    io.write_json(base.folder / "comparison.json", measured)
    io.write_atomic(base.folder / "comparison.md", tables.as_markdown(rows) + "\n")
    if base.run.i_eval:
        report.draw_curves(measured, base.folder / "curves.png", f"{base.scene}: {measured[0]['target']}")
    return tables.as_text(rows)
