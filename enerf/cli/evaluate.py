"""Evaluation of finished runs: ``enerf eval``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enerf.tasks import registry

DESCRIPTION = "Measure finished runs again and print one table per task, beside published figures where there are any."


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Evaluate each run at full size and print the tables."""
    from enerf.config import parser  # needs the extra app

    reader = parser.Parser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or a folder of runs")
    reader.add_argument("--datadir", default="", help="new place of the data, if it has moved since training")
    reader.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    reader.add_argument("--stored", action="store_true", help="read the metrics.json that is there, measure nothing")
    form = reader.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="comma-separated values")
    form.add_argument("--markdown", action="store_true", help="a Markdown table")
    args = reader.parse_args(argv)

    from enerf.core import io
    from enerf.engine import checkpoint
    from enerf.reporting import tables

    measured: dict[str, list[dict[str, Any]]] = {}
    for folder in checkpoint.find_runs(args.runs):
        task, _ = registry.with_part("evaluate", folder)
        if args.stored:
            metrics = io.read_json(folder / "metrics.json")
        else:
            metrics = task.load("evaluate")(folder, args.device, args.datadir)
        measured.setdefault(task.kind, []).append(metrics)
    write = tables.as_csv if args.csv else tables.as_markdown if args.markdown else tables.as_text
    print("\n\n".join(write(registry.task(kind).load("table")(runs)) for kind, runs in measured.items()))
