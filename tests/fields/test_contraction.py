"""Tests of the contraction of all of space to a ball."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.fields import contraction

SEEDS = st.integers(0, 2**32 - 1)
light = settings(max_examples=25, deadline=None)


def _points(seed: int, length: float) -> Tensor:
    directions = torch.randn(50, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return length * directions / directions.norm(dim=-1, keepdim=True)


@given(seed=SEEDS, length=st.floats(0, 1 - 1e-9))
@light
def test_the_unit_ball_stays(seed: int, length: float):
    points = _points(seed, length)
    assert torch.equal(contraction.contract(points), points)
    assert torch.equal(contraction.uncontract(points), points)


@given(seed=SEEDS, length=st.floats(1, 1e6))
@light
def test_outside_the_direction_stays_and_the_distance_is_two_less_its_inverse(seed: int, length: float):
    points = _points(seed, length)
    found = contraction.contract(points)
    torch.testing.assert_close(found, points / length * (2 - 1 / length), rtol=0, atol=1e-14)
    assert (found.norm(dim=-1) < 2).all()


@given(seed=SEEDS, length=st.floats(0, 1e4))
@light
def test_uncontract_undoes_contract(seed: int, length: float):
    points = _points(seed, length)
    torch.testing.assert_close(contraction.uncontract(contraction.contract(points)), points, rtol=1e-10, atol=0)


def test_contraction_has_one_derivative_on_both_sides_of_the_unit_sphere():
    on = _points(0, 1.0)
    sides = [torch.func.vmap(torch.func.jacrev(contraction.contract))(on * (1 + step)) for step in (-1e-9, 1e-9)]
    torch.testing.assert_close(sides[0], sides[1], rtol=0, atol=1e-7)
    torch.testing.assert_close(
        contraction.contract(on * (1 - 1e-9)), contraction.contract(on * (1 + 1e-9)), rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("length", [0.3, 1.7, 30.0])
def test_gradients_are_those_of_differences(length: float):
    assert torch.autograd.gradcheck(contraction.contract, (_points(1, length)[:5].requires_grad_(),))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e10, 1e30, 3e38])
@pytest.mark.parametrize("direction", [(1.0, 0.0, 0.0), (1.0, -1.0, 1.0), (0.0, 0.5, -1.0)])
def test_values_and_gradients_are_finite_in_float32_at_every_distance(size: float, direction: tuple[float, ...]):
    points = (torch.tensor(direction) * size).requires_grad_()
    found = contraction.contract(points)
    found.sum().backward()
    assert points.grad.isfinite().all()
    if size >= 1e10:  # as good as the sphere of radius 2, in the same direction
        expected = 2 * torch.tensor(direction) / math.hypot(*direction)
        torch.testing.assert_close(found.detach(), expected)
    assert contraction.uncontract(found.detach()).isfinite().all()
