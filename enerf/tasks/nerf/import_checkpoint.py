"""nerf-pytorch's checkpoints (``.tar``) under this program's names: weights, Adam's moments, step."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from enerf.core.errors import InputError
from enerf.engine.checkpoint import Importer
from enerf.fields import nerf

NETWORKS = (("coarse", "network_fn_state_dict"), ("fine", "network_fine_state_dict"))


def is_checkpoint(content: Any) -> bool:
    """Whether a loaded file is one of nerf-pytorch's checkpoints.

    >>> is_checkpoint({"format": 1})
    False
    """
    return isinstance(content, dict) and "network_fn_state_dict" in content


def weights(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Both networks' weights, named as in ``RadianceFields``.

    Raises
    ------
    InputError
        If a weight is not one of nerf-pytorch's.
    """
    found: dict[str, Tensor] = {}
    for ours, theirs in NETWORKS:
        found |= _renamed(ours, content.get(theirs) or {}, path)
    return found


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, content: dict[str, Any], path: Path) -> int:
    """Put Adam's moments into an optimizer of the model's parameters; returns the step that training had reached.

    nerf-pytorch counts its parameters through, coarse network first, in the order of its state dicts; weights that
    never had a gradient have no moments.

    Raises
    ------
    InputError
        If the file has no optimizer state that fits.
    """
    try:
        per_parameter, step = content["optimizer_state_dict"]["state"], int(content["global_step"])
        moments = {kind: _moments(content, per_parameter, kind, path) for kind in ("exp_avg", "exp_avg_sq")}
        counts = [float(entry["step"]) for entry in per_parameter.values()]
        for name, parameter in model.named_parameters():
            if counts and name in moments["exp_avg"]:
                kept = {kind: moments[kind][name].to(parameter).clone() for kind in moments}
                optimizer.state[parameter] = {"step": torch.tensor(max(counts)), **kept}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: its optimizer's state is not nerf-pytorch's ({error!r})") from None
    return step


def _moments(content: dict[str, Any], per_parameter: dict[int, Any], kind: str, path: Path) -> dict[str, Tensor]:
    """One kind of moments, named as the weights that they belong to."""
    found: dict[str, Tensor] = {}
    index = 0
    for ours, theirs in NETWORKS:
        names = list(content.get(theirs) or {})
        present = {name: per_parameter[index + i][kind] for i, name in enumerate(names) if index + i in per_parameter}
        found |= _renamed(ours, present, path)
        index += len(names)
    return found


def _renamed(network: str, values: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Values of one network's parameters under this program's names."""
    try:
        return {f"{network}.{name}": value for name, value in nerf.from_nerf_pytorch(values).items()}
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


IMPORTER = Importer(is_checkpoint, weights, restore_optimizer)
