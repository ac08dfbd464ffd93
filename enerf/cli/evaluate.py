"""Evaluation of finished runs: ``enerf eval``."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enerf.cli import app
from enerf.core.errors import InputError
from enerf.tasks import registry

log = logging.getLogger("enerf")

DESCRIPTION = (
    "Evaluate finished runs and print one table per task, with published results for comparison where available."
)


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Evaluate each run and print the tables."""
    from enerf.config import parser  # needs the extra app

    reader = parser.Parser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("runs", nargs="+", type=app.path, metavar="RUN", help="folder of a run, or of several runs")
    reader.add_argument(
        "--datadir", type=app.text_path, default="", help="new path of the data, if they have moved since training"
    )
    reader.add_argument("--device", default="auto", help="device: auto (cuda if available), cpu, cuda, cuda:1 ...")
    reader.add_argument(
        "--stored", action="store_true", help="print the metrics stored in metrics.json, evaluate nothing"
    )
    form = reader.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print comma-separated values")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = reader.parse_args(argv)
    app.require_existing(*args.runs)

    from enerf.engine import checkpoint
    from enerf.reporting import tables

    measured: dict[str, list[dict[str, Any]]] = {}
    folders = checkpoint.find_runs(args.runs)
    with app.joined(args.device):
        for folder in folders:
            kind, metrics = _measured(folder, args, len(folders) == 1)
            if metrics is not None:
                measured.setdefault(kind, []).append(metrics)
    write = tables.as_csv if args.csv else tables.as_markdown if args.markdown else tables.as_text
    print("\n\n".join(write(registry.task(kind).load("table")(runs)) for kind, runs in measured.items()))


def _measured(folder: Path, args: argparse.Namespace, is_only: bool) -> tuple[str, dict[str, Any] | None]:
    """Return the task of a run and its metrics, stored or measured; None if there are none stored."""
    from enerf.core import io, ranks

    if ranks.is_first():
        io.remove_leftovers(folder)
    task, content = registry.with_part("evaluate", folder)
    if not args.stored:
        _require_newest(folder, content["step"])
        return task.kind, task.load("evaluate")(folder, args.device, args.datadir)
    if not is_only and not (folder / "metrics.json").is_file():
        log.warning("%s: found no metrics.json, the run is left out", folder)
        return task.kind, None
    return task.kind, io.read_object(folder / "metrics.json")


def _require_newest(folder: Path, step: int) -> None:
    """Check that the metrics of a run are not those of a later step than its newest readable checkpoint.

    Raises
    ------
    InputError
        If they are: evaluating again would replace them by older ones.
    """
    from enerf.engine import results

    if (stored := results.stored_step(folder)) > step:
        raise InputError(
            f"{folder / results.METRICS}: found metrics of step {stored}, but the newest checkpoint that can be read "
            f"is of step {step}; expected that of the metrics (print them with --stored, or rename the file)"
        )
