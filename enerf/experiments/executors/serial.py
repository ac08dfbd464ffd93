"""Serial executor: this process trains one run after another, with all threads, and shows their progress."""

from pathlib import Path
from typing import Any

from enerf.core.errors import InputError, NotFinite
from enerf.experiments.executors.registry import NOT_FINITE, Job, Outcome
from enerf.experiments.options import ExecutorOptions
from enerf.experiments.variants import Variant
from enerf.tasks import registry


class SerialExecutor:
    """Trains in this process; errors other than a loss that is not finite end the queue."""

    name, slots, repeats = "serial", 1, False

    def __init__(self, options: ExecutorOptions, variants: list[Variant], folder: Path) -> None:
        self._next: Job | None = None

    def submit(self, job: Job) -> None:
        """Keep the run for ``wait``."""
        self._next = job

    def wait(self) -> list[Outcome]:
        """Train the run.

        Raises
        ------
        InputError
            If it cannot be trained, or was not measured.
        """
        job, self._next = self._next, None
        if job is None:
            return []
        config = job.variant.config
        train = registry.task(config.kind).load("train")
        try:
            metrics: dict[str, Any] | None = train(config) if job.shared is None else train(config, job.shared)
        except NotFinite as error:
            return [Outcome(job, NOT_FINITE, str(error))]
        if metrics is None:
            raise InputError(f"{config.folder}: nothing was measured (--render_only?), so there is nothing to compare")
        return [Outcome(job, 0, metrics=metrics)]

    def stop(self) -> None:
        """Nothing runs outside of ``wait``."""
