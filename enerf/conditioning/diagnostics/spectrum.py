"""Singular values, condition numbers, ranks and row norms of weight matrices, in float64.

Vocabulary
----------
- **κ**, the condition number: the largest over the smallest of the min(n_out, n_in) singular values; 1 at
  best. It is the same for torch's ``weight`` and for the paper's W, its transpose;
- **row norms**: norms of the paper's rows, one per *input*: the columns of torch's ``weight``;
- **effective rank** and **stable rank**: smooth measures of rank, between 1 and min(n_out, n_in);
- **raw**: the parameter that the optimizer updates, from which a conditioned layer's weight is computed.

κ, the ranks and the spread of the row norms are independent of scale; the extremes of the row norms measure the scale.
κ depends on the single smallest singular value; the ranks do not. The statistics of a matrix that is not finite are
NaN.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning import weight_views
from enerf.conditioning.interface import known_method, parametrized_tensors, raw_weight, require_module
from enerf.conditioning.selection import as_names, layer_at, layer_names


def singular_values(weight: Inexact[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch k"]:
    """All min(n_out, n_in) singular values, largest first.

    Examples
    --------
    >>> singular_values(torch.tensor([[0.0, 3.0], [4.0, 0.0]]))
    tensor([4., 3.], dtype=torch.float64)
    """
    exact = _exact(weight)
    finite = exact.isfinite().all(-1).all(-1)
    values = torch.linalg.svdvals(torch.where(finite[..., None, None], exact, 0.0))  # LAPACK raises an error for NaN
    return torch.where(finite[..., None], values, math.nan)


def condition_number(weight: Inexact[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch"]:
    """κ = largest / smallest singular value; inf where the smallest is 0, for the zero matrix too.

    Due to rounding, the smallest value of a singular matrix may be about 1e-16 times the largest: κ above 1e15 means
    inf.

    Examples
    --------
    >>> condition_number(torch.tensor([[0.0, 3.0], [6.0, 0.0]]))
    tensor(2., dtype=torch.float64)
    """
    return _kappa(singular_values(weight))


def numerical_rank(weight: Inexact[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch"]:
    """Number of singular values above rounding errors, as a float64; NaN where the matrix is not finite.

    Rounding of the entries to the dtype of ``weight`` changes singular values by at most half an epsilon times the
    Frobenius norm. The threshold is twice that.

    Examples
    --------
    >>> numerical_rank(torch.tensor([[1.0, 2.0], [2.0, 4.0]]))
    tensor(1., dtype=torch.float64)
    """
    return _on_range(singular_values(weight), weight)[0]


def range_condition_number(weight: Inexact[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch"]:
    """κ on the range: the largest singular value over the smallest one that counts for ``numerical_rank``.

    Equal to κ for a matrix of full rank, and finite for one that is not, whose κ is inf or noise; inf for the zero
    matrix, which has no range.

    Examples
    --------
    >>> range_condition_number(torch.tensor([[3.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 0.0]]))
    tensor(2., dtype=torch.float64)
    """
    return _on_range(singular_values(weight), weight)[1]


def effective_rank(weight: Inexact[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch"]:
    """Exponential of the entropy of the singular values, normalized to sum 1; 0 for the zero matrix.

    At most the rank, with equality if and only if all nonzero singular values are equal.

    References
    ----------
    Roy, Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007, equations 2 and 3.

    Examples
    --------
    >>> effective_rank(torch.tensor([[0.0, 3.0], [3.0, 0.0]]))
    tensor(2..., dtype=torch.float64)
    """
    return entropy_rank(singular_values(weight))


def stable_rank(weight: Inexact[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch"]:
    """‖W‖_F² / ‖W‖₂², the sum of the squared singular values over the largest; 0 for the zero matrix.

    At most the rank. Less sensitive to small singular values than the effective rank.

    References
    ----------
    Rudelson, Vershynin, Sampling from large matrices, J. ACM 54, 2007.

    Examples
    --------
    >>> stable_rank(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    tensor(1.2500, dtype=torch.float64)
    """
    return _stable_rank(singular_values(weight))


def row_norms(weight: Inexact[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch n_in"]:
    """Euclidean norm of each of the paper's rows: of the weights of each input.

    Examples
    --------
    >>> row_norms(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    tensor([5., 2.], dtype=torch.float64)
    """
    norms = torch.linalg.vector_norm(_exact(weight), dim=-2)
    return torch.where(norms.isfinite().all(-1, keepdim=True), norms, math.nan)


def row_norm_spread(weight: Inexact[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch"]:
    """Largest over smallest row norm: 1 if the rows are equilibrated, inf if a row is 0. At most κ for n_in ≤ n_out.

    Examples
    --------
    >>> row_norm_spread(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    tensor(2.5000, dtype=torch.float64)
    """
    norms = row_norms(weight)
    smallest, largest = norms.amin(-1), norms.amax(-1)
    return torch.where(smallest == 0, math.inf, largest / smallest)


def row_norm_variation(weight: Inexact[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "*batch"]:
    """Standard deviation of the row norms over their mean; less sensitive to outliers than ``row_norm_spread``.

    0 if the rows are equilibrated, and for the zero matrix.

    Examples
    --------
    >>> row_norm_variation(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    tensor(0.5000, dtype=torch.float64)
    """
    norms = row_norms(weight)
    mean = norms.mean(-1)
    return torch.where(mean == 0, 0.0, norms.std(-1, correction=0) / mean)


def entropy_rank(values: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """Exponential of the entropy of values ≥ 0, normalized to sum 1; 0 if all are 0."""
    total = values.sum(-1, keepdim=True)
    shares = torch.where(total == 0, 0.0, values / total)
    entropy = torch.special.entr(shares).sum(-1)  # −p log p, 0 at 0
    return torch.where(total[..., 0] == 0, 0.0, entropy.exp())


def linear_layers(model: nn.Module) -> list[str]:
    """Names of all linear layers with more than one output, conditioned or not."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module.out_features > 1]


def layer_report(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, dict[str, float]]:
    """Spectral statistics of the weights that each layer applies; name -> statistic -> value.

    The statistics are ``kappa``, ``row_norm_min``, ``row_norm_max``, ``row_norm_spread``, ``effective_rank``,
    ``stable_rank``, ``rank`` (see ``numerical_rank``) and ``kappa_range`` (κ on the range); a layer whose applied
    weight is computed also has ``kappa_raw``, ``effective_rank_raw`` and ``stable_rank_raw``, of its raw matrix: for
    weight normalization the directions, for ``fourier`` Λ. For a layer with several matrices (groups of a convolution,
    projections of attention) the worst values are reported: the largest κ and spread, the smallest ranks.

    For attention with several heads, κ and ranks are those of the projections of single heads, of shape d × n, which
    are the matrices of its theory. Those of all heads stacked to n × n are ``kappa_all_heads`` and ``rank_all_heads``:
    they measure how heads differ, and heads that are alike on purpose (``conditioned_attention`` gives the same values
    to all) make κ infinite, or about 1e8 after a few steps. Row norms are those of the n × n matrices.

    Parameters
    ----------
    model
        The model, conditioned or not.
    names
        Names of layers with weight matrices, by default all that have entries; see ``weight_views``.

    Raises
    ------
    TypeError
        If the model is no module, or the names are none.
    ValueError
        If a name is unknown, or its layer has no weight matrices, or none with entries.

    Examples
    --------
    >>> report = layer_report(nn.Sequential(nn.Linear(3, 8)), ["0"])
    >>> " ".join(report["0"])
    'kappa row_norm_min row_norm_max row_norm_spread effective_rank stable_rank rank kappa_range'
    """
    require_module(model)
    with torch.no_grad(), _unchanged_by_reading(model):
        found = layer_names(model) if names is None else as_names(names)
        layers = {name: layer_at(model, name) for name in found}
        empty = [name for name, layer in layers.items() if not all(map(_has_entries, weight_views.views(layer)))]
        if empty and names is not None:
            raise ValueError(f"{empty[0]} has no weights yet, or none at all, expected matrices with entries")
        return {name: _report(layer) for name, layer in layers.items() if name not in empty}


@contextmanager
def _unchanged_by_reading(model: nn.Module) -> Iterator[None]:
    """Context manager: parametrizations in evaluation mode, where reading a weight does no power iteration."""
    training = [
        step
        for module in model.modules()
        if isinstance(module, parametrize.ParametrizationList)
        for step in module.children()
        if step.training
    ]
    for step in training:
        step.training = False
    try:
        yield
    finally:
        for step in training:
            step.training = True


def _has_entries(view: weight_views.WeightView) -> bool:
    return math.prod(view.shape) > 0  # a lazy layer has no inputs before its first run


def _report(module: nn.Module) -> dict[str, float]:
    """The worst values over all matrices of a layer."""
    packed, views = weight_views.views(module), weight_views.views(module, "head")
    applied = [view.to_matrices(getattr(module, view.name)) for view in views]
    whole = [view.to_matrices(getattr(module, view.name)) for view in packed]
    values = [singular_values(weight) for weight in applied]
    norms = [row_norms(weight) for weight in whole]
    on_range = [_on_range(v, weight) for v, weight in zip(values, applied, strict=True)]
    report = {
        "kappa": _largest([_kappa(v) for v in values]),
        "row_norm_min": -_largest([-n for n in norms]),
        "row_norm_max": _largest(norms),
        "row_norm_spread": _largest([row_norm_spread(weight) for weight in whole]),
        "effective_rank": -_largest([-entropy_rank(v) for v in values]),
        "stable_rank": -_largest([-_stable_rank(v) for v in values]),
        "rank": -_largest([-rank for rank, _ in on_range]),
        "kappa_range": _largest([kappa for _, kappa in on_range]),
    }
    if any(weight.shape[-2:] != matrix.shape[-2:] for weight, matrix in zip(whole, applied, strict=True)):
        report["kappa_all_heads"] = _largest([condition_number(weight) for weight in whole])
        report["rank_all_heads"] = -_largest([-numerical_rank(weight) for weight in whole])
    raw = [weight for view in views if (weight := _raw_matrices(module, view)) is not None]
    if raw:
        values = [singular_values(weight) for weight in raw]
        report["kappa_raw"] = _largest([_kappa(v) for v in values])
        report["effective_rank_raw"] = -_largest([-entropy_rank(v) for v in values])
        report["stable_rank_raw"] = -_largest([-_stable_rank(v) for v in values])
    return report


def _exact(weight: Tensor) -> Tensor:
    if weight.dim() < 2 or 0 in weight.shape[-2:]:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected matrices with entries")
    return weight.to(torch.promote_types(weight.dtype, torch.float64))


def _largest(values: list[Tensor]) -> float:
    """The largest of all numbers; NaN if one is NaN."""
    return torch.cat([part.flatten() for part in values]).max().item()


def _kappa(values: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """κ of singular values, largest first."""
    largest, smallest = values[..., 0], values[..., -1]
    return torch.where(smallest == 0, math.inf, largest / smallest)


def _on_range(
    values: Float[Tensor, "*batch k"], weight: Inexact[Tensor, "*batch n_out n_in"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Numerical rank, and the ratio of the largest singular value to the smallest one that counts for the rank."""
    largest = values[..., :1]
    frobenius = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    kept = values > torch.finfo(weight.dtype).eps * frobenius
    rank = kept.sum(-1).double()
    kappa = torch.where(rank == 0, math.inf, largest[..., 0] / torch.where(kept, values, math.inf).amin(-1))
    finite = largest[..., 0].isfinite()
    return torch.where(finite, rank, math.nan), torch.where(finite, kappa, math.nan)


def _stable_rank(values: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    """Stable rank of singular values, largest first."""
    shares = values / values[..., :1]
    return torch.where(values[..., 0] == 0, 0.0, shares.square().sum(-1))


def _raw_matrices(module: nn.Module, view: weight_views.WeightView) -> Tensor | None:
    """The raw parameter of a weight as matrices; None for a plain layer, and for parametrizations of others.

    None also for raw parameters that are not one matrix each, as methods that users register may have.
    """
    item = parametrized_tensors(module).get(view.name)
    if item is None or not any(map(known_method, item.children())):
        return None
    raw = raw_weight(item)
    if raw is None:
        return None
    return view.to_matrices(raw) if tuple(raw.shape) == view.shape else raw if raw.dim() == 2 else None
