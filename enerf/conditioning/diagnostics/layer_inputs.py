"""Inputs of layers, and their extended matrix [1, H], which determines the Hessian of each unit of a layer.

Vocabulary
----------
- **H** is the matrix of a layer's inputs, one row per sample, point or patch;
- the **extended matrix** Ĥ = [1, H] has a leading column of ones, for the bias;
- a **unit** is one output of the layer: a = b + wᵀh for each row h, with parameters (b, w).

Source: Q. Ye, Preconditioning for Accelerated Gradient Descent Optimization and Regularization, Theorem 5: if the loss
is a mean over samples, each of which has one a, the Hessian with respect to (b, w) of one unit is Ĥᵀ diag(∂²L/∂a²) Ĥ.
Where these derivatives are positive, κ of that block is at most κ(Ĥ)² times the ratio of their extremes, so that
scaling rows and columns of Ĥ well (batch norm, layer norm, centered inputs) preconditions it. Where several rows enter
one loss term, as the points of a ray in a NeRF and the patches of an image in a convolution, the matrix in the middle
is not diagonal, and its eigenvalues replace the derivatives.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from enerf.conditioning import batch_norm
from enerf.conditioning.diagnostics.eigenvalues import condition_number_above
from enerf.conditioning.diagnostics.spectrum import singular_values
from enerf.conditioning.interface import require_module
from enerf.conditioning.selection import as_names, layer_at
from enerf.conditioning.suitability import other_owners
from enerf.conditioning.weight_views import CONVOLUTIONS

# Functions that layers call, and the names of their arguments.
APPLIED: dict[Any, tuple[str, ...]] = {
    functional.linear: ("input", "weight", "bias"),
    **dict.fromkeys(
        (torch.conv1d, torch.conv2d, torch.conv3d),
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
}


def extended(inputs: Float[Tensor, "*batch n n_in"]) -> Float[Tensor, "*batch n m"]:
    """[1, H]: the inputs with a leading column of ones.

    >>> extended(torch.tensor([[2.0, 3.0]]))
    tensor([[1., 2., 3.]])
    """
    return torch.cat([torch.ones_like(inputs[..., :1]), inputs], -1)


def unit_block(inputs: Float[Tensor, "n n_in"], second_derivatives: Float[Tensor, " n"]) -> Float[Tensor, "m m"]:
    """Hessian of the loss with respect to (bias, weights) of one unit: Ĥᵀ diag(∂²L/∂a²) Ĥ.

    Parameters
    ----------
    inputs
        H.
    second_derivatives
        ∂²L/∂a² at each row, of the mean loss (including its factor 1/n).

    Raises
    ------
    ValueError
        If there is not one derivative for each row.

    References
    ----------
    Q. Ye, Theorem 5; see the module.

    Examples
    --------
    >>> unit_block(torch.tensor([[2.0], [3.0]]), torch.tensor([1.0, 10.0]))
    tensor([[11., 32.],
            [32., 94.]])
    """
    matrix = extended(inputs)
    if tuple(second_derivatives.shape) != (len(matrix),):
        found = f"second derivatives have shape {tuple(second_derivatives.shape)}"
        raise ValueError(f"{found} for {len(matrix)} rows of inputs; expected one for each row")
    return matrix.T @ (second_derivatives[:, None] * matrix)


def extended_condition_number(inputs: Float[Tensor, "*batch n n_in"]) -> tuple[float, int]:
    """κ([1, H]) over the singular values above rounding errors, and their number; for a batch, those of the largest κ.

    Inactive units produce columns of zeros, so the number is the numerical rank of the layer's inputs. Rounding of the
    entries changes singular values by at most epsilon times the Frobenius norm, which is the floor. (NaN, 0) if an
    input is not finite.

    >>> extended_condition_number(torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64))
    (1.0000000..., 2)
    """
    matrices = extended(inputs).flatten(0, -3) if inputs.dim() > 2 else extended(inputs)[None]
    found = []
    for values in singular_values(matrices):
        floor = torch.finfo(inputs.dtype).eps * float(values.square().sum().sqrt())
        found.append(condition_number_above(values, floor))
    return next((pair for pair in found if math.isnan(pair[0])), max(found))


def record_layer_inputs(
    model: nn.Module, names: Iterable[str], run: Callable[[], object]
) -> dict[str, Float[Tensor, "*groups n n_in"]]:
    """Record the inputs H of linear layers and convolutions during ``run()``, without gradients; name -> H.

    A layer is identified by its weight tensor, so it is also recorded where other code than its own ``forward`` applies
    it. The rows of a convolution are its patches, with a batch axis if it has groups. Rows of repeated calls are
    concatenated.

    Raises
    ------
    TypeError
        If the model is no module, or the names are none.
    ValueError
        If a name is unknown, or its layer has another type, shares its weight with another one, or is not applied.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> record_layer_inputs(net, ["2"], lambda: net(torch.zeros(5, 3)))["2"].shape
    torch.Size([5, 8])
    """
    require_module(model)
    found: dict[str, list[Tensor]] = {name: [] for name in as_names(names)}
    layers = {name: _recorded_layer(model, name) for name in found}
    with torch.no_grad(), parametrize.cached(), batch_norm.plain_calls(layers.values()):
        weights = {id(layer.weight): name for name, layer in layers.items()}  # cached: each is a single object
        with _InputRecorder(weights, found):
            run()
    missing = [name for name, parts in found.items() if not parts]
    if missing:
        raise ValueError(f"{missing[0]} is not applied, so it has no inputs")
    return {name: torch.cat(parts, -2) for name, parts in found.items()}


def _recorded_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer with that name, if its inputs can be recorded."""
    layer = layer_at(model, name)
    if not isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
        raise ValueError(f"{name} is a {type(layer).__name__}; inputs are recorded for linear layers and convolutions")
    for owner in other_owners(model, layer):
        if isinstance(owner.module, (nn.Linear, *CONVOLUTIONS)):
            raise ValueError(f"{name} shares its weight with {owner.path}, so their inputs cannot be told apart")
    return layer


