"""Which layers are meant, and whether a method suits them. Changes nothing.

Vocabulary
----------
- a **layer** is a module with matrices (``matrices.KINDS``); its **name** is its dotted path, as ``named_modules``
  gives it;
- a **word** is a group's name, a kind (``Conv2d``), a pattern (``blocks.*.mlp.?``) or a name. A full path means that
  layer alone; anything shorter means each path that ends with ``"." + word``;
- a **head** is an output layer. A layer with one output is never equilibrated by rows: the paper's W has shape
  n_in × 1 there, so that it would become sign(W), whose gradient is zero.
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
from enerf.conditioning.weight_views import Slot


def objection(model: nn.Module, name: str) -> str | None:
    """Why a layer cannot be conditioned together with those that hold its weights, or None if it can."""
    layer = model.get_submodule(name)
    shapes = {slot.name: slot for slot in weight_views.slots(layer)}
    for tensor, path, holder, key in _others(model, layer):
        as_read = [
            (s.shape, s.batch, s.n_out, s.n_in, s.transposed) for s in weight_views.slots(holder) if s.name == key
        ]
        slot = shapes[tensor]
        if as_read != [(slot.shape, slot.batch, slot.n_out, slot.n_in, slot.transposed)]:
            return (
                f"it shares its weight with {path} ({type(holder).__name__}.{key}), which cannot be conditioned with "
                "it: untie them first"
            )
    return None


def with_tied(model: nn.Module, names: Collection[str]) -> list[str]:
    """The names, and those of all layers that hold one of their weights, in the model's order."""
    taken = {path for name in names for _, path, _, _ in _others(model, model.get_submodule(name))} | set(names)
    return [name for name, _ in model.named_modules() if name in taken]


def one_of_each(layers: dict[str, nn.Module]) -> list[str]:
    """Names without those whose weights an earlier one holds."""
    first: dict[tuple[int, ...], str] = {}
    for name, module in layers.items():
        first.setdefault(tuple(id(getattr(module, slot.name)) for slot in weight_views.slots(module)), name)
    return list(first.values())


def _others(model: nn.Module, layer: nn.Module) -> Iterator[tuple[str, str, nn.Module, str]]:
    """Other holders of a layer's weights: the weight's name here; path, module and name there."""
    own = {id(p): key for key, p in layer.named_parameters(recurse=False) if key in _slot_names(layer)}
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if module is not layer and id(parameter) in own:
                yield own[id(parameter)], path, module, key


def _slot_names(layer: nn.Module) -> set[str]:
    return {slot.name for slot in weight_views.slots(layer)}


GROUPS = ("all", "hidden", "trunk", "first_conv_and_last_linear")
BASELINES = ("weight_standardisation", "weight_norm", "spectral_norm", "unit_row", "batch_norm")
METHODS = (*maps.METHODS, *BASELINES)

Layers = str | type[nn.Module] | Iterable[str | type[nn.Module]]


class Selection(NamedTuple):
    """What words mean.

    Attributes
    ----------
    names
        The layers, in the model's order.
    left_out
        Name -> reason, for the layers that groups, kinds and patterns passed over because the method does not suit
        them.
    """

    names: list[str]
    left_out: dict[str, str]


def select(
    model: nn.Module, layers: Layers, heads: Collection[str] = (), method: str = "row", packing: str = "matrix"
) -> Selection:
    """Names of the layers that ``layers`` means; changes nothing.

    Parameters
    ----------
    model
        A model, plain or already conditioned.
    layers
        Words, separated by commas or in a list; types of modules too. The groups are ``all``; ``hidden``, all but the
        heads; ``trunk``, those of ``hidden`` with a path component ``trunk``; and ``first_conv_and_last_linear``, the
        paper's choice for classifiers.
    heads
        The output heads, as names; ``hidden``, ``trunk``, kinds and patterns never take them.
    method
        What the layers are for: one of ``METHODS``. Groups, kinds and patterns pass over layers which it does not
        suit, and report them in ``left_out``; for ``jacobi`` these are the layers which are not square.
    packing
        How packed projections are read; see ``matrices``.

    Raises
    ------
    ValueError
        If a word matches nothing, or if a named module has no matrices or cannot be conditioned by ``method``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 1))
    >>> select(net, "hidden", heads={"3"}, method="jacobi")
    Selection(names=['2'], left_out={'0': 'jacobi needs a square matrix, and this one is 8 × 3'})
    >>> select(net, nn.Linear).names
    ['0', '2']
    """
    check_option("method", method, METHODS)
    words = _words(layers)
    if not words:
        raise ValueError(f"no layers are named; say {', '.join(GROUPS)}, or layer names separated by commas")
    taken: set[str] = set()
    left_out: dict[str, str] = {}
    for word in words:
        wide = _wide_word(model, word, heads)
        if wide is None:
            names = _named(model, str(word))
            for name in names:
                check_conditionable(model, name, method, packing)
        else:
            names, passed_over = _suited(model, word, wide, method, packing)
            left_out.update(passed_over)
        taken.update(names)
    in_order = [name for name, _ in _named_modules(model) if name in taken]
    return Selection(in_order, {name: why for name, why in left_out.items() if name not in taken})


