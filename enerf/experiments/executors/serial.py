"""Serial executor: this process trains one run after another, with all threads, and shows their progress."""

from pathlib import Path
from typing import Any

from enerf.core.errors import InputError, NotFinite
from enerf.engine import writer_lock
from enerf.experiments import variants as planned
from enerf.experiments.executors.registry import NOT_FINITE, WRONG_INPUT, Job, Outcome
from enerf.experiments.options import ExecutorOptions
from enerf.experiments.variants import Variant
from enerf.tasks import registry


class SerialExecutor:
    """Trains in this process; a run that fails is not repeated."""

    name, slots, repeats = "serial", 1, False

    def __init__(self, options: ExecutorOptions, variants: list[Variant], folder: Path) -> None:
        self._next: Job | None = None

    def submit(self, job: Job) -> bool:
        """Keep the run for ``wait``."""
        self._next = job
        return True

    def wait(self) -> list[Outcome]:
        """Train the run."""
        job, self._next = self._next, None
        if job is None:
            return []
        config = job.variant.config
        train, shared = registry.task(config.kind).load("train"), [] if job.shared is None else [job.shared]
        try:
            writer_lock.wait_until_free(config.folder)
            metrics: dict[str, Any] = planned.finished(config) or train(config, *shared)
        except NotFinite as error:
            return [Outcome(job, NOT_FINITE, str(error))]
        except InputError as error:
            return [Outcome(job, WRONG_INPUT, str(error))]
        return [Outcome(job, 0, metrics=metrics)]

    def stop(self) -> None:
        """Nothing runs outside of ``wait``."""
