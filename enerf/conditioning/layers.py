"""Conditioning of the layers of any model, in place, with ``torch.nn.utils.parametrize``.

Vocabulary
----------
- a layer's **name** is its path in ``named_modules``;
- a layer is **conditioned** if its ``weight`` is computed from a raw parameter at each access. The raw
  parameter is called ``original`` and is what the optimizer updates, under the key
  ``parametrizations.weight.original``; ``condition`` does not change its values, so that plain and conditioned
  models of the same seed have the same initial parameters;
- **baking** replaces the raw parameter by the weight that was computed from it; see ``baking``;
- layers are **tied** if they share a parameter. They are conditioned together, or not at all.

The order is a contract: build -> ``initialize_`` or ``unit_row_`` -> ``condition`` -> device -> optimizer -> load.
Conditioning changes the *order* of a layer's parameters, so optimizer state cannot be transferred between a plain and a
conditioned model. Inside ``weight_cache.computed_once`` or ``torch.nn.utils.parametrize.cached()``, a weight that is
used several times in one step is computed once. Conditioned models are saved by their ``state_dict``; torch refuses to
pickle whole parametrized modules. ``torch.func.functional_call`` takes raw weights under their keys
``parametrizations.weight.original`` and applies the maps to them; the key ``weight`` does not exist.
"""

import math
from collections.abc import Callable, Collection, Iterable

from torch import nn
from torch.nn.utils import parametrize

from enerf.conditioning import (
    attention,
    baselines,
    batch_norm,
    maps,
    norms,
    selection,
    suitability,
    table,
    weight_views,
)
from enerf.conditioning.baking import bake
from enerf.conditioning.baselines import INITS, initialize_, unit_row_, weight_norm
from enerf.conditioning.interface import (
    leave_shared_class,
    method_of,
    parametrized_tensors,
    require_module,
    require_number,
)
from enerf.conditioning.parametrization import MAPS, SCALES, Equilibrated
from enerf.conditioning.rollback import unchanged_on_error
from enerf.conditioning.selection import METHODS, Layers, Selection, check_option, select
from enerf.conditioning.weight_views import WeightView
from enerf.optim.table import MATRIX_OPTIMIZERS

__all__ = [
    "INITS",
    "METHODS",
    "SCALES",
    "Conditioned",
    "Equilibrated",
    "Layers",
    "Selection",
    "bake",
    "condition",
    "condition_tensor",
    "conditioned_layers",
    "initialize_",
    "select",
    "unit_row_",
    "weight_norm",
]


# methods that do not read packed weights as several matrices
WHOLE = ("weight_norm", "spectral_norm", "batch_norm", "fourier")


class Conditioned(list[str]):
    """Result of ``condition``: the names of the conditioned layers, and what was not conditioned.

    Attributes
    ----------
    left_out
        Name -> reason, for layers that a group, a layer type or a pattern matched but the method does not suit, or that
        are conditioned already.
    unknown
        Name -> reason, for modules with weights whose type is not a known layer; see ``selection.unknown_layers``.
    """

    def __init__(self, names: Iterable[str], left_out: dict[str, str], unknown: dict[str, str]) -> None:
        super().__init__(names)
        self.left_out, self.unknown = left_out, unknown


