"""Gradient step of shape runs: loss terms at samples of a mesh, points of a cloud, or pixels.

A loss is a mapping from names to weighted terms; the training loss is their sum.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.conditioning.weight_cache import computed_once
from enerf.core.types import ScalarField
from enerf.engine.joint_step import Part
from enerf.fields import derivatives
from enerf.fields.backends.module import frozen
from enerf.geometry.samples import ShapeSamples
from enerf.tasks.shape import losses
from enerf.tasks.shape.losses import CloudWeights

LossTerms = Mapping[str, Tensor]


@dataclass(frozen=True)
class ShapeReport:
    """Loss of one step, and its weighted terms."""

    loss: float
    parts: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str], numbers: Sequence[float]) -> "ShapeReport":
        """Return the report of the names of terms, and of the loss followed by them."""
        return cls(numbers[0], dict(zip(names, numbers[1:], strict=True)))

    @classmethod
    def averaged(cls, reports: Sequence["ShapeReport"]) -> dict[str, float]:
        """Return the mean loss of some steps, and its terms if there are several; for colors the PSNR instead."""
        n = max(1, len(reports))
        names = list(reports[0].parts) if reports else []
        means = {name: sum(r.parts[name] for r in reports) / n for name in names}
        averages = {"loss": sum(r.loss for r in reports) / n}
        if names == ["mse"]:
            return averages | {"psnr": -10 * math.log10(max(means["mse"], 1e-12))}
        return averages | (means if len(names) > 1 else {})


@dataclass(frozen=True)
class DistanceLoss:
    """Loss of a signed distance fitted to a mesh.

    Attributes
    ----------
    kind
        Error of the values: ``mape``, ``l1`` or ``truncated_l1``.
    truncate
        Distance of ``truncated_l1``.
    eikonal, normals
        Weights of the gradient terms; 0: omitted.
    step
        Step of finite differences; 0: automatic differentiation.
    """

    kind: str = "mape"
    truncate: float | int = 0.1
    eikonal: float | int = 0.0
    normals: float | int = 0.0
    step: float | int = 0.0


@dataclass(frozen=True)
class FarPoints:
    """Points far from the surface: positions, signs (1 inside, −1 outside, 0 unknown), and the margin of their logits.

    ``weight`` multiplies their mean loss, and 1 − ``weight`` that of other points; ``total`` is as for
    ``losses.far_occupancy``.
    """

    points: Float[Tensor, "n 3"]
    signs: Float[Tensor, " n"]
    margin: float | int
    weight: float | int
    total: Float[Tensor, ""] | None = None


def occupancy_terms(
    model: ScalarField,
    samples: ShapeSamples,
    balanced: bool = False,
    far: FarPoints | None = None,
    totals: Float[Tensor, "2"] | None = None,
) -> LossTerms:
    """Return the loss terms of occupancy logits at samples and at points far from the surface.

    ``totals`` is as for ``losses.occupancy``, if the samples are a share of a batch.
    """
    if far is None:
        logits = model(samples.points)
        return {"entropy": losses.occupancy(logits, samples.labels, balanced=balanced, totals=totals)}
    n = len(samples)
    logits = model(torch.cat([samples.points, far.points]))
    near = losses.occupancy(logits[:n], samples.labels, balanced=balanced, totals=totals)
    return {
        "entropy": (1 - far.weight) * near,
        "far": far.weight * losses.far_occupancy(logits[n:], far.signs, far.margin, far.total),
    }


def distance_terms(model: ScalarField, samples: ShapeSamples, loss: DistanceLoss) -> LossTerms:
    """Return the loss terms of a signed distance.

    Raises
    ------
    ValueError
        If the samples have no distances, or no normals although the loss needs them.
    """
    if samples.distances is None or (loss.normals and samples.normals is None):
        raise ValueError("found samples without distances or normals, which the loss needs")
    with_gradients = bool(loss.eikonal or loss.normals)
    values, gradients = _values_and_gradients(model, samples.points, with_gradients, loss.step)
    terms = {loss.kind: distance_error(values, samples.distances, loss)}
    if loss.eikonal:
        terms["eikonal"] = loss.eikonal * losses.eikonal(gradients)
    if loss.normals and samples.normals is not None:
        terms["normals"] = loss.normals * losses.normal_agreement(gradients, samples.normals)
    return terms


def cloud_terms(
    model: ScalarField,
    on: ShapeSamples,
    off: ShapeSamples,
    weights: CloudWeights,
    step: float | int = 0.0,
) -> LossTerms:
    """Return the loss terms of a signed distance fitted to a point cloud.

    ``on`` are points of the cloud with normals, ``off`` labeled points of the box; ``step`` as in ``DistanceLoss``.
    """
    values, gradients = _values_and_gradients(model, torch.cat([on.points, off.points]), True, step)
    n = len(on)
    return losses.point_cloud(
        values[:n], gradients[:n], on.normals, values[n:], gradients[n:], weights, labels=off.labels
    )


def color_terms(
    model: Callable[[Tensor], Tensor], points: Float[Tensor, "n 2"], colors: Float[Tensor, "n 3"]
) -> LossTerms:
    """Return the mean squared error of colors."""
    return {"mse": losses.squared_colors(model(points), colors)}


def volume_terms(
    model: ScalarField, points: Float[Tensor, "n 3"], labels: Float[Tensor, " n"], loss: str = "mse"
) -> LossTerms:
    """Return the loss of voxels with labels 1 (occupied) and 0: ``mse`` of occupancies, or ``bce`` of their logits."""
    if loss == "mse":
        return {"squared": losses.squared_occupancy(model(points), labels)}
    return {"entropy": losses.occupancy(model(points), labels)}


def gradient_step(model: nn.Module, loss_terms: Callable[[], LossTerms]) -> ShapeReport:
    """Compute the loss and add its gradient to the parameters' ``grad``; return the loss and its terms.

    Conditioned weights are computed once, even if the loss calls the model several times.
    """
    names, numbers = _accumulated(model, loss_terms)
    return ShapeReport.of(names, numbers)


def share_step(model: nn.Module, loss_terms: Callable[[], LossTerms]) -> Part[ShapeReport]:
    """Do the same for the terms of a share of a batch, whose sums over all shares are those of the batch."""
    names, numbers = _accumulated(model, loss_terms)
    return Part(numbers, partial(ShapeReport.of, names))


def _accumulated(model: nn.Module, loss_terms: Callable[[], LossTerms]) -> tuple[list[str], list[float]]:
    """Add the gradient of the loss to the parameters' ``grad``; return the names of its terms, the loss and they."""
    with computed_once(model), frozen(model):
        terms = loss_terms()
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
    numbers = torch.stack([loss, *terms.values()]).detach().tolist()  # a single device synchronization
    return list(terms), numbers


def _values_and_gradients(
    model: ScalarField, points: Float[Tensor, "n 3"], with_gradients: bool, step: float | int
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Return differentiable values and gradients (zeros if not ``with_gradients``); ``step`` as in ``DistanceLoss``."""
    if not with_gradients:
        return model(points), points.new_zeros(points.shape)
    if step > 0:
        return model(points), derivatives.differences(model, points, step)
    return derivatives.with_gradient(model, points, for_training=True)


def distance_error(
    values: Float[Tensor, " n"], distances: Float[Tensor, " n"], loss: DistanceLoss
) -> Float[Tensor, ""]:
    """Return the error of values by ``loss.kind``."""
    if loss.kind == "truncated_l1":
        return losses.truncated_l1(values, distances, loss.truncate)
    return {"mape": losses.mape, "l1": losses.l1}[loss.kind](values, distances)
