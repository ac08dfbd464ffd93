"""Arguments of the C++ kernels of dense networks: addresses of tensors, inputs in rows, networks as C arrays."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from enerf.fields.backends.dense import Network

CPU = torch.device("cpu")
FLOATS: dict[str, Any] = {"dtype": torch.float32, "device": CPU}  # whatever the defaults of the process are


def pointer(x: Tensor | None) -> ctypes.c_void_p:
    """The address of a tensor; null for None."""
    return ctypes.c_void_p(0 if x is None else x.data_ptr())


def pointers(tensors: Sequence[Tensor | None]) -> Any:
    """A C array of the addresses of tensors; None becomes null."""
    return (ctypes.c_void_p * len(tensors))(*[None if x is None else x.data_ptr() for x in tensors])


def plan_of(network: Network) -> Any:
    """A network as a C array of integers: numbers of inputs and layers, widths of buffers, then each layer.

    A layer is the number of its sources, these, whether it has a ReLU, and its index in the outputs (-1: none).
    """
    numbers = [len(network.inputs), len(network.layers), *network.widths]
    for i, layer in enumerate(network.layers):
        buffer = len(network.inputs) + i
        output = network.outputs.index(buffer) if buffer in network.outputs else -1
        numbers += [len(layer.sources), *layer.sources, layer.relu, output]
    return (ctypes.c_int * len(numbers))(*numbers)


def rows(x: Tensor, n: int) -> Tensor:
    """An input as contiguous float32; rows shared by several of ``n`` points are repeated if they need a gradient."""
    shared = len(x) < n and x.requires_grad and torch.is_grad_enabled()
    return (x.repeat_interleave(n // len(x), 0) if shared else x).float().contiguous()


def repeats(inputs: Sequence[Tensor], n: int) -> Any:
    """A C array: how many of ``n`` points share a row of each input."""
    return (ctypes.c_long * len(inputs))(*[n // max(len(x), 1) for x in inputs])


def gradients(
    ctx: Any, network: Network, grads: Sequence[Tensor], call: Callable[[Any, Any, Any, Any], None]
) -> tuple[Tensor | None, ...]:
    """Gradients of inputs, weights and biases, in that order; None where the autograd context needs none.

    Parameters
    ----------
    ctx
        Context of an autograd function whose first argument is no tensor, and whose saved tensors are the others.
    network
        The network that was evaluated.
    grads
        Gradients of its outputs.
    call
        Kernel call, which adds to gradients; its arguments are C arrays of the addresses of the gradients of outputs,
        weights, biases and inputs (null: not needed).
    """
    k, n_layers = len(network.inputs), len(network.layers)
    trained, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
    inputs = [torch.zeros_like(x) if needed[i] else None for i, x in enumerate(trained[:k])]
    made = [torch.zeros(x.shape, **FLOATS) for x in trained[k:]]
    reached = [g.float().contiguous() for g in grads]  # this reference keeps them alive while the kernel reads them
    call(pointers(reached), pointers(made[:n_layers]), pointers(made[n_layers:]), pointers(inputs))
    return (*inputs, *(x if needed[k + i] else None for i, x in enumerate(made)))
