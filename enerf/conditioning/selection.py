"""Layer selection: which layers of a model a selector matches; ``suitability`` tells whether a method suits them.

Nothing here changes the model.

Vocabulary
----------
- a **layer** is a module whose type is in ``weight_views.layer_types()``; its **name** is its path in
  ``named_modules``;
- a **selector** is a group, a layer type (``Conv2d``), a pattern (``blocks.*.mlp.?``) or a name. A full path matches
  that layer alone, a shorter name each path that ends with ``"." + name``;
- a **head** is an output layer, or a module that consists of output layers;
- **tied** layers share a weight parameter;
- an **unknown** module has a weight of two or more axes, and is neither a layer nor of a type that multiplies by no
  matrix (embeddings, layer norm).

A layer with one output is never row-equilibrated: the paper's W has shape n_in × 1 there, so that W would become
sign(W), whose gradient is zero.
"""

from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from enerf.conditioning import batch_norm, maps, table, weight_views
from enerf.conditioning.interface import is_foreign, require_module
from enerf.conditioning.suitability import ZERO_ROWS, computed_reason, other_owners, unsuitable_reason
from enerf.conditioning.weight_views import WeightView

GROUPS = ("all", "hidden", "trunk", "first_conv_and_last_linear")
WITH_HEADS = ("all", "first_conv_and_last_linear")
BASELINES = ("weight_standardisation", "weight_norm", "spectral_norm", "unit_row", "batch_norm", "spectral_shift")
METHODS = (*maps.METHODS, *BASELINES, *table.MODULES)
APPLIED: dict[str, Callable[[nn.Module, WeightView], None]] = {}  # registry.register_parametrization adds to it
NO_MATRICES = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)  # indexed tables, and factors of elements

Layers = str | type[nn.Module] | Iterable[str | type[nn.Module]]


class Selection(NamedTuple):
    """Result of ``select``.

    Attributes
    ----------
    names
        The selected layers, in the model's order.
    skipped
        Name -> reason, for layers that a group, a layer type or a pattern matched but ``method`` cannot be applied to,
        or that share their weight with a head.
    """

    names: list[str]
    skipped: dict[str, str]


