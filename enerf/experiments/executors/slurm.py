"""SLURM executor: each run is a job of a SLURM cluster, submitted by submitit.

A job that reaches its time limit or is preempted saves its state and is queued again. Interrupting the queue cancels
its jobs, which save their state too.
"""

import logging
import time
from pathlib import Path
from typing import Any

from enerf.core.errors import InputError, shown
from enerf.experiments.executors import process
from enerf.experiments.executors.registry import Job, Outcome
from enerf.experiments.executors.resources import count, gpus_for
from enerf.experiments.options import ExecutorOptions
from enerf.experiments.variants import Variant

log = logging.getLogger("enerf")
POLL = 1.0  # seconds
LOST = -1  # exit code of a run whose job has died
MOST = 256  # jobs in SLURM's queue at a time


class Remote:
    """What a job does; submitit calls ``checkpoint`` when its time is up, and submits what that returns."""

    def __init__(self, path: str, output: str, threads: int) -> None:
        self.path, self.output, self.threads = path, output, threads

    def __call__(self) -> tuple[int, str]:
        """Train the run to its end; return its exit code, and why it failed."""
        return process.run_to_end(self.path, self.output, self.threads)

    def checkpoint(self) -> Any:
        """Return the continuation: the run resumes from its last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SlurmExecutor:
    """Jobs of a cluster; ``cluster`` is another of submitit's, in tests."""

    name, repeats = "slurm", True

    def __init__(
        self, options: ExecutorOptions, variants: list[Variant], folder: Path, *, cluster: str = "slurm"
    ) -> None:
        submitit = _imported()
        self._threads = options.threads_per_run or 1
        self._errors = (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError)
        self.slots = max(1, min(options.workers or MOST, len(variants)))
        try:
            self._executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=cluster)
        except RuntimeError as error:
            raise InputError(
                f"option --executor: found slurm, but {str(error).strip().splitlines()[0]}; expected a computer from "
                "which sbatch works"
            ) from None
        parameters: dict[str, Any] = {"timeout_min": options.slurm_minutes, "cpus_per_task": self._threads}
        if gpus := gpus_for(options, variants):
            parameters["gpus_per_node"] = gpus
        if cluster == "slurm":
            parameters |= {f"slurm_{key}": value for key, value in read_options(options).items()}
        self._executor.update_parameters(name="enerf", **parameters)
        log.info("SLURM: at most %s", count(self.slots, "job at a time", "jobs at a time"))
        self._running: dict[Any, Job] = {}

    def submit(self, job: Job) -> None:
        """Submit the job of a run."""
        work = Remote(str(job.path.resolve()), str(job.output.resolve()), self._threads)
        try:
            submitted = self._executor.submit(work)
        except self._errors as error:
            reason = " ".join(str(error).split())
            raise InputError(f"sbatch refuses the job of {job.variant.label}: {reason}") from None
        log.info("%s: job %s", job.variant.label, submitted.job_id)
        self._running[submitted] = job

    def wait(self) -> list[Outcome]:
        """Wait for the first jobs that end."""
        while self._running:
            if ended := [submitted for submitted in self._running if submitted.done()]:
                return [self._outcome(submitted) for submitted in ended]
            time.sleep(POLL)
        return []

    def _outcome(self, submitted: Any) -> Outcome:
        job = self._running.pop(submitted)
        try:
            code, reason = submitted.result()
        except self._errors as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            last = lines[-1] if lines else "no output"
            return Outcome(job, LOST, f"job {submitted.job_id} ({submitted.state}): {last}")
        return Outcome(job, code, reason)

    def stop(self) -> None:
        """Cancel the jobs."""
        for submitted in self._running:
            submitted.cancel()
        self._running.clear()


def read_options(options: ExecutorOptions) -> dict[str, str]:
    """Return SLURM's options by name.

    Raises
    ------
    InputError
        If one is not of the form name=value.
    """
    pairs = [word.strip().partition("=") for word in options.slurm_options.split(",") if word.strip()]
    for name, sign, value in pairs:
        if not (name.isidentifier() and sign and value):
            raise InputError(
                f"option --slurm_options: found {shown(name + sign + value)}, expected name=value, such as mem=16G"
            )
    partition = {"partition": options.slurm_partition} if options.slurm_partition else {}
    return {**partition, **{name: value for name, _, value in pairs}}


def _imported() -> Any:
    """Return submitit's module.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        import submitit
    except ImportError:
        raise InputError(
            "option --executor: submitit is not installed; pip install 'enerf[scale]', or --executor local uses the "
            "cores and GPUs of this computer"
        ) from None
    return submitit
