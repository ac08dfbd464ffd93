"""Small dense networks as data: a list of layers that read from slots and write to slots.

Every network of this project that is asked at points (NeRF's, the proposal's, a shape's) is such a list, so that each
backend is written once. This file is the readable twin that all of them are tested against.

Vocabulary
----------
- a **slot** holds one row of values a point: first the network's inputs, then the outputs of its layers, in order;
- an input may have fewer rows than there are points: each of its rows then serves as many consecutive points as the
  quotient says (the samples of a ray share its viewing direction);
- a **backend** binds a network to its weights once, and the bound network is called at as many points as one likes;
- ``precision`` is that of the products' factors: sums are fp32 in every case, and so is all that enters and leaves.
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
    """One dense layer: reads ``sources`` side by side, has ``width`` outputs, and a ReLU or none."""

    sources: tuple[int, ...]
    width: int
    relu: bool


@dataclass(frozen=True)
class Network:
    """Layers in the order in which they run; layer i writes slot ``len(inputs) + i``.

    Attributes
    ----------
    inputs
        Widths of the input slots.
    layers
        The layers; each reads slots that come before its own.
    outputs
        The slots that are returned; no layer reads them, and their layers have no ReLU.
    """

    inputs: tuple[int, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[int, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of all slots."""
        return (*self.inputs, *(layer.width for layer in self.layers))

    @property
    def products(self) -> int:
        """Multiplications a point, forward: the number of weights without biases."""
        return sum(layer.width * sum(self.widths[s] for s in layer.sources) for layer in self.layers)


# inputs, slot by slot -> outputs, in the network's order
Bound = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
# network, weights, biases -> the network bound to them
Bind = Callable[[Network, Sequence[Tensor], Sequence[Tensor]], Bound]


def bind(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], precision: str = "fp32") -> Bound:
    """The network with its weights, evaluated by torch: differentiable in weights, biases and inputs, on any device.

    Parameters
    ----------
    network
        What is computed.
    weights, biases
        Of each layer, in order: (width, sum of the widths it reads) and (width,).
    precision
        ``fp32`` leaves the dtype as it is (float64 too); ``bf16`` rounds weights, biases and what flows between layers.
    """

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        slots = spread(inputs)
        low = precision == "bf16"
        if low:
            slots = [slot.bfloat16() for slot in slots]
        for layer, weight, bias in zip(network.layers, weights, biases, strict=True):
            seen = [slots[s] for s in layer.sources]
            x = seen[0] if len(seen) == 1 else torch.cat(seen, -1)
            out = functional.linear(x, weight.to(x.dtype), bias.to(x.dtype))
            slots.append(torch.relu(out) if layer.relu else out)
        return tuple(slots[s].float() if low else slots[s] for s in network.outputs)

    return run


def spread(inputs: Sequence[Float[Tensor, "_ _"]]) -> list[Float[Tensor, "n _"]]:
    """The inputs with a row for every point: rows of the shorter ones are repeated.

    >>> [x.flatten().tolist() for x in spread([torch.zeros(4, 1), torch.tensor([[1.0], [2.0]])])]
    [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 2.0, 2.0]]
    """
    n = max(len(x) for x in inputs)
    return [x if len(x) == n else x.repeat_interleave(n // len(x), 0) for x in inputs]
