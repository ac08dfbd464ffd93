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
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

FLOOR = 1e-6
FUSED_SIZE = 1 << 14  # entries of a tensor
_LARGEST_FUSED = 1e12  # its third power is finite in float32
_fused_backward: Callable[..., tuple[Tensor, Tensor]] = torch.ops.aten._weight_norm_interface_backward.default
_SMALLEST_SQUARE = 4 * FLOOR**2  # near the floor, the reference implementation decides on which side of it a row is
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

    The Euclidean norm on a CPU is the root of the sum of squares for the rows whose squares neither overflow nor come
    near the floor, and ``scaled_norm`` for the others. So the norm of a row is the same bit for bit in any batch.
    Elsewhere, choosing would cost more kernel launches than it saves, and a compiler fuses the formula itself.
    """
    if p != 2:
        return scaled_norm(weight, dim, p)
    if weight.device.type != "cpu" or torch.compiler.is_compiling() or not _holds_squares(weight):
        return scaled_norm(weight, dim)
    squares = weight.square().sum(dim, keepdim=True)
    if _has_values(squares) and _all_between(squares, _SMALLEST_SQUARE, math.inf):
        return squares.sqrt()
    is_direct = (squares > _SMALLEST_SQUARE) & (squares < math.inf)
    direct = torch.where(is_direct, weight, 1.0).square().sum(dim, keepdim=True).sqrt()
    return torch.where(is_direct, direct, scaled_norm(weight, dim))


def scaled_norm(
    weight: Float[Tensor, "*batch n_out n_in"], dim: int, p: float | int = 2.0
) -> Float[Tensor, "*batch _ _"]:
    """Reference implementation of ``floored``, for entries of any magnitude.

    The largest magnitude is factored out, so that no power overflows or underflows; sums of 16-bit numbers are of
    32 bits. The norm does not depend on the factor, so treating it as a constant in autograd is exact. Where the
    largest magnitude reaches the floor, the sum of powers contains an exact 1 and the clamp has no effect; elsewhere
    the factor is the floor itself, and the clamp raises the norm to it. A norm that its type cannot hold is NaN.
    """
    magnitudes = weight.abs()
    if p == math.inf:
        return _nan_if_infinite(magnitudes.amax(dim, keepdim=True).clamp(min=FLOOR))
    largest = _nan_if_infinite(magnitudes.detach().amax(dim, keepdim=True).clamp(min=FLOOR))
    powers = magnitudes / largest if p == 1 else (weight / largest).square()
    total = powers.sum(dim, keepdim=True, dtype=torch.promote_types(weight.dtype, torch.float32)).clamp(min=1.0)
    norm = largest * (total if p == 1 else total.sqrt())
    return _nan_if_infinite(norm.to(weight.dtype))


def _holds_squares(weight: Tensor) -> bool:
    """Whether the tensor's type can hold ``FLOOR`` squared as a normal number, which float16 cannot."""
    return weight.numel() > 0 and torch.finfo(weight.dtype).smallest_normal < FLOOR**2


