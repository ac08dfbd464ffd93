"""Conversion of state dicts between conditioned and plain models, and of those of earlier versions.

A conditioned layer stores ``parametrizations.weight.original`` (and whatever else its map needs: gains, divisors,
lengths) in place of ``weight``. The functions here take the conditioned *model*, which knows its maps, and a state
dict; they change neither.

Learned gains had no axis in earlier versions; now they have one, because sharding (FSDP2) requires it. Models load old
gains by ``load_state_dict``. An optimizer does not convert its state to the shapes of its parameters:
``upgraded_optimizer_state`` does.
"""

import copy
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from enerf.conditioning import baking, batch_norm, interface

COUNTERS = ("step", "mu_product", "eta", "mu")  # numbers, not tensors of a parameter's shape, in states of optimizers


def key_map(model: nn.Module) -> dict[str, str]:
    """Map each key of the conditioned model's state dict to the plain key it contributes to.

    Keys that are the same in both map to themselves; those without a counterpart in the plain model are omitted. Keys
    of parametrizations that ``bake`` leaves alone are the same in both.

    Examples
    --------
    >>> from enerf.conditioning import layers
    >>> net = nn.Sequential(nn.Linear(3, 8))
    >>> _ = layers.condition(net, "row", scale="learned")
    >>> for key, plain in key_map(net).items():
    ...     print(key, "->", plain)
    0.bias -> 0.bias
    0.parametrizations.weight.original -> 0.weight
    0.parametrizations.weight.0.gain -> 0.weight
    """
    interface.require_module(model)
    foreign = tuple(
        f"{path}.parametrizations.{name}.".removeprefix(".")
        for path, module in model.named_modules()
        for name, item in interface.parametrized_tensors(module).items()
        if interface.is_foreign(item)
    )
    plain = {key: key if key.startswith(foreign) else _plain_key(key) for key in model.state_dict()}
    return {key: plain_key for key, plain_key in plain.items() if plain_key is not None}


def baked_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a conditioned state dict to a plain one, which holds the weights that the layers apply.

    Raises
    ------
    TypeError
        If the model is no module, or the state no mapping.
    ValueError
        If a key is missing or unexpected, a tensor has another shape, the model is sharded (FSDP2), or it has no
        values (on the meta device) and the state has.
    """
    _check_state(state)
    copied = _copied(model)
    state = upgraded_state(copied, state)
    _check_keys(set(copied.state_dict()), set(state))
    _check_tensors(copied.state_dict(), state)
    copied.load_state_dict(state)
    return dict(baking.bake(copied).state_dict())


def unbaked_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a plain state dict to a conditioned one, whose raw weights are the plain weights.

    Gains and lengths are set so that the layers apply the plain weights again wherever the map can produce them: always
    for weight norm, and for weights that were baked from the same map if it is idempotent (all but ``row_column``, and
    ``spectral_shift`` with another scale than ``fixed``) and has no gain a row (``learned_rows``; with the map ``row``
    it can); for spectral norm up to the error of its power iteration. Otherwise the map acts on them as on any raw
    weights. Weights are copied, and converted to the dtype and the device of the model.

    Raises
    ------
    TypeError
        If the model is no module, or the state no mapping.
    ValueError
        As for ``baked_state``.
    """
    _check_state(state)
    copied = _copied(model)
    _check_keys(set(key_map(copied).values()), set(state))
    computed = {plain for key, plain in key_map(copied).items() if key != plain}
    plain = copied.state_dict()
    with torch.no_grad():
        applied = {key: getattr(*_owner(copied, key)) for key in sorted(computed)}
        _check_tensors({key: applied[key] if key in applied else plain[key] for key in state}, state)
        copied.load_state_dict({key: value for key, value in state.items() if key not in computed}, strict=False)
        for key, weight in applied.items():
            setattr(*_owner(copied, key), torch.empty_like(weight).copy_(state[key]))  # passed to right_inverse
    return dict(copied.state_dict())


