"""Seconds of a Muon update by ``torch.optim.Muon`` and by ``enerf.optim.muon.Muon``, alternately.

    python benchmarks/muon.py [--rounds 12] [--matrices 8] [--size 256]

``torch.optim.Muon`` multiplies in bf16, which processors without instructions for it emulate; ``enerf``'s multiplies
in fp32 there. Printed are medians over rounds of one update with noise as gradients: of matrices, and by ``enerf`` also
of kernels and packed projections; the A/A ratio of ``enerf``; the last line is torch's seconds over ``enerf``'s.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import sides
import torch
from torch import nn

from enerf.conditioning import matrix_views
from enerf.core import device as core_device
from enerf.optim import matrix_optimizer
from enerf.optim.muon import OPTIONS, Muon, products_on


def matrices(count: int, size: int) -> list[nn.Parameter]:
    """Square matrices with gradients."""
    found = [nn.Parameter(torch.randn(size, size)) for _ in range(count)]
    return _with_gradients(found)


def _with_gradients(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    for each in parameters:
        each.grad = torch.randn_like(each)
    return [*parameters]


def viewed(layers: Sequence[nn.Module]) -> torch.optim.Optimizer:
    """``enerf``'s optimizer of the weights of layers."""
    views = matrix_views(nn.ModuleList(layers))
    return matrix_optimizer("muon", _with_gradients([*views]), 0.0, views=views)


def seconds(optimizer: torch.optim.Optimizer) -> float:
    """Seconds of one update."""
    start = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    reader = sides.parser(__doc__)
    reader.add_argument("--rounds", type=int, default=12)
    reader.add_argument("--matrices", type=int, default=8, help="number of parameters")
    reader.add_argument("--size", type=int, default=256, help="rows of a matrix, channels of a kernel")
    args = reader.parse_args()
    report = sides.Report(args.out)
    core_device.prepare(torch.device("cpu"))
    count, size = args.matrices, args.size
    made: dict[str, torch.optim.Optimizer] = {
        "torch.optim.Muon": torch.optim.Muon(matrices(count, size), lr=0.0, weight_decay=0.0, **OPTIONS),
        "enerf": Muon(matrices(count, size), 0.0),
        "enerf again": Muon(matrices(count, size), 0.0),
        "enerf, kernels 3×3": viewed([nn.Conv2d(size, size, 3) for _ in range(count)]),
        "enerf, packed projections": viewed([nn.MultiheadAttention(size, 4) for _ in range(count)]),
    }
    timers: dict[str, Callable[[], float]] = {name: partial(seconds, each) for name, each in made.items()}
    sides.by_turns(timers, 1)
    found = sides.by_turns(timers, args.rounds)
    report(f"{count} parameters of {size} rows; enerf multiplies in {products_on(torch.device('cpu'))}")
    for name, values in found.items():
        report(f"{name:<28}{1000 * statistics.median(values):9.1f} ms an update")
    report(f"A/A {sides.ratio_line(sides.ratios(found['enerf again'], found['enerf']))}")
    report(sides.ratio_line(sides.ratios(found["torch.optim.Muon"], found["enerf"])))


if __name__ == "__main__":
    sides.enter(main)
