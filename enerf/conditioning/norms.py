"""Norms of rows and columns with a lower bound, and division by them.

The floor
---------
A row whose norm is below ``FLOOR`` is divided by ``FLOOR`` instead. So a zero row stays zero, and the gradient of the
division is bounded by a small multiple of 1/``FLOOR`` everywhere (Euclidean norm: by 1/``FLOOR`` itself; above the
floor it is a projection divided by the norm). The customary 1e-12 would allow gradients of 1e12; 1e-6 lies far below
the norm of any row that a usual initialization produces (about 0.6 for PyTorch's default in a square layer, 1.4 for
He's).

A row that contains a NaN or an infinity becomes NaN throughout, and no other row changes, so that non-finite weights
are never silently made finite.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-6
GRADIENTS = ("through", "detached")
P_NORMS = (1.0, 2.0, math.inf)


def check(gradient: str, p: float | int) -> None:
    """Raise a ValueError unless ``gradient`` and ``p`` are known."""
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}; it must be one of {', '.join(GRADIENTS)}")
    if p not in P_NORMS:
        raise ValueError(f"p is {p!r}; the norms are 1, 2 and inf")


def floored(weight: Float[Tensor, "*batch n_out n_in"], dim: int, p: float | int = 2.0) -> Float[Tensor, "*batch _ _"]:
    """p-norm along ``dim``, kept as an axis of length one, or ``FLOOR`` where the norm is smaller.

    The largest magnitude is factored out, so that no power overflows or underflows. The norm does not depend on the
    factor, so treating it as a constant in autograd is exact. Where the largest magnitude reaches the floor, the sum of
    powers contains an exact 1 and the clamp has no effect; elsewhere the factor is the floor itself, and the clamp
    raises the norm to it.
    """
    magnitudes = weight.abs()
    if p == math.inf:
        return _nan_if_infinite(magnitudes.amax(dim, keepdim=True).clamp(min=FLOOR))
    largest = _nan_if_infinite(magnitudes.detach().amax(dim, keepdim=True).clamp(min=FLOOR))
    if p == 1:
        return largest * (magnitudes / largest).sum(dim, keepdim=True).clamp(min=1.0)
    return largest * (weight / largest).square().sum(dim, keepdim=True).clamp(min=1.0).sqrt()


def _nan_if_infinite(norm: Tensor) -> Tensor:
    """Replace infinite norms by NaN, so that finite entries beside an infinity do not become zeros."""
    return norm.masked_fill(norm == math.inf, math.nan)


def frobenius(weight: Float[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch 1 1"]:
    """Frobenius norm of each matrix, or ``FLOOR`` where the norm is smaller."""
    return floored(weight.flatten(-2).unsqueeze(-2), -1)


def unit(
    weight: Float[Tensor, "*batch n_out n_in"], dim: int, gradient: str, p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """Weights divided by their floored norms along ``dim``."""
    check(gradient, p)
    if gradient == "detached":
        return weight / floored(weight.detach(), dim, p)
    if p != 2 or torch.compiler.is_compiling():  # a compiler fuses the formula itself
        return weight / floored(weight, dim, p)
    result: Tensor = _UnitNorm.apply(weight, dim)
    return result


def divided(weight: Tensor, of_inputs: Tensor, of_outputs: Tensor, gradient: str, p: float | int) -> Tensor:
    """Divide by both divisors; multiplying by inverses would lose gradients at magnitudes of 1e30."""
    check(gradient, p)
    if gradient == "detached":
        of_inputs, of_outputs = of_inputs.detach(), of_outputs.detach()
    return weight / of_inputs / of_outputs


class _UnitNorm(torch.autograd.Function):
    """y = w / n with n = max(‖w‖₂, FLOOR), and its gradient in closed form: (g − y Σ(g y)) / n, or g / n on the floor.

    The gradient is the projection of g off y, divided by n: self-adjoint, so it is also the forward-mode derivative.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, dim: int) -> Tensor:
        return weight / floored(weight, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight, ctx.dim = inputs
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return _projected(gradient, weight, ctx.dim), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        (weight,) = ctx.saved_tensors
        return _projected(tangent, weight, ctx.dim)


def _projected(gradient: Tensor, weight: Tensor, dim: int) -> Tensor:
    """A gradient (or tangent) through ``_UnitNorm`` at a weight."""
    norm = floored(weight, dim)
    unit_weight = weight / norm
    along = (gradient * unit_weight).sum(dim, keepdim=True)
    return (gradient - unit_weight * torch.where(norm > FLOOR, along, 0.0)) / norm
