"""Arithmetic of intrinsic regularization on lists of tensors, checks of parameter groups, and sparsity.

Vocabulary
----------
- a **preconditioner** P is diagonal and positive, stored as one tensor of the parameter's shape;
- a **rate** is αλ, the learning rate times the strength of the L1 penalty: a number, or a scalar tensor where the
  step may be captured in a CUDA graph;
- a **threshold** is αλP: the distance by which one L1 step moves an entry.

Each function is implemented with ``torch._foreach_*`` and as a loop over tensors, with equal results. Functions whose
names end in an underscore change their first argument.
"""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

SHRINKAGES = ("sign", "soft")
DEFAULTS: dict[str, Any] = {"l1": 0.0, "l2": 0.0, "shrinkage": "sign"}


def strength(name: str, value: Any) -> float:
    """``l1`` or ``l2`` as a number; a tensor or a NumPy scalar is converted, once.

    Raises
    ------
    ValueError
        If it is not a number from 0 up.
    """
    if not isinstance(value, Real | Tensor) and getattr(value, "shape", None) == ():
        value = value.item()  # an array of NumPy without axes, which this module does not import
    single = isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex())
    number = float(value.detach() if isinstance(value, Tensor) else value) if single else math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a number from 0 up")
    return number


def check_(group: dict[str, Any]) -> None:
    """Convert the strengths of a parameter group to numbers, in place, and check its options.

    Raises
    ------
    ValueError
        If an option is out of range or not supported.
    """
    for name in ("l1", "l2"):
        group[name] = strength(name, group[name])
    if group["shrinkage"] not in SHRINKAGES:
        raise ValueError(f"shrinkage is {group['shrinkage']!r}; it must be one of {', '.join(SHRINKAGES)}")
    if group["weight_decay"]:
        raise ValueError(
            f"weight_decay is {group['weight_decay']!r}; it must be 0, because regularization is intrinsic: use l2"
        )
    if group["differentiable"]:
        raise ValueError("differentiable is True; it must be False: the intrinsic terms are in-place operations")
    if any(param.is_complex() for param in group["params"]):
        raise ValueError("a parameter is complex; it must be real, because L1 takes its sign")


def complete_loaded_(group: dict[str, Any]) -> None:
    """Add the options that a loaded group lacks; AdamW's weight decay becomes ``l2``.

    ``IntrinsicAdam`` saves its ``l2`` as AdamW's weight decay too, so that AdamW can load it; it is not applied twice.

    Raises
    ------
    ValueError
        If the group has a weight decay that is not known to be decoupled (AdamW says so from torch 2.7 on), or that
        differs from its ``l2``.
    """
    decay = group.get("weight_decay", 0)
    if decay and group.get("l2", decay) != decay:
        raise ValueError(f"the checkpoint has weight_decay {decay!r} and l2 {group['l2']!r}; expected one of the two")
    if decay:
        if "l2" not in group and not group.get("decoupled_weight_decay"):
            raise ValueError(
                f"the checkpoint has weight_decay {decay!r} without decoupled_weight_decay; only decoupled decay "
                "can be converted to l2: set it to True in the groups of an AdamW of torch before 2.7"
            )
        group.update(l2=decay, weight_decay=0.0)
    for name, value in DEFAULTS.items():
        group.setdefault(name, value)


def params_with_gradients(group: dict[str, Any]) -> list[Tensor]:
    """The parameters of a group that have a gradient.

    Raises
    ------
    RuntimeError
        If a gradient is sparse and ``l1`` or ``l2`` is not 0.
    """
    params = [param for param in group["params"] if param.grad is not None]
    if (group["l1"] or group["l2"]) and any(param.grad.is_sparse for param in params):
        raise RuntimeError("a gradient is sparse; l1 and l2 act on all entries of a parameter, so they must be 0")
    return params


def uses_foreach(group: dict[str, Any], params: list[Tensor]) -> bool:
    """Whether torch would update these parameters with ``_foreach`` or fused kernels."""
    if group["foreach"] is not None or group.get("fused"):
        return bool(group["foreach"] or group.get("fused"))
    eager_rate = isinstance(group["lr"], Tensor) and not group.get("capturable")
    return not eager_rate and all(param.is_cuda for param in params)


def steps_done(group: dict[str, Any], states: list[dict[str, Any]]) -> list[Any]:
    """Number of steps done of each parameter; those on the CPU are read at once.

    As tensors where reading them would synchronize the device, or break a CUDA graph or a compiled one.
    """
    found = [state.get("step", 0) for state in states]
    if group.get("capturable") or torch.compiler.is_compiling():
        return found
    readable = [isinstance(step, Tensor) and step.is_cpu for step in found]
    tensors = [step for step, is_readable in zip(found, readable, strict=True) if is_readable]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])
    return [next(numbers) if is_readable else step for step, is_readable in zip(found, readable, strict=True)]


Rates: TypeAlias = list[Any]


