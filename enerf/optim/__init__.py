"""Optimizers with regularization in the preconditioned parameter, and optimizers of matrices.

- ``intrinsic``  Adam, RMSprop and Adagrad with L1 and L2 regularization in the preconditioned parameter
- ``shrinkage``  their arithmetic, checks of parameter groups, and ``sparsity``
- ``table``      optimizers of matrices by name: ``muon``, ``soap``
- ``combined``   several optimizers as one
- ``inductive``  inductive gradient adjustment
- ``sharded``    whether a tensor is distributed over processes

The names in ``__all__`` are imported when they are first used. Needs torch and jaxtyping alone, and does not depend on
the rest of ``enerf``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enerf.optim.combined import Combined
    from enerf.optim.intrinsic import IntrinsicAdagrad, IntrinsicAdam, IntrinsicRMSprop
    from enerf.optim.shrinkage import Sparsity, sparsity
    from enerf.optim.table import matrix_optimizer

__all__ = [
    "Combined",
    "IntrinsicAdagrad",
    "IntrinsicAdam",
    "IntrinsicRMSprop",
    "Sparsity",
    "matrix_optimizer",
    "sparsity",
]

_MODULES = {
    "combined": ("Combined",),
    "intrinsic": ("IntrinsicAdagrad", "IntrinsicAdam", "IntrinsicRMSprop"),
    "shrinkage": ("Sparsity", "sparsity"),
    "table": ("matrix_optimizer",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
