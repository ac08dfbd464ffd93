"""Tests of floored norms and of division by them: the fast paths agree with the reference implementation."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from enerf.conditioning import layers, norms
from enerf.conditioning.norms import FLOOR
from enerf.conditioning.weight_cache import computed_once

MAGNITUDES = [0.0, 1e-45, 1e-30, 0.5 * FLOOR, FLOOR, 1.5 * FLOOR, 3 * FLOOR, 1.0, 1e6, 1e15, 1e18, 1e25, 1e37]
SPECIAL = [math.inf, -math.inf, math.nan]
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2}
dims = pytest.mark.parametrize("dim", [-2, -1])
types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
# torch's own forward mode compiles its decompositions by a deprecated call
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def reference(weight: Tensor, dim: int) -> Tensor:
    return weight / norms.scaled_norm(weight, dim)


def unit(weight: Tensor, dim: int) -> Tensor:
    return norms.unit(weight, dim, "through")


def pulled_back(apply: Callable[[Tensor, int], Tensor], weight: Tensor, dim: int, cotangent: Tensor) -> Tensor:
    leaf = weight.detach().requires_grad_()
    return torch.autograd.grad(apply(leaf, dim), leaf, cotangent)[0]


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the calls of torch's fused operation and of its gradient."""
    calls: list[str] = []

    def record(owner: Any, name: str) -> None:
        wrapped = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: (calls.append(name), wrapped(*args))[1])

    record(torch, "_weight_norm_interface")
    record(norms, "_fused_backward")
    return calls


@pytest.fixture
def fused_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "FUSED_SIZE", 1)


# norms


