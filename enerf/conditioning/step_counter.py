"""Detection of optimizer steps, for values that are recomputed once in so many of them.

A tensor has been stepped if it was changed in place, or if an optimizer that has it did a step: some optimizers write
through ``.data``, which torch does not record as a change of the tensor. Steps of any optimizer count for a tensor that
no optimizer has, such as the gathered copy of a sharded parameter (FSDP2).

Repeated forward passes between two steps (accumulation of gradients, activation checkpointing) are therefore no steps,
and several changes between two calls are one.
"""

import weakref
from functools import cache
from typing import Any

from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

_steps_of: Any = WeakTensorKeyDictionary()  # parameter -> number of steps of optimizers that have it
_of_all = {"steps": 0}  # number of steps of all optimizers


class StepDetector:
    """Whether a tensor has been stepped since the last call.

    A deep copy continues for the copied tensor.

    Examples
    --------
    >>> import torch
    >>> weight, detector = torch.zeros(3), StepDetector()
    >>> detector.has_stepped(weight), detector.has_stepped(weight)
    (True, False)
    >>> _ = weight.add_(1)
    >>> detector.has_stepped(weight)
    True
    """

    def __init__(self) -> None:
        _install()
        self._tensor: weakref.ref[Tensor] | None = None
        self._state: tuple[object, ...] | None = None

    def has_stepped(self, tensor: Tensor) -> bool:
        """Whether the tensor differs from that of the last call, or was stepped since; True at the first call."""
        state = _state_of(tensor)
        same = self._tensor is not None and self._tensor() is tensor and self._state == state
        self._tensor, self._state = weakref.ref(tensor), state
        return not same

    def __deepcopy__(self, memo: dict[int, Any]) -> "StepDetector":
        copied = StepDetector()
        seen = None if self._tensor is None else self._tensor()
        if seen is not None and self._state == _state_of(seen) and id(seen) in memo:  # modules copy parameters first
            copied.has_stepped(memo[id(seen)])
        return copied

    def __reduce__(self) -> tuple[type["StepDetector"], tuple[()]]:
        return StepDetector, ()  # a saved state does not depend on the objects of this process


def _state_of(tensor: Tensor) -> tuple[object, ...]:
    """A value that changes when the tensor is changed in place (unless made in inference mode), or stepped."""
    version = -1 if tensor.is_inference() else tensor._version
    own = _steps_of.get(tensor)
    return (version, "all", _of_all["steps"]) if own is None else (version, "own", own)


@cache
def _install() -> None:
    """Count the steps of all optimizers from now on."""
    register_optimizer_step_post_hook(_count)


@_disable_dynamo
def _count(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    _of_all["steps"] += 1
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            _steps_of[parameter] = _steps_of.get(parameter, 0) + 1
