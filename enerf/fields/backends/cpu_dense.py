"""Dense networks on a CPU by the C++ kernel ``cpu_dense.cpp``; reference implementation: ``dense.bind``.

In bf16, ``cpu_amx`` is used instead wherever the processor has AMX.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from enerf.core import cpu_build
from enerf.core.first_order import first_order
from enerf.fields.backends import cpu_amx, cpu_arrays, dense
from enerf.fields.backends.cpu_arrays import CPU, FLOATS, pointer, pointers
from enerf.fields.backends.dense import Bound, Network

SOURCE = Path(__file__).with_name("cpu_dense.cpp")
NAME = "cpu_dense"


def unavailable_reason(precision: str = "fp32") -> str | None:
    """Why the kernel cannot be used in a precision, or None if it can."""
    library = cpu_build.library(SOURCE)
    if library is None:
        return "its C++ kernel could not be compiled"
    if precision == "bf16" and not library.dense_has_bf16():
        return "this processor has no bf16 products (AVX-512 BF16)"
    return None


@dataclass(frozen=True)
class Packed:
    """A network and its weights in the layout of the kernel.

    Attributes
    ----------
    low
        Whether factors are bf16 instead of fp32.
    plan
        The network as an array of C integers (see ``Net`` in the kernel).
    units
        The packed weights and biases.
    """

    network: Network
    low: bool
    plan: Any
    units: Tensor
    library: ctypes.CDLL


def bind(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], precision: str = "fp32") -> Bound:
    """Return the network with its weights as a function of its inputs (see ``dense.bind``); float32 on the CPU.

    Once differentiable with respect to weights, biases and inputs. The weights are packed now; later changes in place
    have no effect.

    Raises
    ------
    RuntimeError
        If the kernel is not available in that precision.
    ValueError, TypeError
        Now for parameters, in a call for inputs, that do not match the network, or are not numbers on the CPU.
    MemoryError
        In a call, if memory cannot be allocated.
    """
    if reason := unavailable_reason(precision):
        raise RuntimeError(f"the compiled kernel for dense networks cannot be used in {precision}: {reason}")
    dense.check_parameters(network, weights, biases, CPU)
    if precision == "bf16" and cpu_amx.is_available():
        return cpu_amx.bind(network, weights, biases)
    packed = _pack(network, weights, biases, precision == "bf16")

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        n = dense.check_inputs(network, inputs, CPU)
        given = [cpu_arrays.rows(x, n) for x in inputs]
        trained = [*given, *weights, *biases]
        if torch.is_grad_enabled() and any(x.requires_grad for x in trained):
            return _Evaluate.apply(packed, *trained)
        return _forward(packed, given, None)

    return run


def _pack(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], low: bool) -> Packed:
    """Pack the weights into the layout of the kernel."""
    library = cpu_build.library(SOURCE)
    assert library is not None
    library.dense_packed_units.restype = ctypes.c_long
    plan = cpu_arrays.plan_of(network)
    count = library.dense_packed_units(plan, int(low))
    cpu_build.check(cpu_build.NO_MEMORY if count < 0 else 0, NAME)
    units = torch.empty(count, dtype=torch.int32, device=CPU)
    plain = [[x.detach().float().contiguous() for x in group] for group in (weights, biases)]
    status = library.dense_pack(plan, int(low), pointers(plain[0]), pointers(plain[1]), pointer(units))
    cpu_build.check(status, NAME)
    return Packed(network, low, plan, units, library)


def _forward(packed: Packed, inputs: Sequence[Tensor], saved: list[Tensor | None] | None) -> tuple[Tensor, ...]:
    """The outputs; activations are written to ``saved``, if given."""
    n, widths = max(len(x) for x in inputs), packed.network.widths
    outs = tuple(torch.empty(n, widths[i], **FLOATS) for i in packed.network.outputs)
    if n:
        status = packed.library.dense_forward(
            packed.plan,
            int(packed.low),
            pointer(packed.units),
            pointers(inputs),
            cpu_arrays.repeats(inputs, n),
            ctypes.c_long(n),
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
        rows, panel = packed.library.dense_rows(), packed.library.dense_panel()
        dtype = torch.bfloat16 if packed.low else torch.float32
        shapes = [(-(-n // rows) * rows, -(-width // panel) * panel) for width in network.widths]
        like: dict[str, Any] = {"dtype": dtype, "device": CPU}
        saved = [None if i in network.outputs else torch.empty(s, **like) for i, s in enumerate(shapes)]
        outs = _forward(packed, inputs, saved)
        ctx.packed, ctx.saved, ctx.n = packed, saved, n
        ctx.save_for_backward(*trained)
        return outs

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        packed = ctx.packed

        def call(reached: Any, weights: Any, biases: Any, inputs: Any) -> None:
            if not ctx.n:
                return
            status = packed.library.dense_backward(
                packed.plan,
                int(packed.low),
                pointer(packed.units),
                pointers(ctx.saved),
                reached,
                ctypes.c_long(ctx.n),
                weights,
                biases,
                inputs,
                torch.get_num_threads(),
            )
            cpu_build.check(status, NAME)

        return (None, *cpu_arrays.gradients(ctx, packed.network, grads, call))
