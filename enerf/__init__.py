"""Radiance fields, neural shapes and image classifiers with conditioned weights.

- ``enerf.open_run``: images, meshes and metrics of a finished run
- ``enerf.condition``, ``enerf.bake``: weight conditioning of any torch model; more of it in ``enerf.conditioning``
- ``enerf.optim``: optimizers with preconditioned regularization

Names are imported when they are first used: ``import enerf`` imports neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from enerf.core import _moved

if TYPE_CHECKING:
    from enerf.conditioning.layers import bake, condition
    from enerf.experiments.open_run import open_run

__version__ = "0.1.0"
__all__ = ["__version__", "bake", "condition", "open_run"]

# Public name -> "module:attribute".
_EXPORTS = {
    "bake": "enerf.conditioning.layers:bake",
    "condition": "enerf.conditioning.layers:condition",
    "open_run": "enerf.experiments.open_run:open_run",
}


def __getattr__(name: str) -> Any:
    """Import a public name (PEP 562)."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _EXPORTS[name].partition(":")
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    """Return the public names, and those of the module itself."""
    return sorted({*globals(), *__all__})


_moved.register()
