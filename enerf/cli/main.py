"""Console command ``enerf``: dispatch to subcommands, each imported when it is used."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from enerf.cli import app
from enerf.core import ranks
from enerf.core.errors import InputError
from enerf.tasks import registry

# Subcommand -> (module:function, one line of help); the subcommands that train come from the task registry.
COMMANDS = {
    "process": ("enerf.cli.process:main", "compute the cameras of photographs or of a video, for training"),
    "eval": ("enerf.cli.evaluate:main", "evaluate finished runs and print their metrics"),
    "render": ("enerf.cli.render:main", "render a camera path of a NeRF run to a video"),
    "bake": ("enerf.cli.bake:main", "bake a NeRF run of a forward-facing scene into planes that render fast"),
    "view": ("enerf.cli.view:main", "show a run, or two side by side, in a browser"),
    "export-web": ("enerf.cli.export_web:main", "write a page that shows a run or a mesh in any browser"),
    "convert": ("enerf.cli.convert:main", "write a scene of photographs and cameras in another format"),
    "extract": ("enerf.cli.extract:main", "extract a mesh from a finished run"),
    "export-points": ("enerf.cli.export_points:main", "points on surfaces as PLY, cameras for COLMAP and nerfstudio"),
    "compare": ("enerf.cli.compare:command", "train several methods with equal seeds and steps and compare them"),
    "sweep": ("enerf.cli.sweep:command", "train many runs, on all cores, GPUs or a cluster, to one table"),
    "status": ("enerf.cli.status:main", "list runs and sweeps in folders: state, progress, time left, last score"),
    "analyze": ("enerf.cli.analyze:main", "condition numbers and Hessian extremes of checkpoints"),
    "report": ("enerf.cli.report:main", "write one HTML page about runs or comparisons"),
    "generate": ("enerf.cli.generate:main", "write a generated scene, shape or set of labelled images"),
    "demo": ("enerf.cli.demo:main", "train, render, extract and compare on generated data, in minutes"),
}


JOINT = ("eval", "render", "extract")  # commands that several processes can run together, as training


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the subcommand given on the command line; return its exit code, None for 0.

    Raises
    ------
    InputError
        If the subcommand is unknown.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("--version", "version"):
        print(importlib.import_module("enerf").__version__)  # modules of enerf do not `import enerf`
        return 0
    if arguments[0] not in {*JOINT, *(task.command for task in registry.tasks())}:
        ranks.require_alone(f"command {arguments[0]}")
    code: int | None = function_of(arguments[0])(arguments[1:], prog=f"enerf {arguments[0]}")
    return code


def usage() -> str:
    """Return the usage text with the list of subcommands."""
    lines = {task.command: task.summary for task in registry.tasks()} | {k: text for k, (_, text) in COMMANDS.items()}
    rows = [f"  {name:<14}{text}" for name, text in lines.items()]
    head = ["usage: enerf COMMAND [--config FILE] [--OPTION VALUE] ...", "", "commands:"]
    return "\n".join(
        [
            *head,
            *rows,
            "",
            "`enerf COMMAND --help` lists the options of a command; `enerf --version` prints the version.",
        ]
    )


def function_of(command: str) -> Any:
    """Return the function of a subcommand, which takes the remaining arguments and ``prog``."""
    for task in registry.tasks():
        if task.command == command:
            from enerf.cli import train

            return partial(train.main, task.kind)
    if command not in COMMANDS:
        known = [*(task.command for task in registry.tasks()), *COMMANDS]
        near = difflib.get_close_matches(command, known, n=3, cutoff=0.5)
        hint = f"nearest known: {', '.join(near)}" if near else f"expected one of {', '.join(known)}"
        raise InputError(f"unknown command {command!r}; {hint}")
    module, _, name = COMMANDS[command][0].partition(":")
    return getattr(importlib.import_module(module), name)


def enter() -> None:
    """Entry point of the console script."""
    app.run(main, jointly=True)


if __name__ == "__main__":
    enter()
