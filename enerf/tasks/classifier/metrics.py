"""Accuracy, top-5 accuracy and cross entropy of a classifier on labeled images."""

from collections.abc import Callable, Sized
from functools import partial
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional

from enerf.datasets.labelled.dataset import Split
from enerf.engine import distributed

IMAGES_PER_CALL = 500  # batch size of the evaluation
TOP = 5
# images as bytes -> logits
LogitsFunction = Callable[[Tensor], Tensor]


@torch.no_grad()
def measure(logits_of: LogitsFunction, split: Split, indices: Int64[Tensor, " n"] | None = None) -> dict[str, Any]:
    """Return ``accuracy`` and ``top5`` in percent, ``loss`` (mean cross entropy in nats), and the number of ``images``.

    Images are not augmented. ``top5`` is omitted for five classes or fewer. Several processes share the images.

    Parameters
    ----------
    logits_of
        Images as bytes, ``b c h w``, -> logits ``b classes``, on any device.
    split
        Images and labels.
    indices
        Indices of the evaluated images; None: all.
    """
    chosen = torch.arange(len(split)) if indices is None else indices
    correct, correct5, loss, with_top = 0, 0, 0.0, False
    batches = chosen.split(IMAGES_PER_CALL)
    for counts in distributed.current().map(partial(_counts, logits_of, split), batches):
        correct, correct5, loss, with_top = correct + counts[0], correct5 + counts[1], loss + counts[2], counts[3]
    n = max(len(chosen), 1)
    found: dict[str, Any] = {"accuracy": 100 * correct / n, "loss": loss / n, "images": len(chosen)}
    return {**found, "top5": 100 * correct5 / n} if with_top else found


@torch.no_grad()
def _counts(logits_of: LogitsFunction, split: Split, batch: Int64[Tensor, " b"]) -> tuple[int, int, float, bool]:
    """Return correct images, correct ones among ``TOP``, sum of the losses, and whether there are more classes."""
    logits, labels = logits_of(split.batch(batch)), split.labels[batch]
    logits, labels = logits.float(), labels.to(logits.device)
    correct = int((logits.argmax(1) == labels).sum())
    with_top = logits.shape[1] > TOP
    correct5 = int((logits.topk(TOP, 1).indices == labels[:, None]).sum()) if with_top else 0
    return correct, correct5, float(functional.cross_entropy(logits, labels, reduction="sum")), with_top


def fixed_subset(split: Sized, n: int) -> Int64[Tensor, " m"]:
    """Return sorted indices of ``n`` random images, the same for all runs; of all images if ``n`` is 0 or too large.

    >>> len(set(fixed_subset(range(10), 4).tolist())), len(fixed_subset(range(10), 0))
    (4, 10)
    """
    total = len(split)
    if n == 0 or n >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:n].sort().values
