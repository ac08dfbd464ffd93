"""Parameters of a model by their role: what to orthogonalize, to decay, or to train with a rate of its own.

A raw weight under a scale-invariant map has no scale: multiplying it by a positive number does not change the function.
Its gradient is orthogonal to it, so plain steps lengthen it and thereby lower its effective rate, which is the rate
over the squared norm. Weight decay does not regularize the function there, but keeps the norm from growing, and so
raises the effective rate (van Laarhoven, L2 regularization versus batch and weight normalization, arXiv 1706.05350).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn
from torch.nn import Parameter
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrizations

from enerf.conditioning import baselines, interface, maps, weight_views
from enerf.conditioning.parametrization import Equilibrated
from enerf.conditioning.weight_views import WeightView

SCALE_INVARIANT = (*maps.METHODS, "weight_standardisation")


class ParameterGroups(NamedTuple):
    """Result of ``parameter_groups``: name -> parameter, in the model's order. Each parameter is in one group.

    Attributes
    ----------
    matrices
        Weights of layers whose scale matters: plain ones, and raw ones with ``scale="kept"``, with ``every`` above 1 or
        below a map of others.
    scale_invariant
        Raw weights whose scale does not change the function.
    gains
        Learned gains, and the lengths of weight normalization.
    rest
        All others: biases, normalization layers, embeddings, weights of unknown modules.
    """

    matrices: dict[str, Parameter]
    scale_invariant: dict[str, Parameter]
    gains: dict[str, Parameter]
    rest: dict[str, Parameter]


def parameter_groups(model: nn.Module) -> ParameterGroups:
    """The parameters of a model by their role, each once; changes nothing.

    Weights of any number of axes are returned as they are stored. ``torch.optim.Muon`` takes those with two, the
    ``muon`` of ``optim.matrix_optimizer`` with ``matrix_views(model)`` kernels too. First and last layers, which Muon
    should not update, are among ``matrices`` and ``scale_invariant``: leave them out by name.

    Examples
    --------
    >>> from enerf.conditioning import condition
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 1))
    >>> _ = condition(net, "row", ["1"], scale="learned")
    >>> groups = parameter_groups(net)
    >>> list(groups.matrices), list(groups.scale_invariant), list(groups.rest)
    (['0.weight', '2.weight'], ['1.parametrizations.weight.original'], ['0.bias', '1.bias', '2.bias'])
    """
    interface.require_module(model)
    roles: dict[int, str] = {}
    for parameter, role in _weights(model):
        roles.setdefault(id(parameter), role)
    groups = ParameterGroups({}, {}, {}, {})
    for name, parameter in model.named_parameters():
        getattr(groups, roles.get(id(parameter), "rest"))[name] = parameter
    return groups


def matrix_views(model: nn.Module) -> dict[Parameter, WeightView]:
    """How the weights of a model are read as matrices, for ``optim.matrix_optimizer``: raw ones if conditioned.

    A kernel of a convolution is one matrix for each group, a packed projection of attention three. Raw parameters of
    another shape than the weight, as of ``fourier``, have no view, and neither have weights of lazy layers before
    their first run.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MultiheadAttention(8, 2))
    >>> [(view.shape, view.batch, view.n_out, view.n_in) for view in matrix_views(net).values()]
    [((8, 3, 3, 3), (), 8, 27), ((24, 8), (3,), 8, 8), ((8, 8), (), 8, 8)]
    """
    interface.require_module(model)
    found: dict[Parameter, WeightView] = {}
    for module in model.modules():
        items = interface.parametrized_tensors(module)
        for view in weight_views.views(module):
            if view.name in items:
                weights = [parameter for parameter, role in _roles(items[view.name]) if role != "gains"]
            else:
                weights = [each for each in (module._parameters.get(view.name),) if each is not None]
            for parameter in weights:
                if not is_lazy(parameter) and tuple(parameter.shape) == view.shape:
                    found.setdefault(parameter, view)
    return found


def _weights(model: nn.Module) -> Iterator[tuple[Parameter, str]]:
    """The parameters that are weights or belong to a parametrization, and their roles."""
    for module in model.modules():
        items = interface.parametrized_tensors(module)
        weights = {view.name for view in weight_views.views(module)}
        for name, item in items.items():
            if name in weights or any(map(interface.known_method, item.children())):
                yield from _roles(item)
        for name in weights - items.keys():
            parameter = module._parameters.get(name)
            if parameter is not None:
                yield parameter, "matrices"


def _roles(item: Any) -> Iterator[tuple[Parameter, str]]:
    """The parameters of one parametrization list, and their roles."""
    steps = list(item.children())
    first = steps[0]
    for name, parameter in item.named_parameters():
        if name.endswith("gain") or (isinstance(first, parametrizations._WeightNorm) and name == "original0"):
            yield parameter, "gains"
        elif name.startswith("original") and parameter.dim() > 1:
            yield parameter, "scale_invariant" if _is_scale_invariant(first, steps[1:]) else "matrices"


def _is_scale_invariant(step: nn.Module, further: list[nn.Module]) -> bool:
    """Whether the applied weight does not depend on the scale of the raw one."""
    if not all(isinstance(each, baselines.SpectralGain) for each in further):
        return False
    if isinstance(step, Equilibrated):
        invariant = step.method in SCALE_INVARIANT if step.added is None else step.added.scale_invariant
        return invariant and step.scale != "kept" and step.every == 1  # kept divisors do not follow the raw weight
    return isinstance(step, parametrizations._WeightNorm | parametrizations._SpectralNorm)
