"""Registration of further layer types and maps, for use with ``condition`` and everything else of this package.

Registrations hold for the process. A model with registered layers or maps is conditioned, baked, reported and cached as
with built-in ones; a checkpoint of it needs the same registrations before it is loaded.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias

from torch import Tensor, nn

from enerf.conditioning import maps, norms, parametrization, selection, table, weight_views
from enerf.conditioning.weight_views import WeightView
from enerf.optim.table import MATRIX_OPTIMIZERS

Map: TypeAlias = Callable[[Tensor, str, float], Tensor]
Divisors: TypeAlias = Callable[[Tensor, float], tuple[Tensor, Tensor]]

RESERVED = ("none", "layer_norm")  # values of the option --conditioning that are no methods


def register_layer(layer_type: type[Any], views: Callable[[Any], Iterable[WeightView]]) -> None:
    """Let ``condition`` and ``select`` treat modules of a type as layers, as they treat ``nn.Linear``.

    Parameters
    ----------
    layer_type
        The type; subclasses are layers too. Registering it again replaces the description.
    views
        Module -> its weight tensors as matrices. It is called before and after conditioning, so it must not depend on
        the tensors themselves, and it is called for each use, so it should be cheap.

    Raises
    ------
    TypeError
        If ``layer_type`` is not a type of modules, or is built in, or ``views`` is no function.

    Examples
    --------
    A layer that stores the transpose, as GPT-2's ``Conv1D`` does (``transposed=True``):

    >>> import torch
    >>> class Conv1D(nn.Module):
    ...     def __init__(self, n_out, n_in):
    ...         super().__init__()
    ...         self.nf, self.nx = n_out, n_in
    ...         self.weight = nn.Parameter(nn.init.normal_(torch.empty(n_in, n_out)))
    >>> register_layer(Conv1D, lambda m: [WeightView("weight", (m.nx, m.nf), (), m.nf, m.nx, transposed=True)])
    >>> from enerf.conditioning import condition
    >>> net = nn.Sequential(Conv1D(4, 3))
    >>> condition(net, "row")
    ['0']
    >>> net[0].weight.norm(dim=1).round(decimals=4).tolist()  # one norm for each input
    [1.0, 1.0, 1.0]
    """
    if not (isinstance(layer_type, type) and issubclass(layer_type, nn.Module)):
        raise TypeError(f"layer_type is {layer_type!r}; expected a subclass of torch.nn.Module")
    if layer_type in weight_views.LAYER_TYPES:
        raise TypeError(f"{layer_type.__name__} is a layer already")
    if not callable(views):
        raise TypeError(f"the views of {layer_type.__name__} are {views!r}; expected a function")
    weight_views.REGISTERED[layer_type] = views


def register_map(
    name: str,
    function: Map,
    *,
    divisors: Divisors | None = None,
    unsuitable: Callable[[WeightView], str | None] | None = None,
    scale_invariant: bool = False,
    orders: Collection[float | int] = norms.P_NORMS,
) -> None:
    """Add a map, a function from weight to weight, to the methods of ``condition``.

    It takes the options ``gradient``, ``scale`` and ``p``.

    Parameters
    ----------
    name
        Name of the method; registering it again replaces it for layers that are conditioned from then on.
    function
        (weight, gradient, p) -> weight of the same shape (*batch, n_out, n_in), in torch's layout and dtype; the
        leading axes are a batch of independent matrices. ``gradient`` is for the function to follow, unless there are
        ``divisors``. It draws no random numbers. Layers whose weights it would make
        NaN or infinite, such as those with rows of zeros if it divides by norms without a floor, are left out; see
        ``suitability``.
    divisors
        (weight, p) -> divisors of inputs (*batch, 1, n_in) and of outputs (*batch, n_out, 1), if the map is a division
        by them. Only then ``every`` can be above 1; with ``gradient="detached"`` they are used in the place of the
        function, as constants.
    unsuitable
        Weight view -> the reason why the map cannot be applied to its matrices, or None.
    scale_invariant
        Whether the mapped weight does not change if the raw matrix is multiplied by a positive number; tells
        ``parameter_groups`` that weight decay has no effect on the function.
    orders
        The values of ``p`` that it accepts; ``condition`` and the command line refuse others.

    Raises
    ------
    TypeError
        If the name is no string, or what should be a function is none.
    ValueError
        If the name is that of a built-in method or of an optimizer of matrices, ``none`` or ``layer_norm``, or not an
        identifier, or the orders are not among 1, 2 and inf.

    Examples
    --------
    >>> register_map("centered", lambda weight, gradient, p: weight - weight.mean(-1, keepdim=True))
    >>> from enerf.conditioning import condition
    >>> net = nn.Sequential(nn.Linear(3, 8))
    >>> condition(net, "centered", scale="kept")
    ['0']
    >>> net[0].weight.mean(1).abs().max() < 1e-6
    tensor(True)
    """
    _check_name(name, function)
    _check_functions(name, divisors=divisors, unsuitable=unsuitable)
    if not isinstance(orders, Collection):
        raise TypeError(f"orders of the map {name} are {orders!r}; expected a tuple of 1, 2 and inf, or some of them")
    found = tuple(order for order in norms.P_NORMS if order in orders)
    if not orders or len(found) < len(set(orders)):
        raise ValueError(f"orders of the map {name} are {orders!r}; expected some of 1, 2 and inf")
    maps.ADDED[name] = maps.AddedMap(divisors, unsuitable, scale_invariant, function=function, orders=found)
    parametrization.MAPS[name] = function
    selection.APPLIED.pop(name, None)


def register_parametrization(
    name: str,
    apply: Callable[[nn.Module, WeightView], None],
    *,
    unsuitable: Callable[[WeightView], str | None] | None = None,
    redraws: bool = False,
) -> None:
    """Add a method to ``condition`` that is no map: with parameters of another shape than the weight, or with a state.

    It has no options. ``scale``, ``gradient``, ``p`` and ``every`` are those of maps.

    Parameters
    ----------
    name
        Name of the method; registering it again replaces it.
    apply
        (module, view) -> None: registers a ``interface.Parametrization`` with that ``method`` for the weight of a plain
        layer. Random numbers are drawn from torch's global generator.
    unsuitable
        Weight view -> the reason why the method cannot be applied to its matrices, or None.
    redraws
        Whether the method replaces the weights by others; frozen weights, and those that are zero, are then left out.

    Raises
    ------
    TypeError
        If the name is no string, or what should be a function is none.
    ValueError
        If the name is that of a built-in method or of an optimizer of matrices, ``none`` or ``layer_norm``, or not an
        identifier.
    """
    _check_name(name, apply)
    _check_functions(name, unsuitable=unsuitable)
    maps.ADDED[name] = maps.AddedMap(None, unsuitable, False, redraws)
    selection.APPLIED[name] = apply
    parametrization.MAPS.pop(name, None)


def _check_name(name: str, function: Callable[..., Any]) -> None:
    """Raise a ValueError for a name that a method cannot have; names of the table are for their modules."""
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}; expected an identifier")
    if not callable(function):
        raise TypeError(f"the method {name} is {function!r}; expected a function")
    of_table = [each for each, module in table.MODULES.items() if module != getattr(function, "__module__", "")]
    built_in = [*maps.METHODS, *selection.BASELINES, *of_table, *MATRIX_OPTIMIZERS, *RESERVED]
    if name in built_in or not name.isidentifier():
        raise ValueError(f"name is {name!r}; expected an identifier that is not one of {', '.join(built_in)}")


def _check_functions(name: str, **given: object) -> None:
    """Raise a TypeError for an argument that is neither a function nor None."""
    for argument, function in given.items():
        if function is not None and not callable(function):
            raise TypeError(f"{argument} of the method {name} is {function!r}; expected a function")
