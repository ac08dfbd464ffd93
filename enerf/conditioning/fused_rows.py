"""Unit rows (or columns) of several large matrices at once, by torch's fused weight normalization.

``norms.unit`` uses the same kernels for one matrix. Here one node of the graph computes all matrices, and their norms
are checked together: for eight 256 × 256 matrices, calls between the kernels would take as long as the kernels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.conditioning import norms


def unit_each(weights: Sequence[Float[Tensor, "_ _"]], dim: int) -> tuple[Tensor, ...] | None:
    """Each matrix divided by its norms along ``dim``; None where ``norms.unit`` would not fuse each of them.

    Values and gradients are those of ``norms.unit`` with gradient ``"through"``, bit for bit. Once differentiable: a
    backward pass with ``create_graph=True`` raises a RuntimeError.

    Parameters
    ----------
    weights
        At least one matrix, each with ``norms.is_fused``, of one type.
    dim
        Axis of the norms, -2 or -1.

    Examples
    --------
    >>> a, b = torch.ones(128, 128), torch.ones(256, 64)
    >>> [float(unit[0, 0]) for unit in unit_each([a, b], -2)]
    [0.0883..., 0.0625]
    >>> unit_each([torch.zeros(128, 128)], -2)  # a norm below the floor
    """
    if not all(weight.dim() == 2 and weight.is_contiguous() for weight in weights):
        return None
    axis, ones, found = norms.fused_axis(dim), {}, []
    for weight in weights:
        size = weight.shape[axis]
        if size not in ones:
            ones[size] = weight.new_ones((size, 1) if dim == -1 else (1, size))
        found.append(torch._weight_norm_interface(weight.detach(), ones[size], axis))
    if not norms.are_usual(torch.cat([norm for _, norm in found], axis)):
        return None
    result: tuple[Tensor, ...] = _UnitEach.apply(dim, found, ones, *weights)
    return result


class _UnitEach(torch.autograd.Function):
    """Returns unit matrices that are computed already, as functions of the weights."""

    @staticmethod
    def forward(
        ctx: Any, dim: int, found: list[tuple[Tensor, Tensor]], ones: dict[int, Tensor], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.dim, ctx.norms, ctx.ones = dim, [norm for _, norm in found], ones
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*weights)
        return tuple(unit for unit, _ in found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if norms.is_differentiated():
            raise RuntimeError("unit_each is differentiable once; for second derivatives use norms.unit")
        found = [
            None if grad is None else norms.fused_projected(grad, weight, norm, ctx.dim, ctx.ones[norm.numel()])
            for grad, weight, norm in zip(grads, ctx.saved_tensors, ctx.norms, strict=True)
        ]
        return None, None, None, *found
