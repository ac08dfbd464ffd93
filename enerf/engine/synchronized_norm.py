"""Batch normalization whose statistics are those of the joint batch of several processes.

``torch.nn.SyncBatchNorm`` needs a GPU; these layers run on any device. Source: Ioffe, Szegedy, Batch Normalization,
ICML 2015, algorithm 1.
"""

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from enerf.conditioning.batch_norm import (
    PreconditionedConv1d,
    PreconditionedConv2d,
    PreconditionedConv3d,
    PreconditionedLinear,
)
from enerf.engine.distributed import Team


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient, since each process has a part of the loss."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


class _JointStatistics(nn.Module):
    """Mixin of batch normalizations; in evaluation mode they are those of torch."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalized values; channels are the second axis."""
        assert isinstance(self, nn.BatchNorm1d | nn.BatchNorm2d)
        if not self.training:
            found: Tensor = super().forward(input)
            return found
        values = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        rows = values.new_full((1,), values.numel() / values.shape[1])
        sums = _Sum.apply(torch.cat([values.sum(axes), rows]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centered = values - mean.view(shape)
        variance = _Sum.apply(centered.square().sum(axes)) / count
        self._update(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        normalized = centered * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running averages."""
        assert isinstance(self, nn.BatchNorm1d | nn.BatchNorm2d)
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(variance.to(self.running_var.dtype), weight)


class JointBatchNorm1d(_JointStatistics, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` with the statistics of several processes; made by ``synchronize``."""


class JointBatchNorm2d(_JointStatistics, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the statistics of several processes; made by ``synchronize``."""


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm1d: JointBatchNorm1d, nn.BatchNorm2d: JointBatchNorm2d}


def exchanges_within(model: nn.Module) -> bool:
    """Whether steps of a model exchange statistics between processes while they are computed."""
    kinds = (_JointStatistics, PreconditionedLinear, PreconditionedConv1d, PreconditionedConv2d, PreconditionedConv3d)
    return any(isinstance(module, kinds) for module in model.modules())


def synchronize(model: nn.Module, team: Team) -> None:
    """Let the batch normalizations of a model take the statistics of the joint batch; parameters and keys stay."""
    for module in model.modules() if team.is_joint else ():
        if type(module) in _CLASSES:
            module.__class__ = _CLASSES[type(module)]
