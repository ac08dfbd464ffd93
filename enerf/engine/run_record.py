"""Record of what a run was trained with, kept in its checkpoints and metrics: options, input files, backend, precision.

What changed while it was trained is kept as its **history**: by the step from which on it was trained otherwise.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from enerf.config import options, parser
from enerf.config.options import RunConfig
from enerf.core import environment, io
from enerf.engine import inputs as run_inputs
from enerf.engine import resume
from enerf.engine.checkpoint import Found
from enerf.engine.inputs import Inputs
from enerf.fields.backends.registry import UNKNOWN, Resolved


@dataclass(frozen=True)
class Record:
    """What a run's training steps were computed with.

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
    options, saved_options
        Options that affect model, data or training: the present ones, and those of the checkpoint.
    inputs, saved_inputs
        Hashes of the input files likewise; None if they are not known.
    history
        Changes of options and files before that checkpoint, oldest first: the first ``step`` trained with them is the
        next one.
    free
        Options whose change is none of the training, as by ``resume.unchanging``.
    """

    current: Resolved
    previous: Resolved | None = None
    resumed_at: int = 0
    earlier: tuple[dict[str, Any], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    saved_options: dict[str, Any] | None = None
    inputs: Inputs | None = None
    saved_inputs: dict[str, Any] | None = None
    history: tuple[dict[str, Any], ...] = ()
    free: frozenset[str] = frozenset()

    def trained(self, step: int) -> Resolved:
        """Return the backend and precision with which a step was computed; ``auto`` where that was not recorded."""
        return self.current if self.previous is None or step > self.resumed_at else self.previous

    def changes(self, step: int) -> list[dict[str, Any]]:
        """Return the backends and precisions of earlier steps that differ from those of this step, oldest first."""
        previous = self.previous
        if previous is None or step <= self.resumed_at or not self.resumed_at or not previous.differs(self.current):
            return list(self.earlier)
        return [*self.earlier, {**asdict(previous.completed(self.current)), "until": self.resumed_at}]

    def history_at(self, step: int) -> list[dict[str, Any]]:
        """Return the changes of options and files before a step, oldest first.

        Each has ``step`` and ``options``, by name the earlier and the later value, and ``files`` if those changed.
        """
        if self.saved_options is None or step <= self.resumed_at or not self.resumed_at:
            return list(self.history)
        changed: dict[str, Any] = {
            name: [before, self.options[name]]
            for name, before in self.saved_options.items()
            if name in self.options and name not in self.free and before != self.options[name]
        }
        entry: dict[str, Any] = {"options": changed} if changed else {}
        if files := run_inputs.differences(self.saved_inputs, self.inputs):
            entry["files"] = files
        return [*self.history, {"step": self.resumed_at, **entry}] if entry else list(self.history)

    def saved(self) -> dict[str, Any]:
        """Return the entries that checkpoints of further steps store beside the options.

        ``environment`` is that of the present process: of the last steps, if the run was resumed.
        """
        step = self.resumed_at + 1
        changes, history = self.changes(step), self.history_at(step)
        return {
            "resolved": {**asdict(self.current), **({"earlier": changes} if changes else {})},
            "environment": environment.describe(),
            **({"inputs": self.inputs.saved()} if self.inputs is not None else {}),
            **({"history": history} if history else {}),
        }

    def trained_with(self, step: int) -> dict[str, Any]:
        """Return what ``metrics.json`` says of the training up to a step: ``options``, ``inputs`` and ``history``.

        If other files than the ones trained on are evaluated, ``inputs`` are those, and ``eval_files`` says so.
        """
        is_new = self.saved_options is None or step > self.resumed_at
        chosen = self.options if is_new else self.saved_options
        entries: dict[str, Any] = {"options": chosen} if chosen else {}
        if self.inputs is not None:
            entries["inputs"] = self.inputs.summary()
        if not is_new and (differs := run_inputs.differences(self.saved_inputs, self.inputs)):
            entries["eval_files"] = differs
        if history := self.history_at(step):
            entries["history"] = history
        return entries

    def metrics(self, step: int, folder: Path) -> dict[str, Any]:
        """Return the entries of ``metrics.json`` at a step: of the training, and of the evaluation if they differ.

        What earlier versions did not record is taken from the present ``metrics.json`` of the folder, otherwise None.
        """
        trained, changes = self.trained(step), self.changes(step)
        path = folder / "metrics.json"
        before = io.read_object(path) if UNKNOWN in (trained.backend, trained.precision) and path.is_file() else {}
        entries: dict[str, Any] = {
            name: before.get(name) if value == UNKNOWN else value
            for name, value in (("precision", trained.precision), ("backend", trained.backend))
        }
        if changes:
            entries["trained_earlier"] = changes
        trained = replace(trained, device=UNKNOWN)  # the metrics name the device themselves
        if trained.differs(self.current):
            entries |= {"eval_backend": self.current.backend, "eval_precision": self.current.precision}
        return {**entries, **self.trained_with(step)}


def checkpoint_backend(content: dict[str, Any]) -> Resolved:
    """Return the backend and precision with which the steps before a checkpoint were computed.

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


def record_of(found: Found | None, current: Resolved, config: RunConfig, inputs: Inputs | None) -> Record:
    """Return the record of a run that is resumed from a checkpoint, or is new.

    Parameters
    ----------
    found
        Checkpoint and its file; None for a new run.
    current
        Backend, precision and device of this process.
    config, inputs
        Options of the run, and hashes of its input files.
    """
    chosen = trained_options(config)
    if found is None:
        return Record(current, options=chosen, inputs=inputs)
    saved = found[0]["config"]
    stored = saved.get("resolved")
    earlier = tuple(stored.get("earlier", ())) if isinstance(stored, dict) else ()
    return Record(
        current,
        checkpoint_backend(found[0]),
        found[0]["step"],
        earlier,
        chosen,
        {name: saved[name] for name in chosen if name in saved},
        inputs,
        saved.get("inputs"),
        tuple(saved.get("history", ())),
        resume.unchanging(saved, config),
    )


def trained_options(config: RunConfig) -> dict[str, Any]:
    """Return the options that affect model, data or training, by name."""
    declared = options.declared(type(config))
    return {name: v for name, v in parser.to_dict(config).items() if declared[name].metadata["affects"] != "neutral"}
