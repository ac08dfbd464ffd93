"""How often a classifier is right: accuracy, top-5 accuracy and cross entropy of labelled images."""

from collections.abc import Callable, Sized
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional

from enerf.datasets.labelled.dataset import Split

AT_ONCE = 500  # images
TOP = 5
# images as bytes -> logits
Answers = Callable[[Tensor], Tensor]


@torch.no_grad()
def measured(answers: Answers, split: Split, numbers: Int64[Tensor, " n"] | None = None) -> dict[str, Any]:
    """``accuracy`` and ``top5`` in percent, ``loss`` in nats (mean cross entropy), and how many ``images``.

    Images are not augmented. ``top5`` is missing where there are no more than five classes.

    Parameters
    ----------
    answers
        Images as bytes, ``b c h w``, -> logits ``b classes``, on any device.
    split
        Images and labels.
    numbers
        Which of them; all unless told otherwise.
    """
    asked = torch.arange(len(split)) if numbers is None else numbers
    right, right5, loss, with_top = 0, 0, 0.0, False
    for some in asked.split(AT_ONCE):
        logits, labels = answers(split.batch(some)), split.labels[some]
        logits, labels = logits.float(), labels.to(logits.device)
        right += int((logits.argmax(1) == labels).sum())
        with_top = logits.shape[1] > TOP
        if with_top:
            right5 += int((logits.topk(TOP, 1).indices == labels[:, None]).sum())
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    n = max(len(asked), 1)
    found: dict[str, Any] = {"accuracy": 100 * right / n, "loss": loss / n, "images": len(asked)}
    return {**found, "top5": 100 * right5 / n} if with_top else found


def some_of(split: Sized, n: int) -> Int64[Tensor, " m"]:
    """Numbers of ``n`` images, drawn once for all runs, in order; of all if ``n`` is 0 or more than there are.

    >>> len(set(some_of(range(10), 4).tolist())), len(some_of(range(10), 0))
    (4, 10)
    """
    total = len(split)
    if n == 0 or n >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:n].sort().values
