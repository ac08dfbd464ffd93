"""Queue of runs: each is trained once by an executor, repeated once if it fails, and its metrics are collected.

Which runs are finished is read from their folders, so that the same call continues after an interruption.
``sweep.json`` lists what is planned and what has happened, for ``enerf status``.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from enerf.core import io
from enerf.core.errors import InputError
from enerf.experiments import status
from enerf.experiments.executors.registry import NOT_FINITE, WRONG_INPUT, Executor, Job, Outcome
from enerf.experiments.status import RunStatus
from enerf.experiments.variants import Variant, finished
from enerf.fields.backends.registry import Resolved

log = logging.getLogger("enerf")
STATE = "sweep.json"
ATTEMPTS = 2
INTERRUPTIONS = 100  # of a run by its cluster, which are no attempts


@dataclass(frozen=True)
class Failure:
    """Why a run failed: exit code and words."""

    code: int
    reason: str


@dataclass
class Results:
    """What a queue has given so far.

    Attributes
    ----------
    variants
        All runs, in the order of the queue.
    metrics
        Metrics of the finished ones.
    failed
        Why others failed.
    running, attempts, uncounted
        Runs that are trained now; how often each was begun, and how often of these a cluster has interrupted it.
    """

    variants: Sequence[Variant]
    metrics: dict[Variant, dict[str, Any]] = field(default_factory=dict)
    failed: dict[Variant, Failure] = field(default_factory=dict)
    running: set[Variant] = field(default_factory=set)
    attempts: dict[Variant, int] = field(default_factory=dict)
    uncounted: dict[Variant, int] = field(default_factory=dict)

    def counted(self, variant: Variant) -> int:
        """Return the number of attempts to train a run."""
        return self.attempts.get(variant, 0) - self.uncounted.get(variant, 0)

    def of_scene(self, scene: str) -> dict[str, list[dict[str, Any]]]:
        """Return variant name -> metrics of its finished seeds, of one scene; variants without any are left out."""
        found: dict[str, list[dict[str, Any]]] = {}
        for variant in self.variants:
            if variant.scene == scene and variant in self.metrics:
                found.setdefault(variant.name, []).append(self.metrics[variant])
        return found

    def missing(self) -> list[Variant]:
        """Return the runs without metrics."""
        return [variant for variant in self.variants if variant not in self.metrics]

    def state_of(self, variant: Variant) -> str:
        """Return a state of ``status.STATES``: ``interrupted`` has begun, ``diverged`` failed by a loss not finite."""
        if variant in self.metrics:
            return "finished"
        if variant in self.failed:
            return "diverged" if self.failed[variant].code == NOT_FINITE else "failed"
        return "running" if variant in self.running else "interrupted" if variant in self.attempts else "waiting"

    def status_of(self, variant: Variant) -> RunStatus:
        """Return the state of a run, with its seconds; only the files of one that is trained now are read."""
        state, folder = self.state_of(variant), variant.config.folder
        if state == "running":
            return replace(status.read(folder, {}), state=state)
        return RunStatus(str(folder), state, seconds=(self.metrics.get(variant, {}).get("seconds") or {}).get("train"))


@dataclass
class Queue:
    """Runs that are handed to an executor.

    Parameters
    ----------
    executor
        Trains the runs; at most ``executor.slots`` are handed to it at a time.
    folder
        Of ``sweep.json``, and of what the executor writes.
    shared
        Backend and precision of all runs; None: each has its own.
    on_change
        Called with the results at the beginning, after each run that finished or failed, and at the end.
    """

    executor: Executor
    folder: Path
    shared: Resolved | None
    on_change: Callable[[Results], None]

    def run(self, variants: Sequence[Variant]) -> Results:
        """Train all runs that are not finished.

        Raises
        ------
        InputError
            If a file cannot be written.
        KeyboardInterrupt
            If interrupted: the runs save checkpoints first.
        """
        results = Results(variants)
        try:
            for variant in variants:
                if (metrics := finished(variant.config)) is not None:
                    results.metrics[variant] = metrics
            waiting = deque(results.missing())
            log.info("%d runs: %d finished, %d to train", len(variants), len(results.metrics), len(waiting))
            self._changed(results)
            self._work(waiting, results)
        finally:
            try:
                self.executor.stop()
            finally:
                results.running.clear()
                self._changed(results)
        return results

    def _work(self, waiting: deque[Variant], results: Results) -> None:
        """Hand runs to the executor and collect them until none is left."""
        while waiting or results.running:
            self._fill(waiting, results)
            for outcome in self.executor.wait():
                if self._take(outcome, results, waiting):
                    left = status.seconds_left(list(map(results.status_of, results.variants)), self.executor.slots)
                    log.info("%s", progress(results, left))

    def _fill(self, waiting: deque[Variant], results: Results) -> None:
        """Hand runs to the executor while it has room."""
        while waiting and len(results.running) < self.executor.slots:
            variant = waiting.popleft()
            attempt = results.attempts.get(variant, 0) + 1
            try:
                taken = self.executor.submit(Job(variant, self.shared, is_first=attempt == 1))
            except InputError as error:
                self._fail(variant, WRONG_INPUT, str(error), results)
                continue
            if not taken:
                waiting.appendleft(variant)
                return
            place = (list(results.variants).index(variant) + 1, len(results.variants))
            log.info("variant %d of %d: %s (%s)", *place, variant.label, variant.config.folder)
            results.attempts[variant] = attempt
            results.running.add(variant)
            self._write(results)

    def _take(self, outcome: Outcome, results: Results, waiting: deque[Variant]) -> bool:
        """Record how an attempt ended; return whether the run is done with, False if it is repeated."""
        variant, code, reason = outcome.job.variant, outcome.code, outcome.reason
        results.running.discard(variant)
        interrupted = results.uncounted.get(variant, 0)
        if not outcome.counts and interrupted < INTERRUPTIONS:
            log.warning("%s was interrupted and is continued", variant.label)
            results.uncounted[variant] = interrupted + 1
            waiting.append(variant)
            self._write(results)
            return False
        metrics = None
        if code == 0:
            try:
                metrics = outcome.metrics or outcome.job.metrics()
                code, reason = WRONG_INPUT, "it has written no metrics of these options"
            except InputError as error:
                code, reason = WRONG_INPUT, str(error)
        if metrics is not None:
            results.metrics[variant] = metrics
            self._changed(results)
        elif code != NOT_FINITE and results.counted(variant) < ATTEMPTS and self.executor.repeats:
            log.warning("%s failed and is repeated: %s", variant.label, reason)
            waiting.append(variant)
            self._write(results)
            return False
        else:
            self._fail(variant, code, reason, results)
        return True

    def _fail(self, variant: Variant, code: int, reason: str, results: Results) -> None:
        """Record that a run has failed."""
        results.failed[variant] = Failure(code, reason)
        log.warning("%s, %s: %s", variant.label, results.state_of(variant), reason)
        self._changed(results)

    def _changed(self, results: Results) -> None:
        """Write the state, and call ``on_change``."""
        self._write(results)
        self.on_change(results)

    def _write(self, results: Results) -> None:
        """Write ``sweep.json``; folders are relative to its own."""
        rows = [
            {
                **{"folder": os.path.relpath(v.config.folder, self.folder), "scene": v.scene, "variant": v.name},
                **{"seed": v.seed, "steps": v.config.train.N_iters, "state": results.state_of(v)},
                **{"attempts": results.attempts.get(v, 0)},
                **({"reason": results.failed[v].reason} if v in results.failed else {}),
            }
            for v in results.variants
        ]
        kind = results.variants[0].config.kind if results.variants else ""
        io.write_json(self.folder / STATE, {"kind": kind, "executor": self.executor.name, "runs": rows})


def progress(results: Results, left: float | int | None) -> str:
    """Return one line on the state of a queue.

    >>> progress(Results([]), None)
    '0 of 0 runs finished'
    """
    counts = f"{len(results.metrics)} of {len(results.variants)} runs finished"
    states = Counter(map(results.state_of, results.failed))
    counts += "".join(f", {n} {state}" for state, n in sorted(states.items()))
    return counts if left is None else f"{counts}; about {status.duration(left)} left"
