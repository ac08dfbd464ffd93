"""Layer selection: which layers of a model a selector matches, and whether a method can be applied to them.

Nothing here changes the model.

Vocabulary
----------
- a **layer** is a module whose type is in ``weight_views.LAYER_TYPES``; its **name** is its path in ``named_modules``;
- a **selector** is a group, a layer type (``Conv2d``), a pattern (``blocks.*.mlp.?``) or a name. A full path matches
  that layer alone, a shorter name each path that ends with ``"." + name``;
- a **head** is an output layer;
- **tied** layers share a weight parameter.

A layer with one output is never row-equilibrated: the paper's W has shape n_in × 1 there, so that W would become
sign(W), whose gradient is zero.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from enerf.conditioning import batch_norm, maps, weight_views
from enerf.conditioning.weight_views import WeightView

GROUPS = ("all", "hidden", "trunk", "first_conv_and_last_linear")
BASELINES = ("weight_standardisation", "weight_norm", "spectral_norm", "unit_row", "batch_norm")
METHODS = (*maps.METHODS, *BASELINES)

COMPUTED = (
    "its weight is computed from other parameters, by pruning or a hook of torch.nn.utils: make it permanent first "
    "(prune.remove, remove_weight_norm, remove_spectral_norm)"
)

Layers = str | type[nn.Module] | Iterable[str | type[nn.Module]]


class Selection(NamedTuple):
    """Result of ``select``.

    Attributes
    ----------
    names
        The selected layers, in the model's order.
    skipped
        Name -> reason, for layers that a group, a layer type or a pattern matched but ``method`` cannot be applied to.
    """

    names: list[str]
    skipped: dict[str, str]


def select(
    model: nn.Module, layers: Layers, heads: Collection[str] = (), method: str = "row", packing: str = "matrix"
) -> Selection:
    """Names of the layers that the selectors match; changes nothing.

    Parameters
    ----------
    model
        A model, plain or conditioned.
    layers
        Selectors, separated by commas or in a list, or module types. The groups are ``all``; ``hidden``, all but the
        heads; ``trunk``, the layers of ``hidden`` with a path component ``trunk``; and ``first_conv_and_last_linear``,
        the paper's choice for classifiers.
    heads
        Names of the output heads; ``hidden``, ``trunk``, layer types and patterns never match them.
    method
        The method to be applied, one of ``METHODS``. Layers that a group, a layer type or a pattern matches but the
        method cannot be applied to are returned in ``skipped``, e.g. layers that are not square for ``jacobi``.
    packing
        How packed attention projections are read; see ``weight_views``.

    Raises
    ------
    ValueError
        If a selector matches nothing, or if a named module has no weight matrices or cannot be conditioned by
        ``method``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 1))
    >>> select(net, "hidden", heads={"3"}, method="jacobi")
    Selection(names=['2'], skipped={'0': 'jacobi needs a square matrix, and this one is 8 × 3'})
    >>> select(net, nn.Linear).names
    ['0', '2']
    """
    check_option("method", method, METHODS)
    selectors = _split(layers)
    if not selectors:
        raise ValueError(f"no layers are named; expected {', '.join(GROUPS)}, or layer names separated by commas")
    selected: set[str] = set()
    skipped: dict[str, str] = {}
    for selector in selectors:
        matched = _match_many(model, selector, heads)
        if matched is None:
            names = _match_name(model, str(selector))
            for name in names:
                check_conditionable(model, name, method, packing)
        else:
            names, unsuitable = _split_suitable(model, selector, matched, method, packing)
            skipped.update(unsuitable)
        selected.update(names)
    in_order = [name for name, _ in _named_modules(model) if name in selected]
    return Selection(in_order, {name: reason for name, reason in skipped.items() if name not in selected})


def layer_at(model: nn.Module, name: str) -> nn.Module:
    """The layer with exactly that name.

    Raises
    ------
    ValueError
        If there is none (the message lists the closest known names), or if it has no weight matrices.
    """
    modules = dict(_named_modules(model))
    if name not in modules:
        raise ValueError(_unknown(model, name))
    module = modules[name]
    if not isinstance(module, weight_views.LAYER_TYPES):
        if "quantized" in type(module).__module__:
            raise ValueError(f"{name} is quantized: condition the model before it is quantized, or bake it first")
        types = ", ".join(layer_type.__name__ for layer_type in weight_views.LAYER_TYPES)
        raise ValueError(f"{name} is a {type(module).__name__}; the layers that can be conditioned are {types}")
    return module


def plain_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The layers with those names, none of which may be conditioned yet.

    Raises
    ------
    ValueError
        If a layer is conditioned already or named twice, if its weight is not a parameter, or as for ``layer_at``.
    """
    found: dict[str, nn.Module] = {}
    for name in names:
        module = layer_at(model, name)
        if is_conditioned(module):
            raise ValueError(f"{name} is conditioned already; a layer is conditioned once")
        if any(module is earlier for earlier in found.values()):
            raise ValueError(f"{name} is named twice; a layer is conditioned once")
        if any(_is_computed(module, view.name) for view in weight_views.views(module)):
            raise ValueError(f"{name} cannot be conditioned: {COMPUTED}")
        found[name] = module
    return found