def condition(
    model: nn.Module,
    method: str,
    layers: Layers = "hidden",
    gradient: str = "through",
    *,
    heads: str | Collection[str] = (),
    every: int = 1,
    scale: str = "fixed",
    p: float | int = 2.0,
    packing: str = "matrix",
    zero_rows: str = "left_out",
    shift: float = attention.SHIFT,
) -> Conditioned:
    """Condition layers in place and return their names; on an error no layer is changed.

    The maps draw no random numbers and do not change the raw weights.

    Parameters
    ----------
    model
        The model.
    method
        ``row`` (the paper's choice), ``column``, ``row_column``, ``jacobi`` or ``ruiz``; a map that
        ``registry.register_map`` has added; or a baseline: ``weight_standardisation``, ``weight_norm``,
        ``spectral_norm`` (with ``scale`` ``fixed``, ``constant`` or ``learned``), ``unit_row`` (an initialization, no
        map) or ``batch_norm`` (gradients preconditioned by batch statistics); or one of ``table.MODULES``:
        ``orthogonal``, a map, or ``fourier``, which redraws the weights from torch's global generator and sets trained
        biases to zero; or ``spectral_shift``, for ``nn.MultiheadAttention`` only.
    layers
        Groups, layer types, patterns or names, as for ``select``; by default all but ``heads``. Groups, types and
        patterns skip layers that are conditioned already; naming one is an error. Layers that are tied to one of them
        are conditioned with it.
    gradient
        ``"through"`` differentiates the divisors, ``"detached"`` treats them as constants; see ``maps``.
    heads
        Names of the output heads, as for ``select``.
    every
        Number of optimizer steps after which the divisors are recomputed; above 1 it requires ``gradient="detached"``.
    scale
        Frobenius norm of the conditioned matrix: ``fixed``, ``kept``, ``constant``, ``learned`` or ``learned_rows``;
        see ``parametrization``.
    p
        Order of the norm: 1, 2 or inf.
    packing
        Whether packed attention projections are conditioned per ``matrix`` or per ``head``.
    zero_rows
        Layers with rows of zeros (``jacobi``: zeros on the diagonal; a map of others: weights that it would make NaN or
        infinite) are ``left_out``, ``refused`` or ``conditioned``; see ``suitability``.
    shift
        λ of ``spectral_shift``; see ``attention.shifted``.

    Returns
    -------
    Conditioned
        A list of names in the model's order, with the attributes ``left_out`` and ``unknown``.

    Raises
    ------
    TypeError
        If the model is no module, layers or heads are neither names nor types, or an option has another type.
    ValueError
        If an option or a name is unknown, nothing is matched, or a layer has no weight matrices, is conditioned
        already, is not suitable for ``method``, or shares its weight with a module that cannot be conditioned with it.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> done = condition(net, "row")
    >>> done, list(done.left_out)
    (['0'], ['2'])
    >>> torch.allclose(net[0].weight.norm(dim=0), torch.ones(3))
    True
    """
    _check_options(method, gradient, every, scale, p, shift)
    selected = select(model, layers, heads, method, packing, zero_rows, plain=True)
    if packing != "matrix" and method in WHOLE:
        raise ValueError(f"packing is {packing!r}, but {method} treats a weight as a whole; expected 'matrix'")
    names = selection.with_tied(model, selected.names)
    found = selection.plain_layers(model, names)
    skipped = {name: reason for name, reason in selected.skipped.items() if name not in names}
    result = Conditioned(names, skipped, selection.unknown_layers(model))

    def make(view: WeightView) -> Equilibrated:
        return Equilibrated(method, gradient, p=float(p), scale=scale, every=every, view=view, shift=shift)

    with unchanged_on_error(found.values(), values=method in selection.APPLIED):
        _apply(model, method, found, packing, scale, make)
    return result


