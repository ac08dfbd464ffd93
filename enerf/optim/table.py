"""Optimizers of weight matrices: name -> ``module:function``. A new one is one module and one line here. No torch.

The function takes the matrices, as a list of parameters, and a learning rate of Adam's scale: a rate at which Adam
trains the same matrices well; and the keyword ``weight_decay``, if decoupled weight decay is to be possible. It returns
a ``torch.optim.Optimizer``. Parameters have two axes, each is one matrix; but functions of ``WITH_VIEWS`` have a
keyword ``views``, the views of those that are not.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from numbers import Real
from typing import Any

MATRIX_OPTIMIZERS = {
    "muon": "enerf.optim.muon:muon",
    "soap": "enerf.optim.soap:soap",
}
WITH_VIEWS = ("muon",)


def matrix_optimizer(
    name: str,
    matrices: Sequence[Any] | Mapping[str, Any],
    lr: float | int,
    *,
    weight_decay: float | int = 0.0,
    views: Mapping[Any, Any] | None = None,
) -> Any:
    """Make an optimizer of weight matrices by its name: ``muon``, ``soap`` or a registered one.

    Without views a parameter with two axes is one matrix: Muon would then orthogonalize the queries, keys and values of
    a packed projection of attention together.

    Parameters
    ----------
    name
        ``muon`` or ``soap``.
    matrices
        Parameters with two axes, in a list or as values of a dictionary; for ``muon`` also others that have views.
    lr
        Learning rate, of Adam's scale; finite, at least 0.
    weight_decay
        Decoupled weight decay, as of AdamW; finite, at least 0, and 0 for functions without that keyword.
    views
        Parameter -> how it is read as matrices (kernels of convolutions, packed projections), from
        ``conditioning.matrix_views(model)``; those of further parameters are ignored. SOAP does without: a packed
        projection is one matrix for it.

    Raises
    ------
    TypeError
        If ``matrices`` are not parameters (parameter groups among them), ``views`` no mapping, or ``lr`` or
        ``weight_decay`` no number, or the name no string.
    ValueError
        If the name is unknown, a number is out of range, a weight is computed, as a conditioned one is, a parameter has
        another number of axes and no view, or a view of another shape, or none of the views is of these parameters.
    ImportError
        If a package that it needs is not installed; the message names the extra that installs it.
    """
    if not isinstance(name, str):
        raise TypeError(f"optimizer is {name!r}; expected one of {', '.join(MATRIX_OPTIMIZERS)}")
    if name not in MATRIX_OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}; it must be one of {', '.join(MATRIX_OPTIMIZERS)}")
    check_number("lr", lr)
    check_number("weight_decay", weight_decay)
    found = _listed(matrices)
    options: dict[str, Any] = {"weight_decay": weight_decay} if weight_decay else {}
    if packed := _packed(found, views) if name in WITH_VIEWS else {}:
        options["views"] = packed
    for each in found:
        if len(each.shape) != 2 and each not in packed:
            or_viewed = ", or with a view (conditioning.matrix_views)" * (name in WITH_VIEWS)
            raise ValueError(
                f"a parameter has shape {tuple(each.shape)}; {name} takes parameters with two axes{or_viewed}"
            )
    module, _, attribute = MATRIX_OPTIMIZERS[name].partition(":")
    function = getattr(import_module(module), attribute)
    if weight_decay and not _takes(function, "weight_decay"):
        raise ValueError(f"weight_decay is {weight_decay}, but {name} has no decoupled weight decay; expected 0")
    return function(found, lr, **options)


def check_number(name: str, value: Any) -> None:
    """Raise an exception unless a learning rate or weight decay is finite and at least 0.

    Raises
    ------
    TypeError
        If it is no number; a tensor or an array with one element is one.
    ValueError
        If it is negative, infinite or NaN.
    """
    is_single = math.prod(getattr(value, "shape", (0,))) == 1  # a tensor or an array with one element
    is_number = any(kind in str(getattr(value, "dtype", "")) for kind in ("float", "int"))
    if not isinstance(value, Real) and not (is_single and is_number):
        raise TypeError(f"{name} is {value!r}; expected a number of at least 0")
    if getattr(value, "is_meta", False):
        return
    number = float(value.item() if hasattr(value, "item") else value)
    if not number >= 0 or math.isinf(number):
        raise ValueError(f"{name} is {number:g}; expected a number of at least 0, and finite")


def _takes(function: Callable[..., Any], keyword: str) -> bool:
    """Whether a function can be called with that keyword."""
    found = inspect.signature(function).parameters.values()
    named = {each.name for each in found if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    return keyword in named or any(each.kind is each.VAR_KEYWORD for each in found)


def _listed(matrices: Any) -> list[Any]:
    """The parameters, in a list; raises the exceptions for what are none."""
    values = matrices.values() if isinstance(matrices, Mapping) else matrices
    if not isinstance(values, Iterable) or hasattr(values, "shape"):
        values = [values]
    found = [*values]
    if isinstance(matrices, Iterable) and any(isinstance(each, Mapping) for each in found):
        raise TypeError(
            "matrices hold parameter groups; expected parameters: make an optimizer for each, and combine them"
        )
    if not all(hasattr(each, "shape") for each in found):
        raise TypeError(f"matrices are a {type(matrices).__name__}; expected parameters with two axes, in a list")
    for each in found:
        if not getattr(each, "is_leaf", True):
            raise ValueError(
                f"a weight of shape {tuple(each.shape)} is computed; expected raw ones, as of parameter_groups(model)"
            )
    return found


def _packed(matrices: Sequence[Any], views: Mapping[Any, Any] | None) -> dict[Any, Any]:
    """The views of those parameters that are not one matrix in torch's layout."""
    if views is None:
        return {}
    if not isinstance(views, Mapping):
        raise TypeError(f"views are a {type(views).__name__}; expected conditioning.matrix_views(model)")
    own = {each: views[each] for each in matrices if each in views}
    if views and matrices and not own:
        raise ValueError("the views are of other parameters; expected those of the model that is trained")
    return {each: view for each, view in own.items() if not view.is_matrix}
