"""Executors: what trains the runs of a queue. One module and one line of ``EXECUTORS`` each.

- ``serial``: this process, one run after another, with all threads.
- ``local``: a pool of processes on this computer.
- ``ray``: tasks of a Ray cluster, or of one that is started here.
- ``slurm``: jobs of a SLURM cluster, by submitit.

All but the first start the same process for a run, ``python -m enerf.cli.job FILE``, which continues a
half-finished run and leaves a finished one alone. Other computers must see the folders of the results and of the data
under the same paths.
"""

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from enerf.config import parser
from enerf.core import io
from enerf.engine import resume
from enerf.experiments.options import ExecutorOptions
from enerf.experiments.variants import Variant
from enerf.fields.backends.registry import Resolved

EXECUTORS = {
    "serial": "enerf.experiments.executors.serial:SerialExecutor",
    "local": "enerf.experiments.executors.local:LocalExecutor",
    "ray": "enerf.experiments.executors.ray_cluster:RayExecutor",
    "slurm": "enerf.experiments.executors.slurm:SlurmExecutor",
}
WRONG_INPUT = 2  # exit code of a run that cannot be trained
LOST = -1  # of a run whose worker or job has died
NOT_FINITE = 3  # exit code of a run whose loss is not finite: to repeat it would give the same
OUTPUT = "output.log"


@dataclass(frozen=True)
class Job:
    """One attempt to train a run.

    Attributes
    ----------
    variant
        The run.
    shared
        Backend and precision of all runs; None: its own.
    is_first
        Whether it is the first attempt of this queue.
    """

    variant: Variant
    shared: Resolved | None
    is_first: bool = True

    @property
    def path(self) -> Path:
        """File that describes the run to ``enerf.cli.job``, in the run's folder."""
        return self.variant.config.folder / "job.json"

    @property
    def output(self) -> Path:
        """File of what the run's process writes."""
        return self.variant.config.folder / OUTPUT

    def write(self) -> None:
        """Write the file; a second attempt keeps it, with what the first one has noted there.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        if self.is_first or not self.path.is_file():
            config = self.variant.config
            backend = None if self.shared is None else asdict(self.shared)
            content = {"kind": config.kind, "options": parser.to_dict(config), "backend": backend}
            io.write_json(self.path, {**content, "cwd": str(Path.cwd()), "begun": False})

    def metrics(self) -> dict[str, Any] | None:
        """Return the metrics that the run's process has written; None if they are not those of these options.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        return resume.finished_metrics(parser.replace(self.variant.config, no_reload=False))


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: exit code, the reason if it failed, metrics if the executor has them.

    ``counts``: False if the cluster has interrupted the run, so that to continue it is no further attempt.
    """

    job: Job
    code: int
    reason: str = ""
    metrics: dict[str, Any] | None = None
    counts: bool = True


@runtime_checkable
class Executor(Protocol):
    """Trains runs."""

    name: str
    slots: int  # runs at a time
    repeats: bool  # whether a failed run is worth a second attempt

    def submit(self, job: Job) -> bool:
        """Begin to train a run, and return at once; False if there is no room for it at present.

        Raises
        ------
        InputError
            If this run cannot be started.
        """

    def wait(self) -> list[Outcome]:
        """Return the attempts that have ended; waits for the first."""

    def stop(self) -> None:
        """End all attempts, which save their state, and free what was used."""


def executor(name: str, options: ExecutorOptions, variants: list[Variant], folder: Path) -> Executor:
    """Return the executor of a name, with slots for some runs.

    Raises
    ------
    InputError
        If it cannot be used here.
    """
    module, _, attribute = EXECUTORS[name].partition(":")
    made: Executor = getattr(importlib.import_module(module), attribute)(options, variants, folder)
    return made
