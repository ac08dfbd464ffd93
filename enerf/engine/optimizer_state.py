"""State of optimizers in checkpoints: it is checked before it is loaded."""

import logging
from pathlib import Path
from typing import Any

import torch

from enerf.conditioning import state_dict
from enerf.core.errors import InputError

log = logging.getLogger("enerf")

# Entries of parameter groups that the options decide; on resume they keep the values of the present options.
OPTION_KEYS = (
    *("scale", "eps", "betas", "fused", "momentum", "weight_decay", "l1", "l2", "shrinkage", "alpha"),
    *("amsgrad", "maximize", "foreach", "capturable", "differentiable", "nesterov", "centered", "dampening"),
    "products",
)
OTHER_KIND = (
    "its state is of another optimizer or another momentum, expected the same, or --no_reload to take the weights alone"
)
OPTIMIZER_KEYS = (
    "betas",
    "alpha",
    "dampening",
    "lr_decay",
    "ns_steps",
    "precondition_frequency",
)  # each in the parameter groups of one class of optimizer only


def restore(optimizer: torch.optim.Optimizer, saved: dict[str, Any], path: Path) -> None:
    """Load an optimizer's state; group entries that the options decide (epsilon, betas ...) keep their values."""
    current: list[dict[str, Any]] = [
        {k: v for k, v in group.items() if k in OPTION_KEYS} for group in optimizer.param_groups
    ]
    try:
        if len(saved["param_groups"]) != len(optimizer.param_groups):
            found, expected = len(saved["param_groups"]), len(optimizer.param_groups)
            raise InputError(
                f"{path}: the optimizer's state does not fit this model: found {found} groups of parameters, expected "
                f"{expected}: it is that of another optimizer (--conditioning or --optimiser) or another encoding"
            )
        for own, group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            _check_kind(own, group, path)
            before = group.get("products", "bf16")  # earlier versions did not save it
            if own.get("products", before) != before:
                log.warning("Muon multiplies in %s, before it was %s", own["products"], before)
        _check_values(optimizer, saved, path)
        optimizer.load_state_dict(state_dict.upgraded_optimizer_state(optimizer, saved))
        for group, options in zip(optimizer.param_groups, current, strict=True):
            group.update(options)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path}: the optimizer's state does not fit this model ({error})") from None


def _check_kind(own: dict[str, Any], saved: dict[str, Any], path: Path) -> None:
    """Raise ``InputError`` for the state of another class of optimizer, or of RMSprop without its momentum buffers."""
    differs = any((key in own) != (key in saved) for key in OPTIMIZER_KEYS)
    if differs or ("alpha" in own and own["momentum"] > 0 and not saved["momentum"]):
        raise InputError(f"{path}: {OTHER_KIND}")


def _check_values(optimizer: torch.optim.Optimizer, saved: dict[str, Any], path: Path) -> None:
    """Raise ``InputError`` unless the values saved for each parameter are numbers or tensors that fit it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    for parameter, number in zip(parameters, numbers, strict=True):
        for name, value in saved["state"].get(number, {}).items():
            is_tensor = isinstance(value, torch.Tensor) and is_dense(value)
            fits = value.shape == parameter.shape or value.numel() == 1 if is_tensor else _is_number(value)
            fits = fits or (isinstance(value, list) and all(_is_factor(each, parameter) for each in value))
            if not fits:
                found = tensor_kind(value) if isinstance(value, torch.Tensor) else type(value).__name__
                raise InputError(
                    f"{path}: the optimizer's state does not fit this model: {name} of a weight of shape "
                    f"{tuple(parameter.shape)} is {found}"
                )


def _is_factor(value: Any, parameter: torch.Tensor) -> bool:
    """Whether a value is a square matrix over one axis of a parameter, as Shampoo and SOAP have them."""
    is_square = isinstance(value, torch.Tensor) and is_dense(value) and value.dim() == 2
    return is_square and value.shape[0] == value.shape[1] and value.shape[0] in parameter.shape


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a dense one of real numbers on the CPU."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_complex())
    )


def tensor_kind(tensor: torch.Tensor) -> str:
    """Return shape, type and storage of a tensor as text."""
    layout = "" if tensor.layout == torch.strided else f" {str(tensor.layout).removeprefix('torch.')}"
    device = " without values" if tensor.device.type == "meta" else ""
    return f"a{layout} tensor {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}{device}"
