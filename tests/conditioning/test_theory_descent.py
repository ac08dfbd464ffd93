"""More theorems of [P] (Q. Ye, arXiv 2410.00232) as statements that run; the others are in ``test_theory``.

**Theorem 1.** Near a minimum with positive definite Hessian H, gradient descent with rate α contracts the error by
max |1 − α λ| over the eigenvalues λ of H, at best by (κ − 1) / (κ + 1), for α = 2 / (λ_min + λ_max); with a
preconditioner P it is descent in z = P⁻¹ θ, so that Pᵀ H P takes the place of H. *True*: exactly for quadratic losses,
in the limit for others. We had a summary of the theorem, not its wording.

**Theorem 3, the Hessians.** With L2 of z, the Hessian in z is Pᵀ H P + λ: eigenvalues are shifted by λ, whatever P is,
so κ never rises. With L2 of θ it is Pᵀ H P + λ Pᵀ P, and κ may rise. *True.*

**Theorem 7, with gain and offset.** After layer norm with a common gain γ and offset β, each extended sample [1, h] has
norm √(1 + n (γ² + β²)) where ε = 0, at most that else. *True.* With gains and offsets for each feature, the norm is at
most √(1 + (√n max |γ| + ‖β‖)²).
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from enerf.conditioning.diagnostics.spectrum import condition_number


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def hessian_with(values: list[float], seed: int) -> Tensor:
    q = torch.linalg.qr(gaussian(len(values), len(values), seed=seed))[0]
    return q * torch.tensor(values, dtype=torch.float64) @ q.T


# Theorem 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", ["best", 0.02, 0.07])
def test_theorem_1_the_error_contracts_by_the_largest_factor(seed: int, rate: float | str):
    values = [1.0, 3.0, 10.0, 25.0]
    h = hessian_with(values, seed)
    alpha = 2 / (1 + 25) if rate == "best" else float(rate)
    factor = max(abs(1 - alpha * value) for value in values)
    if rate == "best":
        assert factor == pytest.approx((25 - 1) / (25 + 1))
    error = gaussian(4, seed=seed + 10)
    norms = [error.norm()]
    for _ in range(200):
        error = error - alpha * h @ error
        norms.append(error.norm())
        assert norms[-1] <= factor * norms[-2] * (1 + 1e-12)
    assert (norms[-1] / norms[-2]).item() == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_theorem_1_with_a_preconditioner_the_matrix_is_that_of_z(seed: int):
    h = hessian_with([1.0, 3.0, 10.0, 25.0], seed)
    p = torch.diag(torch.rsqrt(torch.diagonal(h)))
    values = torch.linalg.eigvalsh(p @ h @ p)
    alpha, kappa = 2 / (values[0] + values[-1]), values[-1] / values[0]
    z = gaussian(4, seed=seed + 10)
    for _ in range(300):
        before, theta = z, p @ z
        theta = theta - alpha * p @ p.T @ h @ theta
        z = torch.linalg.solve(p, theta)
        torch.testing.assert_close(z, before - alpha * p.T @ h @ p @ before, rtol=1e-9, atol=1e-200)
    contraction = (z.norm() / before.norm()).item()
    assert contraction == pytest.approx(((kappa - 1) / (kappa + 1)).item(), rel=1e-5)


def test_theorem_1_near_the_minimum_of_another_loss_the_factor_is_reached_in_the_limit():
    a = gaussian(12, 3)

    def loss(theta: Tensor) -> Tensor:
        return torch.log(torch.cosh(a @ theta)).sum() + 0.5 * theta.square().sum()

    h = torch.autograd.functional.hessian(loss, torch.zeros(3, dtype=torch.float64))
    values = torch.linalg.eigvalsh(h)
    alpha = (2 / (values[0] + values[-1])).item()
    theta = 0.1 * gaussian(3, seed=1)
    for _ in range(60):
        theta.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(theta), theta)
        before, theta = theta.detach(), (theta - alpha * gradient).detach()
    kappa = (values[-1] / values[0]).item()
    assert (theta.norm() / before.norm()).item() == pytest.approx((kappa - 1) / (kappa + 1), rel=1e-3)


# Theorem 3


def test_theorem_3_the_hessian_with_l2_of_z_is_shifted_and_kappa_never_rises():
    a, strength = gaussian(9, 4), 0.3
    p = torch.diag(torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=torch.float64))
    start = gaussian(4, seed=1)

    def loss(theta: Tensor) -> Tensor:
        return functional.softplus(a @ theta).sum()

    plain = torch.autograd.functional.hessian(loss, start)
    z = torch.linalg.solve(p, start)
    of_z = torch.autograd.functional.hessian(lambda u: loss(p @ u) + strength / 2 * u.square().sum(), z)
    of_theta = torch.autograd.functional.hessian(lambda u: loss(p @ u) + strength / 2 * (p @ u).square().sum(), z)
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(of_z, p.T @ plain @ p + strength * eye)
    torch.testing.assert_close(of_theta, p.T @ plain @ p + strength * p.T @ p)
    shifted = torch.linalg.eigvalsh(p.T @ plain @ p) + strength
    torch.testing.assert_close(torch.linalg.eigvalsh(of_z), shifted)
    assert condition_number(of_z) <= condition_number(p.T @ plain @ p)


def test_theorem_3_l2_of_theta_may_raise_kappa_in_z():
    p = torch.diag(torch.tensor([1.0, 10.0], dtype=torch.float64))
    h = torch.linalg.inv(p @ p)  # which P preconditions perfectly
    assert condition_number(p @ h @ p).item() == pytest.approx(1)
    assert condition_number(p @ h @ p + 1.0 * torch.eye(2, dtype=torch.float64)).item() == pytest.approx(1)
    assert condition_number(p @ h @ p + 1.0 * p @ p).item() == pytest.approx(101 / 2)


# Theorem 7


@pytest.mark.parametrize("n", [2, 5, 16])
@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.3, -2.0), (-4.0, 1.5)])
def test_theorem_7_extended_samples_have_the_norm_of_gain_and_offset(n: int, gain: float, offset: float):
    h = torch.exp(4 * gaussian(30, n)) * gaussian(30, n, seed=1) + 100 * gaussian(30, 1, seed=2)
    gains, offsets = (torch.full((n,), value, dtype=torch.float64) for value in (gain, offset))
    limit = math.sqrt(1 + n * (gain**2 + offset**2))
    for eps in (0.0, 1e-5, 1.0):
        made = functional.layer_norm(h, (n,), gains, offsets, eps)
        norms = torch.cat([torch.ones(30, 1, dtype=torch.float64), made], 1).norm(dim=1)
        assert (norms <= limit * (1 + 1e-8)).all()
        if eps == 0:
            torch.testing.assert_close(norms, torch.full((30,), limit, dtype=torch.float64), rtol=1e-8, atol=0)


def test_theorem_7_gains_and_offsets_of_features_bound_the_norm_by_their_largest_and_their_length():
    for seed in range(50):
        n = 2 + seed % 9
        gains, offsets = 3 * gaussian(n, seed=seed), 2 * gaussian(n, seed=seed + 100)
        made = functional.layer_norm(gaussian(20, n, seed=seed + 200), (n,), gains, offsets)
        limit = torch.sqrt(1 + (math.sqrt(n) * gains.abs().max() + offsets.norm()).square())
        assert (torch.sqrt(1 + made.square().sum(1)) <= limit).all()
