"""Local executor: a pool of processes on this computer that shares its cores, or its GPUs.

On the CPU as many runs work at a time as there are cores, with one thread each: that takes less time than one run after
another with all threads, since threads wait for one another. Runs that are limited by seconds work one at a time,
because they would take one another's seconds. On GPUs each run has one.
"""

import logging
import subprocess
import time
from pathlib import Path

from enerf.core import parallel
from enerf.experiments.executors import process
from enerf.experiments.executors.registry import Job, Outcome
from enerf.experiments.executors.resources import count, gpus, shares
from enerf.experiments.options import ExecutorOptions
from enerf.experiments.variants import Variant

log = logging.getLogger("enerf")
POLL = 0.1  # seconds


class LocalExecutor:
    """A pool of processes."""

    name, repeats = "local", True

    def __init__(self, options: ExecutorOptions, variants: list[Variant], folder: Path) -> None:
        self._devices = gpus(variants)
        self.slots, self._threads = shares(options, variants, len(self._devices), parallel.cores())
        at_a_time = count(self.slots, "run at a time", "runs at a time")
        log.info("%s, %s each", at_a_time, count(self._threads, "thread"))
        self._free = list(range(self.slots))[::-1]
        self._running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}

    def submit(self, job: Job) -> None:
        """Start the process of a run."""
        slot = self._free.pop()
        device = self._devices[slot % len(self._devices)] if self._devices else None
        started = process.start(job.path, job.output, process.environment(self._threads, device))
        self._running[slot] = (job, started)

    def wait(self) -> list[Outcome]:
        """Wait for the first processes that end."""
        while self._running:
            ended = {slot: code for slot, (_, each) in self._running.items() if (code := each.poll()) is not None}
            if ended:
                self._free += ended
                jobs = [(self._running.pop(slot)[0], code) for slot, code in ended.items()]
                return [Outcome(job, code, process.reason(code, job.output)) for job, code in jobs]
            time.sleep(POLL)
        return []

    def stop(self) -> None:
        """Interrupt the processes."""
        process.end([each for _, each in self._running.values()])
        self._running.clear()
