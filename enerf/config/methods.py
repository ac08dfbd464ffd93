"""Methods that comparisons of fields train: each is a set of options that it changes.

The scale-matched controls stand beside the maps, because the scale of the initialization can explain much of a gain.
Imports no torch.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Methods:
    """The methods that can be compared for one task.

    Attributes
    ----------
    changes
        Method -> the options that it changes.
    common
        Options that every method starts from, whatever the configuration says of initialization and maps.
    default
        The methods compared if none are named.
    """

    changes: dict[str, dict[str, Any]]
    common: dict[str, Any] = field(default_factory=dict)
    default: str = "plain"


_COMMON: dict[str, Any] = {
    **{"init": "default", "weight_norm": False, "equilibrate": "none", "equilibrate_gradient": "through"},
    **{"equilibrate_scale": "fixed", "equilibrate_p": 2.0},
}
_CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "he": {"init": "he"},
    "glorot": {"init": "glorot"},
    "unit_row": {"init": "unit_row"},
    "weight_norm": {"weight_norm": True},
    "equilibrate": {"equilibrate": "row"},
    "detached": {"equilibrate": "row", "equilibrate_gradient": "detached"},
    "column": {"equilibrate": "column"},
    "row_column": {"equilibrate": "row_column"},
    "jacobi": {"equilibrate": "jacobi"},
    "ruiz": {"equilibrate": "ruiz"},
    "kept": {"equilibrate": "row", "equilibrate_scale": "kept", "init": "he"},
    "constant": {"equilibrate": "row", "equilibrate_scale": "constant", "init": "he"},
    "gain": {"equilibrate": "row", "equilibrate_scale": "learned", "init": "he"},
    # at the scale of the network's own start: sine layers have one that others do not
    "own_kept": {"equilibrate": "row", "equilibrate_scale": "kept"},
    "own_gain": {"equilibrate": "row", "equilibrate_scale": "learned"},
}

FIELDS = Methods(_CHANGES, _COMMON, "plain,equilibrate")