class _InputRecorder(TorchFunctionMode):
    """Appends the inputs of calls with the given weights (by id) to ``into``."""

    def __init__(self, weights: dict[int, str], into: dict[str, list[Tensor]]) -> None:
        super().__init__()
        self.weights, self.into = weights, into

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func``; if it applies the weight of a watched layer, record the rows that the layer multiplies."""
        arguments = dict(zip(APPLIED.get(func, ()), args, strict=False)) | (kwargs or {})
        name = self.weights.get(id(arguments.get("weight")))
        if func in APPLIED and name is not None:
            inputs = arguments["input"].detach()
            rows = inputs.reshape(-1, inputs.shape[-1]) if func is functional.linear else _patches(**arguments)
            self.into[name].append(rows)
        return func(*args, **(kwargs or {}))


def _patches(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Float[Tensor, "*groups n n_in"]:
    """The patches that a convolution multiplies, as rows; with a batch axis if it has groups."""
    axes = weight.dim() - 2
    kernel = weight.shape[2:]
    step, gap = (_each(value, axes) for value in (stride, dilation))
    x = input.detach()
    if x.dim() == axes + 1:
        x = x[None]
    reach = [g * (k - 1) for g, k in zip(gap, kernel, strict=True)]
    if padding == "same":
        sides = [(r // 2, r - r // 2) for r in reach]
    else:
        sides = [(p, p) for p in _each(0 if padding == "valid" else padding, axes)]
    x = functional.pad(x, [amount for side in reversed(sides) for amount in side])
    for i in range(axes):  # each axis becomes positions, and a new last axis of kernel elements
        x = x.unfold(2 + i, reach[i] + 1, step[i])[..., :: gap[i]]
    x = x.unflatten(1, (groups, -1))  # n, groups, channels, positions ..., kernel ...
    channels_last = x.movedim(2, 2 + axes)
    rows = channels_last.flatten(2 + axes).movedim(1, 0).flatten(1, 1 + axes)
    return rows if groups > 1 else rows[0]


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),) * axes
