"""SLURM executor: each run is a job of a SLURM cluster, submitted by submitit.

A job that reaches its time limit or is preempted saves its state and is queued again. Interrupting the queue cancels
its jobs: SLURM sends their processes a signal, upon which runs save their state, and kills them after its ``KillWait``.
"""

import logging
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from enerf.core.errors import InputError, shown
from enerf.experiments.executors import process
from enerf.experiments.executors.registry import Job, Outcome
from enerf.experiments.executors.resources import count, gpus_for, imported
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
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> tuple[int, str]:
        """Train the run to its end; return its exit code, and why it failed."""
        self._process = process.start(Path(self.path), Path(self.output), process.environment(self.threads))
        try:
            code = self._process.wait()
        finally:
            process.end([self._process])
        return code, process.reason(code, Path(self.output))

    def checkpoint(self) -> Any:
        """Let the run save its state; return the continuation, which resumes from there."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            process.end([self._process])
        return DelayedSubmission(Remote(self.path, self.output, self.threads))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None}


class SlurmExecutor:
    """Jobs of a cluster; ``cluster`` is another of submitit's, in tests."""

    name, repeats = "slurm", True

    def __init__(
        self, options: ExecutorOptions, variants: list[Variant], folder: Path, *, cluster: str = "slurm"
    ) -> None:
        submitit = imported("submitit")
        self._threads = options.threads_per_run or 1
        kinds = ("FailedJobError", "UncompletedJobError", "FailedSubmissionError")
        self._errors = tuple(getattr(submitit.core.utils, kind) for kind in kinds)
        self.slots = max(1, min(options.workers or MOST, len(variants)))
        further = read_options(options)
        try:
            # a run that needs many time limits is queued again as often
            self._executor = submitit.AutoExecutor(
                folder=folder / "slurm", cluster=cluster, slurm_max_num_timeout=10_000
            )
        except RuntimeError:
            raise InputError(
                "option --executor: found slurm, and no program srun, expected a computer on which sbatch and srun work"
            ) from None
        parameters: dict[str, Any] = {"timeout_min": options.slurm_minutes, "cpus_per_task": self._threads}
        if gpus := gpus_for(options, variants):
            parameters["gpus_per_node"] = gpus
        delay = int(process.GRACE) + 60  # seconds before the time limit in which the state is saved
        parameters |= {"slurm_additional_parameters": further, "slurm_signal_delay_s": delay}
        self._executor.update_parameters(name="enerf", **parameters)
        log.info("SLURM: at most %s", count(self.slots, "job at a time", "jobs at a time"))
        self._running: dict[Any, Job] = {}

    def submit(self, job: Job) -> bool:
        """Submit the job of a run; False if SLURM takes no more jobs while others run."""
        job.write()
        work = Remote(str(job.path.resolve()), str(job.output.resolve()), self._threads)
        try:
            submitted = self._executor.submit(work)
        except self._errors as error:
            reason = " ".join(str(error).split())
            if not self._running:
                raise InputError(f"sbatch refuses the job of {job.variant.label}: {reason}") from None
            self.slots = len(self._running)
            log.warning("sbatch refuses a job, so at most %d are submitted at a time: %s", self.slots, reason)
            return False
        log.info("%s: job %s", job.variant.label, submitted.job_id)
        self._running[submitted] = job
        return True

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
            with suppress(OSError, subprocess.SubprocessError):
                submitted.cancel(check=False)
        self._running.clear()


def read_options(options: ExecutorOptions) -> dict[str, str]:
    """Return SLURM's options by name.

    Raises
    ------
    InputError
        If one is not of the form name=value.
    """
    found = {"partition": options.slurm_partition} if options.slurm_partition else {}
    for word in options.slurm_options.split():
        name, sign, value = word.partition("=")
        if not (name.replace("-", "_").isidentifier() and sign and value):
            raise InputError(f"option --slurm_options: found {shown(word)}, expected name=value, such as mem=16G")
        found[name] = value
    return found