def with_tied(model: nn.Module, names: Collection[str]) -> list[str]:
    """The names and those of all layers tied to them, in the model's order."""
    tied = {owner.path for name in names for owner in _other_owners(model, model.get_submodule(name))} | set(names)
    return [name for name, _ in model.named_modules() if name in tied]


def without_tied(layers: dict[str, nn.Module]) -> list[str]:
    """Names of the layers, without those that share all their weights with an earlier one."""
    first: dict[tuple[int, ...], str] = {}
    for name, module in layers.items():
        first.setdefault(tuple(id(getattr(module, view.name)) for view in weight_views.views(module)), name)
    return list(first.values())


def is_conditioned(module: nn.Module) -> bool:
    """Whether any weight of the layer is parametrized, or its gradients are preconditioned."""
    parametrized = any(parametrize.is_parametrized(module, view.name) for view in weight_views.views(module))
    return parametrized or batch_norm.is_preconditioned(module)


def check_conditionable(model: nn.Module, name: str, method: str, packing: str = "matrix") -> None:
    """Raise a ValueError unless ``name`` is a layer that ``method`` can be applied to."""
    reason = _unsuitable_reason(model, layer_at(model, name), name, method, packing)
    if reason is not None:
        raise ValueError(f"{name} cannot be conditioned: {reason}")


