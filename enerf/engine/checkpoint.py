"""Checkpoints: weights, optimizer state, step and curve, saved atomically and loaded with ``weights_only=True``."""

import logging
import math
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from enerf.conditioning import state_dict
from enerf.core import files
from enerf.core import io as core_io
from enerf.core.errors import InputError
from enerf.engine import optimizer_state
from enerf.engine.optimizer_state import is_dense, tensor_kind

log = logging.getLogger("enerf")

FORMAT = 1
Found = tuple[dict[str, Any], Path]  # the content of a checkpoint, and its file
DOS_FOLDER = 0x10  # attribute in a zip's directory
KEPT, RECENT = "checkpoints", "checkpoints/recent"
PARTS = {
    **{"step": int, "seconds": float, "eval_seconds": float, "collapsed": bool, "curve": list, "config": dict},
    **{"model": dict, "optimiser": dict},
}


class MissingCheckpoint(InputError):
    """There is no such file: a training run may have deleted a checkpoint that it had saved by time."""


@dataclass
class State:
    """State of a training run; all of it is stored in checkpoints, except ``is_consistent``.

    Attributes
    ----------
    model, optimizer
        The trained model, and the optimizer of its parameters.
    step
        Number of finished steps.
    seconds, eval_seconds
        Time spent in training steps, and in hooks between them (evaluation, logging, checkpoints).
    collapsed, blank_for
        Whether training has collapsed to a blank image, and the number of consecutive blank steps so far.
    curve
        Rows of a step and the values measured at it, e.g. test PSNR.
    is_consistent
        False while the weights are being updated: a state of that moment is not saved.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    eval_seconds: float = 0.0
    collapsed: bool = False
    blank_for: int = 0
    curve: list[list[float]] = field(default_factory=list)
    is_consistent: bool = True


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint files of a run, oldest first; files whose name is not a step number are ignored.

    Those in ``checkpoints/recent``, which are saved by time, are included, unless ``checkpoints`` has the same step.

    Raises
    ------
    InputError
        If the folder exists and cannot be listed: it does not count as empty.
    """
    found = {int(path.stem): path for each in (RECENT, KEPT) for path in _step_files(folder / each)}
    return [found[step] for step in sorted(found)]


def is_kept(folder: Path, step: int) -> bool:
    """Return whether a run has a checkpoint of a step that is not one of those saved by time."""
    return (folder / KEPT / f"{step:06d}.pt").is_file()


def _step_files(folder: Path) -> list[Path]:
    """Return the files of a folder whose name is a step number; none if the folder does not exist."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        file = next((each for each in folder.parents if each.is_file()), None)
        if file is not None:
            raise InputError(f"{file} is a file, expected the folder of a run, which has its checkpoints") from None
        raise InputError(f"{folder}: cannot be listed ({error.strerror}), expected the checkpoints of a run") from None
    return [folder / name for name in names if re.fullmatch(r"[0-9]+\.pt", name)]


def prune_recent(folder: Path, keep: int) -> None:
    """Delete the checkpoints that were saved by time, except the newest ``keep``; others are never deleted."""
    found = sorted(_step_files(folder / RECENT), key=lambda path: int(path.stem))
    for path in found[: max(0, len(found) - keep)]:
        with suppress(OSError):
            path.unlink()
    if not keep:
        with suppress(OSError):
            (folder / RECENT).rmdir()


def find_runs(folders: list[Path]) -> list[Path]:
    """Return the folders of runs among these folders and directly below them, in order.

    Raises
    ------
    InputError
        If a folder is neither a run nor contains one.
    """
    runs: list[Path] = []
    for folder in folders:
        inside = [path.parent for path in sorted(folder.glob("*/checkpoints"))]
        found = [folder] if checkpoints(folder) else [path for path in inside if checkpoints(path)]
        if not found:
            raise InputError(
                f"{folder}: found no checkpoints/*.pt, expected the folder of a training run, or of several"
            )
        runs += found
    return runs


def save(state: State, folder: Path, config: dict[str, Any], *, recent: bool = False) -> Path:
    """Write ``checkpoints/STEP.pt``, or ``checkpoints/recent/STEP.pt``, atomically; return its path.

    Raises
    ------
    InputError
        If the file cannot be written (read-only folder, full disk).
    """
    path = folder / (RECENT if recent else KEPT) / f"{state.step:06d}.pt"
    content = {
        "format": FORMAT,
        "step": state.step,
        "seconds": state.seconds,
        "eval_seconds": state.eval_seconds,
        "collapsed": state.collapsed,
        "blank_for": state.blank_for,
        "curve": state.curve,
        "config": config,
        "model": state.model.state_dict(),
        "optimiser": state.optimizer.state_dict(),
    }
    with core_io.atomic_path(path, fsync=True, error=_write_error) as temporary:
        writer: _Writer | None = None
        try:
            with temporary.open("wb") as file:
                writer = _Writer(file)
                torch.save(content, writer)  # type: ignore[arg-type]
        except (OSError, RuntimeError) as error:
            cause = error if writer is None or writer.error is None else writer.error  # torch hides it
            raise _write_error(path, getattr(cause, "strerror", None) or _first_line(cause)) from None
    return path


def read(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, its tensors on the CPU.

    Raises
    ------
    MissingCheckpoint
        If there is no such file.
    InputError
        If the file is damaged, or is not a checkpoint of this program.
    """
    return _checked(_read_tensors(path), path)


