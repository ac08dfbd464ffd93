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

    >>> [x.flatten().tolist() for x in repeat_rows([torch.zeros(4, 1), torch.tensor([[1.0], [2.0]])])]
    [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 2.0, 2.0]]
    """
    n = max(len(x) for x in inputs)
    return [x if len(x) == n else x.repeat_interleave(n // len(x), 0) for x in inputs]
