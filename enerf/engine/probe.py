"""Probes of a run's checkpoints, for analysis: the model, the analyzed layers, and the loss on a fixed batch.

Each task opens its runs with one function, ``(saved options, ProbeSettings) -> RunProbe``. All runs of one scene or
shape are analyzed on the same batch, and so are all classifiers of one data set that train on equally many images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from enerf.conditioning import selection
from enerf.conditioning.diagnostics.curvature import Objective
from enerf.core.errors import InputError


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of the analysis, the same for every run.

    Attributes
    ----------
    layers
        Value of the option ``--layers``: the layers that are reported and whose parameters the loss is differentiated
        by; empty: the hidden layers are reported, and the loss is differentiated by all parameters.
    samples
        Number of rays, points or images in the batch.
    seed
        Seed of the random batch.
    source
        New path of the scene, the mesh or the images, if they have moved; else empty.
    device
        Value of the option ``--device``.
    """

    layers: str
    samples: int
    seed: int
    source: str
    device: str


@dataclass(frozen=True)
class CheckpointProbe:
    """A model with the weights of one checkpoint, the analyzed layers, and its training loss on a fixed batch."""

    step: int
    model: nn.Module
    layers: list[str]
    objective: Objective


@dataclass(frozen=True)
class RunProbe:
    """A run that can be analyzed.

    Attributes
    ----------
    scene, method
        Names of its data and of its method.
    at
        Function from the file of a checkpoint to its probe.
    """

    scene: str
    method: str
    at: Callable[[Path], CheckpointProbe]


def analyzed_layers(model: nn.Module, names: str, heads: frozenset[str]) -> list[str]:
    """Return the names of the layers that ``--layers`` selects; the hidden layers if it is empty.

    Raises
    ------
    InputError
        If a name is unknown.
    """
    try:
        # weight_norm is allowed on every layer; only the selection is used, nothing is applied
        present = selection.present(model, heads)
        return selection.select(model, names or "hidden", heads=present, method="weight_norm").names
    except ValueError as error:
        raise InputError(f"option --layers: {error}") from None


def parameters_of(model: nn.Module, names: list[str]) -> tuple[nn.Parameter, ...]:
    """Return the parameters of some layers; shared parameters appear once."""
    return tuple({id(p): p for name in names for p in model.get_submodule(name).parameters()}.values())
