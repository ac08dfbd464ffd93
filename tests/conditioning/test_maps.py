"""Tests of the pure maps."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.nn import functional

from enerf.conditioning import maps
from enerf.conditioning.baselines import standardized
from enerf.conditioning.maps import FLOOR, METHODS
from enerf.conditioning.orthogonal import orthogonal

NORMS = ("row", "column", "row_column")
ALL = tuple(METHODS)

sizes = st.integers(2, 7)
seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=25, deadline=None)


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def pulled_back(method: str, weight: Tensor, cotangent: Tensor, gradient: str = "through") -> Tensor:
    """The gradient of Σ cotangent · method(weight) with respect to ``weight``."""
    leaf = weight.clone().requires_grad_()
    (pulled,) = torch.autograd.grad((METHODS[method](leaf, gradient) * cotangent).sum(), leaf)
    return pulled


def kappa(matrix: Tensor) -> Tensor:
    values = torch.linalg.svdvals(matrix)
    return values[..., 0] / values[..., -1]


# the paper's sentences


@few
@given(n_out=sizes, n_in=sizes, seed=seeds)
def test_row_is_the_papers_product_with_the_inverse_row_norms(n_out: int, n_in: int, seed: int):
    weight = gaussian(n_out, n_in, seed=seed)
    paper_w = weight.T
    product = torch.empty_like(paper_w)
    for i in range(n_in):
        length = sum(float(entry) ** 2 for entry in paper_w[i]) ** 0.5
        for j in range(n_out):
            product[i, j] = (1 / length) * paper_w[i, j]
    torch.testing.assert_close(maps.row(weight), product.T, rtol=1e-13, atol=0)


@few
@given(n_out=sizes, n_in=sizes, seed=seeds)
def test_column_is_the_papers_product_with_the_inverse_column_norms(n_out: int, n_in: int, seed: int):
    weight = gaussian(n_out, n_in, seed=seed)
    paper_w = weight.T
    preconditioner = torch.diag(torch.stack([1 / torch.linalg.vector_norm(paper_w[:, j]) for j in range(n_out)]))
    torch.testing.assert_close(maps.column(weight), (paper_w @ preconditioner).T, rtol=1e-13, atol=0)


@few
@given(n=sizes, seed=seeds)
def test_jacobi_is_the_papers_product_with_the_inverse_diagonal(n: int, seed: int):
    weight = gaussian(n, n, seed=seed)
    paper_w = weight.T
    product = torch.linalg.inv(torch.diag(torch.diag(paper_w))) @ paper_w
    torch.testing.assert_close(maps.jacobi(weight), product.T, rtol=1e-12, atol=0)


def test_row_column_equilibrates_rows_first():
    weight = gaussian(4, 6)
    both = maps.row_column(weight)
    assert torch.equal(both, maps.column(maps.row(weight)))
    assert not torch.allclose(both, maps.row(maps.column(weight)))


def test_a_row_equilibrated_layer_is_the_raw_layer_with_scaled_inputs():
    weight, inputs = gaussian(5, 7), gaussian(11, 7, seed=1)
    conditioned = functional.linear(inputs, maps.row(weight))
    scaled = functional.linear(inputs / weight.norm(dim=0), weight)
    torch.testing.assert_close(conditioned, scaled, rtol=1e-12, atol=1e-13)


def test_a_column_equilibrated_layer_is_the_raw_layer_with_scaled_outputs():
    weight, inputs = gaussian(5, 7), gaussian(11, 7, seed=1)
    conditioned = functional.linear(inputs, maps.column(weight))
    torch.testing.assert_close(conditioned, functional.linear(inputs, weight) / weight.norm(dim=1))


# algebra


@pytest.mark.parametrize("method", ["row", "column", "jacobi"])
@few
@given(n=sizes, seed=seeds)
def test_the_map_is_idempotent(method: str, n: int, seed: int):
    once = METHODS[method](gaussian(n, n, seed=seed), "through")
    torch.testing.assert_close(METHODS[method](once, "through"), once, rtol=1e-13, atol=0)


def test_row_column_is_not_idempotent():
    once = maps.row_column(gaussian(4, 6))
    assert not torch.allclose(maps.row_column(once), once)


@pytest.mark.parametrize("method", ["row", "row_column", "jacobi"])
@few
@given(n=sizes, seed=seeds, log_scale=st.floats(-3, 6))
def test_positive_row_scaling_changes_nothing(method: str, n: int, seed: int, log_scale: float):
    weight = gaussian(n, n, seed=seed) + torch.eye(n) * 4
    scales = 10 ** (log_scale * gaussian(n, seed=seed + 1).sigmoid())
    torch.testing.assert_close(
        METHODS[method](weight * scales, "through"), METHODS[method](weight, "through"), rtol=1e-12, atol=0
    )


def test_positive_column_scaling_does_not_change_column():
    weight, scales = gaussian(4, 6), torch.tensor([[1e-3], [1.0], [7.0], [1e5]], dtype=torch.float64)
    torch.testing.assert_close(maps.column(weight * scales), maps.column(weight))


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("gradient", maps.GRADIENTS)
def test_batch_axes_are_independent_matrices(method: str, gradient: str):
    weights = gaussian(2, 3, 5, 5)
    batched = METHODS[method](weights, gradient)
    for i in range(2):
        for j in range(3):
            assert torch.equal(batched[i, j], METHODS[method](weights[i, j], gradient))


@pytest.mark.parametrize("method", ALL)
def test_dtype_is_kept(method: str):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert METHODS[method](gaussian(3, 3, dtype=dtype), "through").dtype == dtype


# gradients


@pytest.mark.parametrize(("method", "dim"), [("row", 0), ("column", 1)])
@few
@given(n_out=sizes, n_in=sizes, seed=seeds)
def test_the_gradient_is_orthogonal_to_each_row(method: str, dim: int, n_out: int, n_in: int, seed: int):
    weight, cotangent = gaussian(n_out, n_in, seed=seed), gaussian(n_out, n_in, seed=seed + 1)
    pulled = pulled_back(method, weight, cotangent)
    cosines = (pulled * weight).sum(dim) / (cotangent.norm(dim=dim) * weight.norm(dim=dim))
    assert cosines.abs().max() * weight.norm(dim=dim).min() < 1e-12


def test_through_is_detached_minus_its_part_along_each_row():
    weight, cotangent = gaussian(4, 6), gaussian(4, 6, seed=1)
    detached = pulled_back("row", weight, cotangent, "detached")
    torch.testing.assert_close(detached, cotangent / weight.norm(dim=0))
    unit = weight / weight.norm(dim=0)
    along = unit * (unit * detached).sum(0)
    torch.testing.assert_close(pulled_back("row", weight, cotangent), detached - along)


@pytest.mark.parametrize("method", ALL)
def test_detached_differs_in_gradients_and_not_in_values(method: str):
    weight, cotangent = gaussian(5, 5), gaussian(5, 5, seed=1)
    assert torch.equal(METHODS[method](weight, "through"), METHODS[method](weight, "detached"))
    detached = pulled_back(method, weight, cotangent, "detached")
    torch.testing.assert_close(detached, cotangent * METHODS[method](weight, "through") / weight)
    assert not torch.allclose(detached, pulled_back(method, weight, cotangent))


@pytest.mark.parametrize("method", ALL)
def test_first_and_second_derivatives_agree_with_differences(method: str):
    weight = gaussian(2, 4, 4) + 2 * torch.eye(4)
    weight[0, :, 1] *= 1e-2
    if method in NORMS:
        weight = weight[..., :3, :]
    weight.requires_grad_()

    def apply(w: Tensor) -> Tensor:
        return METHODS[method](w, "through")

    assert torch.autograd.gradcheck(apply, weight)
    assert torch.autograd.gradgradcheck(apply, weight)


# the closed form


def plain_formula(weight: Tensor, dim: int) -> Tensor:
    """Row (dim −2) or column (dim −1) equilibration as autograd sees the sentence, without the care for magnitudes.

    The root is taken where the square is above the floor's only: √ has no derivative at 0.
    """
    squares = weight.square().sum(dim, keepdim=True)
    healthy = squares > FLOOR**2
    return weight / torch.where(healthy, torch.where(healthy, squares, 1.0).sqrt(), FLOOR)


UNITS = {"row": -2, "column": -1}
units = pytest.mark.parametrize(("method", "dim"), UNITS.items())
# torch's own forward mode compiles its decompositions by a deprecated call
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def with_short_rows(dim: int, batch: tuple[int, ...] = ()) -> Tensor:
    """A matrix of rows (along dim) of healthy length, short ones, and zero ones."""
    weight = gaussian(*batch, 5, 4)
    lengths = torch.tensor([1.0, 0.3 * FLOOR / 4, 0.0, 1e3, 1e-3 * FLOOR], dtype=torch.float64)
    return weight * (lengths[:4] if dim == -2 else lengths[:, None])


@units
def test_the_gradient_is_autograds_of_the_plain_formula(method: str, dim: int):
    weight, cotangent = with_short_rows(dim), gaussian(5, 4, seed=1)
    leaf = weight.clone().requires_grad_()
    (exact,) = torch.autograd.grad((plain_formula(leaf, dim) * cotangent).sum(), leaf)
    found = pulled_back(method, weight, cotangent)
    torch.testing.assert_close(METHODS[method](weight, "through"), plain_formula(weight, dim), rtol=1e-14, atol=0)
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-11)
    short = (weight.norm(dim=dim) < FLOOR).nonzero().flatten().tolist()
    assert len(short) >= 2
    for i in short:
        assert torch.equal(found.select(-3 - dim, i), cotangent.select(-3 - dim, i) / FLOOR)


@units
@forward_mode
def test_derivatives_are_right_above_and_below_the_floor(method: str, dim: int):
    weight = gaussian(3, 4)
    lengths = torch.tensor([1.0, 0.02 * FLOOR, 7.0, 0.0], dtype=torch.float64)
    weight = (weight * (lengths if dim == -2 else lengths[:3, None])).requires_grad_()
    scale = (lengths if dim == -2 else lengths[:3, None]).clamp(min=FLOOR)

    def scaled(w: Tensor) -> Tensor:  # so that finite differences fit rows of every length
        return METHODS[method](w * scale, "through")

    start = (weight / scale).detach().requires_grad_()
    assert torch.autograd.gradcheck(scaled, start, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(scaled, start, check_fwd_over_rev=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("size", [5, 130])  # rows of large matrices are divided by a fused kernel
@pytest.mark.parametrize("method", [*ALL, "weight_standardisation", "orthogonal"])
def test_forward_mode_of_a_gradient_needs_no_gradient_mode(method: str, size: int):
    function = {**METHODS, "weight_standardisation": standardized, "orthogonal": orthogonal}[method]
    weight, direction, factors = (gaussian(size, size, seed=seed) for seed in range(3))
    if method == "jacobi":
        weight.diagonal().add_(torch.sign(weight.diagonal()) * 2)

    def value(at: Tensor) -> Tensor:
        return (function(at) * factors).square().sum()

    leaf = weight.clone().requires_grad_()
    (pulled,) = torch.autograd.grad(value(leaf), leaf, create_graph=True)
    (expected,) = torch.autograd.grad((pulled * direction).sum(), leaf)
    with torch.no_grad():
        found = torch.func.jvp(torch.func.jacrev(value), (weight,), (direction,))[1]
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(weight.clone().requires_grad_(), direction)
        (pulled,) = torch.autograd.grad(value(dual), dual)
        tangent = torch.autograd.forward_ad.unpack_dual(pulled).tangent
    assert expected.abs().max() > 1e-3
    for other in (found, tangent):
        torch.testing.assert_close(other, expected, rtol=0, atol=1e-7 * float(expected.abs().max()))


@units
@forward_mode
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd, torch.func.hessian])
def test_functional_transforms_agree_with_the_plain_formula(method: str, dim: int, transform: Callable):
    weight, cotangent = with_short_rows(dim), gaussian(5, 4, seed=1)

    def seen(apply: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        if transform is torch.func.grad or transform is torch.func.hessian:
            return transform(lambda w: (apply(w) * cotangent).sum().sin())
        return transform(apply)

    found = seen(lambda w: METHODS[method](w, "through"))(weight)
    exact = seen(lambda w: plain_formula(w, dim))(weight)
    assert found.norm() > 0
    assert (found - exact).norm() <= 1e-12 * exact.norm()
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)


@units
@forward_mode
def test_tangents_agree_with_the_plain_formula(method: str, dim: int):
    weight, tangent = with_short_rows(dim), gaussian(5, 4, seed=2)
    found = torch.func.jvp(lambda w: METHODS[method](w, "through"), (weight,), (tangent,))
    exact = torch.func.jvp(lambda w: plain_formula(w, dim), (weight,), (tangent,))
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@units
@pytest.mark.parametrize("in_dim", [0, 1])
def test_mapping_over_a_batch_is_a_batch(method: str, dim: int, in_dim: int):
    weights, cotangents = with_short_rows(dim, (3,)), gaussian(3, 5, 4, seed=1)
    mapped = torch.func.vmap(lambda w: METHODS[method](w, "through"), in_dims=in_dim)(weights.movedim(0, in_dim))
    assert torch.equal(mapped, METHODS[method](weights, "through"))
    pull = torch.func.vmap(torch.func.grad(lambda w, g: (METHODS[method](w, "through") * g).sum()))
    torch.testing.assert_close(pull(weights, cotangents), pulled_back(method, weights, cotangents))


# the floor


@pytest.mark.parametrize("method", ALL)
def test_the_zero_matrix_stays_zero_and_its_derivatives_are_finite(method: str):
    weight = torch.zeros(3, 3, requires_grad=True)
    image = METHODS[method](weight, "through")
    assert torch.equal(image, torch.zeros(3, 3))
    (first,) = torch.autograd.grad(image.sum(), weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight)
    assert first.isfinite().all()
    assert second.isfinite().all()


def test_a_zero_row_stays_zero_and_leaves_its_neighbours_alone():
    weight = gaussian(4, 6)
    weight[:, 2] = 0
    image = maps.row(weight)
    assert torch.equal(image[:, 2], torch.zeros(4, dtype=torch.float64))
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(image[:, others], maps.row(weight[:, others]), rtol=0, atol=0)


def test_below_the_floor_the_divisor_is_the_floor():
    short = torch.tensor([[0.3], [-0.4]], dtype=torch.float64) * FLOOR
    torch.testing.assert_close(maps.row(short), short / FLOOR, rtol=1e-15, atol=0)
    torch.testing.assert_close(maps.column(short.T), short.T / FLOOR, rtol=1e-15, atol=0)


@pytest.mark.parametrize("method", ["row", "column"])
@pytest.mark.parametrize("gradient", maps.GRADIENTS)
@few
@given(seed=seeds, exponents=st.lists(st.floats(-12, 4), min_size=4, max_size=4))
def test_the_gradient_is_bounded_by_one_over_the_floor(method: str, gradient: str, seed: int, exponents: list[float]):
    weight = gaussian(4, 4, seed=seed) * 10 ** torch.tensor(exponents, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda w: METHODS[method](w, gradient), weight)
    assert torch.linalg.matrix_norm(jacobian.reshape(16, 16), ord=2) <= (1 + 1e-9) / FLOOR


def test_jacobi_keeps_the_sign_of_the_diagonal_and_calls_zero_positive():
    weight = torch.tensor([[0.0, 1.0, 1.0], [1.0, -1e-9, 1.0], [1.0, 1.0, -2.0]], dtype=torch.float64)
    divisor = weight / maps.jacobi(weight)
    torch.testing.assert_close(divisor[[1, 0, 0], [0, 1, 2]], torch.tensor([FLOOR, -FLOOR, -2.0], dtype=torch.float64))


magnitudes = [0.0, 1e-45, 1e-38, 1e-30, 1e-12, FLOOR, 1e-3, 1.0, 1e6, 1e15, 1e20, 1e30]


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("gradient", maps.GRADIENTS)
def test_values_and_gradients_are_finite_at_every_magnitude(method: str, gradient: str):
    for magnitude in magnitudes:
        weight = magnitude * (gaussian(6, 6, dtype=torch.float32) + 3 * torch.eye(6))
        weight.requires_grad_()
        image = METHODS[method](weight, gradient)
        cotangent = gaussian(6, 6, seed=1, dtype=torch.float32)
        (first,) = torch.autograd.grad((image * cotangent).sum(), weight, create_graph=gradient == "through")
        assert image.isfinite().all(), magnitude
        assert first.isfinite().all(), magnitude
        if gradient == "through":
            (second,) = torch.autograd.grad((first * cotangent).sum(), weight)
            assert second.isfinite().all(), magnitude


@pytest.mark.parametrize("method", NORMS)
@given(entries=st.lists(st.sampled_from([s * m for m in magnitudes for s in (1, -1)]), min_size=12, max_size=12))
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_are_finite_when_magnitudes_mix(method: str, entries: list[float]):
    weight = torch.tensor(entries, dtype=torch.float32).reshape(3, 4)
    image = METHODS[method](weight, "through")
    assert image.isfinite().all()
    assert image.abs().max() <= 1 + 1e-6
    assert pulled_back(method, weight, gaussian(3, 4, dtype=torch.float32)).isfinite().all()


@pytest.mark.parametrize("magnitude", [1e-4, 1.0, 1e15, 1e30])
def test_the_float32_gradient_is_right_at_every_magnitude(magnitude: float):
    weight, cotangent = gaussian(5, 4, dtype=torch.float32), gaussian(5, 4, seed=1, dtype=torch.float32)
    expected = pulled_back("row", weight.double(), cotangent.double()).float()
    torch.testing.assert_close(
        pulled_back("row", weight * magnitude, cotangent) * magnitude, expected, rtol=1e-5, atol=1e-6
    )


# condition numbers


@few
@given(n_out=sizes, n_in=sizes, seed=seeds)
def test_van_der_sluis_no_diagonal_is_better_by_more_than_the_root_of_n(n_out: int, n_in: int, seed: int):
    weight = gaussian(n_out, n_in, seed=seed)
    exponents = torch.linspace(0, 2, 200, dtype=torch.float64)[:, None, None]
    diagonals = torch.exp(exponents * gaussian(200, 1, n_in, seed=seed + 1))
    best = kappa(torch.cat([weight[None] * diagonals, maps.row(weight)[None]])).min()
    assert kappa(maps.row(weight)) <= n_in**0.5 * best * (1 + 1e-9)


def test_row_equilibration_may_raise_kappa():
    paper_w = torch.tensor([[-3, -1, -3], [-3, -1, -2], [1, 1, 1]], dtype=torch.float64)
    before, after = kappa(paper_w), kappa(maps.row(paper_w.T))
    assert before.item() == pytest.approx(10.7577, abs=1e-4)
    assert after.item() == pytest.approx(12.3425, abs=1e-4)


def test_among_random_matrices_kappa_mostly_falls_but_not_always():
    weights = gaussian(3000, 8, 8)
    rose = (kappa(maps.row(weights)) > kappa(weights)).sum().item()
    assert 100 < rose < 400


def test_a_badly_scaled_matrix_gains_most():
    weight = gaussian(16, 16) * torch.logspace(0, 6, 16, dtype=torch.float64)
    assert kappa(maps.row(weight)) < 1e-3 * kappa(weight)


# errors


def test_jacobi_refuses_matrices_that_are_not_square():
    with pytest.raises(ValueError, match="divides by the diagonal: 3 × 4 is not square"):
        maps.jacobi(gaussian(3, 4))


@pytest.mark.parametrize("method", ALL)
def test_an_unknown_gradient_is_refused(method: str):
    with pytest.raises(ValueError, match="gradient is 'around'; it must be one of through, detached"):
        METHODS[method](gaussian(3, 3), "around")


@pytest.mark.parametrize("method", ALL)
def test_shapes_are_executed(method: str):
    with pytest.raises(TypeCheckError):
        METHODS[method](torch.ones(3), "through")
    with pytest.raises(TypeCheckError):
        METHODS[method](torch.ones(3, 3, dtype=torch.long), "through")
