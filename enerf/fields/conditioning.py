"""Apply conditioning options to a field: layer selection, initialization, and the map or weight normalization."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from enerf.conditioning import layers, selection
from enerf.conditioning.groups import parameter_groups
from enerf.config import conditionings
from enerf.config.conditionings import MAPS
from enerf.config.options import ConditioningOptions, MapOptions
from enerf.core.errors import InputError
from enerf.fields.backends import module

log = logging.getLogger("enerf")


def apply(
    model: nn.Module,
    options: ConditioningOptions,
    heads: Collection[str],
    seed: int,
    excluded: Mapping[str, str] | None = None,
) -> None:
    """Initialize the selected layers, then condition them in place; arguments as for ``selected_layers``.

    ``seed`` is that of the initialization.

    Raises
    ------
    InputError
        As for ``selected_layers``, and if the method does not suit a layer.
    """
    names = selected_layers(model, options, heads, excluded)
    with _naming("init"):
        layers.initialize_(model, names, options.init, torch.Generator().manual_seed(seed))
    method = options.methods.weights
    with _naming("equilibrate" if options.conditioning == "none" else "conditioning"):
        if method != "none":
            known = conditionings.values_of(method)
            given: dict[str, Any] = {name.removeprefix("equilibrate_"): getattr(options, name) for name in known}
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                # zero rows stay zero; zeros on the diagonal would become weights a million times as large
                zero_rows = "refused" if method == "jacobi" else "conditioned"
                layers.condition(model, method, names, zero_rows=zero_rows, **given)
        if options.methods.normalization != "none":
            module.add_normalization(model, options.methods.normalization)


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Context manager: a ValueError is an error of that option."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"option --{option}: {error}") from None


def selected_layers(
    model: nn.Module,
    options: ConditioningOptions,
    heads: Collection[str],
    excluded: Mapping[str, str] | None = None,
) -> list[str]:
    """Names of the layers selected by the option ``equilibrate_layers``; logs those that are skipped.

    Parameters
    ----------
    model
        The module that contains the layers.
    options
        The options of conditioning.
    heads
        Names of the output layers.
    excluded
        Name -> reason, for layers that are never conditioned, whatever the options say.

    Raises
    ------
    InputError
        If a name matches no layer, or a layer that cannot be conditioned (the message lists the nearest known names);
        if no layer is left.
    """
    method = options.methods.weights if options.methods.weights != "none" else "row"
    heads = selection.present(model, heads)
    with _naming("equilibrate_layers"):
        names, skipped = layers.select(model, options.equilibrate_layers, heads, method, zero_rows="conditioned")
    skipped |= {name: reason for name, reason in (excluded or {}).items() if name in names}
    if method == "fourier" and any(each.strip() in selection.GROUPS for each in options.equilibrate_layers.split(",")):
        skipped |= dict.fromkeys(first_layers(names), "it is the first layer, whose weights stay plain")
    for name, reason in skipped.items():
        log.info("conditioning leaves out %s: %s", name, reason)
    names = [name for name in names if name not in skipped]
    if not names:
        raise InputError("option --equilibrate_layers: no layer is left that could be conditioned")
    return names


def first_layers(names: Iterable[str]) -> list[str]:
    """The names of layers that read the encoded points.

    >>> first_layers(["coarse.trunk.0", "coarse.trunk.10", "coarse.feature"])
    ['coarse.trunk.0']
    """
    return [name for name in names if f".{name}".endswith(".trunk.0")]


def matrices_of(model: nn.Module, options: ConditioningOptions, heads: Collection[str]) -> list[str]:
    """Names of the parameters that the optimizer of matrices updates, in the model's order; empty without one.

    They are the weights of the selected layers that have two axes, without those of the first layers and of the heads,
    for which Muon is not meant (Jordan et al. 2024).
    """
    if options.methods.optimizer == "none":
        return []
    heads = selection.head_names(model, selection.present(model, heads))
    names = layers.select(model, options.equilibrate_layers, heads, "weight_norm", zero_rows="conditioned").names
    outer = {*first_layers(names), *(name for name in names if selection.in_heads(name, heads))}
    inner = tuple(f"{name}." for name in names if name not in outer)
    groups = parameter_groups(model)
    weights = {**groups.matrices, **groups.scale_invariant}
    return [name for name, _ in model.named_parameters() if name in weights and name.startswith(inner)]


def method_name(options: ConditioningOptions, network: str = "nerf", lrate: float | None = None) -> str:
    """Name of a run's method in tables and ``metrics.json``; options without effect are omitted.

    A learning rate of the matrices is named as in comparisons, by its ratio to ``lrate``, that of other parameters; by
    itself if ``lrate`` is None.

    >>> method_name(ConditioningOptions(equilibrate="row")), method_name(ConditioningOptions(init="he"))
    ('e-nerf', 'nerf-he')
    >>> method_name(ConditioningOptions(conditioning="muon", lrate_matrices=0.01), lrate=0.002)
    'nerf-muon*5'
    """
    words, found = [network], options.methods
    if found.weights in MAPS:
        words = [f"e-{network}", *map_words(options, found.weights)]
    elif found.weights != "none":
        words += [found.weights, *map_words(options, "row")]
    words += [found.normalization] if found.normalization != "none" else []
    words += [found.optimizer + rate_word(options.lrate_matrices, lrate)] if found.optimizer != "none" else []
    words += [options.init] if options.init != "default" else []
    if words != [network] and options.equilibrate_layers != "hidden":
        words += [options.equilibrate_layers]
    return "-".join(words)


def rate_word(of_matrices: float, lrate: float | None) -> str:
    """The end of an optimizer's name for a learning rate of the matrices; empty if it is that of other parameters."""
    if not of_matrices or of_matrices == lrate:
        return ""
    return f"*{of_matrices / lrate:g}" if lrate else f"-matrices{of_matrices:g}"


def map_words(options: MapOptions, method: str = "") -> list[str]:
    """Words for each option that differs from the paper's map; ``method`` is the map, if not ``options.equilibrate``.

    >>> map_words(ConditioningOptions(equilibrate="column", equilibrate_scale="learned"))
    ['column', 'learned']
    """
    method = method or options.equilibrate
    words = [method] if method != "row" else []
    words += ["detached"] if options.equilibrate_gradient == "detached" else []
    words += [options.equilibrate_scale] if options.equilibrate_scale != "fixed" else []
    return words + ([f"p{options.equilibrate_p:g}"] if options.equilibrate_p != 2 else [])
