"""Tests of a shape's step: the parts add up to what is followed, and every way to a gradient leads to the same one."""

import math

import pytest
import torch
from torch import nn

from enerf.conditioning import layers
from enerf.config.options import ConditioningOptions
from enerf.fields.backends import registry
from enerf.geometry.samples import ShapeSamples
from enerf.tasks.shape import build as shape_build
from enerf.tasks.shape import losses as shape_losses
from enerf.tasks.shape import step as shape_step
from enerf.tasks.shape.losses import CloudWeights
from enerf.tasks.shape.step import DistanceLoss, ShapeReport

PLAIN = ConditioningOptions()


def drawn(n: int = 64, seed: int = 0) -> ShapeSamples:
    """Samples of a ball of radius 1/2."""
    points = torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    distances = points.norm(dim=-1) - 0.5
    return ShapeSamples(points, (distances < 0).float(), distances, points / points.norm(dim=-1, keepdim=True))


def ball(points):
    return points.norm(dim=-1) - 0.5


class Scaled(nn.Module):
    """A ball's distance times a weight."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, points):
        return self.weight * ball(points)


@pytest.mark.parametrize("kind", ["mape", "l1", "truncated_l1"])
@pytest.mark.parametrize("step", [0.0, 1e-3])
def test_the_true_distance_has_no_loss(kind, step):
    loss = DistanceLoss(kind, 0.1, eikonal=1.0, normals=1.0, step=step)
    parts = shape_step.distance_terms(ball, drawn(), loss)
    assert list(parts) == [kind, "eikonal", "normals"]
    assert all(part.detach().abs() < 1e-4 for part in parts.values())


def test_terms_of_zero_weight_are_omitted_and_need_no_normals():
    samples = drawn()
    bare = ShapeSamples(samples.points, samples.labels, samples.distances)
    assert list(shape_step.distance_terms(ball, bare, DistanceLoss())) == ["mape"]
    with pytest.raises(ValueError, match="without distances or normals"):
        shape_step.distance_terms(ball, bare, DistanceLoss(normals=1.0))
    with pytest.raises(ValueError, match="without distances or normals"):
        shape_step.distance_terms(ball, ShapeSamples(samples.points, samples.labels), DistanceLoss())


def test_terms_have_their_weights():
    one = shape_step.distance_terms(Scaled(2.0), drawn(), DistanceLoss("l1", eikonal=1.0, normals=1.0))
    two = shape_step.distance_terms(Scaled(2.0), drawn(), DistanceLoss("l1", eikonal=3.0, normals=5.0))
    assert torch.isclose(two["eikonal"], 3 * one["eikonal"])
    assert torch.isclose(one["eikonal"], torch.tensor(1.0))
    assert torch.isclose(two["l1"], one["l1"])


def test_the_loss_is_the_sum_of_its_terms():
    samples, model = drawn(), Scaled(1.5)
    seen = shape_step.gradient_step(
        model, lambda: shape_step.distance_terms(model, samples, DistanceLoss("l1", eikonal=0.1))
    )
    loss = (1.5 * ball(samples.points) - samples.distances).abs().mean() + 0.1 * 0.25
    assert math.isclose(seen.loss, float(loss), rel_tol=1e-5)
    assert math.isclose(sum(seen.parts.values()), seen.loss, rel_tol=1e-5)
    expected = ball(samples.points).abs().mean() + 0.1 * 2 * 0.5
    assert torch.isclose(model.weight.grad, expected)


def test_occupancy_is_the_cross_entropy_of_the_labels():
    samples = drawn()
    (part,) = shape_step.occupancy_terms(lambda p: -5 * ball(p), samples).values()
    assert torch.isclose(part, shape_losses.occupancy(-5 * ball(samples.points), samples.labels))
    (part,) = shape_step.occupancy_terms(lambda p: -5 * ball(p), samples, balanced=True).values()
    assert torch.isclose(part, shape_losses.occupancy(-5 * ball(samples.points), samples.labels, balanced=True))


def test_a_cloud_on_the_surface_of_the_true_distance_leaves_what_is_off_it():
    on = drawn()
    on = ShapeSamples(0.5 * on.normals, on.labels, torch.zeros(len(on)), on.normals)
    off = drawn(seed=1)
    parts = shape_step.cloud_terms(ball, on, off, CloudWeights())
    assert list(parts) == ["surface", "off", "eikonal", "normals"]
    assert all(parts[name].detach() < 1e-3 for name in ("surface", "eikonal", "normals"))
    assert torch.isclose(parts["off"], 50 * torch.exp(-100 * ball(off.points).abs()).mean())
    inverted = shape_step.cloud_terms(lambda p: -ball(p), on, off, CloudWeights())
    assert torch.isclose(inverted["off"], 50 * (1 + 100 * ball(off.points).abs()).mean())


@pytest.mark.parametrize("encoding", ["positional", "hash"])
@pytest.mark.parametrize("method", ["none", "row"])
def test_every_backend_gives_the_same_gradient(encoding, method):
    samples, found, loss = drawn(256), [], DistanceLoss("l1", eikonal=0.1)
    for name in ("torch", "compiled"):
        if name == "compiled" and registry.unavailable_reason(name, "fp32", torch.device("cpu")):
            pytest.skip("no compiler here")
        made = shape_build.shape_field(
            ConditioningOptions(equilibrate=method), 0, depth=2, width=16, skip_at=0, encoding=encoding
        )
        registry.use(made, registry.make(name, "fp32", torch.device("cpu")))
        seen = shape_step.gradient_step(made, lambda made=made: shape_step.distance_terms(made, samples, loss))
        plain = shape_step.gradient_step(made, lambda made=made: shape_step.occupancy_terms(made, samples))
        found.append((seen.loss, plain.loss, torch.cat([p.grad.flatten() for p in made.parameters()])))
    (a, b, grad), (c, d, other) = found
    assert math.isclose(a, c, rel_tol=1e-5)
    assert math.isclose(b, d, rel_tol=1e-5)
    torch.testing.assert_close(grad, other, rtol=1e-3, atol=1e-5)


def test_baking_changes_no_loss():
    made = shape_build.shape_field(ConditioningOptions(equilibrate="row"), 0, depth=3, width=8)
    samples = drawn()
    before = shape_step.occupancy_terms(made, samples)["entropy"]
    layers.bake(made)
    assert torch.equal(before, shape_step.occupancy_terms(made, samples)["entropy"])


def test_colors_have_a_mean_squared_error_and_a_psnr():
    points, colors = torch.zeros(4, 2), torch.full((4, 3), 0.6)
    (part,) = shape_step.color_terms(lambda p: torch.full((len(p), 3), 0.5), points, colors).values()
    assert torch.isclose(part, torch.tensor(0.01))
    told = ShapeReport.averaged([ShapeReport(0.01, {"mse": 0.01}), ShapeReport(0.03, {"mse": 0.03})])
    assert told["loss"] == pytest.approx(0.02)
    assert told["psnr"] == pytest.approx(-10 * math.log10(0.02))


def test_averages_include_the_terms_where_there_are_several():
    assert ShapeReport.averaged([ShapeReport(1.0, {"entropy": 1.0})]) == {"loss": 1.0}
    some = [ShapeReport(1.0, {"l1": 0.5, "eikonal": 0.5}), ShapeReport(3.0, {"l1": 2.5, "eikonal": 0.5})]
    assert ShapeReport.averaged(some) == {"loss": 2.0, "l1": 1.5, "eikonal": 0.5}
