"""Equilibrated matrices: pure maps from a weight matrix to a better scaled one of the same shape.

Vocabulary
----------
The paper (Saratchandran, Wang, Lucey, ECCV 2024, arXiv 2409.03424) writes a layer as φ((P W)ᵀ x + b) with
W of shape n_in × n_out. torch stores ``weight`` = Wᵀ, of shape n_out × n_in. Everything here takes and
returns torch's layout, and keeps the paper's names:

- a **row** (of W) belongs to one *input*: it is a column of ``weight``, normed over ``dim=-2``;
- a **column** (of W) belongs to one *output*: it is a row of ``weight``, normed over ``dim=-1``;
- the **divisors** are what each entry of ``weight`` is divided by, one for each input and one for each output;
  the paper's diagonal P holds the inverses of the former.

Leading axes are batch axes. ``gradient`` says what autograd sees: ``"through"`` differentiates the divisors
as well, ``"detached"`` takes them for constants. ``p`` is the norm: 2 as in the paper, 1 or infinity.

Rows that are zero or tiny are divided by ``norms.FLOOR``; rows that are not finite become NaN (``norms``). What is
said below about rows and columns holds for norms above the floor.

What is true
------------
Row equilibration need not lower the condition number: κ(EW) ≤ κ(W) fails for some matrices, for example for
W = [[-3, -1, -3], [-3, -1, -2], [1, 1, 1]], where κ rises from 10.8 to 12.3. What holds for every full-rank W
with n rows is κ(EW) ≤ √n · min over diagonal D of κ(DW) (A. van der Sluis, Condition numbers and
equilibration of matrices, Numerische Mathematik 14, 1969): no diagonal scaling is better by more than a
factor √n.
"""

from collections.abc import Callable

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
    """Weights whose every input has unit norm: row equilibration E W, the paper's choice.

    The layer it makes equals the raw layer fed with inputs divided by the row norms. The map is idempotent,
    blind to a positive scaling of any row, and its gradient is orthogonal to each row.

    Parameters
    ----------
    weight
        In torch's layout; any scale, zero rows included.
    gradient
        ``"through"`` or ``"detached"``.
    p
        The norm: 1, 2 or inf.

    Raises
    ------
    ValueError
        If ``gradient`` or ``p`` is none of these.

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
    """Weights whose every output has unit norm: the paper's column equilibration.

    Differs from weight normalisation only in having no learned length. Parameters and errors as for ``row``.

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
    """Row equilibrated weights, whose columns are then equilibrated: ``column(row(weight))``, in this order.

    Afterwards the outputs have unit norm, the inputs only nearly so: the map is not idempotent (``ruiz`` is). It is
    blind to a positive scaling of any row. Its Euclidean gradient is bounded by 1/``FLOOR``², as the composition of
    two bounded maps. Parameters and errors as for ``row``; with ``"detached"`` both divisors are constants.

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
    """Weights with a unit diagonal: the paper's Jacobi preconditioner diag(W)⁻¹ W.

    Row i of the paper's W, the i-th column of ``weight``, is divided by its diagonal entry. The entry keeps
    its sign, with sign(0) = +1, and its magnitude is floored at ``FLOOR``. Unlike the norms, the diagonal
    may be small where its row is not: no bound holds for the result nor for its gradient, which grow like
    |row| / |entry| and |row| / entry². On random matrices it *raises* κ, often a hundredfold.

    Parameters
    ----------
    weight
        Square, in torch's layout.
    gradient, p
        As for ``row``; there is no norm in it, so ``p`` changes nothing.

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


def divisors(
    weight: Float[Tensor, "*batch n_out n_in"], method: str, p: float | int = 2.0
) -> tuple[Float[Tensor, "*batch 1 n_in"], Float[Tensor, "*batch n_out 1"]]:
    """What a method divides inputs and outputs by: ``METHODS[method](weight)`` is ``weight`` over both.

    Raises
    ------
    ValueError
        If the method is unknown, or as it raises itself.

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
    if method == "ruiz":
        return ruiz_divisors(weight, p)
    raise ValueError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")


def keep_scale(
    mapped: Float[Tensor, "*batch n_out n_in"], weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through"
) -> Float[Tensor, "*batch n_out n_in"]:
    """Mapped weights at the Frobenius norm of the raw ones: the shape of one, the size of the other.

    The raw matrix' size thereby becomes a gain that is learned with it.

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