def _has_values(tensor: Tensor) -> bool:
    """Whether control flow may depend on the values: not in functional transforms, tracing, and subclasses."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._get_tracing_state()
    )


def is_differentiated() -> bool:
    """Whether derivatives of what is computed now may be wanted: in reverse mode, or forward mode of a gradient.

    For backward passes, which are in neither mode as a rule. Forward mode does not depend on ``torch.no_grad``.
    """
    return torch.is_grad_enabled() or (not torch.compiler.is_compiling() and forward_ad._current_level >= 0)


def _nan_if_infinite(norm: Tensor) -> Tensor:
    """Replace infinite norms by NaN, so that finite entries beside an infinity do not become zeros."""
    return norm.masked_fill(norm == math.inf, math.nan)


def frobenius(weight: Float[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch 1 1"]:
    """Frobenius norm of each matrix, or ``FLOOR`` where the norm is smaller."""
    return floored(weight.flatten(-2).unsqueeze(-2), -1)


def unit(
    weight: Float[Tensor, "*batch n_out n_in"], dim: int, gradient: str, p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """Weights divided by their floored norms along ``dim``; float16, which may not hold its norms, in float32."""
    check(gradient, p)
    if weight.dtype == torch.float16:
        return unit(weight.float(), dim, gradient, p).half()
    if gradient == "detached":
        return weight / floored(weight.detach(), dim, p)
    if p != 2 or torch.compiler.is_compiling():  # a compiler fuses the formula itself
        return weight / floored(weight, dim, p)
    function = _TransformedUnitNorm if torch._C._are_functorch_transforms_active() else _UnitNorm
    result: Tensor = function.apply(weight, dim)
    return result


def divided(weight: Tensor, of_inputs: Tensor, of_outputs: Tensor, gradient: str, p: float | int) -> Tensor:
    """Divide by both divisors; multiplying by inverses would lose gradients at magnitudes of 1e30."""
    check(gradient, p)
    if gradient == "detached":
        of_inputs, of_outputs = of_inputs.detach(), of_outputs.detach()
    return weight / of_inputs / of_outputs


def is_fused(weight: Tensor) -> bool:
    """Whether torch's fused weight normalization divides this tensor, if it is one matrix and its norms are usual.

    Depends on the kind of tensor and its number of entries only. On a CPU each pass over a large matrix takes longer
    than a kernel launch; in small ones, a stack of them is divided in one call.
    """
    return (
        weight.device.type == "cpu"
        and weight.numel() >= FUSED_SIZE
        and weight.dtype in (torch.float32, torch.float64)
        and _has_values(weight)
    )


def _fused_unit(weight: Tensor, dim: int) -> tuple[Tensor, Tensor] | None:
    """Weights divided by their norms, and the norms, by torch's fused weight normalization; None where it cannot.

    It has no floor, its derivative takes powers of norms, and it works on contiguous matrices.
    """
    if not weight.is_contiguous() or (weight.dim() != 2 and dim != -1 and weight.shape[:-2].numel() != 1):
        return None
    matrix = weight if weight.dim() == 2 else weight.reshape(-1, weight.shape[-1])
    lengths = matrix.new_ones((len(matrix), 1) if dim == -1 else (1, matrix.shape[1]))
    unit_weight, norm = torch._weight_norm_interface(matrix, lengths, fused_axis(dim))
    if not are_usual(norm):
        return None
    return (unit_weight if weight.dim() == 2 else unit_weight.reshape(weight.shape)), norm


def fused_projected(gradient: Tensor, weight: Tensor, norm: Tensor, dim: int, lengths: Tensor | None = None) -> Tensor:
    """A gradient through ``_fused_unit``. Its own derivatives would be wrong: torch treats the norm as a constant.

    ``lengths`` are ones of the shape of ``norm``, if the caller has them.
    """
    axis, gradient = fused_axis(dim), gradient.contiguous()
    lengths = torch.ones_like(norm) if lengths is None else lengths
    if weight.dim() == 2:
        return _fused_backward(gradient, weight, lengths, norm, axis)[0]
    rows = (-1, weight.shape[-1])
    found = _fused_backward(gradient.reshape(rows), weight.reshape(rows), lengths, norm, axis)[0]
    return found.reshape(weight.shape)


def fused_axis(dim: int) -> int:
    """Torch's argument ``dim`` of weight normalization, the axis that remains, for norms along ``dim`` of a matrix."""
    return 0 if dim == -1 else 1


def are_usual(norm: Tensor) -> bool:
    """Whether all norms are where the fused operation is exact: above the floor, and not huge or NaN."""
    return _all_between(norm, 2 * FLOOR, _LARGEST_FUSED)


def _all_between(tensor: Tensor, low: float, high: float) -> bool:
    """Whether all entries are above ``low`` and below ``high``; NaN is not."""
    smallest, largest = (float(bound) for bound in tensor.detach().aminmax())
    return smallest > low and largest < high


class _UnitNorm(torch.autograd.Function):
    """y = w / n with n = max(‖w‖₂, FLOOR), and its gradient in closed form: (g − y Σ(g y)) / n, or g / n on the floor.

    The gradient is the projection of g off y, divided by n: self-adjoint, so it is also the forward-mode derivative.
    Where derivatives of the gradient are wanted, it is computed from w again by operations that have them.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        ctx.save_for_forward(weight)
        fused = _fused_unit(weight, dim) if is_fused(weight) else None
        if fused is not None:
            unit_weight, norm = fused
            ctx.save_for_backward(weight, norm)
            return unit_weight
        norm = floored(weight, dim)
        unit_weight = weight / norm
        ctx.save_for_backward(weight, norm, unit_weight)
        return unit_weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weight, norm, *saved = ctx.saved_tensors
        if is_differentiated() or (not saved and not _has_values(gradient)):
            return _projected(gradient, weight, ctx.dim), None
        if not saved:
            return fused_projected(gradient, weight, norm, ctx.dim), None
        (unit_weight,) = saved
        along = (gradient * unit_weight).sum(ctx.dim, keepdim=True).masked_fill_(norm <= FLOOR, 0.0)
        return torch.addcmul(gradient, unit_weight, along, value=-1).div_(norm), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        (weight,) = ctx.saved_tensors
        return _projected(tangent, weight, ctx.dim)


class _TransformedUnitNorm(torch.autograd.Function):
    """``_UnitNorm`` for ``torch.func``, which needs ``setup_context``; elsewhere that would take more time."""

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
