"""One step of a classifier: images and labels -> loss, gradients, and what was seen.

Images travel as bytes and become numbers here: ``(x / 255 − mean) / std`` for each channel. Cross entropy is in nats,
its mean over the images of the batch. Inside the network products may be of bf16 factors; the loss is fp32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from enerf.conditioning import weight_cache
from enerf.core import device as core_device
from enerf.datasets.labelled import augmentation


@dataclass(frozen=True)
class ClassifierReport:
    """What one step saw: its objective, how many of its images it got right, and how many these were."""

    loss: float
    correct: int
    images: int

    @classmethod
    def averaged(cls, reports: Sequence["ClassifierReport"]) -> dict[str, float]:
        """Mean loss, and the share of images that were right, in percent.

        >>> ClassifierReport.averaged([ClassifierReport(1.0, 3, 4), ClassifierReport(2.0, 2, 4)])
        {'loss': 1.5, 'accuracy': 62.5}
        """
        correct, images = sum(r.correct for r in reports), sum(r.images for r in reports)
        return {"loss": sum(r.loss for r in reports) / len(reports), "accuracy": 100 * correct / images}


@dataclass(frozen=True)
class Targets:
    """How labels become targets.

    Attributes
    ----------
    classes
        How many there are.
    smoothing
        Share of each target that is spread over all classes (Szegedy et al., CVPR 2016, section 7).
    mixup
        Above 0: pairs of images and of targets are mixed by shares from Beta(mixup, mixup) (Zhang et al., ICLR 2018).
    """

    classes: int
    smoothing: float = 0.0
    mixup: float = 0.0


def standardised(
    images: UInt8[Tensor, "b c h w"], mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Float[Tensor, "b c h w"]:
    """Images as numbers on the device, of mean 0 and deviation 1 for each channel over the training images.

    >>> standardised(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), [0.5], [0.25], torch.device("cpu")).item()
    2.0
    """
    scale = torch.tensor([1 / (255 * s) for s in std], device=device)[:, None, None]
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=device)[:, None, None]
    numbers = images.to(device, non_blocking=True).float()
    return (numbers * scale - shift).contiguous(memory_format=core_device.image_order(device))


def followed(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int64[Tensor, " b"],
    targets: Targets,
    *,
    precision: str = "fp32",
    l1: float = 0.0,
    penalised: Sequence[nn.Parameter] = (),
    generator: torch.Generator | None = None,
) -> ClassifierReport:
    """What one step saw; the gradient of its loss is added to the parameters.

    Conditioned weights are computed once.

    Parameters
    ----------
    model
        Images -> logits, in training mode.
    images, labels
        The batch, on the model's device.
    targets
        How labels become targets.
    precision
        ``bf16``: products by torch's autocast; ``fp32``.
    l1, penalised
        ``l1`` times the sum of magnitudes of these parameters is part of the loss.
    generator
        Random numbers of the mixing.
    """
    soft: Tensor = labels
    if targets.mixup > 0:
        assert generator is not None
        images, soft = augmentation.mixup(images, labels, targets.classes, targets.mixup, generator)
    with weight_cache.computed_once(model):
        logits = logits_of(model, images, precision)
        loss = functional.cross_entropy(logits, soft, label_smoothing=targets.smoothing)
        if l1 > 0:
            loss = loss + l1 * torch.stack([p.abs().sum() for p in penalised]).sum()
        loss.backward()
    correct = int((logits.detach().argmax(1) == labels).sum())
    return ClassifierReport(float(loss.detach()), correct, len(labels))


def logits_of(model: nn.Module, images: Float[Tensor, "b c h w"], precision: str) -> Float[Tensor, "b classes"]:
    """The network's answers, in fp32 whatever it computes with."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return model(images).float()
