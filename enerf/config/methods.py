"""Methods that comparisons of fields train: each is a set of option values.

Every conditioning map has scale-matched controls (``he``, ``glorot``, ``unit_row``, ``kept`` ...), because the scale of
the initialization can explain a large part of a gain. Imports no torch.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from enerf.config.conditionings import Conditioning, parse
from enerf.core.errors import InputError
from enerf.optim.table import MATRIX_OPTIMIZERS


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


def updates_matrices(changes: dict[str, Any]) -> bool:
    """Whether the options of a method name an optimizer of the hidden matrices."""
    optimizer = parse(changes.get("conditioning", "none")).optimizer  # of fields; classifiers have an option of its own
    return optimizer != "none" or changes.get("optimiser") in MATRIX_OPTIMIZERS


def split_ratio(method: str) -> tuple[str, float | None]:
    """The name of a method, and the ratio of the learning rate of the matrices to that of others, if it has one.

    >>> split_ratio("muon*5"), split_ratio("muon")
    (('muon', 5.0), ('muon', None))

    Raises
    ------
    ValueError
        If the ratio is not a positive number.
    """
    name, star, ratio = method.partition("*")
    if star and not (re.fullmatch(r"\d{1,6}(\.\d{1,6})?", ratio) and float(ratio) > 0):
        raise ValueError(f"the ratio of {method!r} is not a positive number such as 5")
    return name, float(ratio) if star else None


# the configuration's rate of matrices is for methods with an optimizer of matrices
_CHANGES = {k: own if updates_matrices(own) else {**own, "lrate_matrices": 0.0} for k, own in _CHANGES.items()}
FIELDS = Methods(_CHANGES, _COMMON, "plain,equilibrate")
SHAPES = Methods({**_CHANGES, "iga": {"iga": 20}}, {**_COMMON, "iga": 0}, "plain,equilibrate")  # iga: of images


def conditioning_of(changes: dict[str, Any]) -> Conditioning:
    """The conditioning of a method of fields; ``--equilibrate`` and ``--weight_norm`` have names of it too.

    >>> conditioning_of({"equilibrate": "row", "init": "he"})
    Conditioning(weights='row', normalization='none', optimizer='none')
    """
    weights = "weight_norm" if changes.get("weight_norm") else changes.get("equilibrate", "none")
    found = parse(changes.get("conditioning", "none"))
    return found if weights == "none" else replace(found, weights=weights)


def as_options(method: str) -> str:
    """Options of one run that a method of comparisons of fields stands for; empty if there is no such method.

    >>> as_options("ws")
    '--conditioning weight_standardisation --equilibrate_scale learned --init he'
    >>> as_options("muon*5"), as_options("he"), as_options("rows")
    ('--conditioning muon, and --lrate_matrices of 5 times --lrate', '--init he', '')
    """
    try:
        name, ratio = split_ratio(method)
    except ValueError:
        return ""
    changes = SHAPES.changes.get(name)
    if changes is None or (ratio is not None and not updates_matrices(changes)):
        return ""
    found = conditioning_of(changes)
    joined = "+".join(part for part in (found.weights, found.normalization, found.optimizer) if part != "none")
    words = [f"--conditioning {joined}"] if joined else []
    words += [
        f"--{option} {value}"
        for option, value in changes.items()
        if option not in {"conditioning", "equilibrate", "weight_norm", "lrate_matrices"}
    ]
    more = "" if ratio is None else f", and --lrate_matrices of {ratio:g} times --lrate"
    return (" ".join(words) or "--conditioning none") + more


def methods_with(text: str, known: Methods) -> list[str]:
    """The methods of comparisons with the conditioning that a value of ``--conditioning`` names.

    Empty if the text is no such value, and for classifiers, which have no such option.

    >>> methods_with("row+muon", FIELDS), methods_with("weight_standardisation", FIELDS), methods_with("rows", FIELDS)
    (['muon_e', 'muon_gain'], ['ws'], [])
    """
    try:
        wanted = parse(text)
    except InputError:
        return []
    if "conditioning" not in known.common:
        return []
    return [method for method, changes in known.changes.items() if conditioning_of(changes) == wanted]
