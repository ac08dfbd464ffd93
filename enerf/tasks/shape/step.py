"""One gradient of a shape's loss: a field asked at samples of a mesh, at points of a cloud, or at pixels.

A loss is a mapping of weighted parts by name; their sum is what is followed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.conditioning.weight_cache import computed_once
from enerf.core.types import ScalarField
from enerf.fields import derivatives
from enerf.fields.backends.module import frozen
from enerf.geometry.samples import ShapeSamples
from enerf.tasks.shape import losses
from enerf.tasks.shape.losses import CloudWeights

Parts = Mapping[str, Tensor]


@dataclass(frozen=True)
class ShapeReport:
    """What one step saw: its loss, and the weighted parts of it."""

    loss: float
    parts: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def averaged(cls, reports: Sequence["ShapeReport"]) -> dict[str, float]:
        """Mean loss of some steps; its parts if there are several; for colours the PSNR of the mean squared error."""
        n = max(1, len(reports))
        names = list(reports[0].parts) if reports else []
        means = {name: sum(r.parts[name] for r in reports) / n for name in names}
        told = {"loss": sum(r.loss for r in reports) / n}
        if names == ["mse"]:
            return told | {"psnr": -10 * math.log10(max(means["mse"], 1e-12))}
        return told | (means if len(names) > 1 else {})


@dataclass(frozen=True)
class DistanceLoss:
    """How a signed distance is learned from a mesh.

    Attributes
    ----------
    kind
        Of the error of values: ``mape``, ``l1``, ``truncated_l1``.
    truncate
        For the last: beyond which distance "at least so far" is enough.
    eikonal, normals
        Weights of the losses of gradients; 0 leaves them out.
    step
        Of differences; 0: exact gradients.
    """

    kind: str = "mape"
    truncate: float | int = 0.1
    eikonal: float | int = 0.0
    normals: float | int = 0.0
    step: float | int = 0.0


def occupancy_parts(model: ScalarField, samples: ShapeSamples, balanced: bool = False) -> Parts:
    """The loss of occupancy logits."""
    return {"entropy": losses.occupancy(model(samples.points), samples.labels, balanced=balanced)}


def distance_parts(model: ScalarField, samples: ShapeSamples, loss: DistanceLoss) -> Parts:
    """The losses of a signed distance.

    Raises
    ------
    ValueError
        If the samples lack what the loss needs.
    """
    if samples.distances is None or (loss.normals and samples.normals is None):
        raise ValueError("samples without distances or normals, and the loss is of them")
    with_gradients = bool(loss.eikonal or loss.normals)
    values, gradients = _values(model, samples.points, with_gradients, loss.step)
    parts = {loss.kind: distance_error(values, samples.distances, loss)}
    if loss.eikonal:
        parts["eikonal"] = loss.eikonal * losses.eikonal(gradients)
    if loss.normals and samples.normals is not None:
        parts["normals"] = loss.normals * losses.normal_agreement(gradients, samples.normals)
    return parts


def cloud_parts(
    model: ScalarField,
    on: ShapeSamples,
    off: ShapeSamples,
    weights: CloudWeights,
    step: float | int = 0.0,
) -> Parts:
    """The losses of a signed distance of which points of the surface and their normals are known."""
    values, gradients = _values(model, torch.cat([on.points, off.points]), True, step)
    n = len(on)
    return losses.point_cloud(
        values[:n], gradients[:n], on.normals, values[n:], gradients[n:], weights, labels=off.labels
    )


def colour_parts(
    model: Callable[[Tensor], Tensor], points: Float[Tensor, "n 2"], colours: Float[Tensor, "n 3"]
) -> Parts:
    """The mean squared error of colours."""
    return {"mse": (model(points) - colours).square().mean()}


def followed(model: nn.Module, parts_of: Callable[[], Parts]) -> ShapeReport:
    """What was seen of a loss, whose gradient is added to the model's parameters.

    Conditioned weights are computed once, however often the loss asks the model.
    """
    with computed_once(model), frozen(model):
        parts = parts_of()
        loss = torch.stack(list(parts.values())).sum()
        loss.backward()
    seen = torch.stack([loss, *parts.values()]).detach().tolist()  # one look at the device
    return ShapeReport(seen[0], dict(zip(parts, seen[1:], strict=True)))


def _values(
    model: ScalarField, points: Float[Tensor, "n 3"], with_gradients: bool, step: float | int
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Values, and gradients if they are wanted, exact or by differences; both can be differentiated."""
    if not with_gradients:
        return model(points), points.new_zeros(points.shape)
    if step > 0:
        return model(points), derivatives.differences(model, points, step)
    return derivatives.with_gradient(model, points, for_training=True)


def distance_error(
    values: Float[Tensor, " n"], distances: Float[Tensor, " n"], loss: DistanceLoss
) -> Float[Tensor, ""]:
    """The error of values, as the loss says."""
    if loss.kind == "truncated_l1":
        return losses.truncated_l1(values, distances, loss.truncate)
    return {"mape": losses.mape, "l1": losses.l1}[loss.kind](values, distances)
