"""What follows the gradients of a classifier: torch's optimisers, and those of ``enerf.optim``.

Regularisation is of **weights**: matrices and kernels, conditioned or not; biases, normalisers, tokens, positions and
learned lengths are left alone.
"""

from typing import Any

import torch
from torch import nn

from enerf.optim.intrinsic import IntrinsicAdagrad, IntrinsicAdam, IntrinsicRMSprop
from enerf.tasks.classifier.config import ClassifierTrainOptions

ENDINGS = ("weight", "original", "original1")  # of a plain weight, a conditioned one, a weight-normalised one


def make(asked: ClassifierTrainOptions, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of the options, in two groups: weights, which are regularised, and all else, which is not."""
    chosen = weights(model)
    ids = {id(p) for p in chosen}
    others = [p for p in model.parameters() if id(p) not in ids]
    regularised, free = _regularisation(asked)
    groups: list[dict[str, Any]] = [{"params": chosen, **regularised}]
    if others:
        groups.append({"params": others, **free})
    name, lr, eps = asked.optimiser, asked.lrate, asked.adam_eps
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=asked.momentum)
    if name.endswith("rmsprop"):
        kind = IntrinsicRMSprop if name.startswith("intrinsic") else torch.optim.RMSprop
        return kind(groups, lr=lr, alpha=asked.adam_beta2, eps=eps, momentum=asked.momentum)
    if name.endswith("adagrad"):
        return (IntrinsicAdagrad if name.startswith("intrinsic") else torch.optim.Adagrad)(groups, lr=lr)
    of_adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "intrinsic_adam": IntrinsicAdam}
    made: torch.optim.Optimizer = of_adam[name](groups, lr=lr, betas=(0.9, asked.adam_beta2), eps=eps)
    return made


def weights(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that regularisation is about: those with a row and a column of more than one entry.

    >>> [tuple(p.shape) for p in weights(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)))]
    [(8, 3, 3, 3), (2, 8)]
    """
    named = model.named_parameters()
    return [p for name, p in named if name.endswith(ENDINGS) and p.squeeze().ndim > 1]


def _regularisation(asked: ClassifierTrainOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the group of weights, and of the other."""
    if asked.optimiser.startswith("intrinsic"):
        return {"l1": asked.l1, "l2": asked.l2, "shrinkage": asked.shrinkage}, {"l1": 0.0, "l2": 0.0}
    return {"weight_decay": asked.weight_decay}, {"weight_decay": 0.0}
