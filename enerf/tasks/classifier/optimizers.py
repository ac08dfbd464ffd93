"""Optimizers of classifiers: those of torch, and the intrinsic ones and those of matrices of ``enerf.optim``.

Regularization applies to weights only: matrices and kernels, conditioned or not; not to biases, norm parameters,
tokens, positional embeddings and learned gains.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from enerf.conditioning.groups import matrix_views
from enerf.engine.optimizers import with_matrices
from enerf.optim.intrinsic import IntrinsicAdagrad, IntrinsicAdam, IntrinsicRMSprop
from enerf.optim.table import MATRIX_OPTIMIZERS
from enerf.tasks.classifier import build
from enerf.tasks.classifier.config import ClassifierTrainOptions

WEIGHT_SUFFIXES = ("weight", "original", "original1")  # names of a plain, a conditioned, and a weight-normalized weight


def make(options: ClassifierTrainOptions, model: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer, with two parameter groups: regularized weights, and all other parameters.

    With an optimizer of matrices, the hidden weights are a third group, the last one.

    Raises
    ------
    InputError
        If an optimizer of matrices lacks its package, or does not suit the network.
    """
    name = options.optimiser
    if name not in MATRIX_OPTIMIZERS:
        return _of_all(options, model, [])
    hidden = hidden_weights(model)
    return with_matrices(
        _of_all(options, model, hidden),
        name,
        hidden,
        (options.lrate, options.lrate_matrices),
        f"--optimiser {name}",
        "a deeper network",
        weight_decay=options.weight_decay,
        views=matrix_views(model),
    )


def _of_all(
    options: ClassifierTrainOptions, model: nn.Module, without: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer of all parameters but some; beside one of matrices it is AdamW."""
    left_out = {id(p) for p in without}
    chosen = [p for p in regularized_weights(model) if id(p) not in left_out]
    ids = {id(p) for p in chosen} | left_out
    others = [p for p in model.parameters() if id(p) not in ids]
    regularized, free = _regularization(options)
    groups: list[dict[str, Any]] = [{"params": chosen, **regularized}]
    if others:
        groups.append({"params": others, **free})
    name, lr, eps = options.optimiser, options.lrate, options.adam_eps
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=options.momentum)
    if name.endswith("rmsprop"):
        kind = IntrinsicRMSprop if name.startswith("intrinsic") else torch.optim.RMSprop
        return kind(groups, lr=lr, alpha=options.adam_beta2, eps=eps, momentum=options.momentum)
    if name.endswith("adagrad"):
        return (IntrinsicAdagrad if name.startswith("intrinsic") else torch.optim.Adagrad)(groups, lr=lr)
    adam_types = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "intrinsic_adam": IntrinsicAdam}
    adam_types |= dict.fromkeys(MATRIX_OPTIMIZERS, torch.optim.AdamW)  # of the other parameters
    made: torch.optim.Optimizer = adam_types[name](groups, lr=lr, betas=(0.9, options.adam_beta2), eps=eps)
    return made


def regularized_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the regularized parameters: weights with at least two dimensions of more than one entry.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2))
    >>> [tuple(p.shape) for p in regularized_weights(model)]
    [(8, 3, 3, 3), (2, 8)]
    """
    named = model.named_parameters()
    return [p for name, p in named if name.endswith(WEIGHT_SUFFIXES) and p.squeeze().ndim > 1]


def hidden_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the regularized weights without those of the first layer and of the head.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Linear(4, 2))
    >>> [tuple(p.shape) for p in hidden_weights(model)]
    [(4, 8, 3, 3), (2, 4)]
    """
    first = next(iter(matrix_views(model)), None)
    outer = {id(first)} | {
        id(p) for name in build.HEADS if hasattr(model, name) for p in getattr(model, name).parameters()
    }
    return [p for p in regularized_weights(model) if id(p) not in outer]


def _regularization(options: ClassifierTrainOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the group of weights, and of the other group."""
    if options.optimiser.startswith("intrinsic"):
        return {"l1": options.l1, "l2": options.l2, "shrinkage": options.shrinkage}, {"l1": 0.0, "l2": 0.0}
    return {"weight_decay": options.weight_decay}, {"weight_decay": 0.0}
