"""Checkpoints of shape runs, opened for analysis."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from enerf.conditioning.diagnostics import curvature
from enerf.conditioning.diagnostics.curvature import Objective
from enerf.config import parser
from enerf.core import device as core_device
from enerf.core.errors import InputError
from enerf.engine import checkpoint
from enerf.engine.probe import CheckpointProbe, ProbeSettings, RunProbe, analyzed_layers, parameters_of
from enerf.fields import conditioning
from enerf.fields import shape as shape_field
from enerf.fields.backends import registry
from enerf.geometry import samples as geometry_samples
from enerf.geometry.mesh import Mesh
from enerf.geometry.samples import ShapeSamples
from enerf.tasks.shape import losses, setup, step
from enerf.tasks.shape.config import ShapeConfig
from enerf.tasks.shape.step import DistanceLoss


def open_probe(saved: dict[str, Any], settings: ProbeSettings) -> RunProbe:
    """A shape of a mesh, and its loss without those of gradients on samples drawn as in training.

    Its weights stay conditioned, and torch evaluates them in fp32, whatever has trained them.

    Raises
    ------
    InputError
        If it was learned from a cloud of points or a picture.
    """
    moved = {"mesh": settings.source} if settings.source else {}
    config = parser.from_dict(ShapeConfig, {**saved, **moved})
    subject = setup.load_subject(config)
    if not isinstance(subject, Mesh):
        raise InputError(f"{config.data.source}: runs of pictures and clouds are not analysed, expected one of a mesh")
    device = core_device.resolve_device(settings.device)
    made = setup.new_field(config).to(device)
    registry.use(made, registry.make("torch", "fp32", device))
    names = analyzed_layers(made, settings.layers, shape_field.HEADS)
    is_distance = config.data.target == "sdf"
    mixture = geometry_samples.Mixture(config.samples.uniform, config.near)
    some = geometry_samples.pool(
        setup.solid_of(subject), mixture, settings.samples, settings.seed, 0, distances=is_distance
    ).to(device)

    def at(path: Path) -> CheckpointProbe:
        content, model = checkpoint.read(path), copy.deepcopy(made).eval()
        checkpoint.load_weights(model, content["model"], path)
        curvature.make_differentiable_(model)
        chosen = parameters_of(model, names) if settings.layers else ()
        loss = of_shape(model, some, config.samples.loss_sdf, config.samples.truncate, chosen)
        return CheckpointProbe(content["step"], model, names, loss)

    return RunProbe(subject.name, conditioning.method_name(config.conditioning, "mlp"), at)


def of_shape(
    field: nn.Module,
    samples: ShapeSamples,
    distance_loss: str = "mape",
    truncate: float | int = 0.1,
    parameters: tuple[nn.Parameter, ...] = (),
) -> Objective:
    """The loss of a field at some samples, as a function of its parameters or of those that are named.

    That of signed distances if the samples have them, else that of occupancy logits; losses of gradients are left out.
    """
    if samples.distances is None:
        return Objective(field, losses.occupancy, samples.points, samples.labels, parameters)
    loss = DistanceLoss(distance_loss, truncate)
    error = partial(step.distance_error, loss=loss)
    return Objective(field, error, samples.points, samples.distances, parameters)