def condition_tensor(
    module: nn.Module,
    name: str = "weight",
    method: str = "row",
    gradient: str = "through",
    *,
    view: WeightView | None = None,
    every: int = 1,
    scale: str = "fixed",
    p: float | int = 2.0,
    zero_rows: str = "refused",
    shift: float = attention.SHIFT,
) -> Equilibrated:
    """Condition one tensor of one module in place, whatever the type of the module; return the parametrization.

    For weights that no selector reaches, such as those of recurrent layers. Other modules that share the tensor keep
    the raw one.

    Parameters
    ----------
    module
        The module that has the tensor as a parameter or a buffer.
    name
        Name of the tensor.
    method
        A map: ``row``, ``column``, ``row_column``, ``jacobi``, ``ruiz``, ``weight_standardisation``, ``orthogonal``,
        ``spectral_shift``, or one of ``registry.register_map``.
    view
        How the tensor is read as matrices: by default as the layer's type says, or else by its last two axes as
        n_out × n_in.
    gradient, every, scale, p, shift
        As for ``condition``.
    zero_rows
        ``"conditioned"`` accepts rows of zeros, and what ``condition`` treats as such.

    Raises
    ------
    TypeError
        If the module is none, or the name or an option has another type.
    ValueError
        If an option is unknown, the module has no such tensor, the view is of another one, it is parametrized already,
        or the method does not suit it.

    Examples
    --------
    >>> cell = nn.GRUCell(4, 8)
    >>> condition_tensor(cell, "weight_hh")
    Equilibrated(method=row, gradient=through)
    >>> cell.weight_hh.norm(dim=0).round(decimals=4).unique()
    tensor([1.], grad_fn=<Unique2Backward0>)
    """
    require_module(module, "module")
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}; expected the name of a tensor")
    if not isinstance(view, WeightView | None):
        raise TypeError(f"view is {view!r}; expected a WeightView")
    _check_options(method, gradient, every, scale, p, shift)
    if method not in MAPS:
        raise ValueError(f"method is {method!r}; for one tensor it must be one of {', '.join(_map_names())}")
    check_option("zero_rows", zero_rows, suitability.ZERO_ROWS)
    if parametrize.is_parametrized(module, name):
        raise ValueError(f"{name} is parametrized already; a tensor is conditioned once")
    if batch_norm.is_preconditioned(module):
        raise ValueError(f"{name} has preconditioned gradients already (batch_norm); a layer is conditioned once")
    tensor = module._parameters.get(name, module._buffers.get(name))
    if tensor is None:
        reason = suitability.computed_reason(module, name) if hasattr(module, name) else None
        raise ValueError(f"{type(module).__name__} has no parameter {name!r}" + (f": {reason}" if reason else ""))
    if view is not None and view.name != name:
        raise ValueError(f"name is {name!r}, but the view is of {view.name!r}; expected one tensor")
    if view is None:
        view = next((known for known in weight_views.views(module) if known.name == name), None)
    if view is None and tensor.dim() < 2:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected at least two axes")
    view = view or WeightView(name, tuple(tensor.shape), tuple(tensor.shape[:-2]), *tensor.shape[-2:])
    reason = suitability.tensor_reason(module, view, method, zero_rows)
    if reason is not None:
        raise ValueError(f"{name} cannot be conditioned: {reason}")
    parametrization = Equilibrated(method, gradient, p=float(p), scale=scale, every=every, view=view, shift=shift)
    with unchanged_on_error([module]):
        _register(module, view, parametrization)
    return parametrization


def conditioned_layers(model: nn.Module) -> dict[str, str]:
    """Name -> method of each conditioned layer.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8))
    >>> _ = condition(net, "column", ["1"])
    >>> conditioned_layers(net)
    {'1': 'column'}
    """
    require_module(model)
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if batch_norm.is_preconditioned(module):
            found[name] = "batch_norm"
        if parametrize.is_parametrized(module):
            weights = {view.name for view in weight_views.views(module)}
            for tensor_name, item in module.get_submodule("parametrizations").named_children():
                for method in map(method_of, item.children()):
                    if method and (tensor_name in weights or not weights):
                        found[name] = method
    return found


