"""Module paths of the previous release, importable for one more release with a DeprecationWarning."""

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

PACKAGE = "enerf.conditioning"
MODULES = {
    "checkpoints": "state_dict",
    "curvature": "diagnostics.curvature",
    "eigenvalues": "diagnostics.eigenvalues",
    "equilibrate": "maps",
    "extended": "diagnostics.layer_inputs",
    "matrices": "weight_views",
    "once": "weight_cache",
    "spectrum": "diagnostics.spectrum",
    "ties": "selection",
}
NAMES = {
    ("curvature", "see_through_"): "make_differentiable_",
    ("eigenvalues", "condition"): "condition_number_above",
    ("extended", "extended_condition"): "extended_condition_number",
    ("extended", "layer_inputs"): "record_layer_inputs",
    ("matrices", "KINDS"): "LAYER_TYPES",
    ("matrices", "Slot"): "WeightView",
    ("matrices", "slots"): "views",
    ("ties", "one_of_each"): "without_tied",
}


class _MovedModule(ModuleType):
    """A module under its previous name; its attributes are those of the module that replaces it."""

    def __init__(self, old: str) -> None:
        super().__init__(f"{PACKAGE}.{old}", f"Deprecated: use ``{PACKAGE}.{MODULES[old]}``.")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        old = self.__name__.rpartition(".")[2]
        module, new_name = f"{PACKAGE}.{MODULES[old]}", NAMES.get((old, name), name)
        value = getattr(import_module(module), new_name)
        warnings.warn(f"{self.__name__}.{name} is now {module}.{new_name}", DeprecationWarning, stacklevel=2)
        return value


def register() -> None:
    """Make the previous module paths importable; imports none of the modules that replace them."""
    for old in MODULES:
        sys.modules.setdefault(f"{PACKAGE}.{old}", _MovedModule(old))
