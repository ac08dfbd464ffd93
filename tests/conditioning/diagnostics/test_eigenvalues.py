"""Tests of eigenvalues computed from matrix-vector products."""

import math

import pytest
import torch
from torch import Tensor

from enerf.conditioning.diagnostics import eigenvalues


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=generator))
    made = (basis * values.double()) @ basis.T
    return (made + made.T) / 2


def spread(n: int, *ends: float) -> Tensor:
    """Eigenvalues in [-0.1, 0.1], and some beyond."""
    return torch.cat([torch.linspace(-0.1, 0.1, max(0, n - len(ends))), torch.tensor(ends)])


@pytest.mark.parametrize("n", [3, 40, 300])
@pytest.mark.parametrize("k", [1, 2])
def test_the_extremes_are_the_ends_of_the_dense_spectrum(n: int, k: int):
    matrix = symmetric(spread(n, -3.0, -2.0, 4.0, 5.0)[-n:])
    expected = torch.linalg.eigvalsh(matrix).tolist()
    found = eigenvalues.extremes(matrix, k, tolerance=1e-10)
    assert found.converged
    assert found.smallest == pytest.approx(expected[:k], rel=1e-8)
    assert found.largest == pytest.approx(expected[::-1][:k], rel=1e-8)


def test_float32_products_are_enough_for_their_digits():
    matrix = symmetric(spread(300, -3.0, 5.0))
    found = eigenvalues.extremes(matrix.float(), tolerance=1e-4)
    assert (found.smallest[0], found.largest[0]) == pytest.approx((-3, 5), rel=1e-4)


def test_equal_seeds_give_equal_extremes_and_densities():
    matrix = symmetric(spread(200, 1.0))
    assert eigenvalues.extremes(matrix, seed=3) == eigenvalues.extremes(matrix, seed=3)
    one, two = (eigenvalues.density(matrix, 8, 2, seed=3) for _ in range(2))
    assert torch.equal(one.values, two.values)
    assert not torch.equal(eigenvalues.density(matrix, 8, 2, seed=4).values, one.values)


def test_what_does_not_converge_is_told_and_estimated_from_inside():
    matrix = symmetric(torch.linspace(1, 2, 2000) ** 8)  # dense at its lower end
    found = eigenvalues.extremes(matrix, tolerance=1e-12, restarts=1)
    assert not found.converged
    assert 1 <= found.smallest[0] < 3
    assert 240 < found.largest[0] <= 256 * (1 + 1e-9)


def test_the_zero_operator_costs_one_product():
    assert eigenvalues.extremes(torch.zeros(100, 100)) == eigenvalues.Extremes((0.0,), (0.0,), True, 1)


def test_products_are_counted():
    asked = []

    class Counting:
        shape, dtype, device = (300, 300), torch.float64, torch.device("cpu")
        matrix = symmetric(spread(300, -3.0, 5.0))

        def __matmul__(self, vector: Tensor) -> Tensor:
            asked.append(vector)
            return self.matrix @ vector

    assert eigenvalues.extremes(Counting()).products == len(asked)
    asked.clear()
    assert eigenvalues.extremes(Counting(), tolerance=1e-14, restarts=1).products == len(asked)


@pytest.mark.parametrize("probes", [1, 3])
def test_a_density_integrates_to_one_and_has_the_moments_of_its_vectors(probes: int):
    matrix, steps = symmetric(spread(100, -3.0, 5.0)), 7
    found = eigenvalues.density(matrix, steps, probes)
    assert found.weights.sum().item() == pytest.approx(1, rel=1e-12)
    assert found.weights.min() >= 0
    vectors = torch.stack([eigenvalues._signs(100, probe).double() for probe in range(probes)])
    for power in range(2 * steps):
        exact = (vectors @ torch.linalg.matrix_power(matrix, power) * vectors).sum(1).mean() / 100
        assert found.moment(power) == pytest.approx(exact.item(), rel=1e-9, abs=1e-9)