def _apply(
    model: nn.Module,
    method: str,
    found: dict[str, nn.Module],
    packing: str,
    scale: str,
    make: Callable[[WeightView], Equilibrated],
) -> None:
    """Apply a method to plain layers; for a map, with one parametrization for all layers that are tied."""
    if method in MAPS:
        shared: dict[int, Equilibrated] = {}
        for module in found.values():
            for view in weight_views.views(module, packing):
                _register(module, view, shared.setdefault(id(getattr(module, view.name)), make(view)))
    elif method == "unit_row":
        unit_row_(model, selection.without_tied(found), packing)
    elif method == "batch_norm":
        for module in found.values():
            batch_norm.precondition_(module)
    elif method == "spectral_norm":
        baselines.spectral_norm(model, list(found), scale)
    elif method == "weight_norm":
        weight_norm(model, list(found))
    else:
        for module in found.values():
            for view in weight_views.views(module, packing):
                leave_shared_class(module)
                selection.APPLIED[method](module, view)
                _check_applied(module, view, method)


def _check_applied(module: nn.Module, view: WeightView, method: str) -> None:
    """Raise a ValueError unless a registered method has parametrized the weight by a class that names the method."""
    steps = parametrized_tensors(module).get(view.name)
    if steps is None or all(method_of(step) != method for step in steps.children()):
        raise ValueError(
            f"the method {method} has registered no parametrization of {view.name} whose class is derived from "
            f"enerf.conditioning.Parametrization with method = {method!r}"
        )


def _register(module: nn.Module, view: WeightView, parametrization: Equilibrated) -> None:
    leave_shared_class(module)
    parametrization.is_registered = False  # tied layers register the same one
    parametrize.register_parametrization(module, view.name, parametrization)
    parametrization.reset_accesses()


def _map_names() -> list[str]:
    """Names of all maps, also of those whose modules have not been used yet."""
    for method in table.MODULES:
        table.load(method)
    return list(MAPS)


def _check_options(method: str, gradient: str, every: int, scale: str, p: float | int, shift: float) -> None:
    if isinstance(method, str) and method in MATRIX_OPTIMIZERS:
        raise ValueError(f"method is {method!r}, which is an optimizer: see enerf.optim.matrix_optimizer")
    check_option("method", method, selection.methods())
    table.load(method)
    check_option("gradient", gradient, norms.GRADIENTS)
    check_option("scale", scale, SCALES)
    require_number("p", p, "1, 2 or inf")
    require_number("every", every, "a whole number from 1")
    require_number("shift", shift, "a finite number above 0")
    norms.check(gradient, p)
    plain = (gradient, every, p) == ("through", 1, 2)
    if method == "spectral_norm" and plain:
        if scale not in baselines.SPECTRAL_SCALES:
            raise ValueError(
                f"scale is {scale!r}, but spectral_norm fixes the largest singular value; expected fixed, constant or "
                "learned"
            )
    elif method not in MAPS and not (plain and scale == "fixed"):
        raise ValueError(f"{method} is not a map: gradient, every, scale and p apply to {', '.join(_map_names())}")
    if not math.isfinite(every) or every < 1 or every != int(every):
        raise ValueError(f"every is {every!r}; expected a whole number from 1")
    if every > 1 and gradient != "detached":
        raise ValueError('cached divisors are constants: every above 1 requires gradient="detached"')
    added = maps.ADDED.get(method)
    if not (math.isfinite(shift) and shift > 0):
        raise ValueError(f"shift is {shift!r}; expected a finite number above 0")
    if shift != attention.SHIFT and method != "spectral_shift":
        raise ValueError(f"shift is {shift:g}, but only spectral_shift has one, and the method is {method}")
    without_divisors = method in ("weight_standardisation", "spectral_shift")
    if every > 1 and (without_divisors or (added is not None and added.divisors is None)):
        raise ValueError(f"{method} is more than a division: it has no divisors that could be cached")
    if added is not None and p not in added.orders:
        raise ValueError(f"p is {p!r}, but {method} is computed with {' or '.join(f'{o:g}' for o in added.orders)}")
    if method == "spectral_shift" and (gradient, p) != ("through", 2):
        raise ValueError(
            f"gradient is {gradient!r} and p is {p!r}, but spectral_shift divides by no norm; expected 'through' and 2"
        )
