"""Cache of conditioned weights: each is computed once per training step, however often it is used.

A step that processes its points in chunks, or with several networks, would otherwise evaluate the map at every use and
backpropagate through it for every chunk. Here the map runs once, in one stacked call for all layers with equal shapes
and options; the chunks use the results as leaf tensors and accumulate gradients in them; the sum is backpropagated
through the maps once. The backward pass is linear in the gradient, so the result is exact.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from enerf.conditioning import fused_rows, norms
from enerf.conditioning.interface import raw_weight, require_module
from enerf.conditioning.parametrization import Equilibrated
from enerf.optim.sharded import is_sharded

CHANGED = (
    "a raw weight was changed inside computed_once, or replaced by another tensor (torch.func.functional_call): the "
    "conditioned weight that was computed is out of date"
)
OUTSIDE = (
    "backward outside computed_once: the gradients of conditioned weights are passed on when the block ends, so "
    "backward must be called inside it"
)
SHARDED = (
    "computed_once cannot be used with sharded raw weights (DTensor, as of FSDP2), which are gathered only in the "
    "forward pass of their module: train without it"
)
STEP_INSIDE = "an optimizer stepped inside computed_once, where raw weights have no gradients yet: step after the block"


@dataclass(frozen=True)
class _Group:
    """Parametrized tensors computed together: their parametrization lists, values, and one leaf for each.

    The values are one for each leaf, or a single stack of all.
    """

    items: list[Any]
    values: tuple[Tensor, ...]
    leaves: list[Tensor]


class _Place(NamedTuple):
    """A tensor of a module: the dictionary that has it, its name there, and the address of its values.

    An assignment to ``.data`` changes the address.
    """

    container: dict[str, Any]
    name: str
    tensor: Tensor
    address: int

    def is_changed(self) -> bool:
        """Whether the dictionary has another tensor now, or the tensor other memory."""
        return self.container.get(self.name) is not self.tensor or _address(self.tensor) != self.address


class _Watch:
    """Whether the raw weights of a parametrization list, or its other tensors, change after this object is made."""

    def __init__(self, item: nn.Module) -> None:
        self.raws, self.places = _raws(item), _places(item)
        self.versions = [_version(raw) for raw in self.raws]

    def is_changed(self) -> bool:
        """Whether a raw weight was changed in place, or a tensor was replaced; a compiled function sees the former."""
        if [_version(raw) for raw in self.raws] != self.versions:
            return True
        return not torch.compiler.is_compiling() and any(place.is_changed() for place in self.places)


@contextmanager
def computed_once(model: nn.Module) -> Iterator[None]:
    """Context manager that computes each parametrized tensor of the model once, on entry.

    Inside, the tensors are fixed leaves. When the block ends without an error, their gradients are backpropagated to
    ``.grad`` of the raw parameters, and added as by ``backward``. So ``backward`` belongs inside, and the optimizer's
    step outside. Clip and reset gradients outside too: inside, raw parameters have no gradients of this block yet, and
    ``backward(inputs=...)`` or ``torch.autograd.grad`` do not reach them. The raw parameters must not change inside;
    changes through ``.data`` in place are not noticed, and neither are other weights in a compiled function. Deep
    copies made inside are ordinary conditioned models.

    If gradients are off on entry, a weight that is used where they are on again is computed at that use, as outside.

    ``torch.nn.utils.parametrize.cached`` is not used, because it caches the tensors of all models of the process, and
    does not replace them by leaves. Instead ``forward`` of each parametrization list, which torch calls at every
    access, is replaced for the time of the block.

    Raises
    ------
    TypeError
        If the model is no module.
    RuntimeError
        If it is nested for the same model; if a raw parameter was changed or replaced inside (as by
        ``torch.func.functional_call``), at the next access of its weight and at the end; if an optimizer of raw
        parameters steps inside; in a ``backward`` after the block, of a loss that was computed inside; and if raw
        parameters are sharded (FSDP2).
    """
    require_module(model)
    found = _parametrized(model)
    if any(is_computed_once(item) for item in found):
        raise RuntimeError("the weights of this model are computed once already")
    raws = [raw for item in found for raw in _raws(item)]
    if any(map(is_sharded, raws)):
        raise RuntimeError(SHARDED)
    groups = [group for items in _stackable(found) for group in _compute(items)]
    handle = _refuse_steps(set(map(id, raws))) if found else None
    try:
        watches = [
            _replace(item, leaf) for group in groups for item, leaf in zip(group.items, group.leaves, strict=True)
        ]
        yield
        if any(watch.is_changed() for watch in watches):
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


def _parametrized(model: nn.Module) -> list[Any]:
    """The parametrization lists of a model, in the order of its modules; faster than ``modules``."""
    found: dict[int, Any] = {}
    seen: set[int] = set()
    waiting: list[nn.Module | None] = [model]
    while waiting:
        module = waiting.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        children = module._modules
        lists = children.get("parametrizations")
        if isinstance(lists, nn.ModuleDict):
            for item in lists._modules.values():
                found[id(item)] = item
        if children:
            waiting += reversed(children.values())
    return list(found.values())


def _raws(module: nn.Module) -> list[Tensor]:
    """The raw weights of a parametrization list, and the parameters of its parametrizations; faster than iterators."""
    found: list[Tensor] = [parameter for parameter in module._parameters.values() if parameter is not None]
    if isinstance(module, parametrize.ParametrizationList):  # of a conditioned buffer
        found += [buffer for buffer in module._buffers.values() if buffer is not None]
    for child in module._modules.values():
        if child is not None and (child._parameters or child._modules):
            found += _raws(child)
    return found


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


def _replace(item: Any, leaf: Tensor) -> _Watch:
    """Make a parametrization list return ``leaf`` until ``_restore``, and raise once its raw weights have changed."""
    watch = _Watch(item)
    lacks_gradient = not torch.is_grad_enabled() and any(raw.requires_grad for raw in watch.raws)

    def forward() -> Tensor:
        if watch.is_changed():
            raise RuntimeError(CHANGED)
        if lacks_gradient and torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            computed: Tensor = type(item).forward(item)
            return computed
        return leaf

    def copied(memo: dict[int, Any]) -> Any:
        replaced = _restore(item)
        try:
            return copy.deepcopy(item, memo)
        finally:
            vars(item).update(replaced)

    vars(item).update(forward=forward, __deepcopy__=copied)
    return watch


def _restore(item: Any) -> dict[str, Any]:
    """Undo ``_replace``; returns what it had set."""
    return {name: vars(item).pop(name) for name in ("forward", "__deepcopy__") if name in vars(item)}


def _version(raw: Tensor) -> int:
    """Number of changes in place; not counted for tensors made in inference mode."""
    return -1 if raw.is_inference() else raw._version


def _places(module: nn.Module) -> list[_Place]:
    """Where the parameters and buffers of a parametrization list and of its parametrizations are."""
    found = [
        _Place(container, name, tensor, _address(tensor))
        for container in (module._parameters, module._buffers)
        for name, tensor in container.items()
        if tensor is not None
    ]
    return found + [place for child in module._modules.values() if child is not None for place in _places(child)]


def _address(raw: Tensor) -> int:
    try:
        return raw.data_ptr()
    except RuntimeError:  # of tensors without memory, as of functional transforms
        return 0


def _stackable(found: list[Any]) -> list[list[Any]]:
    """Group equilibrated tensors with equal options that are computed by one call; others are groups of their own.

    Small tensors are stacked, so they have equal shapes too. Those that torch's fused operation divides are not: copies
    to a stack would take longer. One node of the graph computes them if their map is that division alone.
    """
    groups: dict[Any, list[Any]] = {}
    for item in found:
        key: Any = id(item)
        step = item._modules["0"] if len(item._modules) == 1 else None
        if isinstance(step, Equilibrated) and (options := step.stacking_key()) is not None:
            raw = item.original
            if not norms.is_fused(raw):
                key = (options, raw.shape, raw.dtype, raw.device, raw.requires_grad)
            elif (axis := step.norm_axis()) is not None:
                key = (axis, raw.dtype, raw.requires_grad)
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def _compute(items: list[Any]) -> list[_Group]:
    """Compute the values of one group of ``_stackable``, with one call of its map; each alone where that is refused."""
    if len(items) == 1:
        return [_group(items, (items[0](),))]
    if norms.is_fused(items[0].original):
        units = fused_rows.unit_each([item.original for item in items], items[0][0].norm_axis())
        return [_group([item], (item(),)) for item in items] if units is None else [_group(items, units)]
    gains = None if items[0][0].gain is None else torch.stack([item[0].gain for item in items])
    return [_group(items, (items[0][0].compute(torch.stack([item.original for item in items]), gains),))]


def _group(items: list[Any], values: tuple[Tensor, ...]) -> _Group:
    """A group with its leaves."""
    is_stack = len(values) < len(items)
    parts = values[0].detach().unbind() if is_stack else [value.detach() for value in values]
    leaves = [_match_strides(part, item) for part, item in zip(parts, items, strict=True)]
    return _Group(items, values, [leaf.requires_grad_(values[0].requires_grad) for leaf in leaves])


def _match_strides(part: Tensor, item: Any) -> Tensor:
    """Copy values to the memory layout of the raw weight: another layout can slow down a convolution."""
    raw = raw_weight(item)
    if raw is None or raw.shape != part.shape or raw.stride() == part.stride():
        return part
    return torch.empty_like(raw, dtype=part.dtype).copy_(part)


def _backpropagate(groups: list[_Group]) -> None:
    """Backpropagate the leaves' gradients through the maps to the raw parameters."""
    pairs = [pair for group in groups for pair in _gradients(group)]
    if pairs:
        torch.autograd.backward([value for value, _ in pairs], [gradient for _, gradient in pairs])


def _gradients(group: _Group) -> list[tuple[Tensor, Tensor]]:
    """The values of a group that a loss has reached, with their gradients."""
    grads = [leaf.grad for leaf in group.leaves]
    if len(group.values) == len(grads):
        return [(value, grad) for value, grad in zip(group.values, grads, strict=True) if grad is not None]
    if all(grad is None for grad in grads):
        return []
    filled = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(group.leaves, grads, strict=True)]
    return [(group.values[0], torch.stack(filled))]
