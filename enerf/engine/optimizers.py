"""Adam as ``torch.optim.Adam``, without importing torch's compiler."""

import inspect
from collections.abc import Callable
from typing import Any

import torch


def _without_compiler(function: Callable[..., Any]) -> Any:
    """A method of an optimizer without the wrapper that keeps ``torch.compile`` out of it."""
    return inspect.unwrap(function)


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` with methods that do not import ``torch._dynamo``, which takes a second.

    The wrappers that are left out matter within ``torch.compile`` alone, and with ``differentiable``. Values are the
    same bit for bit; state dicts are those of ``torch.optim.Adam``.
    """

    step = torch.no_grad()(_without_compiler(torch.optim.Adam.step))
    zero_grad = _without_compiler(torch.optim.Optimizer.zero_grad)
    add_param_group = _without_compiler(torch.optim.Optimizer.add_param_group)
    state_dict = _without_compiler(torch.optim.Optimizer.state_dict)
    load_state_dict = _without_compiler(torch.optim.Optimizer.load_state_dict)
