"""Small dense networks as data: a list of layers that read and write activation buffers.

The networks of all fields (NeRF, proposal, shape) are described in this form, so that each backend is written once.
``bind`` is the reference implementation that the other backends are tested against.

Vocabulary
----------
- an **activation buffer** contains one row of values for each point; buffers are numbered: first the network's inputs,
  then the outputs of its layers, in order;
- an input may have fewer rows than there are points, by an integer factor: each row is then shared by that many
  consecutive points (the samples of a ray share its viewing direction);
- a **backend** binds a network to its weights; the bound network is a function of the inputs;
- ``precision`` is that of the factors of matrix products; sums, inputs and outputs are always fp32.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Layer:
    """One dense layer: its input is the concatenation of the buffers ``sources``; ``width`` outputs, optional ReLU."""

    sources: tuple[int, ...]
    width: int
    relu: bool


@dataclass(frozen=True)
class Network:
    """Layers in the order of execution; layer i writes buffer ``len(inputs) + i``.

    Attributes
    ----------
    inputs
        Widths of the inputs.
    layers
        The layers; each reads buffers with a lower number than its own.
    outputs
        The buffers that are returned; no layer reads them, and their layers have no ReLU.
    """

    inputs: tuple[int, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of all buffers."""
        return (*self.inputs, *(layer.width for layer in self.layers))

    @property
    def products(self) -> int:
        """Multiplications per point of a forward pass: the number of weights, without biases."""
        return sum(layer.width * sum(self.widths[s] for s in layer.sources) for layer in self.layers)


# inputs -> outputs, both in the network's order
Bound = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
# network, weights, biases -> the network bound to them
Bind = Callable[[Network, Sequence[Tensor], Sequence[Tensor]], Bound]


def bind(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], precision: str = "fp32") -> Bound:
    """Return the network with its weights as a function of its inputs, evaluated by torch on any device.

    Differentiable with respect to weights, biases and inputs.

    Parameters
    ----------
    network
        The network.
    weights, biases
        Of each layer, in order: (width, sum of the widths it reads) and (width,).
    precision
        ``fp32`` keeps the dtype of the inputs (float64 too); ``bf16`` rounds weights, biases and activations.
    """

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        buffers = repeat_rows(inputs)
        low = precision == "bf16"
        if low:
            buffers = [x.bfloat16() for x in buffers]
        for layer, weight, bias in zip(network.layers, weights, biases, strict=True):
            sources = [buffers[s] for s in layer.sources]
            x = sources[0] if len(sources) == 1 else torch.cat(sources, -1)
            out = functional.linear(x, weight.to(x.dtype), bias.to(x.dtype))
            buffers.append(torch.relu(out) if layer.relu else out)
        return tuple(buffers[s].float() if low else buffers[s] for s in network.outputs)

    return run


def repeat_rows(inputs: Sequence[Float[Tensor, "_ _"]]) -> list[Float[Tensor, "n _"]]:
    """The inputs with one row for each point: rows of shorter ones are repeated.

    Raises
    ------
    ValueError
        If the number of points is not a multiple of the rows of an input.

    >>> [x.flatten().tolist() for x in repeat_rows([torch.zeros(4, 1), torch.tensor([[1.0], [2.0]])])]
    [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 2.0, 2.0]]
    """
    n = number_of_points(inputs)
    return [x if len(x) == n else x.repeat_interleave(n // len(x), 0) for x in inputs]


def number_of_points(inputs: Sequence[Float[Tensor, "_ _"]]) -> int:
    """The largest number of rows; raises a ``ValueError`` if it is not a multiple of the rows of each input."""
    rows = [len(x) for x in inputs]
    n = max(rows)
    if any(n and (k == 0 or n % k) for k in rows):
        raise ValueError(f"inputs of {rows} rows: each must divide the largest, to be shared by as many points")
    return n


def check_inputs(network: Network, inputs: Sequence[Tensor], device: torch.device) -> int:
    """Number of points of inputs, after a check that they are matrices of the network's widths on a device.

    Raises
    ------
    ValueError
        If number, shapes, rows or device differ from what is expected.
    TypeError
        If they are not real floating-point numbers.
    """
    shapes = [tuple(x.shape) for x in inputs]
    if len(shapes) != len(network.inputs) or any(
        len(shape) != 2 or shape[1] != width for shape, width in zip(shapes, network.inputs, strict=True)
    ):
        raise ValueError(f"inputs of shapes {shapes}; expected (rows, width) of widths {list(network.inputs)}")
    _check_tensors(inputs, "inputs", device)
    return number_of_points(inputs)


def check_parameters(
    network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], device: torch.device
) -> None:
    """Check that a network is valid, and that weights and biases have its shapes and are on a device.

    Raises
    ------
    ValueError
        If that is not so.
    TypeError
        If they are not real floating-point numbers.
    """
    check_network(network)
    if not len(weights) == len(biases) == len(network.layers):
        raise ValueError(f"{len(weights)} weights and {len(biases)} biases for {len(network.layers)} layers")
    for i, (layer, weight, bias) in enumerate(zip(network.layers, weights, biases, strict=True)):
        shape = (layer.width, sum(network.widths[s] for s in layer.sources))
        if tuple(weight.shape) != shape or tuple(bias.shape) != shape[:1]:
            raise ValueError(f"layer {i}: weight {tuple(weight.shape)} and bias {tuple(bias.shape)} for {shape}")
    _check_tensors([*weights, *biases], "weights and biases", device)


@functools.cache
def check_network(network: Network) -> None:
    """Raise a ValueError unless a network is as ``Network`` describes: kernels read memory by its numbers."""
    k, widths, outputs = len(network.inputs), network.widths, network.outputs
    if not k or not network.layers or min(widths) < 1:
        raise ValueError(f"a network of widths {list(widths)}; expected inputs and layers with widths from 1")
    for i, layer in enumerate(network.layers):
        if not layer.sources or any(not 0 <= s < k + i or s in outputs for s in layer.sources):
            raise ValueError(f"layer {i} reads buffers {list(layer.sources)}; expected earlier ones, no outputs")
        if layer.relu and k + i in outputs:
            raise ValueError(f"layer {i} is an output; expected one without ReLU")
    if not outputs or len(set(outputs)) < len(outputs) or any(not k <= s < len(widths) for s in outputs):
        raise ValueError(f"outputs {list(outputs)}; expected different layers' buffers, from {k} to {len(widths) - 1}")


def _check_tensors(tensors: Sequence[Tensor], what: str, device: torch.device) -> None:
    for x in tensors:
        if x.device != device:
            raise ValueError(f"{what} on {x.device}; expected {device}")
        if not x.is_floating_point():
            raise TypeError(f"{what} of {x.dtype}; expected real floating-point numbers")
