"""Conditioning of the layers of any model, in place, with ``torch.nn.utils.parametrize``; and its removal.

Vocabulary
----------
- a layer's **name** is its path in ``named_modules``;
- a layer is **conditioned** if its ``weight`` is computed from a raw parameter at each access. The raw
  parameter is called ``original`` and is what the optimizer updates, under the key
  ``parametrizations.weight.original``; ``condition`` does not change its values, so that plain and conditioned
  models of the same seed have the same initial parameters;
- **baking** replaces the raw parameter by the weight that was computed from it;
- layers are **tied** if they share a parameter. They are conditioned together, or not at all.

The order is a contract: build -> ``initialize_`` or ``unit_row_`` -> ``condition`` -> device -> optimizer -> load.
Conditioning changes the *order* of a layer's parameters, so optimizer state cannot be transferred between a plain and a
conditioned model. Inside ``weight_cache.computed_once`` or ``torch.nn.utils.parametrize.cached()``, a weight that is
used several times in one step is computed once. Conditioned models are saved by their ``state_dict``; torch refuses to
pickle whole parametrized modules.
"""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from enerf.conditioning import baselines, batch_norm, norms, selection, weight_views
from enerf.conditioning.baselines import INITS, initialize_, unit_row_, weight_norm
from enerf.conditioning.parametrization import MAPS, SCALES, Equilibrated
from enerf.conditioning.selection import METHODS, Layers, Selection, check_option, select
from enerf.conditioning.weight_cache import is_computed_once
from enerf.conditioning.weight_views import WeightView

__all__ = [
    "INITS",
    "METHODS",
    "SCALES",
    "Equilibrated",
    "Layers",
    "Selection",
    "bake",
    "condition",
    "conditioned_layers",
    "initialize_",
    "select",
    "unit_row_",
    "weight_norm",
]

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def condition(
    model: nn.Module,
    method: str,
    layers: Layers = "hidden",
    gradient: str = "through",
    *,
    heads: Collection[str] = (),
    every: int = 1,
    scale: str = "fixed",
    p: float | int = 2.0,
    packing: str = "matrix",
) -> list[str]:
    """Condition layers in place and return their names; on an error no layer is changed.

    The maps draw no random numbers and do not change the raw weights.

    Parameters
    ----------
    model
        The model.
    method
        ``row`` (the paper's choice), ``column``, ``row_column``, ``jacobi`` or ``ruiz``; or a baseline:
        ``weight_standardisation``, ``weight_norm``, ``spectral_norm``, ``unit_row`` (an initialization, no map) or
        ``batch_norm`` (gradients preconditioned by batch statistics).
    layers
        Groups, layer types, patterns or names, as for ``select``; by default all but ``heads``.
    gradient
        ``"through"`` differentiates the divisors, ``"detached"`` treats them as constants; see ``maps``.
    heads
        Names of the output heads, for ``select``.
    every
        Number of accesses after which the divisors are recomputed; above 1 it requires ``gradient="detached"``.
    scale
        Frobenius norm of the conditioned matrix: ``fixed``, ``kept``, ``constant`` or ``learned``; see
        ``parametrization``.
    p
        Order of the norm: 1, 2 or inf.
    packing
        Whether packed attention projections are conditioned per ``matrix`` or per ``head``.

    Raises
    ------
    ValueError
        If an option or a name is unknown, nothing is matched, or a layer has no weight matrices, is conditioned
        already, is not suitable for ``method``, or shares its weight with a module that cannot be conditioned with it.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> condition(net, "row")
    ['0']
    >>> torch.allclose(net[0].weight.norm(dim=0), torch.ones(3))
    True
    """
    _check_options(method, gradient, every, scale, p)
    names = selection.with_tied(model, select(model, layers, heads, method, packing).names)
    found = selection.plain_layers(model, names)
    if method == "jacobi":
        _check_diagonals(found, packing)
    if method in MAPS:
        options: dict[str, Any] = {"gradient": gradient, "p": float(p), "scale": scale, "every": every}
        _register(found, packing, lambda view: Equilibrated(method, view=view, **options))
    elif method == "unit_row":
        unit_row_(model, selection.without_tied(found), packing)
    elif method == "batch_norm":
        for module in found.values():
            batch_norm.precondition_(module)
    else:
        {"weight_norm": weight_norm, "spectral_norm": baselines.spectral_norm}[method](model, names)
    return names


