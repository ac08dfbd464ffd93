"""Optimizers of weight matrices: name -> ``module:function``. A new one is one module and one line here. No torch.

The function takes the matrices, as a list of parameters, and a learning rate of Adam's scale: a rate at which Adam
trains the same matrices well. Only where they are asked for, it is given the keywords ``weight_decay`` (decoupled) and
``views``, a mapping from those parameters that are not one matrix in torch's layout to their views. It returns a
``torch.optim.Optimizer``.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

MATRIX_OPTIMIZERS = {
    "muon": "enerf.optim.muon:muon",
    "soap": "enerf.optim.soap:soap",
}


def matrix_optimizer(
    name: str,
    matrices: Sequence[Any],
    lr: float | int,
    *,
    weight_decay: float | int = 0.0,
    views: Mapping[Any, Any] | None = None,
) -> Any:
    """The optimizer with that name, of those matrices.

    Without views a parameter with two axes is one matrix: Muon would then orthogonalize the queries, keys and values of
    a packed projection of attention together.

    Parameters
    ----------
    name
        ``muon`` or ``soap``.
    matrices
        Parameters with two axes; with any number of axes if they have views and ``name`` is ``muon``.
    lr
        Learning rate, of Adam's scale.
    weight_decay
        Decoupled weight decay, as of AdamW.
    views
        Parameter -> how it is read as matrices (kernels of convolutions, packed projections), as from
        ``conditioning.matrix_views``; those of other parameters are ignored. SOAP takes parameters as they are.

    Raises
    ------
    TypeError
        If ``matrices`` are not parameters.
    ValueError
        If the name is unknown, or a parameter has another number of axes and no view, or a view of another shape.
    ImportError
        If a package that it needs is not installed; the message names the extra that installs it.
    """
    if name not in MATRIX_OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}; it must be one of {', '.join(MATRIX_OPTIMIZERS)}")
    found = [*matrices] if isinstance(matrices, Iterable) and not hasattr(matrices, "shape") else [matrices]
    if not all(hasattr(each, "shape") for each in found):
        raise TypeError(f"matrices are a {type(matrices).__name__}; expected parameters, in a list")
    known = {each: views[each] for each in found if each in views} if views else {}
    for each, view in known.items():
        if tuple(view.shape) != tuple(each.shape):
            raise ValueError(f"a parameter has shape {tuple(each.shape)}, and its view {tuple(view.shape)}")
    known = {each: view for each, view in known.items() if not view.is_matrix}
    for each in found:
        if len(each.shape) != 2 and each not in known:
            raise ValueError(
                f"a parameter has shape {tuple(each.shape)}; {name} takes parameters with two axes, and of others views"
            )
    module, _, function = MATRIX_OPTIMIZERS[name].partition(":")
    asked = {"weight_decay": weight_decay, "views": known}
    return getattr(import_module(module), function)(found, lr, **{key: value for key, value in asked.items() if value})