def select(
    model: nn.Module,
    layers: Layers,
    heads: str | Collection[str] = (),
    method: str = "row",
    packing: str = "matrix",
    zero_rows: str = "left_out",
    plain: bool = False,
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
        Names of the output heads, in a list or separated by commas, read as selectors are: a full path is that module,
        a shorter name each path that ends with it. ``hidden``, ``trunk``, layer types and patterns never match them,
        nor layers inside of them, and skip layers that share their weight with one.
    method
        The method to be applied, one of ``methods()``. Layers that a group, a layer type or a pattern matches but the
        method cannot be applied to are returned in ``skipped``, e.g. layers that are not square for ``jacobi``.
    packing
        How packed attention projections are read; see ``weight_views``.
    zero_rows
        What to do with layers that have rows of zeros, or what is like them for the method: ``left_out``, ``refused``
        or ``conditioned``; see ``suitability``.
    plain
        Whether groups, layer types and patterns skip layers that are conditioned or parametrized already.

    Raises
    ------
    TypeError
        If the model is no module, a selector or a head is neither a name nor a layer type, or an option is no string.
    ValueError
        If a selector or a head matches nothing, or if a named module has no weight matrices or cannot be conditioned by
        ``method``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 1))
    >>> select(net, "hidden", heads={"3"}, method="jacobi")
    Selection(names=['2'], skipped={'0': 'jacobi needs a square matrix, and this one is 8 × 3'})
    >>> select(net, nn.Linear).names
    ['0', '2']
    """
    require_module(model)
    check_option("method", method, methods())
    table.load(method)
    check_option("packing", packing, weight_views.PACKINGS)
    check_option("zero_rows", zero_rows, ZERO_ROWS)
    selectors = _split("layers", layers)
    if not selectors:
        raise ValueError(f"no layers are named; expected {', '.join(GROUPS)}, or layer names separated by commas")
    selected: set[str] = set()
    skipped: dict[str, str] = {}
    of_heads = head_names(model, heads)
    for selector in selectors:
        matched = _match_many(model, selector, of_heads)
        if matched is None:
            names = _match_name(model, str(selector))
            for name in names:
                check_conditionable(model, name, method, packing, zero_rows)
        else:
            excluded = () if selector in WITH_HEADS else of_heads
            reasons = {name: _skipping_reason(model, name, excluded, plain) for name in matched}
            names, unsuitable = _split_suitable(model, selector, reasons, method, packing, zero_rows)
            skipped.update(unsuitable)
        selected.update(names)
    in_order = [name for name, _ in _named_modules(model) if name in selected]
    return Selection(in_order, {name: reason for name, reason in skipped.items() if name not in selected})


def in_heads(name: str, heads: Collection[str]) -> bool:
    """Whether a layer is a head, or inside of one; ``heads`` are those of ``head_names``."""
    return any(f"{name}.".startswith(f"{head}.") for head in heads)


def _skipping_reason(model: nn.Module, name: str, heads: Collection[str], plain: bool) -> str | None:
    """Why a matched layer is skipped whatever the method: conditioned (if ``plain``), or tied to a head; or None."""
    if plain and (done := conditioned_reason(model.get_submodule(name))) is not None:
        return f"it {done}"
    owners = other_owners(model, model.get_submodule(name)) if heads else ()
    head = next((owner.path for owner in owners if in_heads(owner.path, heads)), None)
    return None if head is None else f"it shares its weight with the head {head}"


def head_names(model: nn.Module, heads: str | Collection[str]) -> set[str]:
    """Full names of the modules that are the heads.

    Raises
    ------
    TypeError
        If a head is not a name.
    ValueError
        If one matches nothing.

    Examples
    --------
    >>> net = nn.ModuleDict({"coarse": nn.ModuleDict({"head": nn.Linear(8, 3)}), "head": nn.Linear(8, 1)})
    >>> head_names(net["coarse"], "head"), head_names(net, ["head"]), head_names(net, ["coarse.head"])
    ({'head'}, {'head'}, {'coarse.head'})
    """
    return {name for head in _split_heads(heads) for name in _match_name(model, head, "heads: ")}


def present(model: nn.Module, heads: Collection[str]) -> list[str]:
    """Those of ``heads`` that the model has, for names that only some models of a family have."""
    paths = [path for path, _ in _named_modules(model)]
    return [head for head in _split_heads(heads) if any(_ends_with(path, head) for path in paths)]


def methods() -> tuple[str, ...]:
    """Names of all methods: built-in ones, those of ``table.MODULES``, and those that ``registry`` has added."""
    return tuple(dict.fromkeys((*METHODS, *table.MODULES, *maps.ADDED)))


MULTIPLYING = ("Linear", "Conv", "RNN", "LSTM", "GRU")  # in names of torch's layers that multiply by a matrix


def unknown_layers(model: nn.Module) -> dict[str, str]:
    """Name -> reason, for modules with a weight of two or more axes that no selector matches, also quantized ones.

    Such a module may multiply its inputs by a matrix, as GPT-2's ``Conv1D`` does; ``registry.register_layer`` makes its
    type known. Embeddings, layer norms and the layers of ``weight_views`` are not listed.

    Examples
    --------
    >>> unknown_layers(nn.Sequential(nn.Linear(3, 4), nn.LSTMCell(4, 2)))["1"]
    'LSTMCell has weight_ih of shape (8, 4), and its type is not registered as a layer'
    """
    found: dict[str, str] = {}
    for name, module in _named_modules(model):
        if isinstance(module, (*weight_views.layer_types(), *NO_MATRICES)):
            continue
        kind = type(module).__name__
        if _is_quantized(module) and any(word in kind for word in MULTIPLYING) and "Packed" not in kind:
            found[name] = f"{kind} is quantized, and only weights in floating point can be conditioned"
            continue
        buffers = {key: buffer for key, buffer in module.named_buffers(recurse=False) if key.startswith("weight")}
        tensors = {**dict(module.named_parameters(recurse=False)), **buffers}
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items() if not is_lazy(tensor)}
        weights = {key: shape for key, shape in shapes.items() if sum(size > 1 for size in shape) > 1}
        if weights:
            key, shape = next(iter(weights.items()))
            found[name] = f"{kind} has {key} of shape {shape}, and its type is not registered as a layer"
    return found


def _is_quantized(module: nn.Module) -> bool:
    """Whether the module is one of torch's quantized layers, whose weights are neither parameters nor buffers."""
    return "quantized" in type(module).__module__.split(".")


def layer_names(model: nn.Module) -> list[str]:
    """Names of all layers, in the model's order."""
    return list(_layers(model))


def as_names(names: Iterable[str]) -> list[str]:
    """Names as a list; a single string is one name, not its letters.

    Raises
    ------
    TypeError
        If they are no names.
    """
    if not isinstance(names, Iterable):
        raise TypeError(f"names is {names!r}; expected names of layers, in a list")
    found = [names] if isinstance(names, str) else [*names]
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"names holds {name!r}; expected names of layers")
    return found


