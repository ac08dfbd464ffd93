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
from enerf.experiments.options import ExecutorOptions
from enerf.experiments.variants import Variant
from enerf.fields.backends.registry import Resolved

EXECUTORS = {
    "serial": "enerf.experiments.executors.serial:SerialExecutor",
    "local": "enerf.experiments.executors.local:LocalExecutor",
    "ray": "enerf.experiments.executors.ray_cluster:RayExecutor",
    "slurm": "enerf.experiments.executors.slurm:SlurmExecutor",
}
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
    path
        File that tells ``enerf.cli.job`` what to train.
    """

    variant: Variant
    shared: Resolved | None
    path: Path

    @classmethod
    def of(cls, variant: Variant, shared: Resolved | None, folder: Path, *, is_first: bool) -> "Job":
        """Return the job of a run, and write its file below a folder; a second attempt continues the first one."""
        config = variant.config if is_first else parser.replace(variant.config, no_reload=False)
        name = f"{variant.scene}_{variant.name}_seed{variant.seed}".replace("*", "x").replace("/", "_").lstrip("_")
        path = folder / "jobs" / f"{name}.json"
        backend = None if shared is None else asdict(shared)
        content = {"kind": config.kind, "options": parser.to_dict(config), "backend": backend, "cwd": str(Path.cwd())}
        io.write_json(path, content)
        return cls(variant, shared, path)

    @property
    def output(self) -> Path:
        """File of what the run's process writes."""
        return self.variant.config.folder / OUTPUT

    def metrics(self) -> dict[str, Any] | None:
        """Return the metrics that the run's process has written; None if there are none."""
        path = self.variant.config.folder / "metrics.json"
        return io.read_object(path) if path.is_file() else None


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: exit code, last words if it failed, metrics if the executor has them."""

    job: Job
    code: int
    reason: str = ""
    metrics: dict[str, Any] | None = None


@runtime_checkable
class Executor(Protocol):
    """Trains runs."""

    name: str
    slots: int  # runs at a time
    repeats: bool  # whether a failed run is worth a second attempt

    def submit(self, job: Job) -> None:
        """Begin to train a run; returns at once, except in the serial executor."""

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
