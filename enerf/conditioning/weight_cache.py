"""Conditioned weights computed once for many uses: what keeps the cost of conditioning out of the step.

A step that goes through its points in parts, and through several networks, would compute each conditioned weight at
every use and pull every part's gradient back through the map. Here the map runs once a step, for all layers of a
kind in one stacked call; the parts see its values as leaves and add to their gradients; and the sum is pulled back
once, by the maps' closed-form gradient. Pulling back is linear in the gradient, so this is exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning.parametrization import Equilibrated


@dataclass(frozen=True)
class _Group:
    """Parametrized tensors of one kind: torch's lists of maps, their values (stacked if several), a leaf for each."""

    items: list[Any]
    values: Tensor
    leaves: list[Tensor]


@contextmanager
def computed_once(model: nn.Module) -> Iterator[None]:
    """Within, each parametrized tensor of the model is one fixed leaf; at the end its gradient goes to the originals.

    Gradients are added to ``.grad`` of the raw parameters, as ``backward`` does, when the block ends without an error.
    The raw parameters must not change inside.

    Raises
    ------
    RuntimeError
        If it is entered inside itself for the same model.
    """
    found = [
        item
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for item in module.get_submodule("parametrizations").children()
    ]
    if any("forward" in vars(item) for item in found):
        raise RuntimeError("the weights of this model are computed once already")
    groups = [_computed(items) for items in _kinds(found)]
    try:
        for group in groups:
            for item, leaf in zip(group.items, group.leaves, strict=True):
                vars(item)["forward"] = lambda leaf=leaf: leaf  # torch's property calls it
        yield
    finally:
        for item in found:
            vars(item).pop("forward", None)
    _pull_back(groups)


def _kinds(found: list[Any]) -> list[list[Any]]:
    """Equilibrated tensors of equal shape and map together, everything else alone."""
    kinds: dict[Any, list[Any]] = {}
    for item in found:
        key: Any = id(item)
        kind = item[0].kind() if len(item) == 1 and isinstance(item[0], Equilibrated) else None
        if kind is not None:
            raw = item.original
            key = (kind, raw.shape, raw.dtype, raw.device, raw.requires_grad)
        kinds.setdefault(key, []).append(item)
    return list(kinds.values())


def _computed(items: list[Any]) -> _Group:
    """The values of one kind, by one call of its map."""
    if len(items) == 1:
        values = items[0]()
        parts: tuple[Tensor, ...] = (values.detach(),)
    else:
        gains = None if items[0][0].gain is None else torch.stack([item[0].gain for item in items])
        values = items[0][0].applied(torch.stack([item.original for item in items]), gains)
        parts = values.detach().unbind()
    laid = [_laid_out(part, item) for part, item in zip(parts, items, strict=True)]
    return _Group(items, values, [part.requires_grad_(values.requires_grad) for part in laid])


def _laid_out(part: Tensor, item: Any) -> Tensor:
    """The same values in the memory order of the raw weight: one kernel in another order can slow a network down."""
    raw = getattr(item, "original", None)
    raw = item.original1 if raw is None and hasattr(item, "original1") else raw
    if raw is None or raw.shape != part.shape or raw.stride() == part.stride():
        return part
    return torch.empty_like(raw, dtype=part.dtype).copy_(part)


def _pull_back(groups: list[_Group]) -> None:
    """The leaves' gradients, through the maps, to the raw parameters."""
    reached = [group for group in groups if any(leaf.grad is not None for leaf in group.leaves)]
    gradients = []
    for group in reached:
        parts = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in group.leaves]
        gradients.append(parts[0] if len(parts) == 1 else torch.stack(parts))
    if reached:
        torch.autograd.backward([group.values for group in reached], gradients)