def layer_at(model: nn.Module, name: str) -> nn.Module:
    """The layer with exactly that name.

    Raises
    ------
    ValueError
        If there is none (the message lists the closest known names), or if it has no weight matrices.
    """
    modules = dict(_named_modules(model))
    if name not in modules and name in GROUPS:
        raise ValueError(f"{name} is a group, expected names of layers: those of select(model, {name!r}).names")
    if name not in modules:
        raise ValueError(_unknown(model, name, layer_names(model)))
    module = modules[name]
    if not isinstance(module, weight_views.layer_types()):
        if _is_quantized(module):
            raise ValueError(f"{name} is quantized: condition the model before it is quantized, or bake it first")
        types = ", ".join(layer_type.__name__ for layer_type in weight_views.layer_types())
        raise ValueError(f"{name} is a {type(module).__name__}; the layers that can be conditioned are {types}")
    return module


def plain_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The layers with those names; an error if one is conditioned already.

    Raises
    ------
    ValueError
        If a layer is conditioned already or named twice, if its weight is not a parameter, or as for ``layer_at``.
    """
    require_module(model)
    found: dict[str, nn.Module] = {}
    for name in as_names(names):
        module = layer_at(model, name)
        if (reason := conditioned_reason(module)) is not None:
            raise ValueError(f"{name} {reason}; a layer is conditioned once")
        if any(module is earlier for earlier in found.values()):
            raise ValueError(f"{name} is named twice; a layer is conditioned once")
        for view in weight_views.views(module):
            reason = computed_reason(module, view.name)
            if reason is not None:
                raise ValueError(f"{name} cannot be conditioned: {reason}")
        found[name] = module
    return found


def with_tied(model: nn.Module, names: Collection[str]) -> list[str]:
    """The names and those of all layers tied to them, in the model's order."""
    tied = {owner.path for name in names for owner in other_owners(model, model.get_submodule(name))} | set(names)
    return [name for name, _ in model.named_modules() if name in tied]


def without_tied(layers: dict[str, nn.Module]) -> list[str]:
    """Names of the layers, without those that share all their weights with an earlier one."""
    first: dict[tuple[int, ...], str] = {}
    for name, module in layers.items():
        first.setdefault(tuple(id(getattr(module, view.name)) for view in weight_views.views(module)), name)
    return list(first.values())


def conditioned_reason(module: nn.Module) -> str | None:
    """What a layer is already: conditioned by this package, or parametrized by others; None for a plain layer."""
    if batch_norm.is_preconditioned(module):
        return "is conditioned already"
    for view in weight_views.views(module):
        if parametrize.is_parametrized(module, view.name):
            item = module.get_submodule(f"parametrizations.{view.name}")
            if is_foreign(item):
                return f"is parametrized already, by {type(next(item.children())).__name__}"
            return "is conditioned already"
    return None


def check_conditionable(
    model: nn.Module, name: str, method: str, packing: str = "matrix", zero_rows: str = "left_out"
) -> None:
    """Raise a ValueError unless ``name`` is a layer that ``method`` can be applied to."""
    layer_at(model, name)
    reason = unsuitable_reason(model, name, method, packing, zero_rows)
    if reason is not None:
        raise ValueError(f"{name} cannot be conditioned: {reason}")