def layer_at(model: nn.Module, name: str) -> nn.Module:
    """Layer of exactly that name.

    Raises
    ------
    ValueError
        If there is none, with the nearest known names, or if it has no matrices.
    """
    modules = dict(_named_modules(model))
    if name not in modules:
        raise ValueError(_unknown(model, name))
    module = modules[name]
    if not isinstance(module, weight_views.KINDS):
        if "quantized" in type(module).__module__:
            raise ValueError(f"{name} is quantised: condition the model before it is quantised, or bake it first")
        kinds = ", ".join(kind.__name__ for kind in weight_views.KINDS)
        raise ValueError(f"{name} is a {type(module).__name__}; the layers that can be conditioned are {kinds}")
    return module


def plain_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Layers of those names, all of them still unconditioned and named once.

    Raises
    ------
    ValueError
        If a layer is conditioned already or named twice, or as for ``layer_at``.
    """
    found: dict[str, nn.Module] = {}
    for name in names:
        module = layer_at(model, name)
        if is_conditioned(module):
            raise ValueError(f"{name} is conditioned already; a layer is conditioned once")
        if any(module is earlier for earlier in found.values()):
            raise ValueError(f"{name} is named twice; a layer is conditioned once")
        found[name] = module
    return found


def is_conditioned(module: nn.Module) -> bool:
    """Whether any of a layer's weights is computed, or its gradients preconditioned."""
    computed = any(parametrize.is_parametrized(module, slot.name) for slot in weight_views.slots(module))
    return computed or batch_norm.is_preconditioned(module)


def check_conditionable(model: nn.Module, name: str, method: str, packing: str = "matrix") -> None:
    """Raise a ValueError unless ``name`` is a layer that ``method`` suits."""
    why_not = _objection(model, layer_at(model, name), name, method, packing)
    if why_not is not None:
        raise ValueError(f"{name} cannot be conditioned: {why_not}")