def newest_readable(folder: Path) -> Found | None:
    """Return the content of a run's newest checkpoint that can be read, and its file; None if there are none.

    A damaged checkpoint is named in a warning, and the one before it is taken.

    Raises
    ------
    InputError
        If there are checkpoints, and none can be read; the message is that of the newest.
    """
    found = checkpoints(folder)
    first: InputError | None = None
    for path in reversed(found):
        try:
            return read(path), path
        except InputError as error:
            if not os.path.lexists(path):  # a training run has deleted it since it was listed, and has newer ones
                return newest_readable(folder)
            first = first or error
            if path != found[0]:
                log.warning("%s; taking the one before", error)
    if first is not None:
        others = f"; none of the {len(found) - 1} before it can be read either" if len(found) > 1 else ""
        raise InputError(f"{first}{others}")
    return None


def newest(folder: Path, kinds: Iterable[str]) -> Found:
    """Return the content of a run's newest checkpoint that can be read, and its file.

    Raises
    ------
    InputError
        If the folder is not a run, or is a run of another task than ``kinds``.
    """
    found = newest_readable(folder)
    if found is None:
        raise InputError(f"{folder}: found no checkpoints/*.pt, expected the folder of a training run")
    content, path = found
    if (kind := kind_of(content["config"])) not in kinds:
        raise InputError(f"{folder}: found a run of kind {kind!r}, expected one of {', '.join(kinds)}")
    return content, path


