"""Training of one configuration, for every task: ``enerf train``, ``enerf shape``, ``enerf classify``."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from enerf.cli import app
from enerf.core import ranks
from enerf.core.errors import SomeFailed
from enerf.tasks import registry
from enerf.viewer.options import LiveOptions

log = logging.getLogger("enerf")


def main(kind: str, argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = "") -> None:
    """Train one configuration, print its metrics and the folder of its results."""
    from enerf.config import parser  # needs the extra app

    task = registry.task(kind)
    argv, extra = _with_cameras(argv) if kind == "nerf" else (argv, ())
    extra = (*extra, *([LiveOptions] if task.has("live") else []))
    text = description or task.summary
    config, more = parser.parse(task.load("config"), argv, description=text, extra=extra, prog=prog)
    for table in more:
        table.check()
    config.require_source()  # before torch is imported

    from enerf.reporting import tables

    failed: SomeFailed | None = None
    with app.joined(config.train.device), _shown(task, more) as watching:
        if task.has("train_all"):
            try:
                measured: Sequence[dict[str, Any]] = task.load("train_all")(config, **watching)
            except SomeFailed as error:
                measured, failed = error.measured, error
        else:
            metrics = task.load("train")(config, **watching)
            measured = [] if metrics is None else [metrics]
    if measured:
        print(tables.as_text(task.load("table")(measured)))
    print(f"results: {config.folder}")
    if failed is not None:
        raise failed


@contextmanager
def _shown(task: registry.Task, tables: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Context with a viewer, if the options ask for one; yields what the training takes then."""
    chosen = next((table for table in tables if isinstance(table, LiveOptions)), None)
    if chosen is None or not chosen.viewer:
        yield {}
        return
    ranks.require_alone("option --viewer")
    live = task.load("live")(chosen)
    try:
        yield {"watch": live.watch}
    finally:
        live.close()
        log.info("the viewer is closed; enerf view RUN opens the run again")


def _with_cameras(argv: Sequence[str] | None) -> tuple[Sequence[str] | None, tuple[type, ...]]:
    """Arguments without ``--auto``, for which photographs, a video or a scene have to be prepared; its options."""
    from enerf.cli import train_auto

    given = sys.argv[1:] if argv is None else argv
    if train_auto.is_wanted(given):
        ranks.require_alone("option --auto")
        return train_auto.arguments(given), (train_auto.AutoOptions,)
    train_auto.require_option(given)
    return argv, (train_auto.AutoOptions,)
