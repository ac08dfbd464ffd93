"""Diagnostics of weights, layer inputs and losses: singular values, condition numbers, Hessian spectra.

- ``spectrum``      singular values, condition numbers, ranks and row norms of weight matrices and layers
- ``layer_inputs``  inputs of layers, and the matrix [1, H] that determines a unit's block of the Hessian
- ``curvature``     Hessian and Gauss–Newton matrix of a loss
- ``eigenvalues``   extremes and spectral density of linear operators

The names in ``__all__`` are imported when they are first used. Needs torch and jaxtyping alone, except for ``hessian``
and ``gauss_newton`` (curvlinops) and ``extremes`` (SciPy), which the extra ``diagnostics`` installs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enerf.conditioning.diagnostics.curvature import (
        Objective,
        gauss_newton,
        gauss_newton_spectrum,
        hessian,
        make_differentiable_,
    )
    from enerf.conditioning.diagnostics.eigenvalues import (
        Density,
        Extremes,
        condition_number_above,
        density,
        extremes,
    )
    from enerf.conditioning.diagnostics.layer_inputs import extended_condition_number, record_layer_inputs, unit_block
    from enerf.conditioning.diagnostics.spectrum import (
        condition_number,
        effective_rank,
        layer_report,
        numerical_rank,
        range_condition_number,
        row_norm_spread,
        row_norm_variation,
        row_norms,
        singular_values,
        stable_rank,
    )

__all__ = [
    "Density",
    "Extremes",
    "Objective",
    "condition_number",
    "condition_number_above",
    "density",
    "effective_rank",
    "extended_condition_number",
    "extremes",
    "gauss_newton",
    "gauss_newton_spectrum",
    "hessian",
    "layer_report",
    "make_differentiable_",
    "numerical_rank",
    "range_condition_number",
    "record_layer_inputs",
    "row_norm_spread",
    "row_norm_variation",
    "row_norms",
    "singular_values",
    "stable_rank",
    "unit_block",
]

_MODULES = {
    "curvature": ("Objective", "gauss_newton", "gauss_newton_spectrum", "hessian", "make_differentiable_"),
    "eigenvalues": ("Density", "Extremes", "condition_number_above", "density", "extremes"),
    "layer_inputs": ("extended_condition_number", "record_layer_inputs", "unit_block"),
    "spectrum": (
        *("condition_number", "effective_rank", "layer_report", "row_norm_spread"),
        *("numerical_rank", "range_condition_number", "row_norm_variation", "row_norms", "singular_values"),
        "stable_rank",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
