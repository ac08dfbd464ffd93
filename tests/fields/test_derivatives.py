"""Tests of derivatives in the points: exact ones, and those by differences."""

import pytest
import torch
from torch import Tensor

from enerf.fields import derivatives


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1) - 0.5


@pytest.mark.parametrize("shape", [(2,), (3,), (5, 3), (2, 4, 2), (0, 3)])
def test_a_balls_gradient_points_away_from_its_center(shape: tuple[int, ...]):
    points = drawn(*shape)
    values, gradients = derivatives.with_gradient(ball, points)
    assert torch.equal(values, ball(points))
    torch.testing.assert_close(gradients, points / points.norm(dim=-1, keepdim=True), rtol=0, atol=1e-15)


def test_plain_numbers_come_back_unless_they_are_for_training():
    points = drawn(5, 3).requires_grad_()
    assert not any(x.requires_grad for x in derivatives.with_gradient(ball, points))
    with torch.no_grad():
        assert all(x.requires_grad for x in derivatives.with_gradient(ball, points, for_training=True))
    assert points.grad is None


def test_what_is_for_training_can_be_differentiated_in_the_parameters():
    scale, points = torch.tensor(2.0, dtype=torch.float64, requires_grad=True), drawn(5, 3)
    _, gradients = derivatives.with_gradient(lambda x: scale * ball(x), points, for_training=True)
    (slope,) = torch.autograd.grad((gradients.norm(dim=-1) - 1).square().mean(), scale)
    assert float(slope) == pytest.approx(2.0, rel=1e-14)  # of (scale - 1)²


@pytest.mark.parametrize("step", [1e-3, 0.5, 2])
@pytest.mark.parametrize("shape", [(2,), (5, 3), (2, 4, 2)])
def test_differences_are_exact_for_quadratic_fields(shape: tuple[int, ...], step: float):
    points, matrix, slope = drawn(*shape), drawn(shape[-1], shape[-1], seed=1), drawn(shape[-1], seed=2)

    def field(x: Tensor) -> Tensor:
        return ((x @ matrix) * x).sum(-1) + x @ slope + 3.0

    expected = points @ (matrix + matrix.T) + slope
    torch.testing.assert_close(derivatives.differences(field, points, step), expected, rtol=1e-9, atol=1e-9)


def test_differences_tend_to_the_gradient_with_the_square_of_the_step():
    points = drawn(5, 3) + 1
    _, exact = derivatives.with_gradient(ball, points)
    errors = [float((derivatives.differences(ball, points, h) - exact).abs().max()) for h in (0.1, 0.05)]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_differences_can_be_differentiated_in_the_parameters():
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    made = derivatives.differences(lambda x: scale * x.sum(-1), drawn(5, 3), 0.1)
    (slope,) = torch.autograd.grad(made.sum(), scale)
    assert float(slope) == pytest.approx(15.0)
