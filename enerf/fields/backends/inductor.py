"""The reference implementations through ``torch.compile``: fused GPU code, compiled at the first call of a shape.

Once differentiable: ``torch.compile`` makes no second derivatives, and leaves them out without an error where they are
asked for with respect to particular tensors.
"""

import functools
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from enerf.core.first_order import only_first_order
from enerf.fields.backends import dense, hashgrid
from enerf.fields.backends.dense import Bound, Network
from enerf.fields.backends.hashgrid import Grid


def unavailable_reason() -> str | None:
    """Why ``torch.compile`` cannot be used, or None if it can."""
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        return "torch.compile needs a C++ compiler, and none was found"
    return None


def bind(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], precision: str = "fp32") -> Bound:
    """The network with its weights as a function of its inputs (see ``dense.bind``), compiled at the first call."""
    evaluate = _compiled_network(network, precision)

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        dense.check_inputs(network, inputs, weights[0].device)
        out: tuple[Tensor, ...] = evaluate(list(inputs), list(weights), list(biases))
        return tuple(only_first_order(x, *inputs, *weights, *biases) for x in out)

    return run


def encode(points: Tensor, table: Tensor, grid: Grid) -> Tensor:
    """Features of points (see ``hashgrid.encode``)."""
    out: Tensor = _compiled_grid(grid)(points, table)
    return only_first_order(out, points, table)


@functools.cache
def _compiled_network(network: Network, precision: str) -> Callable[..., Any]:
    def evaluate(inputs: list[Tensor], weights: list[Tensor], biases: list[Tensor]) -> tuple[Tensor, ...]:
        return dense.bind(network, weights, biases, precision)(inputs)

    return torch.compile(evaluate)


@functools.cache
def _compiled_grid(grid: Grid) -> Callable[..., Any]:
    def evaluate(points: Tensor, table: Tensor) -> Tensor:
        return hashgrid.encode(points, table, grid)

    return torch.compile(evaluate)
