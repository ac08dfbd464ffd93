"""Resuming: which checkpoint a run continues from, and which options may have changed since."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from enerf.config import options, parser
from enerf.config.options import Effect, FitOptions, RunConfig
from enerf.config.parser import C
from enerf.core import io
from enerf.core.errors import InputError
from enerf.engine import checkpoint, schedule
from enerf.engine.checkpoint import Importer, State

log = logging.getLogger("enerf")


def last_checkpoint(config: RunConfig, *, opening: bool = False) -> tuple[dict[str, Any], Path] | None:
    """Return the content and the file of a run's newest checkpoint, or None if the run is new.

    Options that affect the model must be those of the checkpoint. Changed options that affect the data or the training
    are logged as warnings, except when a finished run is opened to be looked at.

    Raises
    ------
    InputError
        If the file cannot be read, or is of another task or of other model options.
    """
    found = checkpoint.checkpoints(config.folder)
    if config.run.no_reload or not found:
        return None
    content = checkpoint.read(found[-1])
    saved = content["config"]
    if (kind := checkpoint.kind_of(saved)) != config.kind:
        raise InputError(
            f"{found[-1]}: found a run of kind {kind!r}, expected {config.kind!r}: give another --expname, "
            "or --no_reload"
        )
    if wrong := changed_options(saved, config, "model"):
        raise InputError(
            f"{found[-1]}: this experiment was trained with other model options: {', '.join(wrong)}; "
            "expected the same, another --expname, or --no_reload"
        )
    log.info("%s %s", "opening" if opening else "resuming from", found[-1])
    for changed in [] if opening else changed_options(saved, config, "data", "training"):
        is_length = options.declared(type(config))[changed.split()[0]].metadata["is_length"]
        why = ": the learning rate of every step depends on the length of the run" if is_length else ""
        log.warning("resuming with a changed option: %s%s", changed, why)
    return content, found[-1]


def changed_options(saved: dict[str, Any], config: RunConfig, *effects: Effect) -> list[str]:
    """Return the options with one of these effects whose values differ from the saved ones, as text.

    Options that the checkpoint lacks are skipped, and those that are ``auto``; a saved ``auto`` counts as what it was
    resolved to, where the checkpoint says so. The length of the run is compared only if the learning rate depends on
    it: with exponential decay a longer run has the same first steps.

    >>> from enerf.tasks.nerf.config import NerfConfig
    >>> changed_options({"N_rand": 64}, parser.from_dict(NerfConfig, {"N_rand": 32}), "training")
    ['N_rand (saved 64, requested 32)']
    """
    current, resolved = parser.to_dict(config), saved.get("resolved")
    if isinstance(resolved, dict) and saved.get("precision") == "auto":
        saved = {**saved, "precision": resolved.get("precision", "auto")}
    has_length = schedule.depends_on_length(config.train)
    changed = []
    for name, item in options.declared(type(config)).items():
        if (
            name not in saved
            or "auto" in (saved[name], current[name])
            or (item.metadata["is_length"] and not has_length)
        ):
            continue
        affects, model_key = item.metadata["affects"], item.metadata["model_key"]
        differs = saved[name] != current[name]
        in_model = differs and model_key is not None and model_key(saved[name]) != model_key(current[name])
        if (differs and affects in effects) or (in_model and "model" in effects):
            before, now = (str(value) or "empty" for value in (saved[name], current[name]))
            changed.append(f"{name} (saved {before}, requested {now})")
    return changed


def reopened(
    kind: type[C], saved: dict[str, Any], folder: Path, device: str, source_option: str, source: str = ""
) -> C:
    """Return the configuration of a finished run whose folder may have been moved.

    Parameters
    ----------
    kind, saved
        Class of the configuration, and the options in the run's checkpoint.
    folder
        Present folder of the run.
    device
        Value of the option ``--device``.
    source_option, source
        Name of the option with the path of the data, and the new path, if the data have moved; else empty.
    """
    where = {"basedir": str(folder.resolve().parent), "expname": folder.resolve().name}
    now = {"device": device, "backend": "auto", "no_reload": False, **({source_option: source} if source else {})}
    return parser.from_dict(kind, {**saved, **where, **now})


def begin(
    config: RunConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    found: tuple[dict[str, Any], Path] | None,
    importers: Sequence[Importer] = (),
) -> State:
    """Return the training state of a model on its device: resumed, initialized from ``--ft_path``, or new.

    Parameters
    ----------
    config, model, optimizer
        The run, its model, and the optimizer of the model's parameters.
    found
        The result of ``last_checkpoint``.
    importers
        Readers of other programs' checkpoints for ``--ft_path``.

    Raises
    ------
    InputError
        If the checkpoint does not fit the model.
    """
    training = State(model, optimizer)
    if found is not None:
        checkpoint.restore(training, *found)
    elif config.run.ft_path:
        path = Path(config.run.ft_path)
        checkpoint.start_from(training, path, weights_only=config.run.no_reload, importers=importers)
        log.info("starting at step %d from %s", training.step, config.run.ft_path)
    return training


def adam(train: FitOptions, model: nn.Module) -> torch.optim.Optimizer:
    """Return the Adam optimizer of a field with the learning rates and betas of the options."""
    grid_scale = train.lrate_grid / train.lrate if train.lrate_grid else 1.0
    return checkpoint.adam(model, train.lrate, grid_scale=grid_scale, beta2=train.adam_beta2, eps=train.adam_eps)


def rename_old_results(folder: Path) -> None:
    """Append one free number to the names of the checkpoints, metrics and journal of an earlier run; delete nothing."""
    old = [path for name in ("checkpoints", "metrics.json", "train.jsonl") if (path := folder / name).exists()]
    taken = {path.suffix for path in folder.glob("*.[0-9]*")}
    n = next(n for n in range(1, sys.maxsize) if f".{n}" not in taken)
    for path in old:
        path.rename(path.with_name(f"{path.name}.{n}"))
        log.info("--no_reload: the earlier %s is now %s.%d", path, path.name, n)


def finished_metrics(config: RunConfig) -> dict[str, Any] | None:
    """Return the metrics of a run that is finished and has exactly these options, else None."""
    metrics_file, config_file = config.folder / "metrics.json", config.folder / "config.txt"
    if not metrics_file.is_file() or not config_file.is_file():
        return None
    if parser.read_text(type(config), config_file) != config:
        return None
    metrics: dict[str, Any] = io.read_json(metrics_file)
    in_time = 0 < config.train.max_seconds <= metrics["seconds"]["train"]
    return metrics if metrics["steps"] >= config.train.N_iters or in_time else None


def matching_metrics(folder: Path, protocol: dict[str, Any]) -> dict[str, Any] | None:
    """Return the content of a run's ``metrics.json`` if it contains these keys with these values, else None."""
    path = folder / "metrics.json"
    found = io.read_json(path) if path.is_file() else {}
    return found if all(found.get(key) == value for key, value in io.nan_to_none(protocol).items()) else None
