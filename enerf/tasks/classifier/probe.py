"""Checkpoints of classifier runs, opened for analysis."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from enerf.conditioning.diagnostics import curvature
from enerf.conditioning.diagnostics.curvature import Objective
from enerf.config import parser
from enerf.core import device as core_device
from enerf.core import rng
from enerf.engine import checkpoint
from enerf.engine.probe import CheckpointProbe, ProbeSettings, RunProbe, analyzed_layers, parameters_of
from enerf.tasks.classifier import build, setup
from enerf.tasks.classifier import step as classifier_step
from enerf.tasks.classifier.config import ClassifierConfig


def open_probe(saved: dict[str, Any], settings: ProbeSettings) -> RunProbe:
    """Open a classifier run; its loss is the cross entropy of random training images, without augmentation.

    Batch normalization uses its running statistics, so that the logits of an image depend on that image only.
    """
    config = parser.from_dict(ClassifierConfig, {**saved, **({"images": settings.source} if settings.source else {})})
    device, data = core_device.resolve_device(settings.device), setup.load_data(config)
    network, _ = setup.new_model(config, data)
    network = network.to(device)
    names = analyzed_layers(network, settings.layers, build.HEADS)
    indices = torch.randperm(len(data.train), generator=rng.generator_for(settings.seed, 0))[: settings.samples]
    images = classifier_step.standardize(data.train.batch(indices), data.mean, data.std, device)
    labels = data.train.labels[indices].to(device)

    def at(path: Path) -> CheckpointProbe:
        content, model = checkpoint.read(path), copy.deepcopy(network).eval()
        checkpoint.load_weights(model, content["model"], path)
        curvature.make_differentiable_(model)
        parameters = parameters_of(model, names) if settings.layers else ()
        return CheckpointProbe(
            content["step"], model, names, Objective(model, cross_entropy, images, labels, parameters)
        )

    return RunProbe(data.name, setup.method_name(config), at)
