"""Import of nerf-pytorch checkpoints (``.tar``): weights, Adam moments and step."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from enerf.core.errors import InputError
from enerf.engine.checkpoint import Importer
from enerf.fields import nerf

NETWORKS = (("coarse", "network_fn_state_dict"), ("fine", "network_fine_state_dict"))


def is_checkpoint(content: Any) -> bool:
    """Return whether the content of a file is a nerf-pytorch checkpoint.

    >>> is_checkpoint({"format": 1})
    False
    """
    return isinstance(content, dict) and "network_fn_state_dict" in content


def weights(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the weights of both networks as a state dict of ``RadianceFields``.

    Raises
    ------
    InputError
        If a weight has an unknown name.
    """
    found: dict[str, Tensor] = {}
    for ours, theirs in NETWORKS:
        found |= _renamed(ours, content.get(theirs) or {}, path)
    return found


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, content: dict[str, Any], path: Path) -> int:
    """Load Adam's moments into an optimizer of the model's parameters; return the checkpoint's step.

    nerf-pytorch numbers the parameters of both networks consecutively, coarse network first, in the order of their
    state dicts; parameters that never had a gradient have no moments.

    Raises
    ------
    InputError
        If the file has no matching optimizer state.
    """
    try:
        per_parameter, step = content["optimizer_state_dict"]["state"], int(content["global_step"])
        moments = {kind: _moments(content, per_parameter, kind, path) for kind in ("exp_avg", "exp_avg_sq")}
        counts = [float(entry["step"]) for entry in per_parameter.values()]
        for name, parameter in model.named_parameters():
            if counts and name in moments["exp_avg"]:
                state = {kind: moments[kind][name].to(parameter).clone() for kind in moments}
                optimizer.state[parameter] = {"step": torch.tensor(max(counts)), **state}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: its optimizer state is not that of nerf-pytorch ({error!r})") from None
    return step


def _moments(content: dict[str, Any], per_parameter: dict[int, Any], kind: str, path: Path) -> dict[str, Tensor]:
    """Return the moments of one kind (``exp_avg`` or ``exp_avg_sq``) by parameter name."""
    found: dict[str, Tensor] = {}
    index = 0
    for ours, theirs in NETWORKS:
        names = list(content.get(theirs) or {})
        present = {name: per_parameter[index + i][kind] for i, name in enumerate(names) if index + i in per_parameter}
        found |= _renamed(ours, present, path)
        index += len(names)
    return found


def _renamed(network: str, values: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return values of one network's parameters by their names in ``RadianceFields``."""
    try:
        return {f"{network}.{name}": value for name, value in nerf.from_nerf_pytorch(values).items()}
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


IMPORTER = Importer(is_checkpoint, weights, restore_optimizer)
