"""Optimizers of weight matrices: name -> ``module:function``. A new one is one module and one line here. No torch.

The function takes the matrices, as a list of parameters with two axes, and a learning rate of Adam's scale: a rate at
which Adam trains the same matrices well. It returns a ``torch.optim.Optimizer``.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

MATRIX_OPTIMIZERS = {
    "muon": "enerf.optim.muon:muon",
    "soap": "enerf.optim.soap:soap",
}


def matrix_optimizer(name: str, matrices: Sequence[Any], lr: float) -> Any:
    """The optimizer with that name, of those matrices.

    Raises
    ------
    ValueError
        If the name is unknown.
    ImportError
        If a package that it needs is not installed; the message names the extra that installs it.
    """
    if name not in MATRIX_OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}; it must be one of {', '.join(MATRIX_OPTIMIZERS)}")
    module, _, function = MATRIX_OPTIMIZERS[name].partition(":")
    return getattr(import_module(module), function)([*matrices], lr)
