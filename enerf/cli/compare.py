"""Comparison of methods, for every task: ``enerf compare nerf|shape|classifier``."""

import sys
from collections.abc import Callable, Sequence

from enerf.config.methods import Methods
from enerf.core.errors import InputError
from enerf.experiments.options import CompareOptions, ExecutorOptions
from enerf.tasks import registry

WRITTEN = ("comparison.json", "comparison.md", "curves.png", "rates.png", "crops.png")


def command(argv: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    """Run a comparison; the first argument is the task.

    Raises
    ------
    InputError
        If the first argument is not a task.
    """
    dispatch(main, "[--config FILE] [--methods NAMES] [--seeds 0,1,2] ...", argv, prog=prog or "enerf compare")


def dispatch(of_task: Callable[..., None], words: str, argv: Sequence[str] | None, *, prog: str) -> None:
    """Call a function with the first argument, the name of a task, and the others; or print the usage.

    Raises
    ------
    InputError
        If the first argument is not a task.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    kinds = [task.kind for task in registry.tasks()]
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: {prog} {'|'.join(kinds)} {words}")
        return
    if not arguments or arguments[0] not in kinds:
        found = repr(arguments[0]) if arguments else "nothing"
        raise InputError(f"found {found} as the task, expected one of {', '.join(kinds)}")
    of_task(arguments[0], arguments[1:], prog=f"{prog} {arguments[0]}")


def main(kind: str, argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = "") -> None:
    """Train all variants, print the table and the paths of the files.

    Raises
    ------
    SomeFailed, NotFinite
        If a variant failed; the others are trained and shown first. NotFinite if all did by a loss that is not finite.
    """
    from enerf.config import parser  # needs the extra app

    task = registry.task(kind)
    known: Methods = task.load("methods")
    about = description or f"Train several methods with equal seeds and steps, and compare them ({task.kind} runs)."
    epilog = f"methods (default: {known.default}): {', '.join(known.changes)}"
    base, (comparison, how) = parser.parse(
        task.load("config"),
        argv,
        description=about,
        extra=[CompareOptions, ExecutorOptions],
        prog=prog,
        epilog=epilog,
        is_base=True,
    )

    from enerf.experiments import compare, sweep

    text, results = compare.measured(base, comparison, how)
    print(text)
    for name in WRITTEN:
        if (base.folder / name).is_file():
            print(base.folder / name)
    sweep.require_success(results)
