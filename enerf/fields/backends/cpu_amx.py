"""Dense networks in bf16 on a CPU with AMX by the C++ kernel ``cpu_amx.cpp``; reference implementation: ``dense.bind``.

``cpu_dense.bind`` uses it wherever it is available: ``benchmarks/step.py`` measures it.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from enerf.core import cpu_build, device
from enerf.core.first_order import first_order
from enerf.fields.backends import cpu_arrays, dense
from enerf.fields.backends.cpu_arrays import CPU, FLOATS, pointer, pointers
from enerf.fields.backends.dense import Bound, Network

SOURCE = Path(__file__).with_name("cpu_amx.cpp")
NAME = "cpu_amx"
BLOCK = 32  # points of a block
FLAGS = {"amx_bf16", "amx_tile", "avx512_bf16", "avx512bw"}  # instruction sets that the kernel needs


def is_available() -> bool:
    """Whether this processor has AMX with bf16, the system lets the process use it, and the kernel can be compiled."""
    if not device.cpu_flags() >= FLAGS:
        return False
    library = cpu_build.library(SOURCE)
    return library is not None and bool(library.amx_available())


@dataclass(frozen=True)
class Packed:
    """A network and its weights in the layout of the kernel.

    Attributes
    ----------
    plan
        The network as an array of C integers (``cpu_arrays.plan_of``).
    units
        The packed weights and biases.
    saved_bytes
        Bytes of the saved activations of ``BLOCK`` points, for each buffer.
    """

    network: Network
    plan: Any
    units: Tensor
    saved_bytes: tuple[int, ...]
    library: ctypes.CDLL


def bind(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Bound:
    """Return the network with its weights as a function of its inputs, in bf16 (see ``cpu_dense.bind``)."""
    packed = _pack(network, weights, biases)

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        n = dense.check_inputs(network, inputs, CPU)
        given = [cpu_arrays.rows(x, n) for x in inputs]
        trained = [*given, *weights, *biases]
        if torch.is_grad_enabled() and any(x.requires_grad for x in trained):
            return _Evaluate.apply(packed, *trained)
        return _forward(packed, given, None, _points(packed, n))

    return run


def _pack(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Packed:
    """Pack the weights into the layout of the kernel."""
    library = cpu_build.library(SOURCE)
    assert library is not None
    library.amx_packed_units.restype = library.amx_points.restype = ctypes.c_long
    plan = cpu_arrays.plan_of(network)
    count = library.amx_packed_units(plan)
    cpu_build.check(cpu_build.NO_MEMORY if count < 0 else 0, NAME)
    units = torch.empty(count, dtype=torch.int32, device=CPU)
    plain = [[x.detach().float().contiguous() for x in group] for group in (weights, biases)]
    cpu_build.check(library.amx_pack(plan, pointers(plain[0]), pointers(plain[1]), pointer(units)), NAME)
    found = (ctypes.c_long * len(network.widths))()
    cpu_build.check(library.amx_saved_bytes(plan, found), NAME)
    return Packed(network, plan, units, tuple(found), library)


def _points(packed: Packed, n: int) -> int:
    """Points of a range, the unit of work of a thread."""
    return int(packed.library.amx_points(ctypes.c_long(n), torch.get_num_threads()))


def _forward(
    packed: Packed, inputs: Sequence[Tensor], saved: list[Tensor | None] | None, points: int
) -> tuple[Tensor, ...]:
    """The outputs; activations are written to ``saved``, if given, in ranges of ``points``."""
    n, widths = max(len(x) for x in inputs), packed.network.widths
    outs = tuple(torch.empty(n, widths[i], **FLOATS) for i in packed.network.outputs)
    if n:
        status = packed.library.amx_forward(
            packed.plan,
            pointer(packed.units),
            pointers(inputs),
            cpu_arrays.repeats(inputs, n),
            ctypes.c_long(n),
            ctypes.c_long(points),
            None if saved is None else pointers(saved),
            pointers(outs),
            torch.get_num_threads(),
        )
        cpu_build.check(status, NAME)
    return outs


class _Evaluate(torch.autograd.Function):
    """Autograd function of a packed network; once differentiable with respect to inputs, weights and biases."""

    @staticmethod
    def forward(ctx: Any, packed: Packed, *trained: Tensor) -> tuple[Tensor, ...]:
        network = packed.network
        inputs = trained[: len(network.inputs)]
        n = max(len(x) for x in inputs)
        blocks = -(-n // BLOCK)
        saved = [
            None if i in network.outputs else torch.empty(blocks * size, dtype=torch.uint8, device=CPU)
            for i, size in enumerate(packed.saved_bytes)
        ]
        points = _points(packed, n)
        outs = _forward(packed, inputs, saved, points)
        ctx.packed, ctx.saved, ctx.n, ctx.points = packed, saved, n, points
        ctx.save_for_backward(*trained)
        return outs

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        packed = ctx.packed

        def call(reached: Any, weights: Any, biases: Any, inputs: Any) -> None:
            if not ctx.n:
                return
            status = packed.library.amx_backward(
                packed.plan,
                pointer(packed.units),
                pointers(ctx.saved),
                reached,
                ctypes.c_long(ctx.n),
                ctypes.c_long(ctx.points),
                weights,
                biases,
                inputs,
                torch.get_num_threads(),
            )
            cpu_build.check(status, NAME)

        return (None, *cpu_arrays.gradients(ctx, packed.network, grads, call))
