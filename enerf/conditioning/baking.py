"""Baking: conditioned weights become plain parameters, for inference, export, and other libraries."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning import batch_norm
from enerf.conditioning.interface import (
    is_foreign,
    leave_shared_class,
    method_of,
    parametrized_tensors,
    raw_weight,
    require_module,
)
from enerf.conditioning.weight_cache import is_computed_once
from enerf.conditioning.weight_views import in_format_of
from enerf.optim.sharded import is_sharded

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def bake(model: AnyModule, *, foreign: bool = False) -> AnyModule:
    """Replace each conditioned weight by its current value, in place; the outputs are bitwise unchanged.

    Preconditioners of gradients are removed too. Deep copies of the model stay conditioned. Tied weights stay tied, and
    weights keep the memory format of the raw ones. Meant for inference and export: to continue training, make a new
    optimizer, because the moments of the old one belong to the raw weights. Bake before another library merges,
    quantizes, converts or saves weights: it would find the raw ones.

    Parameters
    ----------
    model
        The model.
    foreign
        Whether parametrizations that ``condition`` has not applied (e.g. those of ``torch.nn.utils.parametrizations``,
        or of other libraries) are replaced too; by default they stay.

    Raises
    ------
    TypeError
        If the model is no module.
    RuntimeError
        Inside ``weight_cache.computed_once``, with the model unchanged.
    ValueError
        If a foreign parametrization is chained with ours on one tensor, and ``foreign`` is False, or if the model is
        sharded (FSDP2); the model is unchanged.

    Examples
    --------
    >>> from enerf.conditioning.layers import condition
    >>> net = nn.Sequential(nn.Linear(3, 8))
    >>> _ = condition(net, "row", ["0"])
    >>> list(bake(net).state_dict())
    ['0.bias', '0.weight']
    """
    require_module(model)
    if any(isinstance(m, parametrize.ParametrizationList) and is_computed_once(m) for m in model.modules()):
        raise RuntimeError("the model cannot be baked inside computed_once: bake it afterwards")
    found = [
        (module, name, item)
        for module in model.modules()
        for name, item in parametrized_tensors(module).items()
        if foreign or not is_foreign(item)
    ]
    if found or any(map(batch_norm.is_preconditioned, model.modules())):
        check_not_sharded(model)
    for module, name, item in found:
        if not foreign and any(method_of(step) is None for step in item.children()):
            raise ValueError(
                f"{name} of a {type(module).__name__} has another parametrization on top of the conditioned one: "
                "foreign=True bakes both"
            )
    preconditioned = [module for module in model.modules() if batch_norm.is_preconditioned(module)]
    for module in preconditioned:
        batch_norm.check_restorable(module)
    for module in preconditioned:
        batch_norm.restore_(module)
    baked: set[int] = set()
    # torch makes a buffer of a weight of several originals if gradients are off, or if they are frozen
    with torch.enable_grad():
        for module, name, item in found:
            leave_shared_class(module)
            item.eval()  # so that the last access changes no state
            raw, is_single = raw_weight(item), hasattr(item, "original")
            first = not is_single or id(raw) not in baked
            # torch writes the value into the raw parameter itself: once for each set of tied layers
            parametrize.remove_parametrizations(module, name, leave_parametrized=first)
            baked.add(id(raw))
            if not is_single:
                _complete(module, name, raw)
    return model


def _complete(module: nn.Module, name: str, raw: Tensor | None) -> None:
    """Give a weight that had several originals the raw one's memory format, and make it a parameter if it is frozen."""
    weight = getattr(module, name)
    if raw is not None:
        weight.data = in_format_of(raw, weight.data)
    if not isinstance(weight, nn.Parameter):
        delattr(module, name)
        module.register_parameter(name, nn.Parameter(weight, requires_grad=False))


def check_not_sharded(model: nn.Module) -> None:
    """Raise a ValueError if parameters are shards (DTensor, as of FSDP2), which cannot be baked or copied."""
    name = next((name for name, parameter in model.named_parameters() if is_sharded(parameter)), None)
    if name is not None:
        raise ValueError(
            f"{name} is sharded: gather the state dict (torch.distributed.checkpoint.state_dict.get_model_state_dict "
            "with full_state_dict=True), and convert it by baked_state and a model that is not sharded"
        )
