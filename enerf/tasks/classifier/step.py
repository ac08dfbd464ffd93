"""Gradient step of classifiers: standardization of images, loss and gradients.

Images are loaded as bytes and standardized here: ``(x / 255 − mean) / std`` per channel. The loss is the cross entropy
in nats, averaged over the batch. Matrix products in the network may be in bf16; the loss is computed in fp32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from enerf.conditioning import weight_cache
from enerf.core import device as core_device
from enerf.core.shares import WHOLE, Share
from enerf.datasets.labelled import augmentation


@dataclass(frozen=True)
class ClassifierReport:
    """Loss of one step, number of correctly classified images, and number of images."""

    loss: float
    correct: int
    images: int

    @classmethod
    def of_sums(cls, sums: Sequence[float]) -> "ClassifierReport":
        """Return the report of a batch from the sums of loss, correct images and images of its shares."""
        loss, correct, images = sums
        return cls(loss, int(correct), int(images))

    @classmethod
    def averaged(cls, reports: Sequence["ClassifierReport"]) -> dict[str, float]:
        """Return the mean loss, and the accuracy in percent.

        >>> ClassifierReport.averaged([ClassifierReport(1.0, 3, 4), ClassifierReport(2.0, 2, 4)])
        {'loss': 1.5, 'accuracy': 62.5}
        """
        correct, images = sum(r.correct for r in reports), sum(r.images for r in reports)
        return {"loss": sum(r.loss for r in reports) / len(reports), "accuracy": 100 * correct / images}


@dataclass(frozen=True)
class Targets:
    """Conversion of labels to targets.

    Attributes
    ----------
    classes
        Number of classes.
    smoothing
        Label smoothing: fraction of each target spread over all classes (Szegedy et al., CVPR 2016, section 7).
    mixup
        Above 0: pairs of images and targets are mixed with weights from Beta(mixup, mixup) (Zhang et al., ICLR 2018).
    """

    classes: int
    smoothing: float = 0.0
    mixup: float = 0.0


def standardize(
    images: UInt8[Tensor, "b c h w"], mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Float[Tensor, "b c h w"]:
    """Move images to the device and standardize each channel by mean and standard deviation of values in [0, 1].

    >>> standardize(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8), [0.5], [0.25], torch.device("cpu")).item()
    2.0
    """
    scale = torch.tensor([1 / (255 * s) for s in std], device=device)[:, None, None]
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=device)[:, None, None]
    values = images.to(device, non_blocking=True).float()
    return (values * scale - shift).contiguous(memory_format=core_device.image_order(device))


def gradient_step(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int64[Tensor, " b"],
    targets: Targets,
    *,
    precision: str = "fp32",
    l1: float = 0.0,
    penalized: Sequence[nn.Parameter] = (),
    generator: torch.Generator | None = None,
    share: Share = WHOLE,
) -> ClassifierReport:
    """Compute the loss and add its gradient to the parameters' ``grad``; return loss and accuracy counts.

    Conditioned weights are computed once. Of a share of the batch, the gradient and the figures are those whose sums
    over all shares are those of the batch.

    Parameters
    ----------
    model
        Images -> logits, in training mode.
    images, labels
        The batch, on the model's device.
    targets
        Label smoothing and mixup.
    precision
        ``bf16`` (torch's autocast) or ``fp32``.
    l1, penalized
        ``l1`` times the sum of absolute values of these parameters is added to the loss.
    generator
        Generator of mixup; needed only with it.
    share
        The images that are computed here.
    """
    part, n = share.of(0, len(labels)), len(labels)
    soft: Tensor = labels
    if targets.mixup > 0:
        assert generator is not None
        images, soft = augmentation.mixup(images, labels, targets.classes, targets.mixup, generator)
    images, labels, soft = images[part.rows], labels[part.rows], soft[part.rows]
    with weight_cache.computed_once(model):
        logits = logits_of(model, images, precision)
        loss = functional.cross_entropy(logits, soft, label_smoothing=targets.smoothing)
        if not share.is_whole:
            loss = loss * (part.count / n)
        if l1 > 0:
            loss = loss + l1 / share.size * torch.stack([p.abs().sum() for p in penalized]).sum()
        loss.backward()
    correct = int((logits.detach().argmax(1) == labels)[: part.count].sum())
    return ClassifierReport(float(loss.detach()), correct, part.count)


def logits_of(model: nn.Module, images: Float[Tensor, "b c h w"], precision: str) -> Float[Tensor, "b classes"]:
    """Return the logits in fp32; the network computes in ``precision``."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return model(images).float()
