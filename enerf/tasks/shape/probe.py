"""Checkpoints of shape runs, opened for analysis."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from enerf.conditioning.diagnostics import curvature
from enerf.conditioning.diagnostics.curvature import Objective
from enerf.config import parser
from enerf.core import device as core_device
from enerf.core.errors import InputError
from enerf.engine import checkpoint
from enerf.engine.probe import CheckpointProbe, ProbeSettings, RunProbe, analyzed_layers, parameters_of
from enerf.fields import shape as shape_field
from enerf.fields.backends import registry
from enerf.geometry import samples as geometry_samples
from enerf.geometry.mesh import Mesh, PointCloud
from enerf.geometry.occupancy_volume import Volume
from enerf.geometry.samples import ShapeSamples
from enerf.tasks.shape import losses, picture, setup, step, voxels
from enerf.tasks.shape.config import SOURCES, ShapeConfig
from enerf.tasks.shape.picture import Picture
from enerf.tasks.shape.step import DistanceLoss


def open_probe(saved: dict[str, Any], settings: ProbeSettings) -> RunProbe:
    """Open a run of a mesh, a volume or an image; its loss is that of samples of the target, without gradient terms.

    Weights stay conditioned and are evaluated by torch in fp32, whichever backend trained them.

    Raises
    ------
    InputError
        If the run was trained on a point cloud, whose loss is one of gradients.
    """
    source = next((name for name in SOURCES if saved.get(name)), "mesh")
    moved = {source: settings.source} if settings.source else {}
    config = parser.from_dict(ShapeConfig, {**saved, **moved})
    target = setup.load_target(config)
    if isinstance(target, PointCloud):
        raise InputError(
            f"{config.data.source}: found a run of a point cloud, expected one of a mesh, a volume or an image"
        )
    device = core_device.resolve_device(settings.device)
    field = setup.new_field(config).to(device)
    registry.use(field, registry.make("torch", "fp32", device))
    names = analyzed_layers(field, settings.layers, shape_field.HEADS)
    objective = _objective_of(config, target, settings, device)

    def at(path: Path) -> CheckpointProbe:
        content, model = checkpoint.read(path), copy.deepcopy(field).eval()
        checkpoint.load_weights(model, content["model"], path)
        curvature.make_differentiable_(model)
        chosen = parameters_of(model, names) if settings.layers else ()
        return CheckpointProbe(content["step"], model, names, objective(model, parameters=chosen))

    return RunProbe(target.name, setup.method_name(config), at)


def _objective_of(
    config: ShapeConfig, target: Mesh | Volume | Picture, settings: ProbeSettings, device: torch.device
) -> Callable[..., Objective]:
    """Return a function from a field and ``parameters`` to its loss on fixed samples of the target."""
    if isinstance(target, Volume):
        points, labels = voxels.batch(target, settings.samples, 0, settings.seed)
        error = losses.squared_occupancy if config.data.volume_loss == "mse" else losses.occupancy
        return partial(Objective, loss=error, inputs=points.to(device), targets=labels.to(device))
    if isinstance(target, Picture):
        points, colors = picture.fixed_batch(target, settings.samples, settings.seed)
        return partial(Objective, loss=losses.squared_colors, inputs=points.to(device), targets=colors.to(device))
    mixture = geometry_samples.Mixture(config.samples.uniform, config.near)
    samples = geometry_samples.pool(
        *(setup.solid_of(target), mixture, settings.samples, settings.seed, 0),
        distances=config.data.target == "sdf",
    ).to(device)
    return partial(
        shape_objective, samples=samples, distance_loss=config.samples.loss_sdf, truncate=config.samples.truncate
    )


def shape_objective(
    field: nn.Module,
    samples: ShapeSamples,
    distance_loss: str = "mape",
    truncate: float | int = 0.1,
    parameters: tuple[nn.Parameter, ...] = (),
) -> Objective:
    """Return the loss of a field on fixed samples as a function of ``parameters`` (empty: all parameters).

    The distance error if the samples have distances, otherwise the occupancy loss; gradient terms are not included.
    """
    if samples.distances is None:
        return Objective(field, losses.occupancy, samples.points, samples.labels, parameters)
    loss = DistanceLoss(distance_loss, truncate)
    error = partial(step.distance_error, loss=loss)
    return Objective(field, error, samples.points, samples.distances, parameters)
