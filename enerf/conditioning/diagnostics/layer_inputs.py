"""The extended matrix of layer inputs, [1, H], from which the Hessian of each unit of a layer is built.

Vocabulary
----------
- **H** holds the inputs of a layer, one row for each time it is applied: for each sample, point, or patch;
- the **extended matrix** Ĥ = [1, H] has a column of ones in front, which belongs to the bias;
- a **unit** is one output of the layer: a = b + wᵀh for each row h, with the unknowns (b, w).

Source: Q. Ye, Preconditioning for Accelerated Gradient Descent Optimization and Regularization, Theorem 5: if the loss
is a mean over samples, each of which has one a, the Hessian with respect to (b, w) of one unit is Ĥᵀ diag(∂²L/∂a²) Ĥ.
Where these derivatives are positive, κ of that block is at most κ(Ĥ)² times the ratio of their extremes, and whatever
scales rows and columns of Ĥ well (batch norm, layer norm, inputs of mean 0) preconditions it. Where rows meet in the
loss, as the points of one ray do in a NeRF and the patches of one picture in a convolution, the matrix in the middle is
not diagonal, and its eigenvalues take the derivatives' place.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from enerf.conditioning.diagnostics.eigenvalues import condition
from enerf.conditioning.selection import layer_at
from enerf.conditioning.weight_views import CONVOLUTIONS

# What layers call, and the names of its arguments.
APPLIED: dict[Any, tuple[str, ...]] = {
    functional.linear: ("input", "weight", "bias"),
    **dict.fromkeys(
        (torch.conv1d, torch.conv2d, torch.conv3d),
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
}


def extended(inputs: Float[Tensor, "*batch n n_in"]) -> Float[Tensor, "*batch n m"]:
    """[1, H]: the inputs with a column of ones in front.

    >>> extended(torch.tensor([[2.0, 3.0]]))
    tensor([[1., 2., 3.]])
    """
    return torch.cat([torch.ones_like(inputs[..., :1]), inputs], -1)


def unit_block(inputs: Float[Tensor, "n n_in"], second_derivatives: Float[Tensor, " n"]) -> Float[Tensor, "m m"]:
    """Hessian of the loss with respect to one unit's bias and weights, in this order: Ĥᵀ diag(∂²L/∂a²) Ĥ.

    Parameters
    ----------
    inputs
        H.
    second_derivatives
        Of the loss (the mean, with its 1/n) with respect to the unit's value a at each row.

    References
    ----------
    [P] Theorem 5.

    Examples
    --------
    >>> unit_block(torch.tensor([[2.0], [3.0]]), torch.tensor([1.0, 10.0]))
    tensor([[11., 32.],
            [32., 94.]])
    """
    whole = extended(inputs)
    return whole.T @ (second_derivatives[:, None] * whole)


def extended_condition(inputs: Float[Tensor, "*batch n n_in"]) -> tuple[float, int]:
    """κ([1, H]) over the singular values above rounding, and how many they are; the worst of a batch, largest κ first.

    Units that are never active make columns of zeros: the count says how many directions the layer sees. The
    entries' rounding moves singular values by no more than its share of the Frobenius norm, which is the floor.

    >>> extended_condition(torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64))
    (1.0000000..., 2)
    """
    whole = extended(inputs).flatten(0, -3) if inputs.dim() > 2 else extended(inputs)[None]
    found = []
    for values in torch.linalg.svdvals(whole.double()):
        floor = torch.finfo(inputs.dtype).eps * float(values.square().sum().sqrt())
        found.append(condition(values, floor))
    return max(found)


def layer_inputs(
    model: nn.Module, names: Iterable[str], run: Callable[[], object]
) -> dict[str, Float[Tensor, "*groups n n_in"]]:
    """Name -> H of linear layers and convolutions, as they are applied while ``run`` runs, without gradients.

    A layer is recognised by the weight that it applies, so that it is seen also where it is applied by other code than
    its own ``forward``. The inputs of a convolution are its patches, those of one with groups a batch of them. What is
    applied several times has the rows of all of them.

    Raises
    ------
    ValueError
        If a name is unknown, its layer is of another kind, or is not applied.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> layer_inputs(net, ["2"], lambda: net(torch.zeros(5, 3)))["2"].shape
    torch.Size([5, 8])
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.no_grad(), parametrize.cached():  # cached: a computed weight is one and the same object throughout
        weights: dict[int, str] = {}
        for name in found:
            layer = layer_at(model, name)
            if not isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
                raise ValueError(
                    f"{name} is a {type(layer).__name__}; inputs are told of linear layers and convolutions"
                )
            weights[id(layer.weight)] = name
        with _Recording(weights, found):
            run()
    unseen = [name for name, parts in found.items() if not parts]
    if unseen:
        raise ValueError(f"{unseen[0]} is not applied, so it has no inputs")
    return {name: torch.cat(parts, -2) for name, parts in found.items()}


class _Recording(TorchFunctionMode):
    """Notes the inputs of products with some weights."""

    def __init__(self, weights: dict[int, str], into: dict[str, list[Tensor]]) -> None:
        super().__init__()
        self.weights, self.into = weights, into

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and note what a layer is given."""
        given = dict(zip(APPLIED.get(func, ()), args, strict=False)) | (kwargs or {})
        name = self.weights.get(id(given.get("weight")))
        if func in APPLIED and name is not None:
            seen = given["input"].detach()
            rows = seen.reshape(-1, seen.shape[-1]) if func is functional.linear else _patches(**given)
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
    """The patches that a convolution multiplies, as rows; for groups a batch of them."""
    axes = weight.dim() - 2
    taps = weight.shape[2:]
    step, gap = (_each(value, axes) for value in (stride, dilation))
    x = input.detach()
    if x.dim() == axes + 1:
        x = x[None]
    reach = [g * (t - 1) for g, t in zip(gap, taps, strict=True)]
    if padding == "same":
        sides = [(r // 2, r - r // 2) for r in reach]
    else:
        sides = [(p, p) for p in _each(0 if padding == "valid" else padding, axes)]
    x = functional.pad(x, [amount for side in reversed(sides) for amount in side])
    for i in range(axes):  # each axis becomes positions, and a new last axis of taps
        x = x.unfold(2 + i, reach[i] + 1, step[i])[..., :: gap[i]]
    x = x.unflatten(1, (groups, -1))  # n, groups, channels, positions ..., taps ...
    channels_last = x.movedim(2, 2 + axes)
    rows = channels_last.flatten(2 + axes).movedim(1, 0).flatten(1, 1 + axes)
    return rows if groups > 1 else rows[0]


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),) * axes
