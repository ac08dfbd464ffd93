"""Tests of balanced matrices, of the other norms, and of rows that are not finite."""

import math

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.conditioning import baselines, maps, norms, ruiz
from enerf.conditioning.maps import METHODS
from enerf.conditioning.norms import FLOOR, P_NORMS
from tests.grids import latin, once, pairs

sizes = st.integers(2, 9)
seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=25, deadline=None)
every_p = pytest.mark.parametrize("p", P_NORMS)


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def positive(*shape: int, seed: int = 0, log_spread: float = 3.0) -> Tensor:
    return (log_spread * gaussian(*shape, seed=seed)).exp()


def slow_norm(values: list[float], p: float) -> float:
    return max(map(abs, values)) if p == math.inf else sum(abs(v) ** p for v in values) ** (1 / p)


# the norms


@every_p
@few
@given(n_out=sizes, n_in=sizes, seed=seeds)
def test_norms_are_those_of_the_definition(p: float, n_out: int, n_in: int, seed: int):
    weight = gaussian(n_out, n_in, seed=seed)
    rows = [slow_norm(weight[:, i].tolist(), p) for i in range(n_in)]
    columns = [slow_norm(weight[j].tolist(), p) for j in range(n_out)]
    for found, expected in ((norms.floored(weight, -2, p), rows), (norms.floored(weight, -1, p), columns)):
        torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0)


@every_p
@pytest.mark.parametrize(("method", "dim"), [("row", -2), ("column", -1)])
def test_rows_and_columns_have_unit_norm_in_every_norm(p: float, method: str, dim: int):
    made = METHODS[method](gaussian(3, 5, 4) * positive(4), "through", p)
    ones = torch.ones(made.norm(dim=dim).shape, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.vector_norm(made, p, dim=dim), ones, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("method", "p"), latin(2, ["row", "column", "row_column", "ruiz"], P_NORMS))
def test_derivatives_agree_with_differences_in_every_norm(method: str, p: float):
    weight = gaussian(4, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: METHODS[method](w, "through", p), weight)
    assert torch.autograd.gradgradcheck(lambda w: METHODS[method](w, "through", p), weight)


@every_p
@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_divides_by_its_divisors(p: float, method: str):
    weight = gaussian(2, 4, 4) + 3 * torch.eye(4)
    of_inputs, of_outputs = maps.divisors(weight, method, p)
    assert of_inputs.shape == (2, 1, 4)
    assert of_outputs.shape == (2, 4, 1)
    torch.testing.assert_close(METHODS[method](weight, "through", p), weight / of_inputs / of_outputs)


def test_unknown_norms_and_methods_are_refused():
    with pytest.raises(ValueError, match="p is 3; the norms are 1, 2 and inf"):
        maps.row(torch.ones(2, 2), p=3)
    with pytest.raises(ValueError, match="method is 'rows'; it must be one of row, column"):
        maps.divisors(torch.ones(2, 2), "rows")


# not finite


BROKEN = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("p", "broken", "method", "dim"),
    [
        (p, broken, *way)
        for p, broken, way in pairs(P_NORMS, [math.nan, math.inf, -math.inf], [("row", 1), ("column", 0)])
    ],
)
def test_a_row_that_is_not_finite_becomes_nan_and_no_other_changes(p: float, broken: float, method: str, dim: int):
    weight = gaussian(4, 5)
    expected = METHODS[method](weight, "through", p)
    weight[1, 2] = broken
    made = METHODS[method](weight, "through", p)
    index = 2 if dim == 1 else 1
    assert made.select(dim, index).isnan().all()
    others = [i for i in range(made.shape[dim]) if i != index]
    assert torch.equal(made.index_select(dim, torch.tensor(others)), expected.index_select(dim, torch.tensor(others)))


@pytest.mark.parametrize("method", ["row_column", "ruiz"])
def test_maps_of_both_sides_never_hide_what_is_not_finite(method: str):
    weight = gaussian(4, 5)
    weight[1, 2] = math.inf
    assert not METHODS[method](weight, "through").isfinite().all()


# ruiz


@every_p
@few
@given(n_out=sizes, n_in=sizes, seed=seeds)
@example(n_out=2, n_in=2, seed=1945)  # nearly triangular
def test_balanced_inputs_have_norm_one_and_outputs_share_one_norm(p: float, n_out: int, n_in: int, seed: int):
    weight = gaussian(n_out, n_in, seed=seed) * positive(n_in, seed=seed + 1) * positive(n_out, 1, seed=seed + 2)
    of_inputs = torch.linalg.vector_norm(weight, p, dim=0)
    of_outputs = torch.linalg.vector_norm(weight / of_inputs, p, dim=1)
    assume(min(float(of_inputs.min()), float(of_outputs.min())) > norms.FLOOR)  # what lies below takes no part
    made = maps.ruiz(weight, p=p, tolerance=1e-9, sweeps=2000)
    if p != math.inf and not ruiz.balance(weight, p, 1e-6, 2000).converged:  # the error falls by σ₂² per sweep
        powers = made.abs() ** p * (n_out / n_in) ** 0.5
        assert torch.linalg.svdvals(powers)[1] ** 2 > 0.99
        return
    inputs, outputs = torch.linalg.vector_norm(made, p, dim=0), torch.linalg.vector_norm(made, p, dim=1)
    torch.testing.assert_close(inputs, torch.ones_like(inputs), rtol=1e-6, atol=0)
    torch.testing.assert_close(outputs, torch.full_like(outputs, (n_in / n_out) ** (1 / p)), rtol=1e-6, atol=0)