def upgraded_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of an earlier version: learned gains without an axis get the shape that the model has.

    ``load_state_dict`` does that itself; this is for code that compares shapes before it loads.

    Examples
    --------
    >>> from enerf.conditioning import layers
    >>> net = nn.Sequential(nn.Linear(3, 8))
    >>> _ = layers.condition(net, "row", scale="learned")
    >>> key = "0.parametrizations.weight.0.gain"
    >>> upgraded_state(net, {**net.state_dict(), key: torch.tensor(2.0)})[key]
    tensor([2.])
    """
    interface.require_module(model)
    _check_state(state)
    own = model.state_dict()
    gains = {key for key, value in own.items() if key.endswith(".gain") and tuple(value.shape) == (1,)}
    return {key: value.reshape(1) if key in gains and not value.shape else value for key, value in state.items()}


def upgraded_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an optimizer's state dict of an earlier version, for ``optimizer.load_state_dict``.

    Moments without an axis get the shape (1,) where the parameter has it: those of learned gains.

    Examples
    --------
    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    >>> old = {**optimizer.state_dict(), "state": {0: {"momentum_buffer": torch.tensor(3.0)}}}
    >>> upgraded_optimizer_state(optimizer, old)["state"]
    {0: {'momentum_buffer': tensor([3.])}}
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"the optimizer is a {type(optimizer).__name__}; expected a torch.optim.Optimizer")
    _check_state(state)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    gains = {number for number, parameter in zip(numbers, parameters, strict=False) if tuple(parameter.shape) == (1,)}

    def upgraded(name: str, value: Any) -> Any:
        old = isinstance(value, Tensor) and value.dim() == 0 and name not in COUNTERS
        return value.reshape(1) if old else value

    entries = {
        number: {name: upgraded(name, value) for name, value in entry.items()} if number in gains else entry
        for number, entry in state["state"].items()
    }
    return {**state, "state": entries}


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy; recurrent layers that have run hold computed weights, which torch does not copy."""
    interface.require_module(model)
    baking.check_not_sharded(model)
    computed = [
        weight
        for module in model.modules()
        if isinstance(module, nn.RNNBase)
        for weight in module._flat_weights
        if isinstance(weight, Tensor) and weight.grad_fn is not None
    ]
    return copy.deepcopy(model, {id(weight): weight.detach() for weight in computed})


def _plain_key(key: str) -> str | None:
    """Plain key that a conditioned key contributes to; None for the buffers of batch-norm preconditioning."""
    parts = key.split(".")
    if parts[-1] in batch_norm.BUFFERS:
        return None
    if "parametrizations" not in parts:
        return key
    at = parts.index("parametrizations")
    return ".".join([*parts[:at], parts[at + 1]])


def _owner(model: nn.Module, key: str) -> tuple[nn.Module, str]:
    """The module that has a tensor, and the tensor's name there."""
    path, _, name = key.rpartition(".")
    return model.get_submodule(path), name


def _check_tensors(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless the tensors of a state have the expected shapes, and values only where they can be."""
    for key, tensor in expected.items():
        if is_lazy(tensor) or not isinstance(state[key], Tensor):
            continue
        if state[key].shape != tensor.shape:
            raise ValueError(f"{key} has shape {tuple(state[key].shape)}, expected {tuple(tensor.shape)}")
        if tensor.is_meta and not state[key].is_meta:
            raise ValueError(f"{key} of the model is on the meta device, expected a model with values (see to_empty)")


def _check_state(state: object) -> None:
    """Raise a TypeError unless the state is a mapping, as state dicts are."""
    if not isinstance(state, Mapping):
        raise TypeError(f"the state is a {type(state).__name__}; expected a state dict")


def _check_keys(expected: set[str], found: set[str]) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        problems = [f"lacks {missing[0]}"] if missing else []
        near = get_close_matches(extra[0], sorted(expected), n=1) if extra else []
        problems += [f"has {extra[0]}" + (f" (expected {near[0]}?)" if near else "")] if extra else []
        raise ValueError(f"the state dict {' and '.join(problems)}")
