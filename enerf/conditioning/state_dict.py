"""State dicts of conditioned models to those of plain ones, and back.

A conditioned layer keeps ``parametrizations.weight.original`` (and a gain, divisors, lengths: whatever its map holds)
where a plain one keeps ``weight``. The functions here take the conditioned *model*, which knows its maps, and a state
dict; neither is changed.
"""

import copy
from collections.abc import Mapping
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from enerf.conditioning import batch_norm, layers


def key_map(model: nn.Module) -> dict[str, str]:
    """Key in the conditioned model's state dict -> key of the plain weight that it goes into.

    Keys that are the same in both map to themselves; those that a plain model has no place for are left out.

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
    return {key: where for key, where in plain.items() if where is not None}


def baked_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The plain state dict of a conditioned one: the weights that its layers apply, under plain names.

    Raises
    ------
    ValueError
        If a key is missing or unexpected.
    """
    twin = copy.deepcopy(model)
    _check_keys(set(twin.state_dict()), set(state))
    twin.load_state_dict(state)
    return dict(layers.bake(twin).state_dict())


def unbaked_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The conditioned state dict whose raw weights are those of a plain one.

    Gains and lengths are set so that the layers apply the plain weights again wherever the map can make them: always
    for weight norm, and for weights that were baked from the same map if that is idempotent (all but ``row_column``).
    Elsewhere the map acts on them as on any raw weights.

    Raises
    ------
    ValueError
        If a key is missing or unexpected.
    """
    twin = copy.deepcopy(model)
    _check_keys(set(key_map(twin).values()), set(state))
    computed = {plain for key, plain in key_map(twin).items() if key != plain}
    twin.load_state_dict({key: value for key, value in state.items() if key not in computed}, strict=False)
    with torch.no_grad():
        for key in computed:
            path, _, name = key.rpartition(".")
            setattr(twin.get_submodule(path), name, state[key])  # torch hands it to right_inverse
    return dict(twin.state_dict())


def _plain_key(key: str) -> str | None:
    """The plain weight that a key of a conditioned model belongs to; None for what batch-norm preconditioning keeps."""
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
        told = [f"lacks {missing[0]}"] if missing else []
        near = get_close_matches(extra[0], sorted(expected), n=1) if extra else []
        told += [f"has {extra[0]}" + (f" (expected {near[0]}?)" if near else "")] if extra else []
        raise ValueError(f"the state dict {' and '.join(told)}")
