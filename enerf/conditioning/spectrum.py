"""What a weight matrix does to lengths: singular values, condition numbers, row norms. Everything in float64.

Vocabulary
----------
- **κ**, the condition number: the largest over the smallest of the min(n_out, n_in) singular values; 1 at
  best. It is the same for torch's ``weight`` and for the paper's W, its transpose;
- **row norms**: those of the paper's rows, one for each *input*, which are the columns of torch's ``weight``;
- **raw**: the parameter that the optimiser sees, where the weight that the layer applies is computed from it.

Only κ compares matrices of different scale; the extremes of the row norms tell the scale.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning.layers import Equilibrated
from enerf.conditioning.selection import linear_at


def singular_values(weight: Float[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch k"]:
    """All min(n_out, n_in) singular values, largest first.

    Examples
    --------
    >>> singular_values(torch.tensor([[0.0, 3.0], [4.0, 0.0]]))
    tensor([4., 3.], dtype=torch.float64)
    """
    return torch.linalg.svdvals(weight.double())


def condition_number(weight: Float[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch"]:
    """κ = largest / smallest singular value; inf where the smallest is 0, for the zero matrix too.

    Rounding may leave a singular matrix a smallest value of about 1e-16 times the largest: read κ above
    1e15 as inf.

    Examples
    --------
    >>> condition_number(torch.tensor([[0.0, 3.0], [6.0, 0.0]]))
    tensor(2., dtype=torch.float64)
    """
    values = singular_values(weight)
    largest, smallest = values[..., 0], values[..., -1]
    return torch.where(smallest > 0, largest / smallest, math.inf)


def row_norms(weight: Float[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch n_in"]:
    """Euclidean norm of each of the paper's rows: of what leaves each input.

    Examples
    --------
    >>> row_norms(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    tensor([5., 2.], dtype=torch.float64)
    """
    return torch.linalg.vector_norm(weight.double(), dim=-2)


def layer_report(model: nn.Module, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Name -> ``kappa``, ``row_norm_min``, ``row_norm_max`` of the weight that the layer really applies.

    A layer under ``Equilibrated`` also has ``kappa_raw``, the condition number of its raw parameter.

    Parameters
    ----------
    model
        Holds the layers.
    names
        Names of ``nn.Linear`` layers.

    Raises
    ------
    ValueError
        If a name is unknown or no ``nn.Linear``.

    Examples
    --------
    >>> report = layer_report(nn.Sequential(nn.Linear(3, 8)), ["0"])
    >>> list(report["0"])
    ['kappa', 'row_norm_min', 'row_norm_max']
    """
    report = {}
    with torch.no_grad():
        for name in names:
            linear = linear_at(model, name)
            norms = row_norms(linear.weight)
            report[name] = {
                "kappa": condition_number(linear.weight).item(),
                "row_norm_min": norms.min().item(),
                "row_norm_max": norms.max().item(),
            }
            if _is_equilibrated(linear):
                raw = linear.get_parameter("parametrizations.weight.original")
                report[name]["kappa_raw"] = condition_number(raw).item()
    return report


def _is_equilibrated(linear: nn.Linear) -> bool:
    if not parametrize.is_parametrized(linear, "weight"):
        return False
    steps = linear.get_submodule("parametrizations.weight").children()
    return any(isinstance(step, Equilibrated) for step in steps)
