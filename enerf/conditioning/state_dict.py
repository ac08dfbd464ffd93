"""Conversion of state dicts between conditioned and plain models.

A conditioned layer stores ``parametrizations.weight.original`` (and whatever else its map needs: gains, divisors,
lengths) in place of ``weight``. The functions here take the conditioned *model*, which knows its maps, and a state
dict; they change neither.
"""

import copy
from collections.abc import Mapping
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from enerf.conditioning import batch_norm, layers


def key_map(model: nn.Module) -> dict[str, str]:
    """Map each key of the conditioned model's state dict to the plain key it contributes to.

    Keys that are the same in both map to themselves; those without a counterpart in the plain model are omitted.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8))
    >>> _ = layers.condition(net, "row", scale="learned")
    >>> for key, plain in key_map(net).items():
    ...     print(key, "->", plain)
    0.bias -> 0.bias
    0.parametrizations.weight.original -> 0.weight
    0.parametrizations.weight.0.gain -> 0.weight
    """
    plain = {key: _plain_key(key) for key in model.state_dict()}
    return {key: plain_key for key, plain_key in plain.items() if plain_key is not None}


def baked_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a conditioned state dict to a plain one, which holds the weights that the layers apply.

    Raises
    ------
    ValueError
        If a key is missing or unexpected.
    """
    copied = copy.deepcopy(model)
    _check_keys(set(copied.state_dict()), set(state))
    copied.load_state_dict(state)
    return dict(layers.bake(copied).state_dict())


def unbaked_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a plain state dict to a conditioned one, whose raw weights are the plain weights.

    Gains and lengths are set so that the layers apply the plain weights again wherever the map can produce them: always
    for weight norm, and for weights that were baked from the same map if it is idempotent (all but ``row_column``).
    Otherwise the map acts on them as on any raw weights.

    Raises
    ------
    ValueError
        If a key is missing or unexpected.
    """
    copied = copy.deepcopy(model)
    _check_keys(set(key_map(copied).values()), set(state))
    computed = {plain for key, plain in key_map(copied).items() if key != plain}
    copied.load_state_dict({key: value for key, value in state.items() if key not in computed}, strict=False)
    with torch.no_grad():
        for key in computed:
            path, _, name = key.rpartition(".")
            setattr(copied.get_submodule(path), name, state[key])  # torch passes it to right_inverse
    return dict(copied.state_dict())


def _plain_key(key: str) -> str | None:
    """Plain key that a conditioned key contributes to; None for the buffers of batch-norm preconditioning."""
    parts = key.split(".")
    if parts[-1] in batch_norm.BUFFERS:
        return None
    if "parametrizations" not in parts:
        return key
    at = parts.index("parametrizations")
    return ".".join([*parts[:at], parts[at + 1]])


def _check_keys(expected: set[str], found: set[str]) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        problems = [f"lacks {missing[0]}"] if missing else []
        near = get_close_matches(extra[0], sorted(expected), n=1) if extra else []
        problems += [f"has {extra[0]}" + (f" (expected {near[0]}?)" if near else "")] if extra else []
        raise ValueError(f"the state dict {' and '.join(problems)}")