@dims
@pytest.mark.parametrize("dtype", ROUNDING)
@given(sizes=st.lists(st.sampled_from(MAGNITUDES), min_size=1, max_size=5), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_norms_of_rows_of_all_magnitudes_are_those_of_the_reference(
    dim: int, dtype: torch.dtype, sizes: list[float], seed: int
):
    weight = gaussian(7, len(sizes), seed=seed) * torch.tensor(sizes, dtype=torch.float64)
    weight = (weight if dim == -2 else weight.T).to(dtype).requires_grad_()
    found, expected = norms.floored(weight, dim), norms.scaled_norm(weight, dim)
    torch.testing.assert_close(found, expected, rtol=ROUNDING[dtype], atol=0)
    far = (expected < 0.9 * FLOOR) | (expected > 1.1 * FLOOR)  # at the floor, rounding decides whether a slope is zero
    slope, exact = (torch.autograd.grad(norm.where(far, 0).sum(), weight)[0] for norm in (found, expected))
    torch.testing.assert_close(slope, exact, rtol=4 * ROUNDING[dtype], atol=4 * ROUNDING[dtype])


@dims
@pytest.mark.parametrize("special", SPECIAL)
def test_only_the_rows_that_are_not_finite_are_nan(dim: int, special: float):
    weight = gaussian(150, 120)
    plain = unit(weight, dim)
    weight[3, 5] = special
    found, is_hit = unit(weight, dim), torch.zeros(150, 120, dtype=torch.bool)
    is_hit.select(-3 - dim, 5 if dim == -2 else 3).fill_(True)
    assert torch.equal(found.isnan(), is_hit)
    torch.testing.assert_close(found[~is_hit], plain[~is_hit], rtol=1e-14, atol=0)


@dims
@types
def test_the_norm_of_a_row_is_bit_for_bit_the_same_beside_rows_of_any_magnitude(dim: int, dtype: torch.dtype):
    weight = gaussian(3, 6, 5, dtype=dtype)
    alone = norms.floored(weight, dim)
    weight[1] *= 1e-9
    beside = norms.floored(weight, dim)
    assert torch.equal(beside[::2], alone[::2])
    assert torch.equal(beside[1], norms.scaled_norm(weight[1], dim))
    assert torch.equal(torch.func.vmap(lambda w: norms.floored(w, dim))(weight), beside)


def test_a_norm_on_the_floor_has_slope_zero_and_no_nan():
    weight = torch.zeros(3, 4, dtype=torch.float64)
    weight[:, 1:] = gaussian(3, 3)
    weight.requires_grad_()
    (slope,) = torch.autograd.grad(norms.floored(weight, -2).sum(), weight)
    assert torch.equal(slope[:, 0], torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(slope[:, 1:], unit(weight, -2)[:, 1:].detach(), rtol=1e-14, atol=0)


# the fused operation


@dims
@types
@pytest.mark.parametrize("magnitude", [4 * FLOOR, 1.0, 1e9])
def test_large_matrices_have_the_values_and_gradients_of_the_reference(
    dim: int, dtype: torch.dtype, magnitude: float, fused_calls: list[str]
):
    weight = (gaussian(160, 120) * magnitude).to(dtype).requires_grad_()
    cotangent = gaussian(160, 120, seed=1, dtype=dtype)
    found = unit(weight, dim)
    assert fused_calls == ["_weight_norm_interface"]
    torch.testing.assert_close(found, reference(weight, dim), rtol=ROUNDING[dtype], atol=0)
    exact = pulled_back(reference, weight.double(), dim, cotangent.double()) * magnitude
    slope = pulled_back(unit, weight, dim, cotangent) * magnitude
    assert "_fused_backward" in fused_calls
    torch.testing.assert_close(slope.double(), exact, rtol=0, atol=5 * ROUNDING[dtype])


@dims
@pytest.mark.usefixtures("fused_at_any_size")
def test_first_and_second_derivatives_of_the_fused_operation(dim: int):
    weight = gaussian(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(unit, (weight, dim), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(unit, (weight, dim))


@dims
@pytest.mark.parametrize("length", [0.0, 0.3 * FLOOR, 1.5 * FLOOR, 1e14, 1e25])
def test_one_row_of_unusual_length_is_divided_as_by_the_reference(dim: int, length: float):
    weight, cotangent = gaussian(160, 120, dtype=torch.float32), gaussian(160, 120, seed=1, dtype=torch.float32)
    row = weight.select(-3 - dim, 7)
    row.mul_(length / row.norm())
    torch.testing.assert_close(unit(weight, dim), reference(weight, dim), rtol=1e-6, atol=0)
    scales = norms.scaled_norm(weight, dim).clamp(max=1e30)
    slope, exact = (pulled_back(apply, weight, dim, cotangent) * scales for apply in (unit, reference))
    torch.testing.assert_close(slope, exact, rtol=1e-5, atol=1e-5)


@dims
@pytest.mark.parametrize("order", ["transposed", "every other", "batch", "batch of one"])
def test_matrices_of_every_layout_are_divided_as_by_the_reference(dim: int, order: str):
    plain = gaussian(240, 200)
    weight = {
        "transposed": plain.T,
        "every other": plain[:, ::2],
        "batch": plain.reshape(3, 80, 200),
        "batch of one": plain[None],
    }[order]
    cotangent = gaussian(*weight.shape, seed=1)
    assert weight.numel() >= norms.FUSED_SIZE
    torch.testing.assert_close(unit(weight, dim), reference(weight, dim), rtol=1e-13, atol=0)
    slope, exact = (pulled_back(apply, weight, dim, cotangent) for apply in (unit, reference))
    torch.testing.assert_close(slope, exact, rtol=0, atol=1e-13)
    expanded = pulled_back(unit, weight, dim, cotangent[..., :1].expand(weight.shape))
    torch.testing.assert_close(expanded, pulled_back(reference, weight, dim, cotangent[..., :1].expand(weight.shape)))


@dims
@forward_mode
@pytest.mark.usefixtures("fused_at_any_size")
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.hessian, torch.func.jacfwd])
def test_functional_transforms_do_not_meet_the_fused_operation(dim: int, transform: Callable):
    weight, cotangent = gaussian(4, 3), gaussian(4, 3, seed=1)
    found, exact = (transform(lambda w: (f(w, dim) * cotangent).sum().sin())(weight) for f in (unit, reference))  # noqa: B023
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


@dims
@forward_mode
@pytest.mark.usefixtures("fused_at_any_size")
def test_tangents_are_carried(dim: int):
    weight, tangent = gaussian(4, 3), gaussian(4, 3, seed=1)
    tangents = []
    for apply in (unit, reference):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(weight, tangent)
            tangents.append(torch.autograd.forward_ad.unpack_dual(apply(dual, dim)).tangent)
    torch.testing.assert_close(*tangents, rtol=1e-13, atol=1e-13)


@dims
@pytest.mark.usefixtures("fused_at_any_size")
def test_without_values_shapes_are_computed_and_graphs_hold_for_other_values(dim: int):
    weight = gaussian(4, 3)
    assert unit(weight.to("meta"), dim).shape == (4, 3)
    with FakeTensorMode() as mode:
        assert unit(mode.from_tensor(weight), dim).shape == (4, 3)
    graph = make_fx(lambda w: unit(w, dim))(weight)
    small = weight * torch.tensor([1e-9, 1.0, 1e-9], dtype=torch.float64)
    torch.testing.assert_close(graph(small), reference(small, dim), rtol=1e-13, atol=0)


def test_float16_is_divided_as_by_the_reference_and_rounded_once():
    weight = gaussian(200, 100).half() * torch.logspace(-5, 4, 100).half()
    norm = weight.double().norm(dim=0)
    assert (norm > torch.finfo(torch.float16).max).any()  # float16 cannot hold it
    exact = weight.double() / norm.clamp(min=norms.FLOOR)
    assert unit(weight, -2).isfinite().all()
    for expected in (exact, reference(weight.float(), -2).double()):  # half a unit in the last place
        torch.testing.assert_close(unit(weight, -2).double(), expected, rtol=4.9e-4, atol=3e-8)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_norms_of_many_float16_numbers_do_not_overflow_in_the_sum(p: float):
    weight = torch.full((1, 1 << 18), 0.125, dtype=torch.float16)
    exact = (0.125 if p == 1 else 1 / 64) * (1 << 18)
    assert float(norms.floored(weight, -1, p)) == (exact if p == 1 else exact**0.5)


@pytest.mark.parametrize("scale", ["kept", "constant", "learned"])
def test_large_float16_layers_keep_their_scale(scale: str):
    layer = nn.Linear(512, 512).half()
    before = layer.weight.double().norm()
    net = nn.Sequential(layer)
    layers.condition(net, "row", scale=scale)
    torch.testing.assert_close(layer.weight.double().norm(), before, rtol=2e-3, atol=0)


@pytest.mark.parametrize("method", ["row", "column"])
def test_large_weights_are_the_same_inside_computed_once_bit_for_bit(method: str, fused_calls: list[str]):
    net = nn.Sequential(nn.Linear(160, 160), nn.ReLU(), nn.Linear(160, 160))
    layers.condition(net, method, "all")
    outside = [net[i].weight for i in (0, 2)]
    assert len(fused_calls) >= 2
    with computed_once(net):
        assert all(torch.equal(net[i].weight, weight) for i, weight in zip((0, 2), outside, strict=True))