def denominators(moments: list[Tensor], corrections: Rates, eps: float, foreach: bool) -> list[Tensor]:
    """(P Pᵀ)⁻¹ = √v̂ + ε in new tensors, with √v̂ = √v / correction: the denominators of torch's optimizers.

    Parameters
    ----------
    moments
        Second moments v ≥ 0.
    corrections
        √(1 − β₂ᵗ) for Adam, ones elsewhere.
    eps
        ε.

    Examples
    --------
    >>> denominators([torch.tensor([0.0, 9.0])], [0.5], 1.0, foreach=False)
    [tensor([1., 7.])]
    """
    if not foreach:
        return [moment.sqrt().div_(by).add_(eps) for moment, by in zip(moments, corrections, strict=True)]
    roots = list(torch._foreach_sqrt(moments))
    torch._foreach_div_(roots, corrections)
    torch._foreach_add_(roots, eps)
    return roots


def thresholds(denominators: list[Tensor], rates: Rates, foreach: bool) -> list[Tensor]:
    """αλP for P = (√v̂ + ε)^(−1/2), in new tensors.

    Examples
    --------
    >>> thresholds([torch.tensor([1.0, 4.0])], [0.5], foreach=False)
    [tensor([0.5000, 0.2500])]
    """
    if not foreach:
        return [of.sqrt().reciprocal_().mul_(rate) for of, rate in zip(denominators, rates, strict=True)]
    found = list(torch._foreach_sqrt(denominators))
    torch._foreach_reciprocal_(found)
    torch._foreach_mul_(found, rates)
    return found


def signs(params: list[Tensor], foreach: bool) -> list[Tensor]:
    """Signs of all entries, in new tensors; sign(0) = 0."""
    if not foreach:
        return [param.sign() for param in params]
    return list(torch._foreach_sign(params))


def decay_(params: list[Tensor], rates: Rates, foreach: bool) -> None:
    """Multiply by 1 − rate: the L2 step, which does not depend on P (Theorem 3)."""
    factors = [1 - rate for rate in rates]
    if foreach:
        torch._foreach_mul_(params, factors)
        return
    for param, factor in zip(params, factors, strict=True):
        param.mul_(factor)


def subtract_signs_(params: list[Tensor], thresholds: list[Tensor], signs: list[Tensor], foreach: bool) -> None:
    """Subtract αλP sign(θ), with signs of the parameters before the step (Theorem 4)."""
    if foreach:
        torch._foreach_addcmul_(params, thresholds, signs, value=-1)
        return
    for param, threshold, sign in zip(params, thresholds, signs, strict=True):
        param.addcmul_(threshold, sign, value=-1)


def soft_threshold_(params: list[Tensor], thresholds: list[Tensor], foreach: bool) -> None:
    """Soft thresholding: sign(θ) · max(|θ| − αλP, 0), computed as θ minus θ clamped to ±αλP, so zeros are exact.

    Examples
    --------
    >>> param = torch.tensor([3.0, -0.5, -2.0])
    >>> soft_threshold_([param], [torch.ones(3)], foreach=False)
    >>> param
    tensor([ 2.,  0., -1.])
    """
    if foreach:
        within = list(torch._foreach_maximum(params, torch._foreach_neg(thresholds)))
        torch._foreach_minimum_(within, thresholds)
        torch._foreach_sub_(params, within)
        return
    for param, threshold in zip(params, thresholds, strict=True):
        param.sub_(param.clamp(-threshold, threshold))


class Sparsity(NamedTuple):
    """Fractions of zeros.

    Attributes
    ----------
    overall
        Fraction of all entries; 0 if there are no entries.
    parts
        Fraction of each parameter, or of each parameter group of an optimizer, in order.
    """

    overall: float
    parts: list[float]


def sparsity(source: Optimizer | Iterable[Tensor], threshold: float = 0.0) -> Sparsity:
    """Fraction of entries with |θ| ≤ ``threshold``; by default, of exact zeros.

    Parameters
    ----------
    source
        Parameters, or an optimizer, whose groups are reported.
    threshold
        At least 0.

    Raises
    ------
    TypeError
        If ``source`` is neither.
    ValueError
        If ``threshold`` is negative.

    Examples
    --------
    >>> sparsity([torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0])])
    Sparsity(overall=0.5, parts=[0.333..., 1.0])
    """
    if not threshold >= 0:
        raise ValueError(f"threshold is {threshold!r}; it must be a number from 0 up")
    if isinstance(source, Optimizer):
        parts = [group["params"] for group in source.param_groups]
    else:
        parts = [[param] for param in source] if isinstance(source, Iterable) else [[source]]
        if not all(isinstance(param, Tensor) for (param,) in parts):
            raise TypeError(f"the source is a {type(source).__name__}; expected an optimizer, or parameters in a list")
    counts = [sum(int((_whole(param).abs() <= threshold).sum()) for param in part) for part in parts]
    sizes = [sum(param.numel() for param in part) for part in parts]
    fractions = [count / max(size, 1) for count, size in zip(counts, sizes, strict=True)]
    return Sparsity(sum(counts) / max(sum(sizes), 1), fractions)


def _whole(parameter: Tensor) -> Tensor:
    """The values of a parameter; those of all processes if it is sharded (FSDP2), which then must all call this."""
    gather = getattr(parameter, "full_tensor", None)
    values: Tensor = parameter if gather is None else gather()
    return values.detach()
