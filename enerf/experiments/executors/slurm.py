"""SLURM executor: each run is a job of a SLURM cluster, submitted by submitit.

A job that reaches its time limit saves its state and is queued again by submitit; one that is preempted does so too,
and is submitted again by the queue. Interrupting the queue cancels
its jobs: SLURM sends their processes a signal, upon which runs save their state, and kills them after its ``KillWait``.
"""

import logging
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from enerf.core.errors import InputError, shown
from enerf.experiments.executors import process
from enerf.experiments.executors.registry import LOST, Job, Outcome
from enerf.experiments.executors.resources import count, gpus_for, imported
from enerf.experiments.options import ExecutorOptions
from enerf.experiments.variants import Variant

log = logging.getLogger("enerf")
POLL = 1.0  # seconds
INTERRUPTED = 130  # exit code of a run that a signal has ended
PAUSES = (5.0, 30.0, 120.0)  # seconds after which a job that sbatch refuses while none runs is submitted again
MOST = 256  # jobs in SLURM's queue at a time


OWN = {
    **{"partition": "--slurm_partition", "time": "--slurm_minutes"},
    **{"cpus_per_task": "--threads_per_run", "gpus_per_node": "--gpus_per_run"},
}


class Remote:
    """What a job does; submitit calls ``checkpoint`` when its time is up, and submits what that returns."""

    def __init__(self, path: str, output: str, threads: int) -> None:
        self.path, self.output, self.threads = path, output, threads
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> tuple[int, str]:
        """Train the run to its end; return its exit code, and why it failed."""
        self._process = process.start(Path(self.path), Path(self.output), process.environment(self.threads))
        return process.to_end(self._process, Path(self.output))

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
        self._errors = (*(getattr(submitit.core.utils, kind) for kind in kinds), OSError)
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
        """Submit the job of a run; False if SLURM takes no more jobs while others run.

        Raises
        ------
        InputError
            If no job runs, and it is refused several times.
        """
        job.write()
        work = Remote(str(job.path.resolve()), str(job.output.resolve()), self._threads)
        pauses = list(PAUSES)
        while True:
            try:
                submitted = self._executor.submit(work)
                break
            except self._errors as error:
                reason = " ".join(str(error).split())
            if not pauses and not self._running:
                raise InputError(f"sbatch refuses the job of {job.variant.label}: {reason}")
            log.warning("sbatch refuses the job of %s, which is submitted again: %s", job.variant.label, reason)
            if self._running:
                return False
            time.sleep(pauses.pop(0))
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
            last = process.last_line(str(error)) or "no output"
            return Outcome(job, LOST, f"job {submitted.job_id} ({submitted.state}): {last}")
        return Outcome(job, code, reason, counts=code != INTERRUPTED)

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
        If one is not of the form name=value, or is another option of this program, or the partition is no name.
    """
    partition = options.slurm_partition
    if partition and not re.fullmatch(r"[\w.,-]+", partition):  # a line break would end the comment of sbatch
        raise InputError(f"option --slurm_partition: found {shown(partition)}, expected a name, such as gpu")
    found = {"partition": partition} if partition else {}
    for word in options.slurm_options.split():
        name, sign, value = word.partition("=")
        if not (name.replace("-", "_").isidentifier() and sign and value):
            raise InputError(f"option --slurm_options: found {shown(word)}, expected name=value, such as mem=16G")
        name = name.replace("-", "_")
        if name in OWN:
            raise InputError(f"option --slurm_options: found {shown(word)}, expected it as {OWN[name]}")
        found["open-mode" if name == "open_mode" else name] = value  # as submitit writes it
    return found
