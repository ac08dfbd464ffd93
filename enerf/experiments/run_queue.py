"""Queue of runs: each is trained once by an executor, repeated once if it fails, and its metrics are collected.

The queue has no memory of its own: what is finished is told by the folders of the runs, so that the same call
continues after an interruption. ``sweep.json`` lists what is planned and what has happened, for ``enerf status``.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enerf.core import io
from enerf.experiments.executors.registry import NOT_FINITE, Executor, Job, Outcome
from enerf.experiments.variants import Variant, finished
from enerf.fields.backends.registry import Resolved

log = logging.getLogger("enerf")
STATE = "sweep.json"
ATTEMPTS = 2


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
        Why others failed, in words.
    running, attempts
        Runs that are trained now, and how often each was begun.
    """

    variants: Sequence[Variant]
    metrics: dict[Variant, dict[str, Any]] = field(default_factory=dict)
    failed: dict[Variant, str] = field(default_factory=dict)
    running: set[Variant] = field(default_factory=set)
    attempts: dict[Variant, int] = field(default_factory=dict)

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
        """Return ``finished``, ``failed``, ``running`` or ``waiting``."""
        if variant in self.metrics:
            return "finished"
        return "failed" if variant in self.failed else "running" if variant in self.running else "waiting"


@dataclass
class Queue:
    """Runs that are handed to an executor.

    Parameters
    ----------
    executor
        Trains the runs; at most ``executor.slots`` are handed to it at a time.
    folder
        Of ``sweep.json`` and of the files of the jobs.
    shared
        Backend and precision of all runs; None: each has its own.
    on_change
        Called with the results after each run that finished or failed.
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
        for variant in variants:
            if (metrics := finished(variant.config)) is not None:
                results.metrics[variant] = metrics
        waiting = deque(results.missing())
        log.info("%d runs: %d finished, %d to train", len(variants), len(results.metrics), len(waiting))
        self._write(results)
        if results.metrics:
            self.on_change(results)
        began, done = time.monotonic(), 0
        try:
            while waiting or results.running:
                while waiting and len(results.running) < self.executor.slots:
                    self._submit(waiting.popleft(), results)
                for outcome in self.executor.wait():
                    if not self._take(outcome, results, waiting):
                        continue
                    done += 1
                    left = (time.monotonic() - began) / done * (len(waiting) + len(results.running))
                    log.info("%s", progress(results, left))
        finally:
            self.executor.stop()
            results.running.clear()
            self._write(results)
        return results

    def _submit(self, variant: Variant, results: Results) -> None:
        """Hand a run to the executor."""
        results.attempts[variant] = attempt = results.attempts.get(variant, 0) + 1
        log.info("variant %d of %d: %s (%s)", self._number(variant, results), len(results.variants), variant.label,
                 variant.config.folder)  # fmt: skip
        results.running.add(variant)
        self._write(results)
        self.executor.submit(Job.of(variant, self.shared, self.folder, is_first=attempt == 1))

    def _take(self, outcome: Outcome, results: Results, waiting: deque[Variant]) -> bool:
        """Record how a run ended; return whether it is done with, False if it is repeated."""
        variant = outcome.job.variant
        results.running.discard(variant)
        metrics = None if outcome.code else outcome.metrics or outcome.job.metrics()
        if metrics is not None:
            results.metrics[variant] = metrics
        elif outcome.code != NOT_FINITE and results.attempts[variant] < ATTEMPTS and self.executor.repeats:
            log.warning("%s failed and is repeated: %s", variant.label, outcome.reason)
            waiting.append(variant)
            return False
        else:
            results.failed[variant] = outcome.reason or "it gave no metrics"
            log.warning("%s, failed: %s", variant.label, results.failed[variant])
        self._write(results)
        if metrics is not None:
            self.on_change(results)
        return True

    def _write(self, results: Results) -> None:
        """Write ``sweep.json``."""
        rows = [
            {
                **{"folder": str(v.config.folder), "scene": v.scene, "variant": v.name, "seed": v.seed},
                **{"state": results.state_of(v), "attempts": results.attempts.get(v, 0)},
                **({"reason": results.failed[v]} if v in results.failed else {}),
            }
            for v in results.variants
        ]
        kind = results.variants[0].config.kind if results.variants else ""
        io.write_json(self.folder / STATE, {"kind": kind, "executor": self.executor.name, "runs": rows})

    @staticmethod
    def _number(variant: Variant, results: Results) -> int:
        return list(results.variants).index(variant) + 1


def progress(results: Results, seconds_left: float) -> str:
    """Return one line on the state of a queue.

    >>> progress(Results([]), 0)
    '0 of 0 runs finished'
    """
    counts = f"{len(results.metrics)} of {len(results.variants)} runs finished"
    counts += f", {len(results.failed)} failed" if results.failed else ""
    if len(results.metrics) + len(results.failed) == len(results.variants):
        return counts
    return f"{counts}; about {seconds_left / 60:.0f} min left"
