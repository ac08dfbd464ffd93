"""Sweep over scenes, methods, seeds and learning rates, for every task: ``enerf sweep nerf|shape|classifier``."""

from collections.abc import Sequence

from enerf.cli import compare
from enerf.config.methods import Methods
from enerf.experiments.options import ExecutorOptions, SweepOptions
from enerf.tasks import registry

WRITTEN = ("sweep.md", "sweep.json")


def command(argv: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    """Run a sweep; the first argument is the task.

    Raises
    ------
    InputError
        If the first argument is not a task.
    """
    words = "[--config FILE] [--scenes NAMES] [--methods NAMES] [--seeds 0,1,2] [--executor local|ray|slurm] ..."
    compare.dispatch(main, words, argv, prog=prog or "enerf sweep")


def main(kind: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    """Train all runs, print the table and the paths of the files.

    Raises
    ------
    InputError, NotFinite
        If a run failed; the others are trained and listed first.
    """
    from enerf.config import parser  # needs the extra app

    task = registry.task(kind)
    known: Methods = task.load("methods")
    base, (chosen, how) = parser.parse(
        task.load("config"),
        argv,
        description=f"Train {task.kind} runs of several scenes, methods, seeds and rates by one queue, to one table.",
        extra=[SweepOptions, ExecutorOptions],
        prog=prog,
        is_base=True,
        epilog=f"methods (default: {known.default}): {', '.join(known.changes)}",
    )

    from enerf.experiments import sweep

    results = sweep.sweep(base, chosen, how)
    print(sweep.as_text(results))
    for name in WRITTEN:
        print(base.folder / name)
    sweep.require_success(results)