def ruiz_by_definition(weight: Tensor, sweeps: int) -> Tensor:
    """Ruiz' own iteration in the Euclidean norm: divide by the roots of all norms at once, thousands of times."""
    made = weight
    target = (weight.shape[1] / weight.shape[0]) ** 0.5
    for _ in range(sweeps):
        rows, columns = made.norm(dim=0, keepdim=True), made.norm(dim=1, keepdim=True) / target
        made = made / rows.sqrt() / columns.sqrt()
    return made


@few
@given(n_out=sizes, n_in=sizes, seed=seeds)
def test_the_limit_is_that_of_ruiz_own_iteration(n_out: int, n_in: int, seed: int):
    weight = gaussian(n_out, n_in, seed=seed)
    weight = weight + 0.1 * weight.sign()  # no entry so small that both take for ever
    made = maps.ruiz(weight, tolerance=1e-12, sweeps=3000)
    torch.testing.assert_close(made, ruiz_by_definition(weight, 3000), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("p", [1.0, 2.0])
@few
@given(n_out=sizes, n_in=sizes, seed=seeds)
def test_positive_scaling_of_rows_and_columns_changes_nothing(p: float, n_out: int, n_in: int, seed: int):
    weight = gaussian(n_out, n_in, seed=seed)
    weight = weight + 0.1 * weight.sign()
    scaled = weight * positive(n_in, seed=seed + 1) * positive(n_out, 1, seed=seed + 2)
    for each in (weight, scaled):
        of_inputs = torch.linalg.vector_norm(each, p, dim=0)
        of_outputs = torch.linalg.vector_norm(each / of_inputs, p, dim=1)
        assume(min(float(of_inputs.min()), float(of_outputs.min())) > norms.FLOOR)  # what lies below takes no part
    exactly = {"p": p, "tolerance": 1e-12, "sweeps": 3000}
    torch.testing.assert_close(maps.ruiz(scaled, **exactly), maps.ruiz(weight, **exactly), rtol=1e-6, atol=1e-8)


@every_p
def test_balancing_twice_changes_nothing_beyond_the_tolerance(p: float):
    once = maps.ruiz(gaussian(6, 8), p=p, tolerance=1e-12, sweeps=2000)
    torch.testing.assert_close(maps.ruiz(once, p=p), once, rtol=1e-10, atol=0)


def test_a_matrix_of_a_batch_is_balanced_as_if_alone():
    weights = torch.stack([gaussian(6, 6, seed=s) * positive(6, seed=s) for s in range(5)])
    alone = torch.stack([maps.ruiz(w) for w in weights])
    assert torch.equal(maps.ruiz(weights), alone)
    mapped = torch.func.vmap(maps.ruiz)(weights)
    torch.testing.assert_close(mapped, alone, rtol=0, atol=0)


def test_a_triangle_cannot_be_balanced_and_its_inputs_have_their_norms_all_the_same():
    made = maps.ruiz(gaussian(5, 5).triu())
    assert made.isfinite().all()
    torch.testing.assert_close(made.norm(dim=0), torch.ones(5, dtype=torch.float64))
    assert (made.norm(dim=1) - 1).abs().max() > 0.01


@every_p
def test_zero_and_tiny_rows_are_divided_by_the_floor_and_take_no_part(p: float):
    weight = gaussian(5, 6)
    weight[:, 1], weight[3] = 0, 0
    weight[:, 4] *= 1e-3 * FLOOR
    made = maps.ruiz(weight, p=p)
    healthy = [0, 2, 3, 5]
    assert torch.equal(made[:, 1], torch.zeros(5, dtype=torch.float64))
    assert torch.equal(made[3], torch.zeros(6, dtype=torch.float64))
    assert made[:, 4].abs().max() < 0.5
    lengths = torch.linalg.vector_norm(made[:, healthy], p, dim=0)
    torch.testing.assert_close(lengths, torch.ones(4, dtype=torch.float64))


def test_balancing_lowers_kappa_of_scaled_matrices_to_that_of_the_plain_ones():
    for seed in range(10):
        weight = gaussian(8, 8, seed=seed)
        scaled = weight * positive(8, seed=seed) * positive(8, 1, seed=seed + 50)
        before, after, plain = (torch.linalg.cond(w) for w in (scaled, maps.ruiz(scaled), weight))
        assert after < before / 5
        assert after < 5 * plain


# the size


@pytest.mark.parametrize(("method", "magnitude"), once(METHODS, [1e-3, 1.0, 1e20]))
def test_kept_scale_is_the_frobenius_norm_of_the_raw_matrix(method: str, magnitude: float):
    weight = magnitude * (gaussian(3, 4, 4) + 3 * torch.eye(4))
    made = maps.keep_scale(METHODS[method](weight, "through"), weight)
    torch.testing.assert_close(torch.linalg.matrix_norm(made), torch.linalg.matrix_norm(weight), rtol=1e-12, atol=0)


def test_kept_scale_grows_with_the_raw_matrix():
    weight = gaussian(4, 6)
    made = maps.keep_scale(maps.row(weight), weight)
    torch.testing.assert_close(maps.keep_scale(maps.row(7 * weight), 7 * weight), 7 * made)


def test_the_zero_matrix_keeps_its_size():
    zero = torch.zeros(3, 3)
    assert torch.equal(maps.keep_scale(maps.row(zero), zero), zero)


# weight standardization


@few
@given(n_out=sizes, n_in=sizes, seed=seeds)
def test_standardized_outputs_have_mean_zero_and_variance_one(n_out: int, n_in: int, seed: int):
    made = baselines.standardized(gaussian(n_out, n_in, seed=seed))
    torch.testing.assert_close(made.mean(1), torch.zeros(n_out, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(made.var(1, correction=0), torch.ones(n_out, dtype=torch.float64))


def test_standardization_is_invariant_to_shifts_and_positive_scales_of_an_output():
    weight = gaussian(4, 6)
    torch.testing.assert_close(
        baselines.standardized(positive(4, 1) * weight + gaussian(4, 1)), baselines.standardized(weight)
    )
    assert torch.autograd.gradcheck(baselines.standardized, weight.requires_grad_())
    with pytest.raises(ValueError, match="p is 1"):
        baselines.standardized(weight, p=1)


# convergence


@every_p
def test_the_error_is_that_of_the_worst_norm_and_converged_says_whether_it_is_within_the_tolerance(p: float):
    weights = torch.stack([gaussian(5, 4, seed=seed) for seed in range(4)])
    for sweeps in (1, 3, 300):
        found = ruiz.balance(weights, p, tolerance=1e-6, sweeps=sweeps)
        made = maps.ruiz(weights, p=p, tolerance=1e-6, sweeps=sweeps)
        torch.testing.assert_close(weights / found.of_inputs / found.of_outputs, made)
        wanted = 1.0 if p == math.inf else (4 / 5) ** (1 / p)
        of_inputs = (torch.linalg.vector_norm(made, p, dim=-2) - 1).abs().amax(-1)
        of_outputs = (torch.linalg.vector_norm(made, p, dim=-1) / wanted - 1).abs().amax(-1)
        torch.testing.assert_close(found.error, torch.maximum(of_inputs, of_outputs))
        assert torch.equal(found.converged, found.error <= 1e-6)
    assert found.converged.all()


def test_slow_convergence_of_a_positive_matrix_is_told():
    slow = torch.tensor([[1.0, 0.01], [0.9, 1.0]], dtype=torch.float64)
    found = ruiz.balance(slow)
    assert not found.converged
    assert found.error.item() == pytest.approx(6.6e-3, rel=0.05)
    limit = maps.ruiz(slow, tolerance=1e-13, sweeps=3000).square()
    second = torch.linalg.svdvals(limit)[1].item()
    errors = [ruiz.balance(slow, sweeps=n).error.item() for n in (30, 31, 32)]
    assert errors[1] / errors[0] == pytest.approx(second**2, rel=1e-2)
    assert errors[2] / errors[1] == pytest.approx(second**2, rel=1e-2)
    assert ruiz.balance(slow, sweeps=500).converged


def test_rows_at_the_floor_take_no_part_in_the_error_and_nan_stays():
    weight = gaussian(5, 6)
    weight[:, 1], weight[3] = 0, 0
    assert ruiz.balance(weight, sweeps=500).converged
    weight[0, 0] = math.nan
    found = ruiz.balance(weight)
    assert found.error.isnan()
    assert not found.converged


def test_with_rows_at_the_floor_the_factors_stand_still():
    weight = gaussian(5, 6, dtype=torch.float32)
    weight[:, 1], weight[3] = 0, 0
    few, many = (ruiz.ruiz_divisors(weight, sweeps=sweeps) for sweeps in (200, 5000))
    for a, b in zip(few, many, strict=True):
        torch.testing.assert_close(a, b)
        assert b.isfinite().all()
