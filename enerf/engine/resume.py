"""Resuming: which checkpoint a run continues from, and which options may have changed since."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from enerf.config import options, parser
from enerf.config.options import Effect, RunConfig
from enerf.config.parser import C
from enerf.core import io
from enerf.core.errors import InputError
from enerf.engine import checkpoint, inputs, schedule
from enerf.engine.checkpoint import Found, Importer, State
from enerf.engine.inputs import Inputs

RESULTS = ("checkpoints", "metrics.json", "train.jsonl", "mesh.ply", "extracted.ply", "test")
ANOTHER = "give another --expname, or --no_reload"
log = logging.getLogger("enerf")


def last_checkpoint(config: RunConfig, *, opening: bool = False) -> Found | None:
    """Return the content and the file of a run's newest readable checkpoint, or None if the run is new.

    Damaged checkpoints are named in a warning, and the one before is taken. With ``resume_with_changes``, changed
    options that affect the data or the training are logged; when a finished run is opened to be looked at, they are
    not compared.

    Raises
    ------
    InputError
        If no checkpoint can be read, it is of another task or of other model options, or an option that affects the
        data or the training has changed.
    """
    found = None if config.run.no_reload else checkpoint.newest_readable(config.folder)
    if found is None:
        return None
    content, path = found
    if (kind := checkpoint.kind_of(content["config"])) != config.kind:
        raise InputError(f"{path}: found a run of kind {kind!r}, expected {config.kind!r}: {ANOTHER}")
    if wrong := changed_options(content["config"], config, "model"):
        raise InputError(
            f"{path}: this experiment was trained with other model options: {', '.join(wrong)}; "
            "expected the same, another --expname, or --no_reload"
        )
    log.info("%s %s", "opening" if opening else "resuming from", path)
    if not opening:
        _check_changes(config, content, path, changed_options(content["config"], config, "data", "training"))
    return content, path


def check_inputs(config: RunConfig, found: Found | None, paths: Sequence[Path], *, opening: bool = False) -> Inputs:
    """Hash the input files of a run, and compare them with those that it was trained on.

    When a finished run is opened to be looked at, a difference is logged as a warning; likewise with
    ``resume_with_changes``. Runs without hashes, of earlier versions, are not compared.

    Raises
    ------
    InputError
        If a run would be continued, or taken for finished, on other files; or a file cannot be read.
    """
    saved = None if found is None else found[0]["config"].get("inputs")
    current = inputs.of_files(paths, source_folder(config), saved)
    if found is not None and (differs := inputs.differences(saved, current)):
        words = f"{source_option(config)}: its files are not those that the run was trained on ({differs})"
        if opening:
            log.warning("--%s", words)
        else:
            _check_changes(config, *found, [f"files of {words}"])
    return current


def source_folder(config: RunConfig) -> Path:
    """Return the folder of a run's data, to which the names of its files are relative."""
    path = Path(parser.to_dict(config)[source_option(config)]).expanduser()
    return path if path.is_dir() else path.parent


def source_option(config: RunConfig) -> str:
    """Return the name of the option with the path of a run's data; the first one if none is given.

    >>> from enerf.tasks.nerf.config import NerfConfig
    >>> source_option(parser.from_dict(NerfConfig, {}))
    'datadir'
    """
    values = parser.to_dict(config)
    names = [name for name, item in options.declared(type(config)).items() if item.metadata["is_source"]]
    return next((name for name in names if values[name]), names[0] if names else "")


def _check_changes(config: RunConfig, content: dict[str, Any], path: Path, changed: Sequence[str]) -> None:
    """Log changes of options or files with ``resume_with_changes``; raise ``InputError`` without."""
    if not changed:
        return
    if not config.run.resume_with_changes:
        raise InputError(
            f"{path}: this experiment was trained with other options: {', '.join(changed)}; expected the same, another "
            "--expname, --resume_with_changes (the change is recorded), or --no_reload"
        )
    if not steps_left(config, content["step"], content["seconds"]):
        raise InputError(
            f"{path}: --resume_with_changes found no step left to train (step {content['step']} of --N_iters "
            f"{config.train.N_iters}) with other options: {', '.join(changed)}; expected a longer run, another "
            "--expname, or --no_reload"
        )
    for each in changed:
        log.warning("resuming with a changed option, recorded in the history: %s", each)


def steps_left(config: RunConfig, step: int, seconds: float | int) -> bool:
    """Return whether a run has steps left to train, by its steps and its seconds of training."""
    return step < config.train.N_iters and not 0 < config.train.max_seconds <= seconds


