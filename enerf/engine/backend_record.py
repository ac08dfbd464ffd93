"""Record of the backend and the precision that a run was computed with, kept in its checkpoints and metrics."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enerf.fields.backends.registry import Resolved

Found = tuple[dict[str, Any], Path]  # the content of a checkpoint, and its file


@dataclass(frozen=True)
class Record:
    """Which code and precision a run's steps were computed with: kept in its checkpoints, reported by its metrics.

    Attributes
    ----------
    now
        What this process computes with.
    before
        What the checkpoint that it goes on from was trained with; None for a fresh run.
    since
        The step of that checkpoint.
    earlier
        What changed before that: ``backend``, ``precision``, ``device``, and ``until`` which step.
    """

    now: Resolved
    before: Resolved | None = None
    since: int = 0
    earlier: tuple[dict[str, Any], ...] = ()

    def trained(self, step: int) -> Resolved:
        """What the last of so many steps was computed with."""
        if self.before is None or step > self.since:
            return self.now
        return self.before.completed(self.now)

    def changes(self, step: int) -> list[dict[str, Any]]:
        """What earlier ones of so many steps were computed with, if it was something else."""
        if self.before is None or step <= self.since or not self.since or not self.before.differs(self.now):
            return list(self.earlier)
        return [*self.earlier, {**asdict(self.before.completed(self.now)), "until": self.since}]

    def saved(self) -> dict[str, Any]:
        """What checkpoints of further steps keep beside the options."""
        changes = self.changes(self.since + 1)
        return {"resolved": {**asdict(self.now), **({"earlier": changes} if changes else {})}}

    def metrics(self, step: int) -> dict[str, Any]:
        """What metrics of a step report beside the precision; what evaluated them only if that differs."""
        trained, changes = self.trained(step), self.changes(step)
        told: dict[str, Any] = {"backend": trained.backend}
        if changes:
            told["trained_earlier"] = changes
        if trained.differs(self.now):
            told |= {"eval_backend": self.now.backend, "eval_precision": self.now.precision}
        return told


def recorded(content: dict[str, Any]) -> Resolved:
    """What a checkpoint was trained with; of earlier versions' checkpoints, as far as their options name it."""
    saved = content["config"]
    found = saved.get("resolved")
    return Resolved.of(found if isinstance(found, dict) else {**saved, "device": ""})


def recorded_or(found: Found | None, shared: Resolved | None) -> Resolved | None:
    """What a run is to be computed with again: as its checkpoint records it, else as the runs it is compared with."""
    if found is None:
        return shared
    return recorded(found[0]).completed(shared or Resolved())


def record_of(found: Found | None, now: Resolved) -> Record:
    """The record of a run that goes on from a checkpoint, or begins."""
    if found is None:
        return Record(now)
    kept = found[0]["config"].get("resolved")
    earlier = tuple(kept.get("earlier", ())) if isinstance(kept, dict) else ()
    return Record(now, recorded(found[0]), found[0]["step"], earlier)
