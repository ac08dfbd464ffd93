"""What training changes: weights, optimiser, step. Saved atomically as tensors and plain Python, loaded as such."""

import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from enerf.fields import radiance
from enerf.types import InputError

FORMAT = 1


@dataclass
class State:
    """A model in training. ``seconds`` of training and the test-PSNR ``curve`` travel with the checkpoints."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    eval_seconds: float = 0.0
    collapsed: bool = False
    curve: list[list[float]] = field(default_factory=list)


def adam(model: nn.Module, lrate: float) -> torch.optim.Optimizer:
    """NeRF's optimiser: Adam with PyTorch's defaults."""
    return torch.optim.Adam(model.parameters(), lr=lrate, betas=(0.9, 0.999))


def learning_rate(step: int, lrate: float, decay_thousands: int) -> float:
    """The learning rate of a step: falls exponentially, to a tenth in ``decay_thousands`` · 1000 steps.

    >>> learning_rate(250_000, 5e-4, 250)
    5e-05
    """
    return lrate * 0.1 ** (step / (decay_thousands * 1000))


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = value


def checkpoints(folder: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*.pt"), key=lambda path: int(path.stem))


def save(state: State, folder: Path, config: dict[str, Any]) -> Path:
    """Write ``checkpoints/STEP.pt`` whole or not at all.

    Raises
    ------
    InputError
        If the folder cannot be written (read-only, full).
    """
    path = folder / "checkpoints" / f"{state.step:06d}.pt"
    content = {
        "format": FORMAT,
        "step": state.step,
        "seconds": state.seconds,
        "eval_seconds": state.eval_seconds,
        "collapsed": state.collapsed,
        "curve": state.curve,
        "config": config,
        "model": state.model.state_dict(),
        "optimiser": state.optimiser.state_dict(),
    }
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".saving-")
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise InputError(f"{path}: the checkpoint could not be written ({error}); earlier ones are untouched") from None
    return path


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors on the CPU.

    Raises
    ------
    InputError
        If the file is missing, truncated, or no checkpoint of this program.
    """
    content = _read_tensors(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT or "model" not in content:
        raise InputError(f"{path}: found a file without the parts of a checkpoint, expected one written by this program")
    return content


def restore(state: State, content: dict[str, Any], path: Path) -> None:
    """Put a checkpoint into a state: weights, optimiser, step, clocks."""
    load_weights(state.model, content["model"], path)
    try:
        state.optimiser.load_state_dict(content["optimiser"])
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: the optimiser's state does not fit this model ({error})") from None
    state.step, state.seconds, state.collapsed = content["step"], content["seconds"], content["collapsed"]
    state.eval_seconds = content["eval_seconds"]
    state.curve = [list(point) for point in content["curve"]]


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Put weights into a model of exactly their names and shapes."""
    own = model.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or extra:
        told = [f"lacks {missing[0]}"] * bool(missing) + [f"has {extra[0]}"] * bool(extra)
        hint = ""
        if any("parametrizations" in name for name in (*missing, *extra)):
            hint = ": one of the two is conditioned (--equilibrate, --weight_norm) and the other is not"
        raise InputError(f"{path}: its weights are of another model, the file {' and '.join(told)}{hint}")
    for name, value in own.items():
        if weights[name].shape != value.shape:
            found, expected = tuple(weights[name].shape), tuple(value.shape)
            raise InputError(f"{path}: weight {name} has shape {found}, expected {expected}")
    model.load_state_dict(weights)


def start_from(model: nn.Module, path: Path) -> None:
    """Start a model from the weights of a checkpoint: this program's ``.pt`` or nerf-pytorch's ``.tar``."""
    content = _read_tensors(path)
    if isinstance(content, dict) and "network_fn_state_dict" in content:
        load_weights(model, _peer_weights(content, path), path)
        return
    load_weights(model, read(path)["model"], path)


def differing(saved: dict[str, Any], asked: dict[str, Any], names: Iterable[str]) -> list[str]:
    """The options among ``names`` whose values differ, as words.

    >>> differing({"netwidth": 64}, {"netwidth": 32}, ["netwidth"])
    ['netwidth (64 there, 32 asked)']
    """
    return [f"{n} ({saved[n]} there, {asked[n]} asked)" for n in names if n in saved and saved[n] != asked[n]]


def _peer_weights(content: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """nerf-pytorch's networks under this program's names."""
    weights: dict[str, torch.Tensor] = {}
    for ours, theirs in (("coarse", "network_fn_state_dict"), ("fine", "network_fine_state_dict")):
        try:
            network = radiance.from_nerf_pytorch(content.get(theirs) or {})
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
        weights |= {f"{ours}.{name}": value for name, value in network.items()}
    return weights


def _read_tensors(path: Path) -> Any:
    """A file of tensors and plain Python; nothing in it is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as a checkpoint, it may be truncated ({reason})") from None
