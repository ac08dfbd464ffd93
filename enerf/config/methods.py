"""Methods that comparisons of fields train: each is a set of option values.

Every conditioning map has scale-matched controls (``he``, ``glorot``, ``unit_row``, ``kept`` ...), because the scale of
the initialization can explain a large part of a gain. Imports no torch.
"""

from dataclasses import dataclass, field
from typing import Any

from enerf.config.conditionings import parse


@dataclass(frozen=True)
class Methods:
    """The methods that can be compared for one task.

    Attributes
    ----------
    changes
        Method -> the options that it sets.
    common
        Options that are set for every method first; they override the configuration's initialization and maps.
    default
        The methods that are compared if none are named.
    """

    changes: dict[str, dict[str, Any]]
    common: dict[str, Any] = field(default_factory=dict)
    default: str = "plain"


_COMMON: dict[str, Any] = {
    **{"init": "default", "weight_norm": False, "equilibrate": "none", "equilibrate_gradient": "through"},
    **{"equilibrate_scale": "fixed", "equilibrate_p": 2.0, "conditioning": "none"},
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
    "row_gains": {"equilibrate": "row", "equilibrate_scale": "learned_rows", "init": "he"},
    # with one learned gain a matrix, from He's scale: the method alone would fix another scale
    "ws": {"conditioning": "weight_standardisation", "equilibrate_scale": "learned", "init": "he"},
    "spectral_norm": {"conditioning": "spectral_norm", "equilibrate_scale": "learned", "init": "he"},
    "orthogonal": {"conditioning": "orthogonal", "equilibrate_scale": "learned", "init": "he"},
    "fourier": {"conditioning": "fourier"},  # its initialization has He's variance
    "layer_norm": {"conditioning": "layer_norm"},
    "batch_norm": {"conditioning": "batch_norm"},
    "muon": {"conditioning": "muon"},
    "muon_he": {"conditioning": "muon", "init": "he"},
    "muon_e": {"conditioning": "row+muon"},
    "muon_unit_row": {"conditioning": "muon", "init": "unit_row"},
    "muon_ws": {"conditioning": "weight_standardisation+muon", "equilibrate_scale": "learned", "init": "he"},
    "muon_gain": {"conditioning": "row+muon", "equilibrate_scale": "learned", "init": "he"},
    "soap": {"conditioning": "soap"},
    # at the scale of the network's default initialization, which for sine layers is not that of other layers
    "own_kept": {"equilibrate": "row", "equilibrate_scale": "kept"},
    "own_gain": {"equilibrate": "row", "equilibrate_scale": "learned"},
}

for _name, _own in _CHANGES.items():
    if parse(_own.get("conditioning", "none")).optimizer == "none":
        _own["lrate_matrices"] = 0.0  # that of the configuration is for methods with an optimizer of matrices

FIELDS = Methods(_CHANGES, _COMMON, "plain,equilibrate")
SHAPES = Methods({**_CHANGES, "iga": {"iga": 20}}, {**_COMMON, "iga": 0}, "plain,equilibrate")  # iga: of images
