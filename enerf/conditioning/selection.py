"""Which layers an option text means, and whether they can be conditioned. Changes nothing.

Vocabulary
----------
- a layer's **name** is its dotted path in the model, as ``named_modules`` gives it;
- a **word** of the option text answers to a path that equals it or ends with ``"." + word``;
- a **head** is an output layer. A head with one output is never conditioned: the paper's W has shape
  n_in × 1 there, so that row equilibration would turn it into sign(W), whose gradient is zero.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import NamedTuple

from torch import nn
from torch.nn.utils import parametrize

from enerf.conditioning import equilibrate

GROUPS = ("hidden", "trunk")


class Selection(NamedTuple):
    """What an option text means.

    Attributes
    ----------
    names
        The layers, in the model's order.
    left_out
        Name -> reason, for the layers that group words passed over because the method does not suit them.
    """

    names: list[str]
    left_out: dict[str, str]


def select(model: nn.Module, layers: str, heads: Collection[str] = (), method: str = "row") -> Selection:
    """Names of the layers that ``layers`` means; changes nothing.

    Parameters
    ----------
    model
        A model, plain or already conditioned.
    layers
        Words separated by commas. ``hidden`` is every ``nn.Linear`` with more than one output that is not a
        head; ``trunk`` every such layer with a path component ``trunk``. Any other word is a name: it means
        each module whose path equals it or ends with ``"." + word``, so ``trunk.0`` means
        ``coarse.trunk.0`` and ``fine.trunk.0``.
    heads
        The output heads, as names of the same kind; the group words never take them.
    method
        What the layers are for. The group words pass over layers which ``method`` does not suit, and report
        them in ``left_out``; for ``jacobi`` these are the layers which are not square.

    Raises
    ------
    ValueError
        If a word matches nothing, or if a named module is no ``nn.Linear`` or cannot be conditioned by
        ``method``.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 1))
    >>> select(net, "hidden", heads={"3"}, method="jacobi")
    Selection(names=['2'], left_out={'0': 'jacobi needs a square matrix, and this one is 8 × 3'})
    """
    check_option("method", method, equilibrate.METHODS)
    words = [word.strip() for word in layers.split(",") if word.strip()]
    if not words:
        raise ValueError("no layers are named; say hidden, trunk, or layer names separated by commas")
    taken: set[str] = set()
    left_out: dict[str, str] = {}
    for word in words:
        if word in GROUPS:
            names, passed_over = _group_members(model, word, heads, method)
            left_out.update(passed_over)
        else:
            names = _named_members(model, word)
            for name in names:
                check_conditionable(model, name, method)
        taken.update(names)
    in_order = [name for name, _ in model.named_modules() if name in taken]
    return Selection(in_order, {name: why for name, why in left_out.items() if name not in taken})


def linear_at(model: nn.Module, name: str) -> nn.Linear:
    """Layer of exactly that name.

    Raises
    ------
    ValueError
        If there is none; tells the nearest known names.
    """
    modules = dict(_named_modules(model))
    if name not in modules:
        raise ValueError(_unknown(model, name))
    module = modules[name]
    if not isinstance(module, nn.Linear):
        raise ValueError(f"{name} is a {type(module).__name__}; only nn.Linear layers can be conditioned")
    return module


def plain_linears(model: nn.Module, names: Iterable[str]) -> list[nn.Linear]:
    """Layers of those names, all of them still unconditioned and named once.

    Raises
    ------
    ValueError
        If a layer is conditioned already or named twice, or as for ``linear_at``.
    """
    linears: list[nn.Linear] = []
    for name in names:
        linear = linear_at(model, name)
        if parametrize.is_parametrized(linear, "weight"):
            raise ValueError(f"{name} is conditioned already; a layer is conditioned once")
        if any(linear is earlier for earlier in linears):
            raise ValueError(f"{name} is named twice; a layer is conditioned once")
        linears.append(linear)
    return linears


def check_conditionable(model: nn.Module, name: str, method: str) -> None:
    """Raise a ValueError unless ``name`` is an ``nn.Linear`` that ``method`` suits."""
    why_not = _objection(linear_at(model, name), method)
    if why_not is not None:
        raise ValueError(f"{name} cannot be conditioned: {why_not}")


def check_option(option: str, value: str, known: Collection[str]) -> None:
    """Raise a ValueError unless ``value`` is one of the known ones."""
    if value not in known:
        raise ValueError(f"{option} is {value!r}; it must be one of {', '.join(known)}")


def _objection(linear: nn.Linear, method: str) -> str | None:
    """Why a layer cannot be conditioned by ``method``, or None if it can."""
    n_out, n_in = linear.out_features, linear.in_features
    if n_out == 1:
        return (
            "it has a single output, and row equilibration would turn its weights "
            f"(W of shape {n_in} × 1) into sign(W), with zero gradient"
        )
    if n_in == 1 and method in ("column", "row_column"):
        return (
            "it has a single input, and column equilibration would turn its weights "
            f"(W of shape 1 × {n_out}) into sign(W), with zero gradient"
        )
    if method == "jacobi" and n_out != n_in:
        return f"jacobi needs a square matrix, and this one is {n_out} × {n_in}"
    return None


def _group_members(
    model: nn.Module, group: str, heads: Collection[str], method: str
) -> tuple[list[str], dict[str, str]]:
    """Members of ``hidden`` or ``trunk``, and those which ``method`` does not suit, with the reason."""
    members: list[str] = []
    left_out: dict[str, str] = {}
    for name, linear in _linears(model).items():
        outside = group == "trunk" and "trunk" not in name.split(".")
        if outside or any(_answers_to(name, head) for head in heads):
            continue
        why_not = _objection(linear, method)
        if why_not is None:
            members.append(name)
        else:
            left_out[name] = why_not
    if not members:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise ValueError(f"no layer belongs to {group!r}" + (f" ({reasons})" if reasons else ""))
    return members, left_out


def _named_members(model: nn.Module, word: str) -> list[str]:
    names = [name for name, _ in _named_modules(model) if _answers_to(name, word)]
    if not names:
        raise ValueError(_unknown(model, word))
    return names


def _answers_to(path: str, word: str) -> bool:
    return path == word or path.endswith("." + word)


def _named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules of the model, without those that parametrizations have put inside."""
    modules = model.named_modules()
    return [(name, module) for name, module in modules if "parametrizations" not in name.split(".")]


def _linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in _named_modules(model) if isinstance(module, nn.Linear)}


def _unknown(model: nn.Module, name: str) -> str:
    """Sentence about a name that matches nothing."""
    known = list(_linears(model))
    endings = {path.split(".", skip)[skip]: None for path in known for skip in range(path.count(".") + 1)}
    nearest = get_close_matches(name, endings, n=3)
    if nearest:
        return f"no layer is named {name!r}; the nearest known names are {', '.join(nearest)}"
    more = ", …" if len(known) > 8 else ""
    return f"no layer is named {name!r}; the nn.Linear layers are {', '.join(known[:8])}{more}"
