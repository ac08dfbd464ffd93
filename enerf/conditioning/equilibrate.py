"""Equilibrated matrices: pure maps from a weight matrix to a better scaled one of the same shape.

Vocabulary
----------
The paper (Saratchandran, Wang, Lucey, ECCV 2024, arXiv 2409.03424) writes a layer as φ((P W)ᵀ x + b) with
W of shape n_in × n_out. torch stores ``weight`` = Wᵀ, of shape n_out × n_in. Everything here takes and
returns torch's layout, and keeps the paper's names:

- a **row** (of W) belongs to one *input*: it is a column of ``weight``, normed over ``dim=-2``;
- a **column** (of W) belongs to one *output*: it is a row of ``weight``, normed over ``dim=-1``;
- the **divisor** is what each entry of ``weight`` is divided by; the paper's diagonal P holds its inverses.

Leading axes are batch axes. ``gradient`` says what autograd sees: ``"through"`` differentiates the divisor
as well, ``"detached"`` takes it for a constant.

The floor
---------
A row whose norm is below ``FLOOR`` is divided by ``FLOOR`` instead. So a zero row stays zero, and the
gradient of ``row`` and of ``column`` is bounded by 1/``FLOOR`` everywhere (above the floor it is a projection
divided by the norm). The customary 1e-12 would let gradients reach 1e12; 1e-6 lies far below the norm of any
row that a usual start produces (about 0.6 for torch's default start of a square layer, 1.4 for He's), so that
it never acts on a healthy row. What is said below about rows and columns holds for norms above the floor.

What is true
------------
Row equilibration need not lower the condition number: κ(EW) ≤ κ(W) fails for some matrices, for example for
W = [[-3, -1, -3], [-3, -1, -2], [1, 1, 1]], where κ rises from 10.8 to 12.3. What holds for every full-rank W
with n rows is κ(EW) ≤ √n · min over diagonal D of κ(DW) (A. van der Sluis, Condition numbers and
equilibration of matrices, Numerische Mathematik 14, 1969): no diagonal scaling is better by more than a
factor √n.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-6
GRADIENTS = ("through", "detached")


def row(weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through") -> Float[Tensor, "*batch n_out n_in"]:
    """Weights whose every input has unit norm: row equilibration E W, the paper's choice.

    The layer it makes equals the raw layer fed with inputs divided by the row norms. The map is idempotent,
    blind to a positive scaling of any row, and its gradient is orthogonal to each row.

    Parameters
    ----------
    weight
        In torch's layout; any scale, zero rows included.
    gradient
        ``"through"`` or ``"detached"``.

    Raises
    ------
    ValueError
        If ``gradient`` is neither.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5; van der Sluis 1969.

    Examples
    --------
    >>> row(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    tensor([[0.6000, 0.0000],
            [0.8000, 1.0000]])
    """
    return _unit_norm(weight, -2, gradient)


def column(weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through") -> Float[Tensor, "*batch n_out n_in"]:
    """Weights whose every output has unit norm: the paper's column equilibration.

    Differs from weight normalisation only in having no learned length.

    Parameters
    ----------
    weight
        In torch's layout; any scale, zero columns included.
    gradient
        ``"through"`` or ``"detached"``.

    Raises
    ------
    ValueError
        If ``gradient`` is neither.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5; van der Sluis 1969.

    Examples
    --------
    >>> column(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """
    return _unit_norm(weight, -1, gradient)


def row_column(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through"
) -> Float[Tensor, "*batch n_out n_in"]:
    """Row equilibrated weights, whose columns are then equilibrated: ``column(row(weight))``, in this order.

    Afterwards the outputs have unit norm, the inputs only nearly so: the map is not idempotent. It is blind
    to a positive scaling of any row. Its gradient is bounded by 1/``FLOOR``², as the composition of two
    bounded maps.

    Parameters
    ----------
    weight
        In torch's layout; any scale, zero rows and columns included.
    gradient
        ``"through"`` or ``"detached"`` (both divisors are constants).

    Raises
    ------
    ValueError
        If ``gradient`` is neither.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5.

    Examples
    --------
    >>> row_column(torch.tensor([[3.0, 4.0], [4.0, 3.0]])).norm(dim=1)
    tensor([1., 1.])
    """
    return column(row(weight, gradient), gradient)


def jacobi(weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through") -> Float[Tensor, "*batch n_out n_in"]:
    """Weights with a unit diagonal: the paper's Jacobi preconditioner diag(W)⁻¹ W.

    Row i of the paper's W, the i-th column of ``weight``, is divided by its diagonal entry. The entry keeps
    its sign, with sign(0) = +1, and its magnitude is floored at ``FLOOR``. Unlike the norms, the diagonal
    may be small where its row is not: no bound holds for the result nor for its gradient, which grow like
    |row| / |entry| and |row| / entry². On random matrices it *raises* κ, often a hundredfold.

    Parameters
    ----------
    weight
        Square, in torch's layout.
    gradient
        ``"through"`` or ``"detached"``.

    Raises
    ------
    ValueError
        If the matrix is not square, or ``gradient`` is neither.

    References
    ----------
    Saratchandran, Wang, Lucey, ECCV 2024, section 5.

    Examples
    --------
    >>> jacobi(torch.tensor([[2.0, 3.0], [4.0, -3.0]]))
    tensor([[ 1., -1.],
            [ 2.,  1.]])
    """
    n_out, n_in = weight.shape[-2:]
    if n_out != n_in:
        raise ValueError(f"the Jacobi preconditioner divides by the diagonal: {n_out} × {n_in} is not square")
    diagonal = weight.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    floored = torch.where(diagonal < 0, diagonal.clamp(max=-FLOOR), diagonal.clamp(min=FLOOR))
    return _divide(weight, floored, gradient)


METHODS: dict[str, Callable[[Tensor, str], Tensor]] = {
    "row": row,
    "column": column,
    "row_column": row_column,
    "jacobi": jacobi,
}


def _floored_norm(weight: Float[Tensor, "*batch n_out n_in"], dim: int) -> Float[Tensor, "*batch _ _"]:
    """Euclidean norm along ``dim``, kept as an axis of length one, or ``FLOOR`` where the norm is smaller.

    The largest magnitude is factored out, so that no square overflows or vanishes. The norm does not depend
    on the factor, so autograd may take it for a constant: this is exact, not an approximation. Where the
    largest magnitude reaches the floor, the sum of squares holds an exact 1 and the clamp does nothing;
    elsewhere the factor is the floor itself, and the clamp lifts the norm to it.
    """
    largest = weight.detach().abs().amax(dim, keepdim=True).clamp(min=FLOOR)
    squares = (weight / largest).square().sum(dim, keepdim=True)
    return largest * squares.clamp(min=1.0).sqrt()


def _unit_norm(
    weight: Float[Tensor, "*batch n_out n_in"], dim: int, gradient: str
) -> Float[Tensor, "*batch n_out n_in"]:
    """Weights divided by their floored norms along ``dim``."""
    _check_gradient(gradient)
    if gradient == "detached":
        return weight / _floored_norm(weight, dim).detach()
    made: Tensor = _UnitNorm.apply(weight, dim)
    return made


class _UnitNorm(torch.autograd.Function):
    """y = w / n with n = max(‖w‖, FLOOR), and its gradient in closed form: (g − y Σ(g y)) / n, or g / n on the floor.

    The gradient is the projection of g off y, divided by n: self-adjoint, so that it serves forward mode too.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, dim: int) -> Tensor:
        return weight / _floored_norm(weight, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight, ctx.dim = inputs
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return _projected(gradient, weight, ctx.dim), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        (weight,) = ctx.saved_tensors
        return _projected(tangent, weight, ctx.dim)


def _projected(gradient: Tensor, weight: Tensor, dim: int) -> Tensor:
    """A gradient (or tangent) through ``_UnitNorm`` at a weight."""
    norm = _floored_norm(weight, dim)
    unit = weight / norm
    along = (gradient * unit).sum(dim, keepdim=True)
    return (gradient - unit * torch.where(norm > FLOOR, along, 0.0)) / norm


def _check_gradient(gradient: str) -> None:
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient is {gradient!r}; it must be one of {', '.join(GRADIENTS)}")


def _divide(
    weight: Float[Tensor, "*batch n_out n_in"], divisor: Float[Tensor, "*batch _ _"], gradient: str
) -> Float[Tensor, "*batch n_out n_in"]:
    """Quotient; dividing, not multiplying by an inverse, keeps gradients exact at magnitudes of 1e30."""
    _check_gradient(gradient)
    return weight / (divisor.detach() if gradient == "detached" else divisor)
