"""Parameter groups of the intrinsic optimisers: what their options may say, and what they mean for a step."""

import math
from typing import Any

from torch import Tensor

SHRINKAGES = ("sign", "soft")
NEUTRAL: dict[str, Any] = {"l1": 0.0, "l2": 0.0, "shrinkage": "sign"}


def check(group: dict[str, Any]) -> None:
    """Raise a ValueError for options that are out of range or not to be had."""
    for name in ("l1", "l2"):
        value = group[name]
        if not (isinstance(value, int | float) and 0 <= value < math.inf):
            raise ValueError(f"{name} is {value!r}; it must be a number from 0 up")
    if group["shrinkage"] not in SHRINKAGES:
        raise ValueError(f"shrinkage is {group['shrinkage']!r}; it must be one of {', '.join(SHRINKAGES)}")
    if group["weight_decay"]:
        raise ValueError(
            f"weight_decay is {group['weight_decay']!r}; it must be 0 here, where regularisation is intrinsic: say l2"
        )
    if group["differentiable"]:
        raise ValueError("differentiable is True; it must be False: the intrinsic terms are done in place")
    if any(param.is_complex() for param in group["params"]):
        raise ValueError("a parameter is complex; it must be real, because L1 takes its sign")


def adopt_(group: dict[str, Any]) -> None:
    """Give a loaded group the options that its checkpoint lacks; AdamW's weight decay becomes ``l2``."""
    decay = group.get("weight_decay", 0)
    if decay and "l2" not in group:
        if not group.get("decoupled_weight_decay"):
            raise ValueError(
                f"the checkpoint has weight_decay {decay!r} without decoupled_weight_decay; only decoupled decay "
                "can be taken over, as l2"
            )
        group.update(l2=decay, weight_decay=0.0)
    for name, value in NEUTRAL.items():
        group.setdefault(name, value)


def with_gradients(group: dict[str, Any]) -> list[Tensor]:
    """The parameters that a step changes."""
    params = [param for param in group["params"] if param.grad is not None]
    if (group["l1"] or group["l2"]) and any(param.grad.is_sparse for param in params):
        raise RuntimeError("a gradient is sparse; l1 and l2 act on all entries of a parameter, so they must be 0")
    return params


def at_once(group: dict[str, Any], params: list[Tensor]) -> bool:
    """Whether torch would treat these parameters all at once."""
    if group["foreach"] is not None or group.get("fused"):
        return bool(group["foreach"] or group.get("fused"))
    eager_rate = isinstance(group["lr"], Tensor) and not group.get("capturable")
    return not eager_rate and all(param.is_cuda for param in params)


def steps(group: dict[str, Any], state: dict[str, Any]) -> Any:
    """Steps done, as a number; as a tensor where reading it would wait for the device, or belongs in a graph."""
    step = state.get("step", 0)
    if isinstance(step, Tensor) and step.is_cpu and not group.get("capturable"):
        return step.item()
    return step