def changed_options(saved: dict[str, Any], config: RunConfig, *effects: Effect) -> list[str]:
    """Return the options with one of these effects whose values differ from the saved ones, as text.

    Options that the checkpoint lacks are skipped, and automatic ones (``auto``); a saved ``auto`` counts as what it was
    resolved to, where the checkpoint says so. The length of the run is compared only if the learning rate depends on
    it: with exponential decay a longer run has the same first steps. The path of the data is compared only if the
    checkpoint has no hashes of its files; which option gives it, always.

    >>> from enerf.tasks.nerf.config import NerfConfig
    >>> changed_options({"N_rand": 64}, parser.from_dict(NerfConfig, {"N_rand": 32}), "training")
    ['N_rand (saved 64, requested 32)']
    """
    current, resolved = parser.to_dict(config), saved.get("resolved")
    if isinstance(resolved, dict) and saved.get("precision") == "auto":
        saved = {**saved, "precision": resolved.get("precision", "auto")}
    same = unchanging(saved, config)
    changed = []
    for name, item in options.declared(type(config)).items():
        if name not in saved and item.metadata["absent"] is not None:
            saved = {**saved, name: item.metadata["absent"]}
        if name not in saved or item.metadata["automatic"] in (saved[name], current[name]) or name in same:
            continue
        affects, model_key = item.metadata["affects"], item.metadata["model_key"]
        differs = saved[name] != current[name]
        in_model = differs and model_key is not None and model_key(saved[name]) != model_key(current[name])
        if (differs and affects in effects) or (in_model and "model" in effects):
            before, now = (str(value) or "empty" for value in (saved[name], current[name]))
            changed.append(f"{name} (saved {before}, requested {now})")
    return changed


def unchanging(saved: dict[str, Any], config: RunConfig) -> frozenset[str]:
    """Return the options of which another value is no change of the training.

    Those are the length of the run, unless the learning rate depends on it, and the path of the data, if the files'
    content is known or the path is the same place.
    """
    current, has_length = parser.to_dict(config), schedule.depends_on_length(config.train)
    found = set()
    for name, item in options.declared(type(config)).items():
        is_length = item.metadata["is_length"] and not has_length
        if is_length or (item.metadata["is_source"] and name in saved and _same_source(saved, name, current[name])):
            found.add(name)
    return frozenset(found)


def _same_source(saved: dict[str, Any], name: str, current: str) -> bool:
    """Return whether an option names the data as before; if both runs give it, the files' content decides elsewhere.

    Without hashes of the files the paths are compared, after ``~``, links and the working folder are resolved.
    """
    before = saved[name]
    if not before or not current:  # another option names the data: the same file as a mesh, or as a point cloud
        return bool(before == current)
    if saved.get("inputs"):
        return True
    return os.path.realpath(os.path.expanduser(before)) == os.path.realpath(os.path.expanduser(current))


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
    found: Found | None,
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


def rename_old_results(folder: Path) -> None:
    """Append one free number to the names of an earlier run's results; delete nothing."""
    old = [path for name in RESULTS if (path := folder / name).exists()]
    taken = {path.suffix for path in folder.glob("*.[0-9]*")}
    n = next(n for n in range(1, sys.maxsize) if f".{n}" not in taken)
    for path in old:
        path.rename(path.with_name(f"{path.name}.{n}"))
        log.info("--no_reload: the earlier %s is now %s.%d", path, path.name, n)


def finished_metrics(
    config: RunConfig, input_files: Callable[[Any], Sequence[Path]] | None = None
) -> dict[str, Any] | None:
    """Return the metrics of a run that is finished and was trained with exactly these options on these files.

    Parameters
    ----------
    config
        Options of the run.
    input_files
        Function from the configuration to the files of its data; None: they are not compared.

    Returns
    -------
    dict or None
        Content of ``metrics.json``; None if the run must be trained or continued, or ``train`` must judge it.
    """
    metrics_file = config.folder / "metrics.json"
    if config.run.no_reload or not metrics_file.is_file():
        return None
    metrics: dict[str, Any] = io.read_object(metrics_file)
    try:
        if steps_left(config, metrics["steps"], metrics["seconds"]["train"]):
            return None
    except (KeyError, TypeError):
        raise InputError(
            f"{metrics_file}: found no numbers 'steps' and 'seconds', expected the metrics of a run; delete it to have "
            "them measured again"
        ) from None
    if not isinstance(metrics.get("options"), dict):  # written by an earlier version
        saved = parser.read_text(type(config), config.folder / "config.txt")
        return metrics if saved == config else None
    return metrics if _same_options(metrics, config) and _same_inputs(metrics, config, input_files) else None


def _same_options(metrics: dict[str, Any], config: RunConfig) -> bool:
    """Return whether metrics are of a run with these options, its length included."""
    declared, current = options.declared(type(config)), parser.to_dict(config)
    if any(metrics["options"].get(name) != current[name] for name in declared if declared[name].metadata["is_length"]):
        return False
    saved = {**metrics["options"], "inputs": metrics.get("inputs"), "resolved": metrics}
    return not changed_options(saved, config, "model", "data", "training")


def _same_inputs(
    metrics: dict[str, Any], config: RunConfig, input_files: Callable[[Any], Sequence[Path]] | None
) -> bool:
    """Return whether metrics are of a run trained on the present files; True if that is not recorded."""
    saved = metrics.get("inputs")
    if saved is None or input_files is None:
        return True
    try:
        return inputs.of_files(input_files(config), source_folder(config), saved).digest == saved["digest"]
    except InputError:  # missing or unreadable: the training says so
        return False


def matching_metrics(folder: Path, protocol: dict[str, Any]) -> dict[str, Any] | None:
    """Return the content of a run's ``metrics.json`` if it contains these keys with these values, else None."""
    path = folder / "metrics.json"
    found = io.read_object(path) if path.is_file() else {}
    return found if all(found.get(key) == value for key, value in io.nan_to_none(protocol).items()) else None
