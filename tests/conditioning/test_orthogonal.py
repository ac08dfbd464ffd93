"""Orthogonal weights: the polar factor and its gradient."""

import subprocess
import sys

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


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3), (1, 4), (4, 1)])
def test_second_derivatives_are_those_of_finite_differences(shape):
    weight, grad = drawn(*shape).requires_grad_(), drawn(*shape, seed=1).requires_grad_()
    assert torch.autograd.gradgradcheck(orthogonal, (weight,), (grad,))


def test_third_derivatives_are_those_of_finite_differences():
    pulled, direction = drawn(3, 2, seed=1), drawn(3, 2, seed=2)

    def second(weight: Tensor) -> Tensor:
        (first,) = torch.autograd.grad((orthogonal(weight) * pulled).sum(), weight, create_graph=True)
        return torch.autograd.grad((first * direction).sum(), weight, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, (drawn(3, 2).requires_grad_(),))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
def test_forward_mode_and_forward_over_reverse_give_the_same_derivatives(shape):
    weight, direction, pulled = drawn(*shape), drawn(*shape, seed=1), drawn(*shape, seed=2)

    def value(w: Tensor) -> Tensor:
        return (orthogonal(w) * pulled).sum() ** 2

    gradient = torch.func.grad(value)(weight)
    assert float(torch.func.jvp(value, (weight,), (direction,))[1]) == pytest.approx(
        float((gradient * direction).sum())
    )
    forward = torch.func.jvp(torch.func.grad(value), (weight,), (direction,))[1]
    raw = weight.clone().requires_grad_()
    (first,) = torch.autograd.grad(value(raw), raw, create_graph=True)
    torch.testing.assert_close(forward, torch.autograd.grad((first * direction).sum(), raw)[0])


def test_a_gradient_with_a_graph_is_the_one_without():
    weight, pulled = drawn(2, 5, 3).requires_grad_(), drawn(2, 5, 3, seed=1)
    found = [
        torch.autograd.grad((orthogonal(weight) * pulled).sum(), weight, create_graph=more)[0] for more in (False, True)
    ]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size", [0.0, 1e-9])
def test_second_derivatives_at_the_floor_are_finite(size):
    weight = (size * drawn(4, 3)).requires_grad_()
    (first,) = torch.autograd.grad((orthogonal(weight) * drawn(4, 3, seed=1)).sum(), weight, create_graph=True)
    first.square().sum().backward()
    assert weight.grad.isfinite().all()


def test_a_loss_on_gradients_by_points_trains_orthogonal_weights():
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    condition(net, "orthogonal", ["0", "2"])
    points = drawn(4, 3, seed=3).requires_grad_()

    def eikonal(raw: Tensor) -> Tensor:
        key = "2.parametrizations.weight.original"
        (slope,) = torch.autograd.grad(
            torch.func.functional_call(net, {key: raw}, points).sum(), points, create_graph=True
        )
        return (slope.norm(dim=-1) - 1).square().mean()

    assert torch.autograd.gradcheck(eikonal, (drawn(6, 6, seed=4).requires_grad_(),))


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


COMPILED = """
import torch
from enerf.conditioning.orthogonal import orthogonal
weight = torch.randn(5, 3, dtype=torch.float64).requires_grad_()
pulled = torch.randn(5, 3, dtype=torch.float64)
traced = torch.compile(orthogonal, backend="aot_eager", fullgraph=True)
found = [torch.autograd.grad((f(weight) * pulled).sum(), weight)[0] for f in (traced, orthogonal)]
torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)
print("the same")
"""


@pytest.mark.slow
def test_it_compiles_to_one_graph_with_its_gradient():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr


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


def test_layers_of_lower_rank_are_left_out_with_a_reason():
    net = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8))
    with torch.no_grad():
        net[0].weight[:, 1] = net[0].weight[:, 0]
    done = condition(net, "orthogonal")
    assert done == ["1"]
    assert "it does not have full rank" in done.left_out["0"]
    with pytest.raises(ValueError, match="0 cannot be conditioned: it does not have full rank"):
        condition(net, "orthogonal", ["0"])
    assert condition(net, "orthogonal", ["0"], zero_rows="conditioned") == ["0"]
