"""Optimizers of weight matrices: name -> ``module:function``. A new one is one module and one line here. No torch.

The function takes the matrices, as a list of parameters with two axes, and a learning rate of Adam's scale: a rate at
which Adam trains the same matrices well. It returns a ``torch.optim.Optimizer``.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

MATRIX_OPTIMIZERS = {
    "muon": "enerf.optim.muon:muon",
    "soap": "enerf.optim.soap:soap",
}


def matrix_optimizer(name: str, matrices: Sequence[Any], lr: float) -> Any:
    """The optimizer with that name, of those matrices, without weight decay.

    Packed projections of attention are one matrix here; Muon would orthogonalize queries, keys and values together.

    Parameters
    ----------
    name
        ``muon`` or ``soap``.
    matrices
        Parameters with two axes.
    lr
        Learning rate, of Adam's scale.

    Raises
    ------
    TypeError
        If ``matrices`` are not parameters.
    ValueError
        If the name is unknown, or a parameter has another number of axes.
    ImportError
        If a package that it needs is not installed; the message names the extra that installs it.
    """
    if name not in MATRIX_OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}; it must be one of {', '.join(MATRIX_OPTIMIZERS)}")
    found = [*matrices] if isinstance(matrices, Iterable) and not hasattr(matrices, "shape") else [matrices]
    if not all(hasattr(each, "shape") for each in found):
        raise TypeError(f"matrices are a {type(matrices).__name__}; expected parameters with two axes, in a list")
    for each in found:
        if len(each.shape) != 2:
            raise ValueError(f"a parameter has shape {tuple(each.shape)}; {name} takes parameters with two axes")
    module, _, function = MATRIX_OPTIMIZERS[name].partition(":")
    return getattr(import_module(module), function)(found, lr)
