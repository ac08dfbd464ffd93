"""Orthogonal weights: the polar factor and its gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from enerf.conditioning import bake, computed_once, condition
from enerf.conditioning.orthogonal import orthogonal

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7))


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_svd(weight: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    return u @ vh


@given(shape=SHAPES, seed=st.integers(0, 99), scale=st.sampled_from([1e-3, 1.0, 1e30]))
def test_the_result_is_the_polar_factor_of_the_singular_value_decomposition(shape, seed, scale):
    weight = drawn(*shape, seed=seed, scale=scale)
    sizes = torch.linalg.svdvals(weight)
    found = orthogonal(weight)
    # Gram matrices square the condition number
    tolerance = 1e-14 * float(sizes[0] / sizes[-1]) ** 2 + 1e-13
    torch.testing.assert_close(found, by_svd(weight), atol=tolerance, rtol=0)


def test_no_orthogonal_matrix_is_nearer():
    weight, nearest = drawn(5, 3), orthogonal(drawn(5, 3))
    for seed in range(1, 50):
        other = by_svd(nearest + 0.1 * drawn(5, 3, seed=seed))
        assert (weight - nearest).norm() < (weight - other).norm()


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3), (1, 4), (4, 1)])
def test_gradients_are_those_of_finite_differences(shape):
    assert torch.autograd.gradcheck(orthogonal, (drawn(*shape).requires_grad_(),))


def test_the_gradient_does_not_change_the_scale():
    weight = drawn(6, 4).requires_grad_()
    (orthogonal(weight) * drawn(6, 4, seed=1)).sum().backward()
    assert abs((weight.grad * weight).sum()) < 1e-12


def test_a_detached_factor_is_a_constant():
    weight, other = drawn(6, 4).requires_grad_(), drawn(6, 4, seed=1)
    (orthogonal(weight, "detached") * other).sum().backward()
    inverse = torch.linalg.pinv(weight.detach()) @ orthogonal(weight.detach())
    torch.testing.assert_close(weight.grad, other @ inverse)
    torch.testing.assert_close(orthogonal(weight, "detached"), orthogonal(weight))


def test_zeros_stay_zeros_and_what_is_not_finite_becomes_nan():
    weight = drawn(3, 4, 4)
    weight[0] = 0.0
    weight[1, 2, 3] = torch.inf
    found = orthogonal(weight)
    assert not found[0].any()
    assert found[1].isnan().all()
    torch.testing.assert_close(found[2], by_svd(weight[2]))


def test_functional_transforms():
    weights = drawn(3, 4, 4)
    torch.testing.assert_close(torch.func.vmap(orthogonal)(weights), orthogonal(weights))
    of_one = torch.func.grad(lambda w: orthogonal(w)[0, 0])(weights[0])
    raw = weights[0].clone().requires_grad_()
    orthogonal(raw)[0, 0].backward()
    torch.testing.assert_close(of_one, raw.grad)


def test_a_conditioned_layer_has_condition_number_1_at_the_scale_of_its_raw_weights():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8)).double()
    raw = net[2].weight.detach().clone()
    assert condition(net, "orthogonal", ["0", "2"], scale="learned") == ["0", "2"]
    values = torch.linalg.svdvals(net[2].weight)
    torch.testing.assert_close(values, values[:1].expand(8))
    torch.testing.assert_close(net[2].weight.norm(), raw.norm())
    x = drawn(5, 6)
    with computed_once(net):
        net(x).square().mean().backward()
    assert net[2].parametrizations.weight.original.grad.abs().sum() > 0
    before = net(x)
    assert torch.equal(bake(net)(x), before)


def test_the_norm_has_no_order():
    with pytest.raises(ValueError, match="p is 1; the polar factor has no norm of rows"):
        orthogonal(torch.ones(2, 2), p=1)
