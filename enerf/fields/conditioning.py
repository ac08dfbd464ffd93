"""Apply conditioning options to a field: layer selection, initialization, and the map or weight normalization."""

import logging
from collections.abc import Collection, Mapping

import torch
from torch import nn

from enerf.conditioning import layers
from enerf.config.options import ConditioningOptions, MapOptions

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
    ValueError
        As for ``selected_layers``.
    """
    names = selected_layers(model, options, heads, excluded)
    layers.initialize_(model, names, options.init, torch.Generator().manual_seed(seed))
    if options.equilibrate != "none":
        gradient, scale, p = options.equilibrate_gradient, options.equilibrate_scale, options.equilibrate_p
        layers.condition(model, options.equilibrate, names, gradient, scale=scale, p=p, zero_rows="conditioned")
    elif options.weight_norm:
        layers.weight_norm(model, names)


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
    ValueError
        If a name matches no layer, or a layer that cannot be conditioned (the message lists the nearest known names);
        if no layer is left.
    """
    method = "row" if options.equilibrate == "none" else options.equilibrate
    selected = layers.select(model, options.equilibrate_layers, heads, method, zero_rows="conditioned")
    names, skipped = selected
    skipped |= {name: reason for name, reason in (excluded or {}).items() if name in names}
    for name, reason in skipped.items():
        log.info("%s equilibration leaves out %s: %s", method, name, reason)
    names = [name for name in names if name not in skipped]
    if not names:
        raise ValueError("equilibrate_layers: no layer is left that could be conditioned")
    return names


def method_name(options: ConditioningOptions, network: str = "nerf") -> str:
    """Name of a run's method in tables and ``metrics.json``; options without effect are omitted.

    >>> method_name(ConditioningOptions(equilibrate="row")), method_name(ConditioningOptions(init="he"))
    ('e-nerf', 'nerf-he')
    """
    words = [network]
    if options.equilibrate != "none":
        words = [f"e-{network}", *map_words(options)]
    elif options.weight_norm:
        words += ["weight_norm"]
    words += [options.init] if options.init != "default" else []
    if words != [network] and options.equilibrate_layers != "hidden":
        words += [options.equilibrate_layers]
    return "-".join(words)


def map_words(options: MapOptions) -> list[str]:
    """Words for each option that differs from the paper's map.

    >>> map_words(ConditioningOptions(equilibrate="column", equilibrate_scale="learned"))
    ['column', 'learned']
    """
    words = [options.equilibrate] if options.equilibrate != "row" else []
    words += ["detached"] if options.equilibrate_gradient == "detached" else []
    words += [options.equilibrate_scale] if options.equilibrate_scale != "fixed" else []
    return words + ([f"p{options.equilibrate_p:g}"] if options.equilibrate_p != 2 else [])
