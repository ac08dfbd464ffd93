"""Preconditioning of weight matrices, after "Weight Conditioning for Smooth Optimization of Neural Networks".

Layers of a model:

- ``layers``           ``condition``, ``condition_tensor`` and ``conditioned_layers``
- ``selection``        which layers a selector matches; ``suitability``: whether a method can be applied to them
- ``parametrization``  raw weight -> applied weight; scales
- ``baking``           conditioned weights to plain ones
- ``attention``        projections with a shift, an initialization, preconditioned outputs
- ``baselines``        weight and spectral normalization, weight standardization, initializations
- ``batch_norm``       gradients preconditioned by batch statistics
- ``weight_views``     weight tensors as matrices: linear, convolutions, bilinear, attention
- ``weight_cache``     conditioned weights computed once per step
- ``registry``         further layer types and maps
- ``groups``           parameters by their role, for optimizers
- ``state_dict``       state dicts of conditioned models to those of plain ones and back, and of earlier versions

Matrices:

- ``table``            methods that are a module of their own: ``orthogonal``, ``fourier``
- ``maps``             the paper's ``row``, ``column``, ``row_column``, ``jacobi``; ``ruiz`` in a module of its own
- ``norms``            norms with a lower bound, and division by them; ``fused_rows``: of several matrices at once

Diagnostics are in the package ``diagnostics``. The names in ``__all__`` are imported when they are first used.

Needs torch and jaxtyping alone, and does not depend on the rest of ``enerf``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from enerf.conditioning import _moved

if TYPE_CHECKING:
    from enerf.conditioning.attention import (
        PreconditionedAttention,
        initialize_attention_,
        precondition_attention_,
        preconditioned,
    )
    from enerf.conditioning.baking import bake
    from enerf.conditioning.baselines import INITS, initialize_, spectral_norm, unit_row_, weight_norm
    from enerf.conditioning.diagnostics.spectrum import layer_report
    from enerf.conditioning.groups import ParameterGroups, matrix_views, parameter_groups
    from enerf.conditioning.interface import Parametrization
    from enerf.conditioning.layers import Conditioned, condition, condition_tensor, conditioned_layers
    from enerf.conditioning.parametrization import SCALES, Equilibrated
    from enerf.conditioning.registry import register_layer, register_map, register_parametrization
    from enerf.conditioning.selection import METHODS, Selection, select, unknown_layers
    from enerf.conditioning.state_dict import (
        baked_state,
        key_map,
        unbaked_state,
        upgraded_optimizer_state,
        upgraded_state,
    )
    from enerf.conditioning.weight_cache import computed_once
    from enerf.conditioning.weight_views import WeightView

__all__ = [
    "INITS",
    "METHODS",
    "SCALES",
    "Conditioned",
    "Equilibrated",
    "ParameterGroups",
    "Parametrization",
    "PreconditionedAttention",
    "Selection",
    "WeightView",
    "bake",
    "baked_state",
    "computed_once",
    "condition",
    "condition_tensor",
    "conditioned_layers",
    "initialize_",
    "initialize_attention_",
    "key_map",
    "layer_report",
    "matrix_views",
    "parameter_groups",
    "precondition_attention_",
    "preconditioned",
    "register_layer",
    "register_map",
    "register_parametrization",
    "select",
    "spectral_norm",
    "unbaked_state",
    "unit_row_",
    "unknown_layers",
    "upgraded_optimizer_state",
    "upgraded_state",
    "weight_norm",
]

_MODULES = {
    "attention": ("PreconditionedAttention", "initialize_attention_", "precondition_attention_", "preconditioned"),
    "baking": ("bake",),
    "baselines": ("INITS", "initialize_", "spectral_norm", "unit_row_", "weight_norm"),
    "diagnostics.spectrum": ("layer_report",),
    "groups": ("ParameterGroups", "matrix_views", "parameter_groups"),
    "interface": ("Parametrization",),
    "layers": ("Conditioned", "condition", "condition_tensor", "conditioned_layers"),
    "parametrization": ("SCALES", "Equilibrated"),
    "registry": ("register_layer", "register_map", "register_parametrization"),
    "selection": ("METHODS", "Selection", "select", "unknown_layers"),
    "state_dict": ("baked_state", "key_map", "unbaked_state", "upgraded_optimizer_state", "upgraded_state"),
    "weight_cache": ("computed_once",),
    "weight_views": ("WeightView",),
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
