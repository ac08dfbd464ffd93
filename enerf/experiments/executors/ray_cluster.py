"""Ray executor: the runs are tasks of a Ray cluster, or of one that is started on this computer.

Who reaches a port of Ray can run any program there (CVE-2023-48022 of its dashboard and interface for jobs); a token
protects newer versions. A cluster that is started here therefore listens on the loopback interface alone, with a token
that is in the environment of its processes and in no file, and its dashboard is off unless it is asked for.
"""

import logging
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from enerf.core import parallel
from enerf.core.errors import InputError
from enerf.experiments.executors import process
from enerf.experiments.executors.registry import LOST, Job, Outcome
from enerf.experiments.executors.resources import count, gpus_for, imported
from enerf.experiments.options import ExecutorOptions
from enerf.experiments.variants import Variant

log = logging.getLogger("enerf")
LOOPBACK = "127.0.0.1"
# Environment of a cluster that is started here. Ray reads it when it is imported, so it is set before that or not.
STARTED_HERE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: all its ports are those of the loopback interface
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",  # it reports to its makers otherwise
}
TOKEN = "RAY_AUTH_TOKEN"  # has precedence over ~/.ray/auth_token, which Ray makes readable to all users
POLL = 1.0  # seconds after which Ctrl-C is noticed


class RayExecutor:
    """Tasks of a Ray cluster; Ray places them by the cores and GPUs that they ask for."""

    name, repeats = "ray", True

    def __init__(self, options: ExecutorOptions, variants: list[Variant], folder: Path) -> None:
        if not options.ray_address:
            _prepare_start()
        self._ray = imported("ray")
        threads, gpus = options.threads_per_run or 1, gpus_for(options, variants)
        address = options.ray_address or "local"
        variables = {"env_vars": {"PYTHONPATH": process.python_path()}}
        chosen: dict[str, Any] = {"runtime_env": variables, "log_to_driver": False}
        if not options.ray_address:
            chosen |= {"num_cpus": max(parallel.cores(), threads), "include_dashboard": options.ray_dashboard}
            chosen |= {"dashboard_host": LOOPBACK}
        try:
            context = self._ray.init(address=address, configure_logging=False, **chosen)
        except (OSError, ValueError, RuntimeError, self._ray.exceptions.RayError) as error:
            reason = process.last_line(str(error)) or type(error).__name__
            raise InputError(f"option --ray_address: found {address}, where Ray fails: {reason}") from None
        resources = self._ray.cluster_resources()
        room = int(resources.get("CPU", 0) // threads)
        room = min(room, int(resources.get("GPU", 0) // gpus)) if gpus else room
        if room < 1:
            self._ray.shutdown()
            found = f"{resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} GPUs"
            raise InputError(
                f"options --threads_per_run and --gpus_per_run: found a Ray cluster of {found}, expected at least "
                f"{threads} and {gpus}, which a run asks for"
            )
        self.slots = max(1, min(options.workers or room, len(variants)))
        log.info("Ray: %s", count(self.slots, "run at a time", "runs at a time"))
        if url := getattr(context, "dashboard_url", ""):
            log.info("dashboard of Ray: http://%s (its token is the value of %s; give one to know it)", url, TOKEN)
        remote = self._ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)
        self._task, self._threads = remote(process.run_to_end), threads
        self._running: dict[Any, Job] = {}

    def submit(self, job: Job) -> bool:
        """Hand the run to Ray."""
        job.write()
        reference = self._task.remote(str(job.path.resolve()), str(job.output.resolve()), self._threads)
        self._running[reference] = job
        return True

    def wait(self) -> list[Outcome]:
        """Wait for the first task that ends; one whose worker died has failed."""
        while self._running:
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL)
            if done:
                return [self._outcome(reference) for reference in done]
        return []

    def _outcome(self, reference: Any) -> Outcome:
        job = self._running.pop(reference)
        try:
            code, reason = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Outcome(job, LOST, process.last_line(str(error)) or type(error).__name__)
        return Outcome(job, code, reason)

    def stop(self) -> None:
        """Cancel the tasks, whose runs save their state, and leave Ray."""
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=process.GRACE)
        self._running.clear()
        self._ray.shutdown()


def _prepare_start() -> None:
    """Set the environment of a cluster that is started here.

    Raises
    ------
    InputError
        If Ray was imported with another one: it would listen on all interfaces.
    """
    differs = [name for name, setting in STARTED_HERE.items() if os.environ.get(name) != setting]
    if "ray" in sys.modules and differs:
        raise InputError(
            f"option --executor: found Ray imported already, without {differs[0]}={STARTED_HERE[differs[0]]} in the "
            "environment; expected a sweep that imports it, or the --ray_address of a cluster"
        )
    os.environ.update(STARTED_HERE)
    os.environ.setdefault(TOKEN, secrets.token_hex(32))