def test_with_vectors_for_every_axis_the_moments_are_the_traces():
    matrix = symmetric(torch.linspace(-1, 2, 8))
    signs = torch.tensor([[1.0]])
    for _ in range(3):  # Hadamard: eight orthogonal vectors of ±1, whose mean is the trace exactly
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)], 0)
    parts = [eigenvalues.lanczos(matrix, row, 8) for row in signs]
    for power in range(6):
        mean = sum(float((weights * values**power).sum()) for values, weights in parts) / 8
        assert 8 * mean == pytest.approx(torch.linalg.matrix_power(matrix, power).trace().item(), rel=1e-10)


def test_many_vectors_estimate_the_trace():
    matrix = symmetric(torch.linspace(0, 1, 200))
    found = eigenvalues.density(matrix, 5, probes=50)
    assert found.size * found.moment(1) == pytest.approx(matrix.trace().item(), rel=0.01)


def test_a_smoothed_density_integrates_to_one_and_lies_where_the_eigenvalues_are():
    matrix = symmetric(torch.cat([torch.zeros(150), torch.ones(50)]))
    found = eigenvalues.density(matrix, 10, probes=20)
    at = torch.linspace(-1, 2, 3001, dtype=torch.float64)
    curve = found.smoothed(at, 0.02)
    assert torch.trapezoid(curve, at).item() == pytest.approx(1, abs=1e-9)
    low = at < 0.5
    assert torch.trapezoid(curve[low], at[low]).item() == pytest.approx(0.75, abs=0.02)


def test_lanczos_ends_with_what_its_vector_is_made_of():
    matrix = symmetric(torch.tensor([2.0] * 30 + [-1.0] * 30))
    values, weights = eigenvalues.lanczos(matrix, torch.arange(60), 40)
    torch.testing.assert_close(values, torch.tensor([-1.0, 2.0], dtype=torch.float64))
    assert weights.sum().item() == pytest.approx(1, rel=1e-12)


def test_all_steps_of_lanczos_give_each_eigenvalue_once():
    values = torch.linspace(-1, 3, 40).double() ** 3
    found, _ = eigenvalues.lanczos(symmetric(values), torch.randn(40, generator=torch.Generator().manual_seed(0)), 40)
    torch.testing.assert_close(found, values.sort().values, rtol=1e-9, atol=1e-9)


def test_lanczos_vectors_stay_orthogonal_where_one_pass_of_orthogonalization_is_not_enough():
    values = torch.logspace(-3, 0, 60, dtype=torch.float64)  # after one pass, eigenvalues are off by 1e-9 and 1e-10
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        found, weights = eigenvalues.lanczos(symmetric(values, seed), torch.randn(60, generator=generator), 60)
        torch.testing.assert_close(found, values, rtol=0, atol=1e-13)
        assert weights.sum().item() == pytest.approx(1, rel=1e-12)


def test_the_condition_number_leaves_out_rounding():
    values = torch.tensor([1e-12, -0.5, 4.0, 0.0])
    assert eigenvalues.condition_number_above(values, 1e-6) == (8.0, 2)
    assert eigenvalues.condition_number_above(values, 10) == (math.inf, 0)
    assert eigenvalues.condition_number_above(torch.zeros(0), 0) == (math.inf, 0)


# operators of weights that are not finite


def test_spectra_of_what_is_not_finite_are_nan():
    for n in (5, 100):
        matrix = torch.eye(n, dtype=torch.float64)
        matrix[1, 1] = math.nan
        found = eigenvalues.extremes(matrix, k=2)
        assert all(map(math.isnan, (*found.smallest, *found.largest)))
        assert not found.converged or n <= eigenvalues.DENSE_UP_TO
        density = eigenvalues.density(matrix, steps=4)
        assert density.values.isnan().all()
        assert density.weights.sum() == 1
    assert math.isnan(eigenvalues.condition_number_above(torch.tensor([1.0, math.nan, 2.0]), 1e-3)[0])
    assert torch.equal(eigenvalues.symmetric_eigenvalues(torch.diag(torch.tensor([2.0, 1.0]))), torch.tensor([1.0, 2]))