def check_option(option: str, value: str, known: Collection[str]) -> None:
    """Raise a ValueError unless ``value`` is one of ``known``; the message suggests the closest one."""
    if value not in known:
        nearest = get_close_matches(str(value), known, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise ValueError(f"{option} is {value!r}; it must be one of {', '.join(known)}{hint}")


def _unsuitable_reason(model: nn.Module, module: nn.Module, name: str, method: str, packing: str) -> str | None:
    """Why a layer cannot be conditioned by ``method``, or None if it can."""
    views = weight_views.views(module, packing)
    reasons = (_tensor_problem(module, view) or _shape_problem(view, method) for view in views)
    reason = next((reason for reason in reasons if reason), None)
    plain_type = parametrize.type_before_parametrizations(module)
    if reason is None and method == "batch_norm" and not batch_norm.supports(plain_type):
        return f"batch_norm preconditions linear layers and convolutions, and it is a {type(module).__name__}"
    return reason or _tied_weight_problem(model, name)


def _tensor_problem(module: nn.Module, view: WeightView) -> str | None:
    """Why the weight tensor is not supported, or None."""
    parametrized = parametrize.is_parametrized(module, view.name)
    if not parametrized and _is_computed(module, view.name):
        return COMPUTED
    path = f"parametrizations.{view.name}.original"
    weight = dict(module.named_parameters()).get(path) if parametrized else getattr(module, view.name)
    if weight is None:  # a conditioned layer with several originals
        return None
    if is_lazy(weight):
        return "its shape is not known yet: run the model once on an example, then condition it"
    if weight.layout != torch.strided or getattr(weight, "is_sparse", False):
        return f"its weight is sparse ({weight.layout}), and norms of its rows would have to be kept dense"
    if not weight.is_floating_point() or weight.is_quantized:
        return f"its weight holds {weight.dtype}, and only real floating point weights can be scaled"
    return None


def _is_computed(module: nn.Module, name: str) -> bool:
    """Whether a weight is an attribute that a hook computes before each call, so that assigning to it has no effect."""
    return name not in module._parameters and name not in module._buffers


def _shape_problem(view: WeightView, method: str) -> str | None:
    """Why a method cannot be applied to matrices of that shape, or None."""
    n_out, n_in = view.n_out, view.n_in
    if not n_out or not n_in:
        return f"it has no weights: its matrices are {n_out} × {n_in}"
    per_group = " per group" if view.batch and not view.name.startswith("in_proj") else ""
    if n_out == 1 and method in ("row", "row_column", "ruiz", "jacobi", "unit_row"):
        return (
            f"it has a single output{per_group}, and row equilibration would turn its weights "
            f"(W of shape {n_in} × 1) into sign(W), with zero gradient"
        )
    if n_in == 1 and method == "weight_standardisation":
        return f"it has a single input{per_group}, and a single weight minus its mean is zero"
    if n_in == 1 and method in ("column", "row_column", "ruiz"):
        return (
            f"it has a single input{per_group}, and column equilibration would turn its weights "
            f"(W of shape 1 × {n_out}) into sign(W), with zero gradient"
        )
    if method == "jacobi" and n_out != n_in:
        return f"jacobi needs a square matrix, and this one is {n_out} × {n_in}"
    return None


class _Owner(NamedTuple):
    """Another module that has one of a layer's weights: the weight's name here; path, module and name there."""

    weight: str
    path: str
    module: nn.Module
    name: str


def _other_owners(model: nn.Module, layer: nn.Module) -> Iterator[_Owner]:
    names = {view.name for view in weight_views.views(layer)}
    own = {id(p): key for key, p in layer.named_parameters(recurse=False) if key in names}
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if module is not layer and id(parameter) in own:
                yield _Owner(own[id(parameter)], path, module, key)


def _tied_weight_problem(model: nn.Module, name: str) -> str | None:
    """Why a layer cannot be conditioned together with the modules tied to it, or None if it can."""
    layer = model.get_submodule(name)
    views = {view.name: view for view in weight_views.views(layer)}
    for owner in _other_owners(model, layer):
        others = [_layout(view) for view in weight_views.views(owner.module) if view.name == owner.name]
        if others != [_layout(views[owner.weight])]:
            return (
                f"it shares its weight with {owner.path} ({type(owner.module).__name__}.{owner.name}), which cannot be "
                "conditioned with it: untie them first"
            )
    return None


def _layout(view: WeightView) -> tuple[object, ...]:
    return view.shape, view.batch, view.n_out, view.n_in, view.transposed


def _split(layers: Layers) -> list[str | type[nn.Module]]:
    """The selectors as a list."""
    if isinstance(layers, type):
        return [layers]
    parts: Iterable[str | type[nn.Module]] = layers.split(",") if isinstance(layers, str) else layers
    stripped = [part.strip() if isinstance(part, str) else part for part in parts]
    return [part for part in stripped if part != ""]


def _match_many(model: nn.Module, selector: str | type[nn.Module], heads: Collection[str]) -> list[str] | None:
    """All layers that a group, a layer type or a pattern matches, suitable or not; None if the selector is a name."""
    layers = _layers(model)
    inner = [name for name in layers if not any(_ends_with(name, head) for head in heads)]
    groups: dict[str, Callable[[], list[str]]] = {
        "all": lambda: list(layers),
        "hidden": lambda: inner,
        "trunk": lambda: [name for name in inner if "trunk" in name.split(".")],
        "first_conv_and_last_linear": lambda: _first_conv_and_last_linear(layers),
    }
    if isinstance(selector, type):
        return [name for name in inner if isinstance(layers[name], selector)]
    if selector in groups:
        return groups[selector]()
    if selector in {layer_type.__name__ for layer_type in weight_views.LAYER_TYPES}:
        return [name for name in inner if selector in {base.__name__ for base in type(layers[name]).__mro__}]
    if any(sign in selector for sign in "*?["):
        return [name for name in inner if fnmatchcase(name, selector)]
    return None


def _first_conv_and_last_linear(layers: dict[str, nn.Module]) -> list[str]:
    convolutions = [name for name, layer in layers.items() if isinstance(layer, weight_views.CONVOLUTIONS)]
    linears = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    return convolutions[:1] + linears[-1:] if convolutions and linears else []


def _split_suitable(
    model: nn.Module, selector: str | type[nn.Module], matched: list[str], method: str, packing: str
) -> tuple[list[str], dict[str, str]]:
    """The matched layers that ``method`` can be applied to, and name -> reason for the others."""
    reasons = {name: _unsuitable_reason(model, layer_at(model, name), name, method, packing) for name in matched}
    suitable = [name for name, reason in reasons.items() if reason is None]
    unsuitable = {name: reason for name, reason in reasons.items() if reason is not None}
    if not suitable:
        details = "; ".join(f"{name}: {reason}" for name, reason in unsuitable.items())
        label = selector.__name__ if isinstance(selector, type) else selector
        raise ValueError(f"no layer belongs to {label!r} ({details or _known(model)})")
    return suitable, unsuitable


def _match_name(model: nn.Module, name: str) -> list[str]:
    paths = [path for path, _ in _named_modules(model)]
    found = [name] if name in paths else [path for path in paths if _ends_with(path, name)]
    if not found:
        raise ValueError(_unknown(model, name))
    return found


def _ends_with(path: str, name: str) -> bool:
    return path == name or path.endswith("." + name)


def _named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules of the model but the parametrizations."""
    modules = model.named_modules()
    return [(name, module) for name, module in modules if "parametrizations" not in name.split(".")]


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in _named_modules(model) if isinstance(module, weight_views.LAYER_TYPES)}


def _unknown(model: nn.Module, name: str) -> str:
    """Error message for a name that matches nothing."""
    known = list(_layers(model))
    endings = {path.split(".", skip)[skip]: None for path in known for skip in range(path.count(".") + 1)}
    nearest = get_close_matches(name, [*endings, *GROUPS], n=3)
    if nearest:
        return f"no layer is named {name!r}; the nearest known names are {', '.join(nearest)}"
    return f"no layer is named {name!r}; {_known(model)}"


def _known(model: nn.Module) -> str:
    names = list(_layers(model))
    return f"the layers are {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else "it has no layers"
