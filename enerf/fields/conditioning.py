"""Options to conditioned layers, the same for every field: which are chosen, their start, their map or control."""

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
    spared: Mapping[str, str] | None = None,
) -> None:
    """Apply the start, then the map or the control, to the chosen layers; arguments as of ``chosen_layers``.

    Raises
    ------
    ValueError
        As for ``chosen_layers``.
    """
    names = chosen_layers(model, options, heads, spared)
    layers.initialize_(model, names, options.init, torch.Generator().manual_seed(seed))
    if options.equilibrate != "none":
        gradient, scale, p = options.equilibrate_gradient, options.equilibrate_scale, options.equilibrate_p
        layers.condition(model, options.equilibrate, names, gradient, scale=scale, p=p)
    elif options.weight_norm:
        layers.weight_norm(model, names)


def chosen_layers(
    model: nn.Module,
    options: ConditioningOptions,
    heads: Collection[str],
    spared: Mapping[str, str] | None = None,
) -> list[str]:
    """Names of the layers that ``equilibrate_layers`` means; logs which of them are left out.

    Parameters
    ----------
    model
        Holds the layers.
    options
        Say which.
    heads
        The output layers.
    spared
        Name -> reason, for layers that are left out whatever the options say.

    Raises
    ------
    ValueError
        If a word means no layer, or a layer that cannot be conditioned; tells the nearest known names. If none is left.
    """
    method = "row" if options.equilibrate == "none" else options.equilibrate
    names, left_out = layers.select(model, options.equilibrate_layers, heads=heads, method=method)
    left_out |= {name: reason for name, reason in (spared or {}).items() if name in names}
    for name, reason in left_out.items():
        log.info("%s equilibration leaves out %s: %s", method, name, reason)
    names = [name for name in names if name not in left_out]
    if not names:
        raise ValueError("equilibrate_layers: no layer is left that could be conditioned")
    return names


def method_name(options: ConditioningOptions, network: str = "nerf") -> str:
    """How a run's method is called in tables and ``metrics.json``; options without effect are not named.

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
    """What differs from the paper's map, word by word.

    >>> map_words(ConditioningOptions(equilibrate="column", equilibrate_scale="learned"))
    ['column', 'learned']
    """
    words = [options.equilibrate] if options.equilibrate != "row" else []
    words += ["detached"] if options.equilibrate_gradient == "detached" else []
    words += [options.equilibrate_scale] if options.equilibrate_scale != "fixed" else []
    return words + ([f"p{options.equilibrate_p:g}"] if options.equilibrate_p != 2 else [])
