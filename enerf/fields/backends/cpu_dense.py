"""Dense networks on a CPU by the C++ kernel ``cpu_dense.cpp``; reference implementation: ``dense.bind``."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from enerf.core import cpu_build
from enerf.core.first_order import first_order
from enerf.fields.backends import dense
from enerf.fields.backends.dense import Bound, Network

SOURCE = Path(__file__).with_name("cpu_dense.cpp")
NAME = "cpu_dense"
CPU = torch.device("cpu")
FLOATS: dict[str, Any] = {"dtype": torch.float32, "device": CPU}  # whatever the defaults of the process are


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
    packed = _pack(network, weights, biases, precision == "bf16")

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        n = dense.check_inputs(network, inputs, CPU)
        given = [_rows(x, n) for x in inputs]
        trained = [*given, *weights, *biases]
        if torch.is_grad_enabled() and any(x.requires_grad for x in trained):
            return _Evaluate.apply(packed, *trained)
        return _forward(packed, given, None)

    return run


def _rows(x: Tensor, n: int) -> Tensor:
    """An input in the layout of the kernel; shared rows are repeated if they need a gradient."""
    shared = len(x) < n and x.requires_grad and torch.is_grad_enabled()
    return (x.repeat_interleave(n // len(x), 0) if shared else x).float().contiguous()


def _pack(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], low: bool) -> Packed:
    """Pack the weights into the layout of the kernel."""
    library = cpu_build.library(SOURCE)
    assert library is not None
    library.dense_packed_units.restype = ctypes.c_long
    numbers = [len(network.inputs), len(network.layers), *network.widths]
    for i, layer in enumerate(network.layers):
        buffer = len(network.inputs) + i
        output = network.outputs.index(buffer) if buffer in network.outputs else -1
        numbers += [len(layer.sources), *layer.sources, layer.relu, output]
    plan = (ctypes.c_int * len(numbers))(*numbers)
    count = library.dense_packed_units(plan, int(low))
    cpu_build.check(cpu_build.NO_MEMORY if count < 0 else 0, NAME)
    units = torch.empty(count, dtype=torch.int32, device=CPU)
    plain = [[x.detach().float().contiguous() for x in group] for group in (weights, biases)]
    status = library.dense_pack(plan, int(low), _pointers(plain[0]), _pointers(plain[1]), _pointer(units))
    cpu_build.check(status, NAME)
    return Packed(network, low, plan, units, library)


def _pointer(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(0 if x is None else x.data_ptr())


def _pointers(tensors: Sequence[Tensor | None]) -> Any:
    """A C array of the addresses of tensors; None becomes null."""
    return (ctypes.c_void_p * len(tensors))(*[None if x is None else x.data_ptr() for x in tensors])


def _forward(packed: Packed, inputs: Sequence[Tensor], saved: list[Tensor | None] | None) -> tuple[Tensor, ...]:
    """The outputs; activations are written to ``saved``, if given."""
    n, widths = max(len(x) for x in inputs), packed.network.widths
    outs = tuple(torch.empty(n, widths[i], **FLOATS) for i in packed.network.outputs)
    repeats = (ctypes.c_long * len(inputs))(*[n // max(len(x), 1) for x in inputs])
    if n:
        status = packed.library.dense_forward(
            packed.plan,
            int(packed.low),
            _pointer(packed.units),
            _pointers(inputs),
            repeats,
            ctypes.c_long(n),
            None if saved is None else _pointers(saved),
            _pointers(outs),
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
        packed, trained = ctx.packed, ctx.saved_tensors
        k, n_layers = len(packed.network.inputs), len(packed.network.layers)
        needed = ctx.needs_input_grad[1:]
        inputs = [torch.zeros_like(x) if needed[i] else None for i, x in enumerate(trained[:k])]
        made = [torch.zeros(x.shape, **FLOATS) for x in trained[k:]]
        reached = [g.float().contiguous() for g in grads]  # this reference keeps them alive while the kernel reads them
        if ctx.n:
            status = packed.library.dense_backward(
                packed.plan,
                int(packed.low),
                _pointer(packed.units),
                _pointers(ctx.saved),
                _pointers(reached),
                ctypes.c_long(ctx.n),
                _pointers(made[:n_layers]),
                _pointers(made[n_layers:]),
                _pointers(inputs),
                torch.get_num_threads(),
            )
            cpu_build.check(status, NAME)
        return (None, *inputs, *(x if needed[k + i] else None for i, x in enumerate(made)))
