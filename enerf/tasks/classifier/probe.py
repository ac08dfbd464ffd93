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
from enerf.tasks.classifier import build as classifiers
from enerf.tasks.classifier import setup
from enerf.tasks.classifier import step as classifier_step
from enerf.tasks.classifier.config import ClassifierConfig


def open_probe(saved: dict[str, Any], settings: ProbeSettings) -> RunProbe:
    """A classifier, and its cross entropy on random training images, without augmentation.

    Batch normalisation applies its running statistics, so that an image's logits depend on that image alone.
    """
    config = parser.from_dict(ClassifierConfig, {**saved, **({"images": settings.source} if settings.source else {})})
    device, data = core_device.resolve_device(settings.device), setup.load_data(config)
    made, _ = setup.new_model(config, data)
    made = made.to(device)
    names = analyzed_layers(made, settings.layers, classifiers.HEADS)
    numbers = torch.randperm(len(data.train), generator=rng.generator_for(settings.seed, 0))[: settings.samples]
    images = classifier_step.standardised(data.train.batch(numbers), data.mean, data.std, device)
    labels = data.train.labels[numbers].to(device)

    def at(path: Path) -> CheckpointProbe:
        content, model = checkpoint.read(path), copy.deepcopy(made).eval()
        checkpoint.load_weights(model, content["model"], path)
        curvature.make_differentiable_(model)
        some = parameters_of(model, names) if settings.layers else ()
        return CheckpointProbe(content["step"], model, names, Objective(model, cross_entropy, images, labels, some))

    return RunProbe(data.name, setup.method_name(config), at)
