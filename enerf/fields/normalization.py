"""Batch and layer normalization before the hidden activations of coordinate networks.

Each hidden layer becomes activation(norm(W x + b)), with a learned gain and offset. Batch normalization takes its
statistics over the points of a batch while the field is in training mode; in evaluation mode it is a fixed affine map,
and is folded into the layers, so that every backend evaluates it. Layer normalization depends on each point and is
evaluated by torch (``activations.bind``), and so are both in training.

Sources: Ioffe, Szegedy, Batch Normalization, ICML 2015; Ba, Kiros, Hinton, Layer Normalization, arXiv 1607.06450.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from enerf.config.conditionings import NORMALIZATIONS
from enerf.fields.backends.dense import Network

Norms: TypeAlias = nn.ModuleDict  # number of a layer, as a string -> its normalization


def norms_of(network: Network, kind: str) -> Norms:
    """Normalizations of the hidden layers of a network: those with an activation.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind not in NORMALIZATIONS:
        raise ValueError(f"normalization is {kind!r}; it must be one of {', '.join(NORMALIZATIONS)}")
    make: Callable[[int], nn.Module] = nn.LayerNorm if kind == "layer_norm" else nn.BatchNorm1d
    return Norms({str(i): make(layer.width) for i, layer in enumerate(network.layers) if layer.relu})


def normalized(rows: Tensor, norm: nn.Module) -> Tensor:
    """Normalized rows; a batch of one row, which has no variance, is normalized by the running statistics.

    Layers derived from torch's have the statistics of several processes, whose joint batch has more rows.
    """
    if len(rows) > 1 or type(norm) is not nn.BatchNorm1d or not norm.training:
        found: Tensor = norm(rows)
        return found
    return functional.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def folded(
    weights: Sequence[Tensor], biases: Sequence[Tensor], norms: Norms
) -> tuple[list[Tensor], list[Tensor]] | None:
    """Weights and biases of the equal network without normalizations; None unless all are fixed affine maps.

    The layers may be the first ones of the network that the normalizations belong to.

    Batch normalization in evaluation mode with mean μ, variance v, gain γ and offset β turns W x + b into
    γ (W x + b − μ) / √(v + ε) + β.
    """
    new_weights, new_biases = list(weights), list(biases)
    for key, norm in norms.items():
        if not isinstance(norm, nn.BatchNorm1d) or norm.training:
            return None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        if (i := int(key)) >= len(new_weights):
            continue  # of a layer that this part of the network does not have
        new_weights[i] = new_weights[i] * factor[:, None]
        new_biases[i] = (new_biases[i] - norm.running_mean) * factor + norm.bias
    return new_weights, new_biases
