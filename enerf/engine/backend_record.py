"""Record of the backend and the precision that a run was computed with, kept in its checkpoints and metrics."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from enerf.core import io
from enerf.fields.backends.registry import UNKNOWN, Resolved

Found = tuple[dict[str, Any], Path]  # the content of a checkpoint, and its file


@dataclass(frozen=True)
class Record:
    """Backend and precision of a run's training steps.

    Attributes
    ----------
    current
        Backend and precision of this process.
    previous
        Those of the checkpoint from which the run was resumed; None for a new run.
    resumed_at
        Step of that checkpoint.
    earlier
        Changes before that checkpoint, oldest first: ``backend``, ``precision`` and ``device`` of the steps up to and
        including step ``until``.
    """

    current: Resolved
    previous: Resolved | None = None
    resumed_at: int = 0
    earlier: tuple[dict[str, Any], ...] = ()

    def trained(self, step: int) -> Resolved:
        """Return the backend and precision with which a step was computed; ``auto`` where that was not recorded."""
        return self.current if self.previous is None or step > self.resumed_at else self.previous

    def changes(self, step: int) -> list[dict[str, Any]]:
        """Return the backends and precisions of earlier steps that differ from those of this step, oldest first."""
        previous = self.previous
        if previous is None or step <= self.resumed_at or not self.resumed_at or not previous.differs(self.current):
            return list(self.earlier)
        return [*self.earlier, {**asdict(previous.completed(self.current)), "until": self.resumed_at}]

    def saved(self) -> dict[str, Any]:
        """Return the entries that checkpoints of further steps store beside the options."""
        changes = self.changes(self.resumed_at + 1)
        return {"resolved": {**asdict(self.current), **({"earlier": changes} if changes else {})}}

    def metrics(self, step: int, folder: Path) -> dict[str, Any]:
        """Return the entries of ``metrics.json`` at a step: of the training, and of the evaluation if they differ.

        What earlier versions did not record is taken from the present ``metrics.json`` of the folder, otherwise None.
        """
        trained, changes = self.trained(step), self.changes(step)
        path = folder / "metrics.json"
        before = io.read_json(path) if UNKNOWN in (trained.backend, trained.precision) and path.is_file() else {}
        entries: dict[str, Any] = {
            name: before.get(name) if value == UNKNOWN else value
            for name, value in (("precision", trained.precision), ("backend", trained.backend))
        }
        if changes:
            entries["trained_earlier"] = changes
        trained = replace(trained, device=UNKNOWN)  # the metrics name the device themselves
        if trained.differs(self.current):
            entries |= {"eval_backend": self.current.backend, "eval_precision": self.current.precision}
        return entries


def checkpoint_backend(content: dict[str, Any]) -> Resolved:
    """Return the backend and precision that a checkpoint was trained with.

    Checkpoints of earlier versions have no such record: they give the values of the options, ``auto`` possibly.
    """
    saved = content["config"]
    found = saved.get("resolved")
    return Resolved.of(found if isinstance(found, dict) else {**saved, "device": ""})


def backend_to_reuse(found: Found | None, shared: Resolved | None) -> Resolved | None:
    """Return the backend of a run's checkpoint, or, for a new run, that of the comparison that it belongs to."""
    if found is None:
        return shared
    return checkpoint_backend(found[0]).completed(shared or Resolved())


def record_of(found: Found | None, current: Resolved) -> Record:
    """Return the record of a run that is resumed from a checkpoint, or is new."""
    if found is None:
        return Record(current)
    stored = found[0]["config"].get("resolved")
    earlier = tuple(stored.get("earlier", ())) if isinstance(stored, dict) else ()
    return Record(current, checkpoint_backend(found[0]), found[0]["step"], earlier)
