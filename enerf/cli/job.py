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

from enerf.cli import app

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
    from enerf.experiments.executors.process import PARENT

    if parent := os.environ.get(PARENT):
        threading.Thread(target=_interrupt_without, args=(int(parent),), daemon=True).start()

    from enerf.config import parser
    from enerf.core import io
    from enerf.engine import writer_lock
    from enerf.experiments import variants
    from enerf.fields.backends.registry import Resolved
    from enerf.tasks import registry

    content = io.read_object(Path(sys.argv[1]))
    os.chdir(content["cwd"])
    task = registry.task(content["kind"])
    config = parser.from_dict(task.load("config"), content["options"])
    writer_lock.wait_until_free(config.folder)
    if variants.finished(config) is None:
        shared = [] if content["backend"] is None else [Resolved(**content["backend"])]
        task.load("train")(config, *shared)


def _interrupt_without(parent: int) -> None:
    """Interrupt this process when its parent has another number than the one given."""
    while os.getppid() == parent:
        time.sleep(0.5)
    log.warning("the process of the queue has ended: this run saves its state and ends")
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    app.run(main)
