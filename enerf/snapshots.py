"""The checkpoints of a run, opened to be analysed: the model, the layers that are told of, the loss on a fixed batch.

A **subject** knows how to open one kind of run. All runs of one scene or shape see the same batch, and
those of one data set that train on equally many images.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from enerf import classifier_runs, machine, runs, seeds, shape_runs
from enerf import config as options
from enerf.classifiers import build as classifiers
from enerf.conditioning import curvature, selection
from enerf.conditioning.curvature import Objective
from enerf.config import ClassifierConfig, ShapeConfig
from enerf.fields import backends, build, conditioned
from enerf.fields import shape as shape_field
from enerf.fields.radiance import HEADS
from enerf.scenes import batches, extent
from enerf.shapes import points
from enerf.shapes.meshes import Mesh
from enerf.training import classifier_steps, objective, state
from enerf.types import InputError


@dataclass(frozen=True)
class Asked:
    """What is asked of every run.

    Attributes
    ----------
    layers
        Which are told of, and by whose parameters the loss is differentiated; empty: the hidden ones, and all.
    samples
        Rays, points or images that the loss is taken on.
    seed
        Chooses them.
    source
        Where the scene, the mesh or the images are now, if they have moved.
    device
        As the option says it.
    """

    layers: str
    samples: int
    seed: int
    source: str
    device: str


@dataclass(frozen=True)
class Snapshot:
    """A model as a checkpoint left it, the layers that are told of, and the loss that trains it on a fixed batch."""

    step: int
    model: nn.Module
    layers: list[str]
    objective: Objective


@dataclass(frozen=True)
class Subject:
    """A run that can be analysed: what it is of, how it was trained, and how one of its checkpoints is opened."""

    scene: str
    method: str
    at: Callable[[Path], Snapshot]


def nerf(saved: dict[str, Any], asked: Asked) -> Subject:
    """A NeRF, and the photometric loss of random pixels of its training views, the same for all runs of a scene.

    Its weights stay conditioned, and torch evaluates them in fp32, whatever has trained them.
    """
    config = options.from_dict(options.NerfConfig, {**saved, **({"datadir": asked.source} if asked.source else {})})
    device, proposal = machine.resolve_device(asked.device), config.render.sampler == "proposal"
    scene = runs.load_scene(config)  # of which only the rays' colours go to the device
    fields = build.radiance_fields(
        config.model,
        config.conditioning,
        config.render.N_importance > 0,
        config.train.seed,
        proposal=proposal,
        space=extent.space_of(scene),
    ).to(device)
    backends.use(fields, backends.make("torch", "fp32", device))
    names = _chosen_layers(fields, asked.layers, HEADS)
    generator = seeds.generator_for(asked.seed, 0)
    pixels = batches.random_pixels(torch.tensor(scene.train), scene.camera, asked.samples, generator, one_view=False)
    rays, colours = batches.rays_of(scene, pixels, config.data.pixel_centers), batches.colours_of(scene, pixels)
    passes = runs.passes_of(config)

    def at(path: Path) -> Snapshot:
        content, model = state.read(path), copy.deepcopy(fields).eval()
        state.load_weights(model, content["model"], path)
        curvature.see_through_(model)
        some = parameters_of(model, names) if asked.layers else ()
        return Snapshot(content["step"], model, names, objective.photometric(model, passes, rays, colours, some))

    return Subject(scene.name, conditioned.method_name(config.conditioning), at)


def shape(saved: dict[str, Any], asked: Asked) -> Subject:
    """A shape of a mesh, and its loss without those of gradients on samples drawn as in training.

    Its weights stay conditioned, and torch evaluates them in fp32, whatever has trained them.

    Raises
    ------
    InputError
        If it was learned from a cloud of points or a picture.
    """
    moved = {"mesh": asked.source} if asked.source else {}
    config = options.from_dict(ShapeConfig, {**saved, **moved})
    subject = shape_runs.load_subject(config)
    if not isinstance(subject, Mesh):
        raise InputError(f"{config.data.source}: runs of pictures and clouds are not analysed, expected one of a mesh")
    device = machine.resolve_device(asked.device)
    made = shape_runs.new_field(config).to(device)
    backends.use(made, backends.make("torch", "fp32", device))
    names = _chosen_layers(made, asked.layers, shape_field.HEADS)
    is_distance = config.data.target == "sdf"
    mixture = points.Mixture(config.samples.uniform, config.near)
    some = points.pool(shape_runs.solid_of(subject), mixture, asked.samples, asked.seed, 0, distances=is_distance).to(
        device
    )

    def at(path: Path) -> Snapshot:
        content, model = state.read(path), copy.deepcopy(made).eval()
        state.load_weights(model, content["model"], path)
        curvature.see_through_(model)
        chosen = parameters_of(model, names) if asked.layers else ()
        loss = objective.of_shape(model, some, config.samples.loss_sdf, config.samples.truncate, chosen)
        return Snapshot(content["step"], model, names, loss)

    return Subject(subject.name, conditioned.method_name(config.conditioning, "mlp"), at)


def classifier(saved: dict[str, Any], asked: Asked) -> Subject:
    """A classifier, and its cross entropy on random training images, without augmentation.

    Batch normalisation applies its running statistics, so that an image's logits depend on that image alone.
    """
    config = options.from_dict(ClassifierConfig, {**saved, **({"images": asked.source} if asked.source else {})})
    device, data = machine.resolve_device(asked.device), classifier_runs.load_data(config)
    made, _ = classifier_runs.new_model(config, data)
    made = made.to(device)
    names = _chosen_layers(made, asked.layers, classifiers.HEADS)
    numbers = torch.randperm(len(data.train), generator=seeds.generator_for(asked.seed, 0))[: asked.samples]
    images = classifier_steps.standardised(data.train.batch(numbers), data.mean, data.std, device)
    labels = data.train.labels[numbers].to(device)

    def at(path: Path) -> Snapshot:
        content, model = state.read(path), copy.deepcopy(made).eval()
        state.load_weights(model, content["model"], path)
        curvature.see_through_(model)
        some = parameters_of(model, names) if asked.layers else ()
        return Snapshot(content["step"], model, names, Objective(model, cross_entropy, images, labels, some))

    return Subject(data.name, classifier_runs.method_name(config), at)


def _chosen_layers(model: nn.Module, asked: str, heads: frozenset[str]) -> list[str]:
    try:
        # No method is meant; weight norm is one that suits every layer.
        return selection.select(model, asked or "hidden", heads=heads, method="weight_norm").names
    except ValueError as error:
        raise InputError(f"option --layers: {error}") from None


def parameters_of(model: nn.Module, names: list[str]) -> tuple[nn.Parameter, ...]:
    """The parameters of some layers, each once."""
    return tuple({id(p): p for name in names for p in model.get_submodule(name).parameters()}.values())
