"""Autograd functions whose gradients are not differentiable again: a second derivative is an error, never left out."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., tuple[Any, ...]]
MESSAGE = (
    "a second derivative of a network, encoding or rendering was needed, and this backend has first derivatives "
    "only: evaluate it with the torch backend (--backend torch; from Python also SamplingConfig.compiled=False)"
)


def first_order(backward: Backward) -> Backward:
    """Decorator of ``backward``: under ``create_graph=True``, differentiating its results raises a RuntimeError.

    The function must save (``save_for_backward``) every tensor that its gradients depend on.

    ``torch.autograd.function.once_differentiable`` raises too, but only where the incoming gradient requires a
    gradient and nobody asks for derivatives with respect to particular tensors. Otherwise it silently returns
    constants: an eikonal loss on the gradient of ``values.sum()`` would train nothing.
    """

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        reached = [x for x in (*ctx.saved_tensors, *grads) if x is not None and x.requires_grad]
        present = [i for i, x in enumerate(found) if x is not None]
        if reached and present:
            refusing = _Refuse.apply(len(present), *(found[i] for i in present), *reached)
            found = tuple(refusing[present.index(i)] if i in present else None for i in range(len(found)))
        return found

    return wrapped


class _Refuse(torch.autograd.Function):
    """Identity on its first ``count`` tensors as a function of the others, which has no derivative."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(MESSAGE)


def only_first_order(out: Tensor, *sources: Tensor) -> Tensor:
    """``out``, a function of ``sources``, whose derivatives cannot be differentiated again (see ``first_order``)."""
    found: Tensor = _Pass.apply(out, *(x for x in sources if x.requires_grad)) if out.requires_grad else out
    return found


class _Pass(torch.autograd.Function):
    """Identity on its first tensor, which depends on the others; no gradient is sent to them."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, *sources: Tensor) -> Tensor:
        ctx.save_for_backward(*sources)
        return out.view_as(out)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return grad, *(None for _ in ctx.saved_tensors)
