"""Memory that training a classifier needs at least, from its options."""

import torch
from torch import nn

from enerf.core import memory
from enerf.tasks.classifier import build
from enerf.tasks.classifier.config import ClassifierConfig

# Below this number of pixels of a batch, times the network's width squared, nothing is estimated: it takes a second.
ORDINARY = 1 << 17
_DEEP = 100  # layers or blocks up to which a network counts as ordinary


def is_ordinary(config: ClassifierConfig, size: int) -> bool:
    """Return whether a run is no larger than the default one on images of CIFAR-10, so that it needs no check."""
    pixels = config.train.N_batch * size**2 * config.model.width**2
    return pixels <= ORDINARY and config.model.depth <= _DEEP


def training_bytes(config: ClassifierConfig, norm: str, classes: int, channels: int, size: int) -> dict[str, int]:
    """Return the bytes of the network and of its activations by the options that decide them; a lower bound.

    Activations are the outputs of all layers for the images of a batch, kept for the backward pass; their sizes are
    those of one image through the network on the device ``meta``.

    Raises
    ------
    ValueError
        As ``build.network``.
    """
    m = config.model
    with torch.device("meta"):
        model = build.network(
            m.model,
            classes=classes,
            channels=channels,
            size=size,
            norm=norm,
            seed=0,
            width=m.width,
            depth=m.depth,
            patch=m.patch,
        )
        values = _output_values(model, torch.empty(1, channels, size, size))
    value_bytes = 4 if config.train.precision == "fp32" else 2
    return {
        "options --model, --width and --depth": memory.trained_bytes(model) // 2,  # sgd has no moments
        "options --N_batch, --width, --depth and --image_size": config.train.N_batch * values * value_bytes // 2,
    }


def _output_values(model: nn.Module, image: torch.Tensor) -> int:
    """Return the number of values that the layers of a model compute for an image."""
    counts: list[int] = []
    for part in model.modules():
        if not list(part.children()):
            part.register_forward_hook(lambda _, __, output: counts.append(output.numel()))
    with torch.no_grad():
        model.eval()(image)
    return sum(counts)
