"""Preconditioning of weight matrices, after "Weight Conditioning for Smooth Optimization of Neural Networks".

Layers of a model:

- ``layers``           ``condition``, ``bake`` and ``conditioned_layers``
- ``selection``        which layers a selector matches, and whether a method can be applied to them
- ``parametrization``  raw weight -> applied weight; scales
- ``baselines``        weight and spectral normalization, weight standardization, initializations
- ``batch_norm``       gradients preconditioned by batch statistics
- ``weight_views``     weight tensors as matrices: linear, convolutions, bilinear, attention
- ``weight_cache``     conditioned weights computed once per step
- ``state_dict``       state dicts of conditioned models to those of plain ones and back

Matrices:

- ``maps``             the paper's ``row``, ``column``, ``row_column``, ``jacobi``; ``ruiz`` in a module of its own
- ``norms``            norms with a lower bound, and division by them

Diagnostics are in the package ``diagnostics``. The names in ``__all__`` are imported when they are first used.

Needs torch and jaxtyping alone, and does not depend on the rest of ``enerf``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from enerf.conditioning import _moved

if TYPE_CHECKING:
    from enerf.conditioning.baselines import INITS, initialize_, spectral_norm, unit_row_, weight_norm
    from enerf.conditioning.layers import bake, condition, conditioned_layers
    from enerf.conditioning.parametrization import SCALES, Equilibrated
    from enerf.conditioning.selection import METHODS, Selection, select
    from enerf.conditioning.state_dict import baked_state, key_map, unbaked_state
    from enerf.conditioning.weight_cache import computed_once

__all__ = [
    "INITS",
    "METHODS",
    "SCALES",
    "Equilibrated",
    "Selection",
    "bake",
    "baked_state",
    "computed_once",
    "condition",
    "conditioned_layers",
    "initialize_",
    "key_map",
    "select",
    "spectral_norm",
    "unbaked_state",
    "unit_row_",
    "weight_norm",
]

_MODULES = {
    "baselines": ("INITS", "initialize_", "spectral_norm", "unit_row_", "weight_norm"),
    "layers": ("bake", "condition", "conditioned_layers"),
    "parametrization": ("SCALES", "Equilibrated"),
    "selection": ("METHODS", "Selection", "select"),
    "state_dict": ("baked_state", "key_map", "unbaked_state"),
    "weight_cache": ("computed_once",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

_moved.register()


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return value
    if name in _moved.MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
