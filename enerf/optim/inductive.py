"""Inductive gradient adjustment (IGA): the fast directions of the neural tangent kernel are slowed down.

With residuals r = f − y, gradient descent decreases the part of r along an eigenvector of the kernel K = J Jᵀ at the
rate of its eigenvalue, so that coarse structure is learned long before detail. Here the residuals are multiplied by a
matrix S that lowers the largest eigenvalues of K to the next one, so that K S has a smaller spread.

Shi et al., Inductive Gradient Adjustment for Spectral Bias in Implicit Neural Representations, ICML 2025, arXiv
2410.13271. The formula is that of the authors' code (IGA-INR); of the paper itself only the beginning could be had.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def adjustment(kernel: Float[Tensor, "n n"], lowered: int) -> Float[Tensor, "n n"]:
    """S = I − Σ_{i < lowered} (1 − λ_end / λ_i) v_i v_iᵀ, of the kernel K = Σ λ_i v_i v_iᵀ, λ falling.

    λ_end is the largest eigenvalue that is not lowered. S is symmetric, commutes with K, and the eigenvalues of K S are
    those of K with the ``lowered`` largest replaced by λ_end. In float64; NaN if the kernel is not finite.

    Parameters
    ----------
    kernel
        K_ij = Σ_m ∂f(x_i)/∂θ_m ∂f(x_j)/∂θ_m for one point of each of n groups of points; symmetric, not negative.
    lowered
        How many eigenvalues are lowered; below n.

    Raises
    ------
    ValueError
        If ``lowered`` is not between 0 and n − 1.

    Examples
    --------
    >>> adjustment(torch.tensor([[9.0, 0.0], [0.0, 1.0]]), 1).diagonal().round(decimals=4)
    tensor([0.1111, 1.0000], dtype=torch.float64)
    """
    n = len(kernel)
    if not 0 <= lowered < n:
        raise ValueError(f"lowered is {lowered}; expected 0 to {n - 1}, less than the {n} points")
    if not kernel.isfinite().all():
        return torch.full_like(kernel, torch.nan, dtype=torch.float64)
    rising, vectors = torch.linalg.eigh(kernel.double())
    values = rising.clamp(min=0).flip(0)[: lowered + 1]
    first, end = values[:-1], values[-1]
    share = torch.where(first > 0, 1 - end / first.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    chosen = vectors.flip(1)[:, :lowered]
    return torch.eye(n, dtype=torch.float64, device=kernel.device) - (chosen * share) @ chosen.mT