def check_option(option: str, value: str, known: Collection[str]) -> None:
    """Raise a ValueError unless ``value`` is one of ``known``; the message suggests the closest one.

    Raises
    ------
    TypeError
        If it is no string.
    """
    if not isinstance(value, str):
        raise TypeError(f"{option} is {value!r}; expected one of {', '.join(known)}")
    if value not in known:
        nearest = get_close_matches(value, known, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise ValueError(f"{option} is {value!r}; it must be one of {', '.join(known)}{hint}")


def _split(option: str, layers: Layers) -> list[str | type[nn.Module]]:
    """The selectors as a list."""
    if isinstance(layers, type):
        return [layers]
    if not isinstance(layers, Iterable):
        raise TypeError(f"{option} is {layers!r}; expected names of layers, in a list or separated by commas")
    parts: Iterable[str | type[nn.Module]] = layers.split(",") if isinstance(layers, str) else layers
    stripped = [part.strip() if isinstance(part, str) else part for part in parts]
    return [part for part in stripped if part != ""]


def _split_heads(heads: str | Collection[str]) -> list[str]:
    """The names of heads as a list."""
    found: list[str] = []
    for head in _split("heads", heads):
        if not isinstance(head, str):
            raise TypeError(f"heads holds {head!r}; expected names of output layers")
        found.append(head)
    return found


def _match_many(model: nn.Module, selector: str | type[nn.Module], heads: Collection[str]) -> list[str] | None:
    """All layers that a group, a layer type or a pattern matches, suitable or not; None if the selector is a name.

    ``heads`` are full names.
    """
    layers = _layers(model)
    inner = [name for name in layers if not in_heads(name, heads)]
    groups: dict[str, Callable[[], list[str]]] = {
        "all": lambda: list(layers),
        "hidden": lambda: inner,
        "trunk": lambda: [name for name in inner if "trunk" in name.split(".")],
        "first_conv_and_last_linear": lambda: _first_conv_and_last_linear(layers),
    }
    if not isinstance(selector, str | type):
        raise TypeError(f"layers holds {selector!r}; expected names of layers, patterns, groups or layer types")
    if isinstance(selector, type):
        return [name for name in inner if isinstance(layers[name], selector)]
    if selector in groups:
        return groups[selector]()
    if selector in {layer_type.__name__ for layer_type in weight_views.layer_types()}:
        return [name for name in inner if selector in {base.__name__ for base in type(layers[name]).__mro__}]
    if any(sign in selector for sign in "*?["):
        return [name for name in inner if fnmatchcase(name, selector)]
    return None


def _first_conv_and_last_linear(layers: dict[str, nn.Module]) -> list[str]:
    convolutions = [name for name, layer in layers.items() if isinstance(layer, weight_views.CONVOLUTIONS)]
    linears = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    return convolutions[:1] + linears[-1:] if convolutions and linears else []


def _split_suitable(
    model: nn.Module,
    selector: str | type[nn.Module],
    skipping: dict[str, str | None],
    method: str,
    packing: str,
    zero_rows: str,
) -> tuple[list[str], dict[str, str]]:
    """The layers that ``method`` can be applied to, and name -> reason for the others.

    ``skipping`` has all matched layers, with a reason for those that are skipped whatever the method.
    """
    reasons = {
        name: reason or unsuitable_reason(model, name, method, packing, zero_rows) for name, reason in skipping.items()
    }
    suitable = [name for name, reason in reasons.items() if reason is None]
    unsuitable = {name: reason for name, reason in reasons.items() if reason is not None}
    if zero_rows == "refused":
        for name, reason in unsuitable.items():
            if skipping[name] is None and unsuitable_reason(model, name, method, packing, "conditioned") is None:
                raise ValueError(f"{name} cannot be conditioned: {reason}")
    if not suitable:
        details = "; ".join(f"{name}: {reason}" for name, reason in unsuitable.items())
        label = selector.__name__ if isinstance(selector, type) else selector
        raise ValueError(f"no layer belongs to {label!r} ({details or _known(model)})")
    return suitable, unsuitable


def _match_name(model: nn.Module, name: str, option: str = "") -> list[str]:
    paths = [path for path, _ in _named_modules(model)]
    found = [name] if name in paths else [path for path in paths if _ends_with(path, name)]
    if not found:
        raise ValueError(f"{option}{_unknown(model, name)}")
    return found


def _ends_with(path: str, name: str) -> bool:
    return path == name or path.endswith("." + name)


def _named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules of the model but the parametrizations."""
    require_module(model)
    modules = model.named_modules()
    return [(name, module) for name, module in modules if "parametrizations" not in name.split(".")]


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in _named_modules(model) if isinstance(module, weight_views.layer_types())}


def _unknown(model: nn.Module, name: str, known: Collection[str] | None = None) -> str:
    """Error message for a name that matches nothing; ``known`` by default groups, and full and short layer names."""
    paths = list(_layers(model))
    endings = {path.split(".", skip)[skip]: None for path in paths for skip in range(path.count(".") + 1)}
    nearest = get_close_matches(name, [*endings, *GROUPS] if known is None else known, n=3)
    if nearest:
        return f"no layer is named {name!r}; the nearest known names are {', '.join(nearest)}"
    return f"no layer is named {name!r}; {_known(model)}"


def _known(model: nn.Module) -> str:
    names, others = list(_layers(model)), unknown_layers(model)
    if names:
        return f"the layers are {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
    found = "; ".join(f"{name or 'the model itself'}: {reason}" for name, reason in [*others.items()][:3])
    return f"it has no known layers; {found}: see condition_tensor and register_layer" if found else "it has no layers"
