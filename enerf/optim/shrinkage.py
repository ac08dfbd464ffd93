"""What intrinsic regularisation does to parameters, as arithmetic on lists of tensors; and how many zeros it left.

Vocabulary
----------
- a **preconditioner** P is diagonal and positive, kept as one tensor of the parameter's shape;
- a **rate** is αλ, the learning rate times the strength of the L1 penalty; a number, or a tensor of one
  number where the step may be captured in a graph;
- a **threshold** is αλP: how far one step of L1 moves an entry.

Everything comes twice, for all tensors at once (``torch._foreach_*``) and one tensor after the other, and
the two agree. Functions whose names end in an underscore change their first argument.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

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


Rates: TypeAlias = list[Any]


def denominators(moments: list[Tensor], corrections: Rates, eps: float, foreach: bool) -> list[Tensor]:
    """(P Pᵀ)⁻¹ = √v̂ + ε, anew, with √v̂ = √v / correction: what torch divides an averaged gradient by.

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
    """αλP for P = (√v̂ + ε)^(−1/2), anew.

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
    """Signs of all entries, anew; sign(0) = 0."""
    if not foreach:
        return [param.sign() for param in params]
    return list(torch._foreach_sign(params))


def decay_(params: list[Tensor], rates: Rates, foreach: bool) -> None:
    """Multiply by 1 − rate: the step of L2, the same for every P (Theorem 3)."""
    kept = [1 - rate for rate in rates]
    if foreach:
        torch._foreach_mul_(params, kept)
        return
    for param, factor in zip(params, kept, strict=True):
        param.mul_(factor)


def subtract_signs_(params: list[Tensor], thresholds: list[Tensor], signs: list[Tensor], foreach: bool) -> None:
    """Subtract αλP sign(θ), with signs of the parameters before the step (Theorem 4)."""
    if foreach:
        torch._foreach_addcmul_(params, thresholds, signs, value=-1)
        return
    for param, threshold, sign in zip(params, thresholds, signs, strict=True):
        param.addcmul_(threshold, sign, value=-1)


def soften_(params: list[Tensor], thresholds: list[Tensor], foreach: bool) -> None:
    """Soft thresholding: sign(θ) · max(|θ| − αλP, 0), as θ less its part within ±αλP, so that zeros are exact.

    Examples
    --------
    >>> param = torch.tensor([3.0, -0.5, -2.0])
    >>> soften_([param], [torch.ones(3)], foreach=False)
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
    """Shares of zeros.

    Attributes
    ----------
    overall
        Zeros over entries, of everything together; 0 if there are no entries.
    parts
        The same for each parameter, or for each group of an optimiser, in order.
    """

    overall: float
    parts: list[float]


def sparsity(source: Optimizer | Iterable[Tensor], threshold: float = 0.0) -> Sparsity:
    """Share of entries with |θ| ≤ ``threshold``; of exact zeros, by default.

    Parameters
    ----------
    source
        Parameters, or an optimiser, whose groups are reported.
    threshold
        At least 0.

    Raises
    ------
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
        parts = [[param] for param in source]
    counts = [sum(int((param.detach().abs() <= threshold).sum()) for param in part) for part in parts]
    sizes = [sum(param.numel() for param in part) for part in parts]
    shares = [count / max(size, 1) for count, size in zip(counts, sizes, strict=True)]
    return Sparsity(sum(counts) / max(sum(sizes), 1), shares)
