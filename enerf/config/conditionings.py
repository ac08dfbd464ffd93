"""The values of ``--conditioning``: their names, kinds and combinations. Imports no torch for methods listed here.

A method conditions the weights, normalizes activations, or updates the matrices by another optimizer than Adam; methods
of different kinds are joined by ``+``. The names are those of ``conditioning.table``, ``optim.table`` and of the tuples
here, so that a new map or optimizer is known by its line in one of the tables.
"""

import math
from dataclasses import dataclass
from difflib import get_close_matches

from enerf.conditioning.table import MODULES, load
from enerf.core.errors import InputError, shown
from enerf.optim.table import MATRIX_OPTIMIZERS

MAPS = ("row", "column", "row_column", "jacobi", "ruiz")
BASELINES = ("weight_norm", "weight_standardisation", "spectral_norm")
NORMALIZATIONS = ("layer_norm", "batch_norm")
SCALES = ("fixed", "kept", "constant", "learned", "learned_rows")
MAP_OPTIONS = ("equilibrate_gradient", "equilibrate_scale", "equilibrate_p")
WITHOUT_MAP_OPTIONS = ("none", "weight_norm", "fourier")  # methods of weights
ACTIVATIONS = ("sine", "finer", "gaussian")  # sometimes listed among methods of conditioning
EUCLIDEAN = ("weight_standardisation", "orthogonal")  # maps without another norm


@dataclass(frozen=True)
class Conditioning:
    """What a name of ``--conditioning`` stands for; ``none`` where it has no part of the kind.

    Attributes
    ----------
    weights
        Method of ``conditioning.condition``.
    normalization
        One of ``NORMALIZATIONS``.
    optimizer
        Optimizer of the hidden matrices, of ``optim.table``.
    """

    weights: str = "none"
    normalization: str = "none"
    optimizer: str = "none"


def names() -> dict[str, str]:
    """All methods that can be joined by ``+``: name -> ``weights``, ``normalization`` or ``optimizer``."""
    of_weights = dict.fromkeys((*MAPS, *BASELINES, *MODULES), "weights")
    return {
        **of_weights,
        **dict.fromkeys(NORMALIZATIONS, "normalization"),
        **dict.fromkeys(MATRIX_OPTIMIZERS, "optimizer"),
    }


def values_of(weights: str) -> dict[str, tuple[str | float, ...]]:
    """Which of the options ``--equilibrate_...`` a method of the weights uses: name -> the values that it accepts."""
    if weights in WITHOUT_MAP_OPTIONS or _is_parametrization(weights):
        return {}
    if weights == "spectral_norm":
        return {"equilibrate_scale": ("fixed", "constant", "learned")}
    orders = {"equilibrate_p": _orders(weights)}
    return {"equilibrate_gradient": ("through", "detached"), "equilibrate_scale": SCALES, **orders}


def parse(text: str) -> Conditioning:
    """The methods that a value of ``--conditioning`` names.

    >>> parse("row+muon")
    Conditioning(weights='row', normalization='none', optimizer='muon')

    Raises
    ------
    InputError
        If a name is unknown, or two are of one kind.
    """
    if text == "none":
        return Conditioning()
    known, found = names(), dict[str, str]()  # kind -> name
    for name in text.split("+"):
        kind = known.get(name)
        if kind is None:
            raise InputError(_unknown_message(name, text))
        if found.get(kind) == name:
            raise InputError(f"option --conditioning: found {shown(text)}, expected each method once: {name} is twice")
        if kind in found:
            raise InputError(
                f"option --conditioning: found {shown(text)}, expected at most one of {found[kind]} and {name}: both "
                f"are methods of {'the same weights' if kind == 'weights' else 'the same ' + kind}"
            )
        found[kind] = name
    return Conditioning(**found)


def _is_parametrization(weights: str) -> bool:
    """Whether a method that was added to the table is a parametrization of its own, as ``fourier`` is: no map.

    Only its module knows, which registers the method when it is imported.
    """
    if weights not in MODULES or weights in EUCLIDEAN:
        return False
    from enerf.conditioning import selection

    load(weights)
    return weights in selection.APPLIED


def _orders(weights: str) -> tuple[float, ...]:
    """The norms that a map can be computed with; of one that was added to the table, only its module knows them."""
    if weights in EUCLIDEAN:
        return (2.0,)
    if weights in MODULES:
        from enerf.conditioning import maps

        load(weights)
        if weights in maps.ADDED:
            return maps.ADDED[weights].orders
    return (1.0, 2.0, math.inf)


def _unknown_message(name: str, text: str) -> str:
    """The error message for a name that is no method; it says which options a method of comparisons stands for."""
    from enerf.config import methods

    if options := methods.as_options(name):
        found = shown(name) + ("" if name == text else f" in {shown(text)}")
        where = "" if methods.split_ratio(name)[0] in methods.FIELDS.changes else ", for images alone"
        stands_for = f"a method of comparisons, expected what it stands for: {options}{where}"
        return f"option --conditioning: found {found}, {stands_for}"
    if name in ACTIVATIONS:
        return (
            f"option --conditioning: found {shown(text)}, expected --activation {name}, of shapes: no method of weights"
        )
    nearest = get_close_matches(name, names(), n=1)
    hint = f"; the nearest to {shown(name)} is {nearest[0]}" if nearest else ""
    known = ", ".join(names())
    return f"option --conditioning: found {shown(text)}, expected none, or names joined by +, from {known}{hint}"
