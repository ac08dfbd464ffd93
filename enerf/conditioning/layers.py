"""Conditioned layers: module -> module, from outside, so that no network needs to know.

Vocabulary
----------
- a layer's **name** is its dotted path in the model, as ``named_modules`` gives it;
- a layer is **conditioned** if its ``weight`` is computed from a raw parameter at each access. The raw
  parameter is called ``original`` and is what the optimiser sees, under the key
  ``parametrizations.weight.original``; ``condition`` leaves its values alone, so that plain and conditioned
  models of the same seed start from the same numbers;
- **baking** replaces the raw parameter by the weight that was computed from it;
- weights are **tied** if several layers hold the same parameter. They are conditioned together, or not at all.

The order is a contract: build -> ``initialise_`` or ``unit_row_`` -> ``condition`` -> device -> optimiser -> load.
Conditioning changes the *order* of a layer's parameters, so an optimiser's state never crosses between a plain and a
conditioned model. A weight that is used several times in one step is computed once inside ``once.computed_once`` or
``torch.nn.utils.parametrize.cached()``. Conditioned models are saved by their ``state_dict``; torch refuses to pickle
them whole.
"""

from collections.abc import Collection
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from enerf.conditioning import baselines, batch_norm, norms, selection, weight_views
from enerf.conditioning.baselines import INITS, initialise_, unit_row_, weight_norm
from enerf.conditioning.parametrization import MAPS, SCALES, Equilibrated
from enerf.conditioning.selection import METHODS, Layers, Selection, check_option, select

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
    "initialise_",
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
    """Condition layers in place and return their names; on an error no layer is touched.

    The maps draw no random numbers and leave the raw weights as they are.

    Parameters
    ----------
    model
        Holds the layers.
    method
        ``row`` (the paper's choice), ``column``, ``row_column``, ``jacobi`` or ``ruiz``; or what they are compared
        with: ``weight_standardisation``, ``weight_norm``, ``spectral_norm``, ``unit_row`` (a start, no map) or
        ``batch_norm`` (gradients preconditioned by batch statistics).
    layers
        Groups, kinds, patterns or names, as for ``select``; by default all but ``heads``.
    gradient
        ``"through"`` or ``"detached"``; see ``equilibrate``.
    heads
        The output heads, for ``select``.
    every
        The divisors are computed once in so many accesses, and are constants then: 1, or ``"detached"``.
    scale
        What becomes of a matrix' size: ``fixed``, ``kept``, ``constant`` or ``learned``; see ``parametrization``.
    p
        The norm: 1, 2 or inf.
    packing
        Whether packed projections of attention are conditioned by ``matrix`` or by ``head``.

    Raises
    ------
    ValueError
        If an option or a name is unknown, nothing is matched, or a layer has no matrices, is conditioned already,
        does not suit ``method``, or shares its weight with a module that cannot be conditioned with it.

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
        shared: dict[int, Equilibrated] = {}
        for module in found.values():
            for slot in weight_views.slots(module, packing):
                made = Equilibrated(method, gradient, p=float(p), scale=scale, every=every, slot=slot)
                made = shared.setdefault(id(getattr(module, slot.name)), made)
                parametrize.register_parametrization(module, slot.name, made)
                made.forget_accesses()
    elif method == "unit_row":
        unit_row_(model, selection.one_of_each(found), packing)
    elif method == "batch_norm":
        for module in found.values():
            batch_norm.precondition_(module)
    else:
        {"weight_norm": weight_norm, "spectral_norm": baselines.spectral_norm}[method](model, names)
    return names


def bake(model: AnyModule) -> AnyModule:
    """Remove every parametrization and preconditioner, in place; plain weights stay and the outputs keep every bit.

    Copies made by ``copy.deepcopy`` stay conditioned. Tied weights stay tied. For use and export: training on with the
    same optimiser would apply moments of the raw weights to the baked ones.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8))
    >>> _ = condition(net, "row", ["0"])
    >>> list(bake(net).state_dict())
    ['0.bias', '0.weight']
    """
    baked: set[int] = set()
    # torch turns a weight of several originals into a buffer if it is removed while gradients are off.
    with torch.enable_grad():
        for module in list(model.modules()):
            if batch_norm.is_preconditioned(module):
                batch_norm.restore_(module)
            if parametrize.is_parametrized(module):
                _leave_shared_class(module)
                module.get_submodule("parametrizations").eval()  # a last access changes nothing
                for name, held in list(module.get_submodule("parametrizations").named_children()):
                    raw = id(getattr(held, "original", held))
                    # torch writes what is applied into the raw parameter itself: where it is tied, that is done once
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
        for slot in weight_views.slots(module):
            if parametrize.is_parametrized(module, slot.name):
                for step in module.get_submodule(f"parametrizations.{slot.name}").children():
                    method = _method_of(step)
                    if method:
                        found[name] = method
    return found


def _check_options(method: str, gradient: str, every: int, scale: str, p: float | int) -> None:
    check_option("method", method, METHODS)
    norms.check(gradient, p)
    check_option("scale", scale, SCALES)
    if method not in MAPS and (gradient, every, scale, p) != ("through", 1, "fixed", 2):
        raise ValueError(f"{method} is no map: gradient, every, scale and p belong to {', '.join(MAPS)}")
    if every < 1 or every != int(every):
        raise ValueError(f"every is {every!r}; expected a whole number from 1")
    if every > 1 and gradient != "detached":
        raise ValueError('divisors that are held are constants: every above 1 needs gradient="detached"')
    if every > 1 and method == "weight_standardisation":
        raise ValueError("weight_standardisation is more than a division: it has no divisors that could be held")


def _check_diagonals(found: dict[str, nn.Module], packing: str) -> None:
    """Refuse matrices whose diagonal is zero somewhere: their inverse does not exist."""
    for name, module in found.items():
        for slot in weight_views.slots(module, packing):
            diagonal = slot.to_matrices(getattr(module, slot.name).detach()).diagonal(dim1=-2, dim2=-1)
            if int((diagonal.abs() < norms.FLOOR).sum()):
                raise ValueError(
                    f"{name} cannot be conditioned: jacobi divides by the diagonal, and "
                    f"{int((diagonal.abs() < norms.FLOOR).sum())} of its {diagonal.numel()} entries are zero"
                )


def _method_of(step: nn.Module) -> str | None:
    """The name of a parametrization, if it is one of ours or of torch's that ``condition`` applies."""
    if isinstance(step, Equilibrated):
        return step.method
    names = {parametrizations._WeightNorm: "weight_norm", parametrizations._SpectralNorm: "spectral_norm"}
    return next((name for kind, name in names.items() if isinstance(step, kind)), None)


def _leave_shared_class(module: nn.Module) -> None:
    """Give the module a class of its own.

    torch keeps a parametrized tensor as a property of a class made for the module. A deep copy shares that
    class, and removing the parametrization deletes the property: it would break the other copies.
    """
    shared = type(module)
    members = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, members)
