"""Tests of the residuals of shapes: loops, closed forms, and distances that are known."""

import math
from collections.abc import Callable

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from enerf.fields import derivatives
from enerf.tasks.shape import losses
from enerf.tasks.shape.losses import CloudWeights


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ball(x: Tensor) -> Tensor:
    return (x - torch.tensor([0.1, -0.2, 0.3])[: x.shape[-1]]).norm(dim=-1) - 0.5


def plane(x: Tensor) -> Tensor:
    normal = torch.tensor([2.0, -1.0, 2.0], dtype=x.dtype)[: x.shape[-1]]
    return x @ (normal / normal.norm()) - 0.2


def box(x: Tensor) -> Tensor:
    q = x.abs() - torch.tensor([0.3, 0.5, 0.7])[: x.shape[-1]]
    return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0)


DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {"ball": ball, "plane": plane, "box": box}

# occupancy


def slow_cross_entropy(logit: float, inside: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(inside * math.log(p) + (1 - inside) * math.log(1 - p))


@pytest.mark.parametrize("shape", [(9,), (2, 5)])
def test_occupancy_is_the_mean_cross_entropy(shape: tuple[int, ...]):
    logits, inside = drawn(*shape), drawn(*shape, seed=1) > 0.5
    each = [
        slow_cross_entropy(z, float(i))
        for z, i in zip(logits.flatten().tolist(), inside.flatten().tolist(), strict=True)
    ]
    assert float(losses.occupancy(logits, inside)) == pytest.approx(sum(each) / len(each), rel=1e-13)
    sides = [[e for e, i in zip(each, inside.flatten().tolist(), strict=True) if i is side] for side in (True, False)]
    assert all(sides)
    balanced = sum(sum(side) / len(side) for side in sides) / 2
    assert float(losses.occupancy(logits, inside, balanced=True)) == pytest.approx(balanced, rel=1e-13)


def test_a_balanced_loss_does_not_see_how_many_points_a_side_has():
    logits, inside = drawn(6), torch.tensor([True, True, False, False, False, True])
    more = torch.cat([torch.arange(6), *[(~inside).nonzero()[:, 0]] * 50])
    one, many = (losses.occupancy(logits[i], inside[i], balanced=True) for i in (torch.arange(6), more))
    torch.testing.assert_close(one, many)
    assert not torch.isclose(losses.occupancy(logits[more], inside[more]), losses.occupancy(logits, inside))


@pytest.mark.parametrize("side", [True, False])
def test_a_side_without_points_counts_for_nothing(side: bool):
    logits, inside = drawn(5), torch.full((5,), side)
    found = losses.occupancy(logits, inside, balanced=True)
    torch.testing.assert_close(found, losses.occupancy(logits, inside))


def test_balancing_equal_sides_changes_nothing_and_soft_labels_count_for_both():
    logits, labels = drawn(4), torch.tensor([1.0, 0.0, 0.25, 0.75], dtype=torch.float64)
    torch.testing.assert_close(losses.occupancy(logits, labels, balanced=True), losses.occupancy(logits, labels))


def test_occupancy_is_finite_for_logits_of_every_size():
    logits = torch.tensor([s * m for m in (0.0, 1e-30, 1.0, 90.0, 1e4, 1e30) for s in (1, -1)], requires_grad=True)
    for inside in (torch.ones(12), torch.zeros(12)):
        loss = losses.occupancy(logits, inside, balanced=True)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_far_points_are_left_out_with_sign_0_and_count_as_occupancy_with_margin_0():
    logits, signs = 5 * drawn(40), torch.tensor([1.0, -1.0, 0.0, -1.0], dtype=torch.float64).repeat(10)
    some = signs != 0
    expected = losses.occupancy(logits[some], signs[some] > 0)
    torch.testing.assert_close(losses.far_occupancy(logits, signs, 0.0), expected)
    shifted = losses.occupancy((logits - 3 * signs)[some], signs[some] > 0)
    torch.testing.assert_close(losses.far_occupancy(logits, signs, 3.0), shifted)
    assert losses.far_occupancy(logits, 0 * signs, 3.0) == 0


# signed distances


def test_absolute_and_relative_errors_are_those_of_a_loop():
    sdf, target = drawn(9), drawn(9, seed=1)
    pairs = list(zip(sdf.tolist(), target.tolist(), strict=True))
    assert float(losses.l1(sdf, target)) == pytest.approx(sum(abs(f - d) for f, d in pairs) / 9, rel=1e-14)
    relative = sum(abs(f - d) / (abs(d) + 0.01) for f, d in pairs) / 9
    assert float(losses.mape(sdf, target)) == pytest.approx(relative, rel=1e-13)


def test_relative_errors_do_not_push_targets_away():
    sdf, target = drawn(5).requires_grad_(), torch.zeros(5, dtype=torch.float64)
    (slope,) = torch.autograd.grad(losses.mape(sdf, target), sdf)
    torch.testing.assert_close(slope, sdf.detach().sign() / (5 * 0.01))


def deepsdf(sdf: Tensor, target: Tensor, distance: float) -> Tensor:
    return (sdf.clamp(-distance, distance) - target.clamp(-distance, distance)).abs()


GRID = torch.cartesian_prod(*[torch.linspace(-0.5, 0.5, 41, dtype=torch.float64)] * 2)


def each_truncated(distance: float) -> Tensor:
    return torch.stack([losses.truncated_l1(f[None], d[None], distance) for f, d in GRID])


def test_truncated_errors_are_deepsdfs_within_the_distance_and_vanish_where_they_do():
    found, theirs = each_truncated(0.1), deepsdf(GRID[:, 0], GRID[:, 1], 0.1)
    within = GRID[:, 0].abs() <= 0.1
    torch.testing.assert_close(found[within], theirs[within], rtol=0, atol=1e-15)
    assert torch.equal(found < 1e-12, (theirs < 1e-12) & (found <= theirs + 1e-12))
    assert (found >= theirs - 1e-15).all()


def test_truncated_errors_pull_wherever_there_is_one():
    sdf = GRID[:, 0].clone().requires_grad_()
    loss = losses.truncated_l1(sdf, GRID[:, 1], 0.1)
    (slope,) = torch.autograd.grad(loss, sdf)
    wrong = each_truncated(0.1) > 1e-9
    assert (slope[wrong] != 0).all()
    assert torch.equal(slope[wrong].sign(), (GRID[:, 0] - GRID[:, 1].clamp(-0.1, 0.1))[wrong].sign())


def test_a_large_distance_truncates_nothing():
    sdf, target = drawn(9), drawn(9, seed=1)
    assert torch.equal(losses.truncated_l1(sdf, target, 10), losses.l1(sdf, target))


# gradients


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("d", [2, 3])
def test_distances_have_no_eikonal_loss_and_agree_with_their_normals(name: str, d: int):
    _, gradients = derivatives.with_gradient(DISTANCES[name], drawn(50, d))
    assert float(losses.eikonal(gradients)) < 1e-28
    assert abs(float(losses.normal_agreement(gradients, 3 * gradients))) < 1e-14


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_a_scaled_distance_has_the_eikonal_loss_of_its_scale(factor: float):
    _, gradients = derivatives.with_gradient(lambda x: factor * plane(x), drawn(50, 3))
    assert float(losses.eikonal(gradients)) == pytest.approx((factor - 1) ** 2, abs=1e-14)


def test_a_field_that_is_flat_somewhere_has_finite_derivatives_of_its_eikonal_loss():
    gradients = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(losses.eikonal(gradients), gradients)
    assert slope.tolist() == [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_normals_agree_by_the_cosine_of_their_angle():
    gradients, normals = drawn(7, 3), drawn(7, 3, seed=1)
    slow = []
    for g, n in zip(gradients.tolist(), normals.tolist(), strict=True):
        product = sum(a * b for a, b in zip(g, n, strict=True))
        slow.append(product / math.sqrt(sum(a * a for a in g) * sum(b * b for b in n)))
    found = losses.normal_agreement(gradients, normals)
    assert float(found) == pytest.approx(1 - sum(slow) / 7, rel=1e-13)
    found = losses.normal_agreement(gradients, normals, oriented=False)
    assert float(found) == pytest.approx(1 - sum(abs(c) for c in slow) / 7, rel=1e-13)
    assert float(losses.normal_agreement(gradients, -gradients)) == pytest.approx(2.0)
    assert float(losses.normal_agreement(gradients, -gradients, oriented=False)) == pytest.approx(0.0, abs=1e-15)


def test_a_gradient_of_zero_disagrees_without_breaking():
    gradients = torch.zeros(3, 3, requires_grad=True)
    loss = losses.normal_agreement(gradients, torch.eye(3))
    assert float(loss.detach()) == 1.0
    assert torch.autograd.grad(loss, gradients)[0].isfinite().all()


# clouds of points


def test_off_the_surface_values_near_zero_cost():
    values = torch.tensor([0.0, 0.01, -0.01, 5.0], dtype=torch.float64)
    expected = (1 + 2 * math.exp(-1) + math.exp(-500)) / 4
    assert float(losses.off_surface(values, 100)) == pytest.approx(expected, rel=1e-14)


def cloud(field: Callable[[Tensor], Tensor], seed: int = 0) -> tuple[Tensor, ...]:
    """Points and normals of the ball's surface, and of the space around: values, gradients, normals."""
    normals = drawn(40, 3, seed=seed)
    normals = normals / normals.norm(dim=-1, keepdim=True)
    on = torch.tensor([0.1, -0.2, 0.3]) + 0.5 * normals
    return (
        *derivatives.with_gradient(field, on),
        normals,
        *derivatives.with_gradient(field, drawn(60, 3, seed=seed + 1)),
    )


def test_the_parts_on_a_cloud_are_the_single_losses_times_their_weights():
    on, on_gradients, normals, off, off_gradients = given = cloud(lambda x: 1.7 * plane(x) + 0.1 * x.square().sum(-1))
    weights = CloudWeights(surface=2, off=3, normals=5, eikonal=7, alpha=11)
    parts = losses.point_cloud(*given, weights)
    assert parts == {
        "surface": 2 * on.abs().mean(),
        "off": 3 * losses.off_surface(off, 11),
        "eikonal": 7 * losses.eikonal(torch.cat([on_gradients, off_gradients])),
        "normals": 5 * losses.normal_agreement(on_gradients, normals),
    }
    assert all(part > 0 for part in parts.values())
    unknown = losses.point_cloud(on, on_gradients, None, off, off_gradients, weights)
    assert unknown == {name: part for name, part in parts.items() if name != "normals"}


def test_the_true_distance_costs_nothing_but_what_lies_near_the_surface():
    parts = losses.point_cloud(*cloud(ball))
    near = parts.pop("off")
    assert sum(parts.values()) < 1e-4  # the ball's center is given in float32
    assert near < 5
    inverted = losses.point_cloud(*cloud(lambda x: -ball(x)))
    assert float(inverted["normals"]) == pytest.approx(2 * CloudWeights().normals, rel=1e-6)
    turned = losses.point_cloud(*cloud(lambda x: -ball(x)), oriented=False)
    assert float(turned["normals"]) < 1e-4


@pytest.mark.parametrize("wrong", [lambda x: 0.0 * ball(x), lambda x: 2.0 * ball(x), lambda x: ball(x) + 0.05, plane])
def test_other_fields_cost_more_than_the_true_distance(wrong: Callable[[Tensor], Tensor]):
    true, other = (sum(losses.point_cloud(*cloud(f)).values()) for f in (ball, wrong))
    assert other > true


def test_shapes_are_executed():
    with pytest.raises(TypeCheckError):
        losses.l1(drawn(4), drawn(4, 1))
    with pytest.raises(TypeCheckError):
        losses.point_cloud(drawn(4), drawn(4, 3), drawn(5, 3), drawn(2), drawn(2, 3))


def test_off_the_surface_a_known_side_goes_on_with_the_same_slope_where_it_is_wrong():
    values = torch.linspace(-0.1, 0.1, 41, dtype=torch.float64, requires_grad=True)
    inside = torch.ones_like(values)
    each = torch.stack([losses.off_surface_signed(v[None], torch.ones(1), 20) for v in values])
    (slopes,) = torch.autograd.grad(each.sum(), values)
    wrong = values > 0
    assert torch.allclose(each[wrong], 1 + 20 * values[wrong])
    assert torch.allclose(each[~wrong], torch.exp(20 * values[~wrong]))
    assert (slopes >= 0).all()
    assert torch.allclose(slopes[wrong], torch.full_like(slopes[wrong], 20.0))
    mirrored = losses.off_surface_signed(-values, 1 - inside, 20)
    assert torch.allclose(mirrored, losses.off_surface_signed(values, inside, 20))
    doubtful = losses.off_surface_signed(values, inside / 2, 20)
    assert torch.allclose(doubtful, losses.off_surface(values, 20))
