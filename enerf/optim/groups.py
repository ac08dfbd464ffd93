"""Deprecated: moved to ``enerf.optim.shrinkage``; importable for one more release."""

import warnings
from typing import Any

_NAMES = {
    "NEUTRAL": "DEFAULTS",
    "SHRINKAGES": "SHRINKAGES",
    "adopt_": "complete_loaded_",
    "at_once": "uses_foreach",
    "check": "check_",
    "steps": "steps_done",
    "with_gradients": "params_with_gradients",
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from enerf.optim import shrinkage

    message = f"{__name__}.{name} is now enerf.optim.shrinkage.{_NAMES[name]}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return getattr(shrinkage, _NAMES[name])
