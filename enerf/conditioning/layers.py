"""Conditioned layers: module -> module, from outside, so that no network needs to know.

Vocabulary
----------
- a layer's **name** is its dotted path in the model, as ``named_modules`` gives it;
- a layer is **conditioned** if its ``weight`` is computed from a raw parameter at each access. The raw
  parameter is called ``original`` and is what the optimiser sees, under the key
  ``parametrizations.weight.original``; ``condition`` leaves its values alone, so that plain and conditioned
  models of the same seed start from the same numbers;
- **baking** replaces the raw parameter by the weight that was computed from it.

The order is a contract: build -> ``initialise_`` or ``unit_row_`` -> ``condition`` or ``weight_norm`` ->
device -> optimiser -> load. Conditioning changes the *order* of a layer's parameters, so an optimiser's
state never crosses between a plain and a conditioned model. A weight that is used several times in one step
is computed once inside ``torch.nn.utils.parametrize.cached()``. Conditioned models are saved by their
``state_dict``; torch refuses to pickle them whole.
"""

from collections.abc import Iterable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from enerf.conditioning import equilibrate
from enerf.conditioning.selection import Selection, check_conditionable, check_option, plain_linears, select

__all__ = [
    "Equilibrated",
    "Selection",
    "bake",
    "condition",
    "conditioned_layers",
    "initialise_",
    "select",
    "unit_row_",
    "weight_norm",
]

INITS = ("default", "glorot", "he", "unit_row")

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Equilibrated(nn.Module):
    """The parametrization raw weight -> equilibrated weight; holds no tensors.

    Attributes
    ----------
    method
        A key of ``equilibrate.METHODS``.
    gradient
        One of ``equilibrate.GRADIENTS``.
    """

    def __init__(self, method: str, gradient: str = "through") -> None:
        super().__init__()
        self.method = method
        self.gradient = gradient

    def forward(self, weight: Float[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch n_out n_in"]:
        """Compute the weight that the layer applies."""
        return equilibrate.METHODS[self.method](weight, self.gradient)

    def extra_repr(self) -> str:
        """Show the options in ``print(model)``."""
        return f"method={self.method}, gradient={self.gradient}"


def condition(model: nn.Module, method: str, layers: Iterable[str], gradient: str = "through") -> list[str]:
    """Condition layers in place and return their names; on an error no layer is touched.

    Draws no random numbers and leaves the raw weights as they are.

    Parameters
    ----------
    model
        Holds the layers.
    method
        ``row`` (the paper's choice), ``column``, ``row_column`` or ``jacobi``.
    layers
        Names of ``nn.Linear`` layers, for example ``select(...).names``.
    gradient
        ``"through"`` or ``"detached"``; see ``equilibrate``.

    Raises
    ------
    ValueError
        If an option or a name is unknown, or a layer is no ``nn.Linear``, is conditioned already, or does
        not suit ``method``.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> condition(net, "row", ["0"])
    ['0']
    >>> torch.allclose(net[0].weight.norm(dim=0), torch.ones(3))
    True
    """
    check_option("method", method, equilibrate.METHODS)
    check_option("gradient", gradient, equilibrate.GRADIENTS)
    names = list(layers)
    for name in names:
        check_conditionable(model, name, method)
    for linear in plain_linears(model, names):
        parametrize.register_parametrization(linear, "weight", Equilibrated(method, gradient))
    return names


def weight_norm(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Put layers under torch's weight normalisation (a learned length per output) and return their names.

    A control: like ``condition`` it changes the geometry of the descent; unlike it, it leaves the start as
    it is.

    Raises
    ------
    ValueError
        If a name is unknown, or a layer is no ``nn.Linear`` or is conditioned already.

    References
    ----------
    Salimans, Kingma, Weight Normalization, NeurIPS 2016.
    """
    names = list(names)
    for linear in plain_linears(model, names):
        parametrizations.weight_norm(linear)
    return names


def unit_row_(model: nn.Module, names: Iterable[str]) -> None:
    """Replace each weight by its row equilibration, once: the start of a row conditioned layer, no map.

    A control of the same scale as ``condition(model, "row", names)``.

    Raises
    ------
    ValueError
        If a name is unknown, or a layer is no ``nn.Linear``, is conditioned already or has a single output.
    """
    names = list(names)
    for name in names:
        check_conditionable(model, name, "row")
    with torch.no_grad():
        for linear in plain_linears(model, names):
            linear.weight.copy_(equilibrate.row(linear.weight))


def initialise_(model: nn.Module, names: Iterable[str], init: str, generator: torch.Generator) -> None:
    """Draw the weights of the named layers anew; biases stay.

    Parameters
    ----------
    model
        Holds the layers, which are not conditioned yet.
    names
        Names of ``nn.Linear`` layers.
    init
        ``default``: leave the weights as they are. ``glorot``: uniform in ±√(6 / (n_in + n_out)). ``he``:
        normal with variance 2 / n_in. ``unit_row``: the weights as they are, row equilibrated; draws
        nothing.
    generator
        The only source of randomness.

    Raises
    ------
    ValueError
        If ``init`` or a name is unknown, or a layer is no ``nn.Linear`` or is conditioned already.

    References
    ----------
    Glorot, Bengio, AISTATS 2010; He, Zhang, Ren, Sun, ICCV 2015.
    """
    check_option("init", init, INITS)
    names = list(names)
    if init == "unit_row":
        unit_row_(model, names)
    for linear in plain_linears(model, names):
        if init == "glorot":
            nn.init.xavier_uniform_(linear.weight, generator=generator)
        elif init == "he":
            nn.init.kaiming_normal_(linear.weight, mode="fan_in", nonlinearity="relu", generator=generator)


def bake(model: AnyModule) -> AnyModule:
    """Remove every parametrization, in place; plain weights stay and the outputs keep every bit.

    Copies made by ``copy.deepcopy`` stay conditioned. For use and export: training on with the same optimiser
    would apply moments of the raw weights to the baked ones.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8))
    >>> _ = condition(net, "row", ["0"])
    >>> list(bake(net).state_dict())
    ['0.bias', '0.weight']
    """
    # torch turns a weight of several originals into a buffer if it is removed while gradients are off.
    with torch.enable_grad():
        for module in list(model.modules()):
            if parametrize.is_parametrized(module):
                _leave_shared_class(module)
                for tensor_name, _ in list(module.get_submodule("parametrizations").named_children()):
                    parametrize.remove_parametrizations(module, tensor_name, leave_parametrized=True)
    return model


def _leave_shared_class(module: nn.Module) -> None:
    """Give the module a class of its own.

    torch keeps a parametrized tensor as a property of a class made for the module. A deep copy shares that
    class, and removing the parametrization deletes the property: it would break the other copies.
    """
    shared = type(module)
    members = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, members)


def conditioned_layers(model: nn.Module) -> dict[str, str]:
    """Name -> method of each conditioned layer; ``"weight_norm"`` for torch's weight normalisation.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8))
    >>> _ = condition(net, "column", ["1"])
    >>> conditioned_layers(net)
    {'1': 'column'}
    """
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            for step in module.get_submodule("parametrizations.weight").children():
                if isinstance(step, Equilibrated):
                    found[name] = step.method
                elif isinstance(step, parametrizations._WeightNorm):
                    found[name] = "weight_norm"
    return found
