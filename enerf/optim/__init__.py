"""Optimizers with L1 and L2 regularization in the preconditioned parameter: Adam, RMSprop and Adagrad.

- ``intrinsic``  the optimizers
- ``shrinkage``  their arithmetic, checks of parameter groups, and ``sparsity``

The names in ``__all__`` are imported when they are first used. Needs torch alone, and does not depend on the rest of
``enerf``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enerf.optim.intrinsic import IntrinsicAdagrad, IntrinsicAdam, IntrinsicRMSprop
    from enerf.optim.shrinkage import Sparsity, sparsity

__all__ = ["IntrinsicAdagrad", "IntrinsicAdam", "IntrinsicRMSprop", "Sparsity", "sparsity"]

_MODULES = {
    "intrinsic": ("IntrinsicAdagrad", "IntrinsicAdam", "IntrinsicRMSprop"),
    "shrinkage": ("Sparsity", "sparsity"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
