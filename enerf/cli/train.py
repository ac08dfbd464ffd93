"""Training of one configuration, for every task: ``enerf train``, ``enerf shape``, ``enerf classify``."""

import sys
from collections.abc import Sequence
from typing import Any

from enerf.core.errors import SomeFailed
from enerf.tasks import registry


def main(kind: str, argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = "") -> None:
    """Train one configuration, print its metrics and the folder of its results."""
    from enerf.config import parser  # needs the extra app

    task = registry.task(kind)
    argv, extra = _with_cameras(argv) if kind == "nerf" else (argv, ())
    text = description or task.summary
    config, more = parser.parse(task.load("config"), argv, description=text, extra=extra, prog=prog)
    for table in more:
        table.check()

    from enerf.reporting import tables

    failed: SomeFailed | None = None
    if task.has("train_all"):
        try:
            measured: Sequence[dict[str, Any]] = task.load("train_all")(config)
        except SomeFailed as error:
            measured, failed = error.measured, error
    else:
        metrics = task.load("train")(config)
        measured = [] if metrics is None else [metrics]
    if measured:
        print(tables.as_text(task.load("table")(measured)))
    print(f"results: {config.folder}")
    if failed is not None:
        raise failed


def _with_cameras(argv: Sequence[str] | None) -> tuple[Sequence[str] | None, tuple[type, ...]]:
    """Arguments without ``--auto``, for which photographs, a video or a scene have to be prepared; its options."""
    from enerf.cli import train_auto

    given = sys.argv[1:] if argv is None else argv
    if train_auto.is_wanted(given):
        return train_auto.arguments(given), (train_auto.AutoOptions,)
    train_auto.require_option(given)
    return argv, (train_auto.AutoOptions,)