def _register(found: dict[str, nn.Module], packing: str, make: Callable[[WeightView], Equilibrated]) -> None:
    """Register a parametrization for each weight, one for all layers that are tied; on an error for none."""
    shared: dict[int, Equilibrated] = {}
    registered: list[tuple[nn.Module, str, list[str]]] = []
    try:
        for module in found.values():
            for view in weight_views.views(module, packing):
                parametrization = shared.setdefault(id(getattr(module, view.name)), make(view))
                order = list(module._parameters)
                parametrize.register_parametrization(module, view.name, parametrization)
                registered.append((module, view.name, order))
                parametrization.reset_accesses()
    except BaseException:
        for module, name, order in reversed(registered):
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
            for key in order:  # torch has appended the weight to the end
                module._parameters[key] = module._parameters.pop(key)
        raise


def bake(model: AnyModule) -> AnyModule:
    """Replace each parametrized weight by its current value, in place; the outputs are bitwise unchanged.

    Preconditioners of gradients are removed too. Deep copies of the model stay conditioned. Tied weights stay tied.
    Meant for inference and export: to continue training, make a new optimizer, because the moments of the old one
    belong to the raw weights.

    Raises
    ------
    RuntimeError
        Inside ``weight_cache.computed_once``, with the model unchanged.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8))
    >>> _ = condition(net, "row", ["0"])
    >>> list(bake(net).state_dict())
    ['0.bias', '0.weight']
    """
    if any(isinstance(m, parametrize.ParametrizationList) and is_computed_once(m) for m in model.modules()):
        raise RuntimeError("the model cannot be baked inside computed_once: bake it afterwards")
    baked: set[int] = set()
    # torch turns a weight of several originals into a buffer if it is removed while gradients are off.
    with torch.enable_grad():
        for module in list(model.modules()):
            if batch_norm.is_preconditioned(module):
                batch_norm.restore_(module)
            if parametrize.is_parametrized(module):
                _leave_shared_class(module)
                module.get_submodule("parametrizations").eval()  # so that the last access changes no state
                for name, item in list(module.get_submodule("parametrizations").named_children()):
                    raw = id(getattr(item, "original", item))
                    # torch writes the value into the raw parameter itself: once for each set of tied layers
                    parametrize.remove_parametrizations(module, name, leave_parametrized=raw not in baked)
                    baked.add(raw)
    return model


def conditioned_layers(model: nn.Module) -> dict[str, str]:
    """Name -> method of each conditioned layer.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8))
    >>> _ = condition(net, "column", ["1"])
    >>> conditioned_layers(net)
    {'1': 'column'}
    """
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if batch_norm.is_preconditioned(module):
            found[name] = "batch_norm"
        for view in weight_views.views(module):
            if parametrize.is_parametrized(module, view.name):
                for step in module.get_submodule(f"parametrizations.{view.name}").children():
                    method = _method_of(step)
                    if method:
                        found[name] = method
    return found


def _check_options(method: str, gradient: str, every: int, scale: str, p: float | int) -> None:
    check_option("method", method, METHODS)
    norms.check(gradient, p)
    check_option("scale", scale, SCALES)
    if method not in MAPS and (gradient, every, scale, p) != ("through", 1, "fixed", 2):
        raise ValueError(f"{method} is not a map: gradient, every, scale and p apply to {', '.join(MAPS)}")
    if every < 1 or every != int(every):
        raise ValueError(f"every is {every!r}; expected a whole number from 1")
    if every > 1 and gradient != "detached":
        raise ValueError('cached divisors are constants: every above 1 requires gradient="detached"')
    if every > 1 and method == "weight_standardisation":
        raise ValueError("weight_standardisation is more than a division: it has no divisors that could be cached")


def _check_diagonals(found: dict[str, nn.Module], packing: str) -> None:
    """Raise a ValueError for matrices with a zero on the diagonal."""
    for name, module in found.items():
        for view in weight_views.views(module, packing):
            diagonal = view.to_matrices(getattr(module, view.name).detach()).diagonal(dim1=-2, dim2=-1)
            if int((diagonal.abs() < norms.FLOOR).sum()):
                raise ValueError(
                    f"{name} cannot be conditioned: jacobi divides by the diagonal, and "
                    f"{int((diagonal.abs() < norms.FLOOR).sum())} of its {diagonal.numel()} entries are zero"
                )


def _method_of(step: nn.Module) -> str | None:
    """The method of a parametrization that ``condition`` can apply, else None."""
    if isinstance(step, Equilibrated):
        return step.method
    names = {parametrizations._WeightNorm: "weight_norm", parametrizations._SpectralNorm: "spectral_norm"}
    return next((name for kind, name in names.items() if isinstance(step, kind)), None)


def _leave_shared_class(module: nn.Module) -> None:
    """Give the module a separate copy of its class.

    torch stores a parametrized tensor as a property of a class that it makes for the module. A deep copy shares that
    class, and removing the parametrization deletes the property, which would break the other copies. torch has no way
    to give a copy a class of its own, so the attribute is assigned, as torch itself does when it parametrizes a module
    and again when it removes the last parametrization (the class is then the one it had before).
    """
    shared = type(module)
    members = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, members)
