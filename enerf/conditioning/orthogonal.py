"""Orthogonal weights: the polar factor of the raw matrix, whose condition number is 1.

With the paper's W of shape n_in × n_out, W = (WWᵀ)^½ Q, and Q = (WWᵀ)^-½ W is the paper's P W with the full matrix
P = (WWᵀ)^-½ in the place of a diagonal one: the limit of what preconditioning from one side can reach. Q is the matrix
with orthonormal rows or columns that is nearest to W in the Frobenius norm (Fan, Hoffman, Some metric inequalities in
the space of matrices, Proc. AMS 6, 1955).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from enerf.conditioning.norms import FLOOR, check
from enerf.conditioning.registry import register_map


def orthogonal(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through", p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """Polar factor: U Vᵀ for weight = U Σ Vᵀ; all its min(n_out, n_in) singular values are 1.

    Idempotent, and invariant to multiplication of the weight by a positive number. Singular values below
    ``norms.FLOOR`` are divided by it instead, so that a zero matrix stays zero, and the gradient is bounded by its
    inverse. Computed by an eigendecomposition of the smaller Gram matrix, in float64, which squares the condition
    number: singular values below about 1e-8 of the largest are not brought to 1. Once differentiable.

    Parameters
    ----------
    weight
        In torch's layout.
    gradient
        ``"through"``, or ``"detached"`` to treat (WWᵀ)^-½ as a constant.
    p
        Must be 2.

    Raises
    ------
    ValueError
        If ``gradient`` is unknown or ``p`` is not 2.

    Examples
    --------
    >>> orthogonal(torch.tensor([[3.0, 0.0], [0.0, 0.5]]))
    tensor([[1., 0.],
            [0., 1.]])
    """
    check(gradient, p)
    if p != 2:
        raise ValueError(f"p is {p!r}; the polar factor has no norm of rows, expected 2")
    if weight.shape[-2] < weight.shape[-1]:
        return orthogonal(weight.mT, gradient, p).mT
    if gradient == "detached":
        values, vectors = _gram(weight.detach())
        return (weight.double() @ _of_eigenvalues(vectors, 1 / values)).to(weight.dtype)
    factor: Tensor = _Polar.apply(weight)[0]
    return factor


class _Polar(torch.autograd.Function):
    """Polar factor Q of a tall matrix, and its gradient.

    From W = QH with H = VΣVᵀ and the skew Ω = QᵀdQ follows QᵀdW − dWᵀQ = ΩH + HΩ, an equation that V makes diagonal.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = _gram(weight)
        factor = weight.double() @ _of_eigenvalues(vectors, 1 / values)
        return factor.to(weight.dtype), values, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1], output[2])
        ctx.save_for_backward(inputs[0], output[1], output[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> Tensor:
        weight, values, vectors = ctx.saved_tensors
        inverse = _of_eigenvalues(vectors, 1 / values)
        factor, grad64 = weight.double() @ inverse, grad.double()
        along = factor.mT @ grad64
        skew = vectors.mT @ (along - along.mT) @ vectors / (values[..., :, None] + values[..., None, :])
        inside = factor @ (vectors @ skew @ vectors.mT)
        return (inside + (grad64 - factor @ along) @ inverse).to(grad.dtype)


def _gram(weight: Float[Tensor, "*batch n k"]) -> tuple[Float[Tensor, "*batch k"], Float[Tensor, "*batch k k"]]:
    """Singular values, at least ``FLOOR``, and right singular vectors, in float64; NaN where not finite."""
    exact = weight.double()
    finite = exact.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    largest = torch.where(finite, exact, 0.0).abs().amax((-2, -1), keepdim=True).clamp(min=FLOOR)
    scaled = torch.where(finite, exact, 0.0) / largest  # so that squares neither overflow nor vanish
    values, vectors = torch.linalg.eigh(scaled.mT @ scaled)
    sizes = (values.clamp(min=0).sqrt() * largest[..., 0]).clamp(min=FLOOR)
    return torch.where(finite[..., 0], sizes, torch.nan), vectors


def _of_eigenvalues(vectors: Float[Tensor, "*batch k k"], values: Float[Tensor, "*batch k"]) -> Tensor:
    """The symmetric matrix with these eigenvectors and eigenvalues."""
    return (vectors * values[..., None, :]) @ vectors.mT


register_map("orthogonal", orthogonal, scale_invariant=True)
