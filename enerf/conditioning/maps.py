"""Equilibration of weight matrices: pure functions from a matrix to a rescaled one of the same shape.

Vocabulary
----------
The paper (Saratchandran, Wang, Lucey, ECCV 2024, arXiv 2409.03424) writes a layer as φ((P W)ᵀ x + b) with
W of shape n_in × n_out. torch stores ``weight`` = Wᵀ, of shape n_out × n_in. All functions take and
return torch's layout, and keep the paper's names:

- a **row** (of W) belongs to one *input*: it is a column of ``weight``, with its norm over ``dim=-2``;
- a **column** (of W) belongs to one *output*: it is a row of ``weight``, with its norm over ``dim=-1``;
- the **divisors** are the numbers that ``weight`` is divided by, one per input and one per output; the paper's
  diagonal matrix P contains the inverses of the former.

Leading axes are batch axes. ``gradient`` is ``"through"`` to differentiate the divisors as well, or ``"detached"`` to
treat them as constants. ``p`` is the order of the norm: 2 as in the paper, 1 or infinity.

Rows with norms below ``norms.FLOOR`` are divided by ``norms.FLOOR``; rows that are not finite become NaN (see
``norms``). The statements below about rows and columns hold for norms above the floor.

Condition number
----------------
Row equilibration need not lower the condition number: κ(EW) ≤ κ(W) fails for some matrices, for example for
W = [[-3, -1, -3], [-3, -1, -2], [1, 1, 1]], where κ rises from 10.8 to 12.3. What holds for every full-rank W
with n rows is κ(EW) ≤ √n · min over diagonal D of κ(DW) (A. van der Sluis, Condition numbers and
equilibration of matrices, Numerische Mathematik 14, 1969): no diagonal scaling is better by more than a
factor √n.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.conditioning import norms
from enerf.conditioning.norms import FLOOR, GRADIENTS
from enerf.conditioning.ruiz import ruiz, ruiz_divisors

__all__ = ["FLOOR", "GRADIENTS", "METHODS", "column", "divisors", "jacobi", "keep_scale", "row", "row_column", "ruiz"]


def row(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through", p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """Row equilibration E W, the paper's choice: the weights of each input are divided by their norm.

    The layer is then equal to the raw layer with its inputs divided by the row norms. The map is idempotent,
    invariant to positive scaling of any row, and its gradient is orthogonal to each row.

    Parameters
    ----------
    weight
        In torch's layout, of any scale; rows may be zero.
    gradient
        ``"through"`` or ``"detached"``.
    p
        Order of the norm: 1, 2 or inf.

    Raises
    ------
    ValueError
        If ``gradient`` or ``p`` is unknown.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5; van der Sluis 1969.

    Examples
    --------
    >>> row(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    tensor([[0.6000, 0.0000],
            [0.8000, 1.0000]])
    """
    return norms.unit(weight, -2, gradient, p)


def column(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through", p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """The paper's column equilibration: the weights of each output are divided by their norm.

    Weight normalization without its learned lengths. Parameters and errors as for ``row``.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5; van der Sluis 1969.

    Examples
    --------
    >>> column(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """
    return norms.unit(weight, -1, gradient, p)


def row_column(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through", p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """Row equilibration followed by column equilibration: ``column(row(weight))``.

    Outputs have unit norm, inputs only approximately: the map is not idempotent (``ruiz`` is). It is invariant to
    positive scaling of any row. For p = 2 its gradient is bounded by 1/``FLOOR``², as a composition of two bounded
    maps. Parameters and errors as for ``row``; with ``"detached"`` both divisors are constants.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5.

    Examples
    --------
    >>> row_column(torch.tensor([[3.0, 4.0], [4.0, 3.0]])).norm(dim=1)
    tensor([1., 1.])
    """
    return column(row(weight, gradient, p), gradient, p)


def jacobi(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through", p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """Divide each column of ``weight`` by its diagonal entry: the paper's diag(W)⁻¹ W for W = weightᵀ.

    Row i of the paper's W, the i-th column of ``weight``, is divided by its diagonal entry. The entry keeps
    its sign, with sign(0) = +1, and its magnitude is at least ``FLOOR``. A diagonal entry may be small where its row is
    not, so neither the result nor its gradient is bounded: they grow like |row| / |entry| and |row| / entry². On random
    matrices the map *raises* κ, often by a factor of a hundred.

    Parameters
    ----------
    weight
        Square, in torch's layout.
    gradient, p
        As for ``row``; no norm is computed, so ``p`` has no effect.

    Raises
    ------
    ValueError
        If the matrix is not square, or as for ``row``.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5.

    Examples
    --------
    >>> jacobi(torch.tensor([[2.0, 3.0], [4.0, -3.0]]))
    tensor([[ 1., -1.],
            [ 2.,  1.]])
    """
    return norms.divided(weight, *_jacobi_divisors(weight, p), gradient, p)


METHODS: dict[str, Callable[..., Tensor]] = {
    "row": row,
    "column": column,
    "row_column": row_column,
    "jacobi": jacobi,
    "ruiz": ruiz,
}


@dataclass(frozen=True)
class AddedMap:
    """What is known of a map that ``registry.register_map`` has added; see there.

    Attributes
    ----------
    divisors
        (weight, p) -> divisors of inputs and outputs; None if the map is not a division.
    unsuitable
        Weight view -> the reason why the map cannot be applied, or None.
    scale_invariant
        Whether the mapped weight is independent of the scale of the raw matrix.
    redraws
        Whether the method replaces the weights by others.
    function
        (weight, gradient, p) -> mapped weight; None if the method is more than a map.
    orders
        The norms p that it can be computed with.
    """

    divisors: Callable[..., tuple[Tensor, Tensor]] | None
    unsuitable: Callable[[Any], str | None] | None
    scale_invariant: bool
    redraws: bool = False
    function: Callable[..., Tensor] | None = None
    orders: tuple[float, ...] = norms.P_NORMS


ADDED: dict[str, AddedMap] = {}


def divisors(
    weight: Float[Tensor, "*batch n_out n_in"], method: str, p: float | int = 2.0
) -> tuple[Float[Tensor, "*batch 1 n_in"], Float[Tensor, "*batch n_out 1"]]:
    """Divisors of inputs and outputs: ``METHODS[method](weight)`` equals ``weight / of_inputs / of_outputs``.

    Maps that ``registry.register_map`` has added with divisors are methods too.

    Raises
    ------
    ValueError
        If the method is unknown, or as for the method itself.

    Examples
    --------
    >>> divisors(torch.tensor([[3.0, 0.0], [4.0, 2.0]]), "row")
    (tensor([[5., 2.]]), tensor([[1.],
            [1.]]))
    """
    norms.check("through", p)
    plain_in, plain_out = torch.ones_like(weight[..., :1, :]), torch.ones_like(weight[..., :1])
    if method == "row":
        return norms.floored(weight, -2, p), plain_out
    if method == "column":
        return plain_in, norms.floored(weight, -1, p)
    if method == "row_column":
        of_inputs = norms.floored(weight, -2, p)
        return of_inputs, norms.floored(weight / of_inputs, -1, p)
    if method == "jacobi":
        return _jacobi_divisors(weight, p)
    added = ADDED.get(method)
    if added is not None and added.divisors is not None:
        return added.divisors(weight, p)
    if method == "ruiz":
        return ruiz_divisors(weight, p)
    raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")


def keep_scale(
    mapped: Float[Tensor, "*batch n_out n_in"], weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through"
) -> Float[Tensor, "*batch n_out n_in"]:
    """Rescale mapped weights to the Frobenius norm of the raw ones.

    The norm of the raw matrix thereby acts as a gain that is trained with it.

    Examples
    --------
    >>> raw = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    >>> keep_scale(row(raw), raw).norm().round(decimals=5)
    tensor(5.)
    """
    ratio = norms.frobenius(weight) / norms.frobenius(mapped)
    return mapped * (ratio.detach() if gradient == "detached" else ratio)


def _jacobi_divisors(weight: Tensor, p: float | int) -> tuple[Tensor, Tensor]:
    n_out, n_in = weight.shape[-2:]
    if n_out != n_in:
        raise ValueError(f"the Jacobi preconditioner divides by the diagonal: {n_out} × {n_in} is not square")
    diagonal = weight.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    signed = torch.where(diagonal < 0, diagonal.clamp(max=-FLOOR), diagonal.clamp(min=FLOOR))
    return signed, torch.ones_like(weight[..., :1])
