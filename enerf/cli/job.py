"""Process that trains one run of a queue: ``python -m enerf.cli.job FILE``.

It exits as ``enerf train`` does: 0 if the run is finished, 2 for invalid input, 3 for a loss that is not finite, 130 if
interrupted. It interrupts itself when the process that started it has gone, so that no run goes on without its queue;
the state is saved then.
"""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from enerf.cli import app
from enerf.core.errors import InputError, shown

log = logging.getLogger("enerf")


def main() -> None:
    """Train the run that the file describes, unless it is finished.

    Raises
    ------
    InputError
        If the file cannot be read, or the run cannot be trained.
    NotFinite
        If its loss is not finite.
    """
    for name in ("SIGUSR1", "SIGUSR2"):  # SLURM's warning of a time limit, which goes to all processes of a job
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    from enerf.experiments.executors.process import PARENT

    if parent := os.environ.get(PARENT):
        threading.Thread(target=_interrupt_without, args=(int(parent),), daemon=True).start()

    from enerf.core import io
    from enerf.engine import writer_lock
    from enerf.experiments import variants
    from enerf.fields.backends.registry import Resolved
    from enerf.tasks import registry

    if len(sys.argv) != 2:
        raise InputError(f"found {len(sys.argv) - 1} arguments, expected the job.json of a run")
    path = Path(sys.argv[1])
    content = _read(path)
    if not Path(content["cwd"]).is_dir():
        raise InputError(f"{path}: found no folder {content['cwd']} on {io.host()}, expected the one of the queue")
    os.chdir(content["cwd"])
    task = registry.task(content["kind"])
    config = _config(path, task, content["options"])
    writer_lock.wait_until_free(config.folder)
    if config.run.no_reload:
        config = _begun_anew(path, content, config)
    if variants.finished(config) is None:
        shared = [] if content["backend"] is None else [Resolved.of(content["backend"])]
        task.load("train")(config, *shared)


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a job file; InputError if it has other values than ``Job.write`` writes."""
    from enerf.core import io
    from enerf.tasks import registry

    content = io.read_object(path)
    kinds = {"kind": str, "options": dict, "backend": dict | None, "cwd": str, "begun": bool}
    wrong = [name for name, kind in kinds.items() if name not in content or not isinstance(content[name], kind)]
    if not wrong and content["kind"] not in [task.kind for task in registry.tasks()]:
        wrong = ["kind"]
    if wrong:
        raise InputError(
            f"{path}: found no valid value of {wrong[0]}, expected a file that a queue of runs has written"
        )
    return content


def _config(path: Path, task: Any, values: dict[str, Any]) -> Any:
    """Return the configuration of options, which are checked as those of a command line are."""
    from enerf.config import parser

    kind, known = task.load("config"), parser.to_dict(parser.from_dict(task.load("config"), {}))
    if unknown := sorted(values.keys() - known.keys()):
        raise InputError(f"{path}: found the option {shown(unknown[0])}, expected one of enerf {task.command}")
    try:
        return parser.parse(kind, [f"--{name}={value}" for name, value in values.items()])[0]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _begun_anew(path: Path, content: dict[str, Any], config: Any) -> Any:
    """Set earlier results aside for ``--no_reload``, once; a later process of this run resumes from its checkpoints."""
    from enerf.config import parser
    from enerf.core import io
    from enerf.engine import checkpoint, resume

    if not content["begun"]:
        resume.rename_old_results(config.folder)
        io.write_json(path, {**content, "begun": True})
    return parser.replace(config, no_reload=False) if checkpoint.checkpoints(config.folder) else config


def _interrupt_without(parent: int) -> None:
    """Interrupt this process when its parent has another number than the one given."""
    while os.getppid() == parent:
        time.sleep(0.5)
    log.warning("the process of the queue has ended: this run saves its state and ends")
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    app.run(main)
