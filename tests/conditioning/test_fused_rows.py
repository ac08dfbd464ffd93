"""Tests of unit rows of several matrices at once: values and gradients of ``norms.unit``, and where it applies."""

import pytest
import torch
from torch import Tensor, nn

from enerf.conditioning import fused_rows, layers, norms
from enerf.conditioning.weight_cache import computed_once

SHAPES = [(128, 128), (256, 64), (64, 260), (128, 129)]
axes = pytest.mark.parametrize("dim", [-2, -1])


def matrices(dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in SHAPES]


@axes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_one_matrix_bit_for_bit(dim: int, dtype: torch.dtype):
    weights, pulled = matrices(dtype), matrices(dtype, seed=1)
    units = fused_rows.unit_each(weights, dim)
    assert units is not None
    found = torch.autograd.grad(units, weights, [g.detach() for g in pulled])
    for weight, unit, gradient, pull in zip(weights, units, found, pulled, strict=True):
        exact = norms.unit(weight, dim, "through")
        assert torch.equal(unit, exact)
        assert torch.equal(gradient, torch.autograd.grad(exact, weight, pull.detach())[0])


@axes
@pytest.mark.parametrize("entry", [float("nan"), float("inf"), 1e20, 0.0])
def test_one_unusual_row_is_left_to_the_reference_implementation(dim: int, entry: float):
    weights = matrices(torch.float32)
    with torch.no_grad():
        weights[1].select(-1 if dim == -2 else 0, 3).fill_(entry)
    assert fused_rows.unit_each(weights, dim) is None
    net = nn.Sequential(*(nn.Linear(weight.shape[1], weight.shape[0]) for weight in weights))
    layers.condition(net, "row" if dim == -2 else "column", "all")
    for layer, weight in zip(net, weights, strict=True):
        layer.parametrizations.weight.original = nn.Parameter(weight.detach())
    with computed_once(net):
        inside = [layer.weight.detach() for layer in net]
    assert all(torch.equal(w.nan_to_num(7), layer.weight.nan_to_num(7)) for w, layer in zip(inside, net, strict=True))


def test_matrices_that_no_loss_reaches_get_no_gradient_and_others_their_own():
    weights = matrices(torch.float64)
    units = fused_rows.unit_each(weights, -2)
    assert units is not None
    units[2].square().mul(torch.arange(260)).sum().backward()
    assert [weight.grad is None for weight in weights] == [True, True, False, True]
    weight = weights[2].detach().requires_grad_()
    norms.unit(weight, -2, "through").square().mul(torch.arange(260)).sum().backward()
    assert torch.equal(weights[2].grad, weight.grad)


def test_a_second_derivative_is_refused():
    weights = matrices(torch.float64)
    units = fused_rows.unit_each(weights, -2)
    assert units is not None
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(units[0].square().sum(), weights[0], create_graph=True)


def test_a_change_of_the_weights_before_the_backward_pass_is_an_error():
    weights = matrices(torch.float64)
    units = fused_rows.unit_each(weights, -2)
    assert units is not None
    with torch.no_grad():
        weights[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        units[0].sum().backward()


def test_computed_once_computes_large_matrices_in_one_node_of_the_graph(monkeypatch: pytest.MonkeyPatch):
    net = nn.Sequential(*(nn.Linear(128, 128) for _ in range(3)), nn.Linear(128, 256))
    layers.condition(net, "row", "all")
    calls: list[int] = []
    unit_each = fused_rows.unit_each
    monkeypatch.setattr(
        fused_rows, "unit_each", lambda weights, dim: calls.append(len(weights)) or unit_each(weights, dim)
    )
    with computed_once(net):
        pass
    assert calls == [4]
