"""The checkpoints of a run, opened to be analysed: the model, the layers that are told of, the loss on a fixed batch.

A **subject** knows how to open one kind of run. All runs of one scene or shape see the same batch, and
those of one data set that train on equally many images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from enerf.conditioning import selection
from enerf.conditioning.diagnostics.curvature import Objective
from enerf.core.errors import InputError


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


def _chosen_layers(model: nn.Module, asked: str, heads: frozenset[str]) -> list[str]:
    try:
        # No method is meant; weight norm is one that suits every layer.
        return selection.select(model, asked or "hidden", heads=heads, method="weight_norm").names
    except ValueError as error:
        raise InputError(f"option --layers: {error}") from None


def parameters_of(model: nn.Module, names: list[str]) -> tuple[nn.Parameter, ...]:
    """The parameters of some layers, each once."""
    return tuple({id(p): p for name in names for p in model.get_submodule(name).parameters()}.values())
