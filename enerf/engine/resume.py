"""How a run begins: from its own last checkpoint, if the options still fit it, or anew with the old results aside."""

import logging
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from enerf.config import parser
from enerf.config.options import FitOptions
from enerf.config.parser import AnyConfig
from enerf.core import io
from enerf.core.errors import InputError
from enerf.engine import checkpoint
from enerf.engine.checkpoint import State
from enerf.fields.backends.registry import Resolved

log = logging.getLogger("enerf")

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


def last_checkpoint(
    config: AnyConfig, model_options: Iterable[str], task_options: Iterable[str], also: Iterable[str] = ()
) -> tuple[dict[str, Any], Path] | None:
    """The newest checkpoint of a run, checked against the options asked for; None to start anew.

    Parameters
    ----------
    config
        The run that is asked for.
    model_options
        Options that decide what the weights are: a checkpoint made with others does not fit.
    task_options
        Options that decide what is learned: changing them half way is allowed, and said.
    also
        Options that decide what the weights are by being above 0 or not.

    Raises
    ------
    InputError
        If the file cannot be read, or was made with other model options.
    """
    found = checkpoint.checkpoints(config.folder)
    if config.run.no_reload or not found:
        return None
    content, asked = checkpoint.read(found[-1]), parser.to_dict(config)
    saved = content["config"]
    if (kind := checkpoint.kind_of(saved)) != config.kind:
        raise InputError(
            f"{found[-1]}: found a run of kind {kind!r}, expected {config.kind!r}: give another --expname, "
            "or --no_reload"
        )
    wrong = checkpoint.differing(saved, asked, model_options)
    for name in also:
        if (saved[name] > 0) != (asked[name] > 0):
            wrong += checkpoint.differing(saved, asked, [name])
    if wrong:
        raise InputError(
            f"{found[-1]}: this experiment was trained with other model options: {', '.join(wrong)}; "
            "expected the same, another --expname, or --no_reload"
        )
    for changed in checkpoint.differing(saved, asked, task_options):
        log.warning("going on with a changed option: %s", changed)
    return content, found[-1]


def begin(
    config: AnyConfig, model: nn.Module, optimiser: torch.optim.Optimizer, found: tuple[dict[str, Any], Path] | None
) -> State:
    """The state of a model that is on its device: as its last checkpoint left it, as ``--ft_path`` says, or fresh.

    Raises
    ------
    InputError
        If a checkpoint is of another model.
    """
    training = State(model, optimiser)
    if found is not None:
        checkpoint.restore(training, *found)
        log.info("going on from %s", found[1])
    elif config.run.ft_path:
        checkpoint.start_from(training, Path(config.run.ft_path), weights_only=config.run.no_reload)
        log.info("starting at step %d from %s", training.step, config.run.ft_path)
    return training


def adam(asked: FitOptions, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a field, as the options say it."""
    grid_scale = asked.lrate_grid / asked.lrate if asked.lrate_grid else 1.0
    return checkpoint.adam(model, asked.lrate, grid_scale=grid_scale, beta2=asked.adam_beta2, eps=asked.adam_eps)


def set_aside(folder: Path) -> None:
    """Rename what an earlier run left in a folder out of the way, all with one number; nothing is deleted."""
    left = [path for name in ("checkpoints", "metrics.json", "train.jsonl") if (path := folder / name).exists()]
    taken = {path.suffix for path in folder.glob("*.[0-9]*")}
    n = next(n for n in range(1, sys.maxsize) if f".{n}" not in taken)
    for path in left:
        path.rename(path.with_name(f"{path.name}.{n}"))
        log.info("--no_reload: the earlier %s is now %s.%d", path, path.name, n)


def metrics_of(config: AnyConfig) -> dict[str, Any] | None:
    """The metrics of a run that was trained to its end with these very options, else None."""
    metrics_file, config_file = config.folder / "metrics.json", config.folder / "config.txt"
    if not metrics_file.is_file() or not config_file.is_file():
        return None
    if config_file.read_text(encoding="utf-8") != parser.to_text(config):
        return None
    metrics: dict[str, Any] = io.read_json(metrics_file)
    in_time = 0 < config.train.max_seconds <= metrics["seconds"]["train"]
    return metrics if metrics["steps"] >= config.train.N_iters or in_time else None
