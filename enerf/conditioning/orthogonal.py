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

from enerf.conditioning.norms import FLOOR, check, is_differentiated
from enerf.conditioning.registry import register_map


def orthogonal(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through", p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """Polar factor: U Vᵀ for weight = U Σ Vᵀ; all its min(n_out, n_in) singular values are 1.

    Idempotent, and invariant to multiplication of the weight by a positive number. Singular values below
    ``norms.FLOOR`` are divided by it instead, so that a zero matrix stays zero, and the gradient is bounded by its
    inverse. Computed by an eigendecomposition of the smaller Gram matrix, in float64, which squares the condition
    number: singular values below about 1e-8 of the largest are not brought to 1. Differentiable any number of times, in
    reverse and forward mode; a first derivative takes no more than its closed form.

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
    function = _Polar if torch.compiler.is_compiling() else _PolarInBothModes
    factor: Tensor = function.apply(weight)[0]
    return factor


class _Polar(torch.autograd.Function):
    """Polar factor Q of a tall matrix, with the singular values and vectors of H, which are constants.

    From W = QH with H = VΣVᵀ and the skew Ω = QᵀdQ follows QᵀdW − dWᵀQ = ΩH + HΩ, an equation that V makes diagonal,
    and dQ = QΩ + (dW − QQᵀdW) H⁻¹. This map from dW to dQ is self-adjoint: it is the gradient as well.
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
        ctx.save_for_forward(inputs[0], output[1], output[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> Tensor:
        function = _differential if is_differentiated() else _closed
        return function(grad, *ctx.saved_tensors)


class _PolarInBothModes(_Polar):
    """``_Polar`` with forward mode, which ``torch.compile`` cannot trace."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> tuple[Tensor, None, None]:
        return _differential(tangent, *ctx.saved_tensors), None, None


def _differential(change: Tensor, weight: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    """Change of the polar factor for a small change of the weight, by operations that have derivatives."""
    exact, change64 = weight.double(), change.double()
    factor: Tensor = _PolarInBothModes.apply(exact)[0]
    size = factor.mT @ exact
    size = (size + size.mT) / 2
    along = factor.mT @ change64
    skew: Tensor = _Solved.apply(size, along - along.mT, values, vectors)
    inverse: Tensor = _Inverse.apply(size, values, vectors)
    return (factor @ skew + (change64 - factor @ along) @ inverse).to(change.dtype)


class _Solved(torch.autograd.Function):
    """X with XH + HX = R, for a symmetric H given with its eigenvalues and eigenvectors, which are constants.

    The derivatives are solutions of the same equation: dX has the right side dR − X dH − dH X.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(size: Tensor, right: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        turned = vectors.mT @ right @ vectors / (values[..., :, None] + values[..., None, :])
        return vectors @ turned @ vectors.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        size, _, values, vectors = inputs
        ctx.save_for_backward(size, values, vectors, output)
        ctx.save_for_forward(size, values, vectors, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        size, values, vectors, solution = ctx.saved_tensors
        of_right: Tensor = _Solved.apply(size, grad, values, vectors)
        return -(solution.mT @ of_right + of_right @ solution.mT), of_right, None, None

    @staticmethod
    def jvp(ctx: Any, of_size: Tensor, of_right: Tensor, *unused: Tensor) -> Tensor:
        size, values, vectors, solution = ctx.saved_tensors
        right = of_right - solution @ of_size - of_size @ solution
        found: Tensor = _Solved.apply(size, right, values, vectors)
        return found


class _Inverse(torch.autograd.Function):
    """H⁻¹ for a symmetric H given with its eigenvalues and eigenvectors, which are constants; dH⁻¹ = −H⁻¹ dH H⁻¹."""

    generate_vmap_rule = True

    @staticmethod
    def forward(size: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        return _of_eigenvalues(vectors, 1 / values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return -inverse @ grad @ inverse, None, None

    @staticmethod
    def jvp(ctx: Any, of_size: Tensor, *unused: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        return -inverse @ of_size @ inverse


def _closed(grad: Tensor, weight: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    """``_differential`` without derivatives, and without another eigendecomposition."""
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


register_map("orthogonal", orthogonal, scale_invariant=True, orders=(2,))