def check_option(option: str, value: str, known: Collection[str]) -> None:
    """Raise a ValueError unless ``value`` is one of the known ones; tells the nearest."""
    if value not in known:
        nearest = get_close_matches(str(value), known, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise ValueError(f"{option} is {value!r}; it must be one of {', '.join(known)}{hint}")


def _objection(model: nn.Module, module: nn.Module, name: str, method: str, packing: str) -> str | None:
    """Why a layer cannot be conditioned by ``method``, or None if it can."""
    slots = weight_views.slots(module, packing)
    reasons = (_tensor_objection(module, slot) or _matrix_objection(slot, method) for slot in slots)
    why_not = next((reason for reason in reasons if reason), None)
    plain = parametrize.type_before_parametrizations(module)
    if why_not is None and method == "batch_norm" and not batch_norm.suits(plain):
        return f"batch_norm preconditions linear layers and convolutions, and it is a {type(module).__name__}"
    return why_not or objection(model, name)


def _tensor_objection(module: nn.Module, slot: Slot) -> str | None:
    """Why the tensor itself cannot be worked with."""
    computed = parametrize.is_parametrized(module, slot.name)
    path = f"parametrizations.{slot.name}.original"
    weight = dict(module.named_parameters()).get(path) if computed else getattr(module, slot.name)
    if weight is None:  # a conditioned layer of several originals
        return None
    if is_lazy(weight):
        return "its shape is not known yet: run the model once on an example, then condition it"
    if weight.layout != torch.strided or getattr(weight, "is_sparse", False):
        return f"its weight is sparse ({weight.layout}), and norms of its rows would have to be kept dense"
    if not weight.is_floating_point() or weight.is_quantized:
        return f"its weight holds {weight.dtype}, and only real floating point weights can be scaled"
    return None


def _matrix_objection(slot: Slot, method: str) -> str | None:
    """Why matrices of that size do not suit a method."""
    n_out, n_in = slot.n_out, slot.n_in
    of = " a group" if slot.batch and not slot.name.startswith("in_proj") else ""
    if n_out == 1 and method in ("row", "row_column", "ruiz", "jacobi", "unit_row"):
        return (
            f"it has a single output{of}, and row equilibration would turn its weights "
            f"(W of shape {n_in} × 1) into sign(W), with zero gradient"
        )
    if n_in == 1 and method == "weight_standardisation":
        return f"it has a single input{of}, and one weight less its own mean is zero"
    if n_in == 1 and method in ("column", "row_column", "ruiz"):
        return (
            f"it has a single input{of}, and column equilibration would turn its weights "
            f"(W of shape 1 × {n_out}) into sign(W), with zero gradient"
        )
    if method == "jacobi" and n_out != n_in:
        return f"jacobi needs a square matrix, and this one is {n_out} × {n_in}"
    return None


def _words(layers: Layers) -> list[str | type[nn.Module]]:
    """The words one by one."""
    if isinstance(layers, type):
        return [layers]
    parts: Iterable[str | type[nn.Module]] = layers.split(",") if isinstance(layers, str) else layers
    stripped = [part.strip() if isinstance(part, str) else part for part in parts]
    return [part for part in stripped if part != ""]


def _wide_word(model: nn.Module, word: str | type[nn.Module], heads: Collection[str]) -> list[str] | None:
    """All layers that a group, a kind or a pattern reaches, suited or not; None if the word is a name."""
    layers = _layers(model)
    inner = [name for name in layers if not any(_answers_to(name, head) for head in heads)]
    rules: dict[str, Callable[[], list[str]]] = {
        "all": lambda: list(layers),
        "hidden": lambda: inner,
        "trunk": lambda: [name for name in inner if "trunk" in name.split(".")],
        "first_conv_and_last_linear": lambda: _first_conv_and_last_linear(layers),
    }
    if isinstance(word, type):
        return [name for name in inner if isinstance(layers[name], word)]
    if word in rules:
        return rules[word]()
    if word in {kind.__name__ for kind in weight_views.KINDS}:
        return [name for name in inner if word in {kind.__name__ for kind in type(layers[name]).__mro__}]
    if any(sign in word for sign in "*?["):
        return [name for name in inner if fnmatchcase(name, word)]
    return None


def _first_conv_and_last_linear(layers: dict[str, nn.Module]) -> list[str]:
    convolutions = [name for name, layer in layers.items() if isinstance(layer, weight_views.CONVOLUTIONS)]
    linears = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    return convolutions[:1] + linears[-1:] if convolutions and linears else []


def _suited(
    model: nn.Module, word: str | type[nn.Module], reached: list[str], method: str, packing: str
) -> tuple[list[str], dict[str, str]]:
    """Those of the reached layers which ``method`` suits, and the others with the reason."""
    reasons = {name: _objection(model, layer_at(model, name), name, method, packing) for name in reached}
    members = [name for name, why in reasons.items() if why is None]
    left_out = {name: why for name, why in reasons.items() if why is not None}
    if not members:
        why_not = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        called = word.__name__ if isinstance(word, type) else word
        raise ValueError(f"no layer belongs to {called!r} ({why_not or _known(model)})")
    return members, left_out


def _named(model: nn.Module, word: str) -> list[str]:
    names = [name for name, _ in _named_modules(model)]
    found = [word] if word in names else [name for name in names if _answers_to(name, word)]
    if not found:
        raise ValueError(_unknown(model, word))
    return found


def _answers_to(path: str, word: str) -> bool:
    return path == word or path.endswith("." + word)


def _named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules of the model, without those that parametrizations have put inside."""
    modules = model.named_modules()
    return [(name, module) for name, module in modules if "parametrizations" not in name.split(".")]


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in _named_modules(model) if isinstance(module, weight_views.KINDS)}


def _unknown(model: nn.Module, name: str) -> str:
    """Sentence about a name that matches nothing."""
    known = list(_layers(model))
    endings = {path.split(".", skip)[skip]: None for path in known for skip in range(path.count(".") + 1)}
    nearest = get_close_matches(name, [*endings, *GROUPS], n=3)
    if nearest:
        return f"no layer is named {name!r}; the nearest known names are {', '.join(nearest)}"
    return f"no layer is named {name!r}; {_known(model)}"


def _known(model: nn.Module) -> str:
    names = list(_layers(model))
    return f"the layers are {', '.join(names[:8])}{', …' if len(names) > 8 else ''}" if names else "it has no layers"