def restore(state: State, content: dict[str, Any], path: Path) -> None:
    """Load a checkpoint into a training state, in place: weights, optimizer state, step, times and curve.

    Raises
    ------
    InputError
        If the checkpoint does not fit the model or the optimizer.
    """
    load_weights(state.model, content["model"], path)
    optimizer_state.restore(state.optimizer, content["optimiser"], path)
    state.step, state.seconds, state.collapsed = content["step"], content["seconds"], content["collapsed"]
    state.eval_seconds, state.blank_for = content["eval_seconds"], content.get("blank_for", 0)
    state.curve = [list(point) for point in content["curve"]]


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Load a state dict into a model; names and shapes must match exactly.

    Raises
    ------
    InputError
        For the first name or shape that differs; the model is unchanged then.
    """
    own = model.state_dict()
    weights = state_dict.upgraded_state(model, weights)
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or extra:
        differences = [f"lacks {name}" for name in missing[:1]] + [f"has {name}" for name in extra[:1]]
        hint = ""
        if any("parametrizations" in name for name in (*missing, *extra)):
            options = "--conditioning, --equilibrate, --weight_norm, --normalisation"
            hint = f": one of the two is conditioned ({options}), the other is not"
        raise InputError(f"{path}: its weights are of another model, the file {' and '.join(differences)}{hint}")
    for name, value in own.items():
        if weights[name].shape != value.shape:
            found, expected = tuple(weights[name].shape), tuple(value.shape)
            raise InputError(f"{path}: weight {name} has shape {found}, expected {expected}")
        if not is_dense(weights[name]) or weights[name].is_floating_point() != value.is_floating_point():
            raise InputError(
                f"{path}: weight {name} is {tensor_kind(weights[name])}, expected {tensor_kind(value.cpu())}"
            )
    model.load_state_dict(weights)


@dataclass(frozen=True)
class Importer:
    """Reader of another program's checkpoints.

    Attributes
    ----------
    recognizes
        Whether the content of a file is such a checkpoint.
    weights
        Content and file -> state dict under this program's names.
    restore_optimizer
        Optimizer, model, content and file -> step; fills the optimizer's state.
    """

    recognizes: Callable[[Any], bool]
    weights: Callable[[dict[str, Any], Path], dict[str, torch.Tensor]]
    restore_optimizer: Callable[[torch.optim.Optimizer, nn.Module, dict[str, Any], Path], int]


def start_from(state: State, path: Path, *, weights_only: bool = False, importers: Sequence[Importer] = ()) -> None:
    """Initialize a training state from a checkpoint of another run, of this program or of another one.

    Weights, optimizer state and step are loaded, or with ``weights_only`` the weights only; times and curve are not. A
    file that one of the ``importers`` recognizes is read by it.

    Raises
    ------
    InputError
        If the file is missing, truncated, not recognized, or of another model.
    """
    content = _read_tensors(path)
    importer = next((each for each in importers if each.recognizes(content)), None)
    if importer is not None:
        load_weights(state.model, importer.weights(content, path), path)
        state.step = (
            state.step if weights_only else importer.restore_optimizer(state.optimizer, state.model, content, path)
        )
        return
    content = _checked(content, path)
    load_weights(state.model, content["model"], path)
    if not weights_only:
        optimizer_state.restore(state.optimizer, content["optimiser"], path)
        state.step = content["step"]


def kind_of(config: dict[str, Any]) -> str:
    """Return the task of a run from the options in its checkpoint: ``nerf``, ``shape``, ``classifier``.

    The oldest NeRF checkpoints have no key ``kind``; they are recognized by ``N_samples``.

    >>> kind_of({"N_samples": 64}), kind_of({"kind": "shape"}), kind_of({})
    ('nerf', 'shape', 'unknown')
    """
    return str(config.get("kind", "nerf" if "N_samples" in config else "unknown"))


def _checked(content: Any, path: Path) -> dict[str, Any]:
    """Return the content of a file; raise ``InputError`` unless it has all the parts of a checkpoint."""
    whole = isinstance(content, dict) and content.get("format") == FORMAT
    wrong = [name for name, kind in PARTS.items() if whole and not isinstance(content.get(name), kind)]
    if not whole or wrong or not all(isinstance(value, torch.Tensor) for value in content["model"].values()):
        raise InputError(f"{path}: found a file without the parts of a checkpoint, expected one of this program")
    counts, times = (content["step"], content.get("blank_for", 0)), (content["seconds"], content["eval_seconds"])
    rows = all(
        isinstance(row, list) and row and all(isinstance(x, int | float) for x in row) for row in content["curve"]
    )
    if not (rows and all(isinstance(count, int) and count >= 0 for count in counts) and all(map(math.isfinite, times))):
        raise InputError(f"{path}: found impossible steps, seconds or curve, expected those of a checkpoint")
    return dict(content)


def _read_tensors(path: Path) -> Any:
    """Return the content of a file of tensors and plain Python values; no code in it is executed.

    The checksums in the file are verified first, since torch does not verify them.
    """
    try:
        files.require_memory(files.require_regular(path), str(path))
        _verify_checksums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about damaged files; the error below is enough
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except FileNotFoundError:
        raise MissingCheckpoint(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        reason = "it contains objects other than tensors and plain values; nothing in it was executed"
    except zipfile.BadZipFile as error:
        reason = f"it is damaged: {_first_line(error)}"
    except Exception as error:  # a damaged file can raise any exception in torch
        reason = f"it may be truncated: {_first_line(error)}"
    raise InputError(f"{path}: cannot be read as a checkpoint ({reason})")


def _verify_checksums(path: Path) -> None:
    """Raise ``BadZipFile`` unless all parts of a zip file, as torch writes them, have the checksums stored in it."""
    if not zipfile.is_zipfile(path):
        return  # nerf-pytorch's older files, or damaged: torch decides
    with zipfile.ZipFile(path) as archive:
        total = sum(item.file_size for item in archive.infolist())
        files.require_memory(total, f"{path}: its content")
        if (name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of its part {name} differs")
        if any(item.external_attr & DOS_FOLDER for item in archive.infolist()):
            raise zipfile.BadZipFile("a part is marked as a folder")  # torch would return memory that it did not fill


class _Writer:
    """A binary file that remembers the system's error: torch replaces it by one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.flush = file, file.flush
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write some bytes."""
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


def _write_error(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: the checkpoint cannot be written ({reason}); earlier ones are unchanged")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
