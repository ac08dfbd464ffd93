"""Cache of conditioned weights: each is computed once per training step, however often it is used.

A step that processes its points in chunks, or with several networks, would otherwise evaluate the map at every use and
backpropagate through it for every chunk. Here the map runs once, in one stacked call for all layers with equal shapes
and options; the chunks use the results as leaf tensors and accumulate gradients in them; the sum is backpropagated
through the maps once. The backward pass is linear in the gradient, so the result is exact.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from enerf.conditioning import norms
from enerf.conditioning.parametrization import Equilibrated

CHANGED = "a raw weight was changed inside computed_once: the conditioned weight that was computed is out of date"
OUTSIDE = (
    "backward outside computed_once: the gradients of conditioned weights are passed on when the block ends, so "
    "backward must be called inside it"
)
STEP_INSIDE = "an optimizer stepped inside computed_once, where raw weights have no gradients yet: step after the block"


@dataclass(frozen=True)
class _Group:
    """Parametrized tensors computed together: their parametrization lists, (stacked) values, and one leaf for each."""

    items: list[Any]
    values: Tensor
    leaves: list[Tensor]


@contextmanager
def computed_once(model: nn.Module) -> Iterator[None]:
    """Context manager that computes each parametrized tensor of the model once, on entry.

    Inside, the tensors are fixed leaves. When the block ends without an error, their gradients are backpropagated to
    ``.grad`` of the raw parameters, and added as by ``backward``. So ``backward`` belongs inside, and the optimizer's
    step outside. The raw parameters must not change inside. Deep copies made inside are ordinary conditioned models.

    ``torch.nn.utils.parametrize.cached`` is not used, because it caches the tensors of all models of the process, and
    does not replace them by leaves. Instead ``forward`` of each parametrization list, which torch calls at every
    access, is replaced for the time of the block.

    Raises
    ------
    RuntimeError
        If it is nested for the same model; if a raw parameter was changed inside, at the next access of its weight and
        at the end; if an optimizer of raw parameters steps inside; and in a ``backward`` after the block, of a loss
        that was computed inside.
    """
    found = [
        item
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for item in module.get_submodule("parametrizations").children()
    ]
    if any(is_computed_once(item) for item in found):
        raise RuntimeError("the weights of this model are computed once already")
    groups = [_compute(items) for items in _stackable(found)]
    raws = [list(item.parameters()) for item in found]
    handle = _refuse_steps({id(raw) for of_item in raws for raw in of_item}) if found else None
    try:
        for group in groups:
            for item, leaf in zip(group.items, group.leaves, strict=True):
                _replace(item, leaf)
        before = [_versions(of_item) for of_item in raws]
        yield
        if [_versions(item.parameters()) for item in found] != before:
            raise RuntimeError(CHANGED)
    finally:
        if handle is not None:
            handle.remove()
        for item in found:
            _restore(item)
        _refuse_backward(groups)
    _backpropagate(groups)


def is_computed_once(item: nn.Module) -> bool:
    """Whether a parametrization list returns a cached leaf, inside ``computed_once``."""
    return "forward" in vars(item)


def _refuse_steps(raws: set[int]) -> Any:
    """Raise an error when an optimizer with one of these parameters (by id) steps, until the handle is removed."""

    def check(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if any(id(parameter) in raws for group in optimizer.param_groups for parameter in group["params"]):
            raise RuntimeError(STEP_INSIDE)

    return register_optimizer_step_pre_hook(check)


def _refuse_backward(groups: list[_Group]) -> None:
    """Raise an error in each later backward pass that reaches a leaf: nothing passes its gradient on any more."""

    def refuse(gradient: Tensor) -> None:
        raise RuntimeError(OUTSIDE)

    for group in groups:
        for leaf in group.leaves:
            if leaf.requires_grad:
                leaf.register_hook(refuse)


def _replace(item: Any, leaf: Tensor) -> None:
    """Let a parametrization list return ``leaf`` as long as its raw parameters do not change, until ``_restore``."""
    raws = list(item.parameters())
    before = [_version(raw) for raw in raws]

    def forward() -> Tensor:
        if [_version(raw) for raw in raws] != before:
            raise RuntimeError(CHANGED)
        return leaf

    def copied(memo: dict[int, Any]) -> Any:
        replaced = _restore(item)
        try:
            return copy.deepcopy(item, memo)
        finally:
            vars(item).update(replaced)

    vars(item).update(forward=forward, __deepcopy__=copied)


def _restore(item: Any) -> dict[str, Any]:
    """Undo ``_replace``; returns what it had set."""
    return {name: vars(item).pop(name) for name in ("forward", "__deepcopy__") if name in vars(item)}


def _versions(raws: Iterable[Tensor]) -> list[tuple[int, int]]:
    """Identity and number of changes in place of each raw parameter."""
    return [(id(raw), _version(raw)) for raw in raws]


def _version(raw: Tensor) -> int:
    """Number of changes in place; not counted for tensors made in inference mode."""
    return -1 if raw.is_inference() else raw._version


def _stackable(found: list[Any]) -> list[list[Any]]:
    """Group equilibrated tensors with equal shapes and options; every other tensor is a group of its own.

    Tensors that torch's fused operation divides are groups of their own too: copies to a stack would take longer.
    """
    groups: dict[Any, list[Any]] = {}
    for item in found:
        key: Any = id(item)
        options = item[0].stacking_key() if len(item) == 1 and isinstance(item[0], Equilibrated) else None
        if options is not None and not norms.is_fused(item.original):
            raw = item.original
            key = (options, raw.shape, raw.dtype, raw.device, raw.requires_grad)
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def _compute(items: list[Any]) -> _Group:
    """Compute the values of one group, with one call of its map."""
    if len(items) == 1:
        values = items[0]()
        parts: tuple[Tensor, ...] = (values.detach(),)
    else:
        gains = None if items[0][0].gain is None else torch.stack([item[0].gain for item in items])
        values = items[0][0].compute(torch.stack([item.original for item in items]), gains)
        parts = values.detach().unbind()
    leaves = [_match_strides(part, item) for part, item in zip(parts, items, strict=True)]
    return _Group(items, values, [leaf.requires_grad_(values.requires_grad) for leaf in leaves])


def _match_strides(part: Tensor, item: Any) -> Tensor:
    """Copy values to the memory layout of the raw weight: another layout can slow down a convolution."""
    raw = getattr(item, "original", None)
    raw = item.original1 if raw is None and hasattr(item, "original1") else raw
    if raw is None or raw.shape != part.shape or raw.stride() == part.stride():
        return part
    return torch.empty_like(raw, dtype=part.dtype).copy_(part)


def _backpropagate(groups: list[_Group]) -> None:
    """Backpropagate the leaves' gradients through the maps to the raw parameters."""
    reached = [group for group in groups if any(leaf.grad is not None for leaf in group.leaves)]
    gradients = []
    for group in reached:
        parts = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in group.leaves]
        gradients.append(parts[0] if len(parts) == 1 else torch.stack(parts))
    if reached:
        torch.autograd.backward([group.values for group in reached], gradients)
