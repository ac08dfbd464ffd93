"""Dense networks by tiny-cuda-nn, in fp16 on a GPU, if it is installed (reference implementation: ``dense.bind``).

tiny-cuda-nn evaluates chains of ReLU layers of one width without biases; the matrices of a chain are one flat vector,
in row-major order. A network is split into such **chains**: a layer belongs to the chain of the previous layer if it
reads only that layer, no other layer reads it, and it has a ReLU. NeRF's trunk of 8 layers has two chains (the second
begins at the skip connection); its heads and feature layer are chains of their own.

Biases are exact: the input gets a column of ones, and every hidden layer a neuron of constant value one (with weight 1
from its predecessor and 0 from the others), whose outgoing weights are the biases of the next layer. This takes one
neuron per layer: a network of width 64 runs with 128 neurons, one of 256 with 272; widths 63 and 127 waste least. Up to
128 neurons, this one included, run as ``FullyFusedMLP``, more, or a single layer, as ``CutlassMLP``.

The weights are padded with zeros here, by differentiable operations: equilibration never includes padding in its norms,
and gradients reach the weights and biases by autograd. The padded vector replaces the parameters of tiny-cuda-nn's
module in every call.

The hash grid of tiny-cuda-nn is not used: its resolutions and the position of points in cells (x·scale + 1/2) differ,
so the tables of ``hashgrid`` are not compatible. Use ``triton_hashgrid``.

Tested against a stand-in that follows tiny-cuda-nn's source (parameters, padding), not on a GPU.
Source: Müller, tiny-cuda-nn (NVlabs/tiny-cuda-nn).
"""

import functools
import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from enerf.core.first_order import only_first_order
from enerf.fields.backends import dense
from enerf.fields.backends.dense import Bound, Network, repeat_rows

FUSED = (16, 32, 64, 128)  # neurons of a FullyFusedMLP
ALIGNED = 16  # inputs and outputs are padded to multiples of it here, so that tiny-cuda-nn adds no padding

Chain = tuple[int, ...]  # indices of consecutive layers


def unavailable_reason(device: torch.device | None = None) -> str | None:
    """Why networks cannot be evaluated on a device (None: on a CUDA device) in one line, or None if they can."""
    if importlib.util.find_spec("tinycudann") is None:
        return (
            "tinycudann is not installed: it is built from NVlabs/tiny-cuda-nn, bindings/torch; "
            "the other backends work without it"
        )
    if not torch.cuda.is_available():
        return "there is no CUDA device: tinycudann needs one, the torch backend works without it"
    if device is not None and device.type != "cuda":
        return f"tinycudann runs on CUDA devices, not on {device.type}: the torch backend works there"
    return None


def bind(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], precision: str = "bf16") -> Bound:
    """Return the network with its weights as a function of its inputs, evaluated by tiny-cuda-nn.

    Once differentiable with respect to weights, biases and inputs.

    Parameters
    ----------
    network
        The network.
    weights, biases
        Of each layer, in order: (width, sum of the widths it reads) and (width,).
    precision
        ``bf16``, computed in fp16, which is more precise and has the maximum 65,504.

    Raises
    ------
    RuntimeError
        If the library or a GPU is missing, with ``unavailable_reason``.
    ValueError
        If the precision is fp32, or a shape or device does not match the network.
    """
    if reason := unavailable_reason(weights[0].device):
        raise RuntimeError(reason)
    if precision == "fp32":
        raise ValueError("tiny-cuda-nn computes in fp16, not in fp32: take another backend for fp32")
    dense.check_parameters(network, weights, biases, weights[0].device)
    parts = [(chain, *_assembled(network, chain, weights, biases)) for chain in chains(network)]
    first = len(network.inputs)

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        dense.check_inputs(network, inputs, weights[0].device)
        buffers: dict[int, Tensor] = dict(enumerate(repeat_rows(inputs)))
        for chain, module, flat in parts:
            sources = [buffers[s] for s in network.layers[chain[0]].sources]
            x = torch.cat([*sources, torch.ones_like(sources[0][:, :1])], -1)
            out = functional_call(module, {"params": flat}, (padded(x, x.shape[0], up(x.shape[1])),))
            out = only_first_order(out, x, flat)  # tiny-cuda-nn leaves second derivatives of parameters out
            buffers[first + chain[-1]] = out[:, : network.layers[chain[-1]].width].float()
        return tuple(buffers[s] for s in network.outputs)

    return run


def chains(network: Network) -> list[Chain]:
    """Split the layers of a network into chains."""
    first = len(network.inputs)
    found: list[Chain] = []
    for i, layer in enumerate(network.layers):
        before = first + i - 1
        readers = [j for j, other in enumerate(network.layers) if before in other.sources]
        joins = i > 0 and layer.sources == (before,) and readers == [i] and before not in network.outputs
        if joins and network.layers[i - 1].relu:
            found[-1] = (*found[-1], i)
        else:
            found.append((i,))
    return found


def neurons(network: Network, chain: Chain) -> int:
    """Neurons of a chain's hidden layers in tiny-cuda-nn, the constant one included; 0 without hidden layers."""
    if len(chain) == 1:
        return 0
    widest = max(network.layers[i].width for i in chain[:-1]) + 1
    return next((width for width in FUSED if width >= widest), up(widest))


def _assembled(
    network: Network, chain: Chain, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[torch.nn.Module, Tensor]:
    """tiny-cuda-nn's module for a chain, and its parameters as a differentiable function of weights and biases."""
    width, last = neurons(network, chain), network.layers[chain[-1]]
    matrices = []
    for i in chain:
        weight, bias = weights[i].float(), biases[i].float()
        matrix = torch.cat([weight, bias[:, None]], 1)  # the last column is multiplied by the constant one
        rows, columns = up(len(weight)), up(matrix.shape[1])
        if i != chain[0]:
            matrix, columns = _carried(weight, bias, width), width
        if i != chain[-1]:
            rows = width
        matrix = padded(matrix, rows, columns)
        if i != chain[-1]:
            inputs = weight.shape[1] if i == chain[0] else width - 1
            matrix = matrix + _one(matrix, inputs)
        matrices.append(matrix.flatten())
    flat = torch.cat(matrices)
    n_in = up(weights[chain[0]].shape[1] + 1)
    module = _module(n_in, up(last.width), width, len(chain) - 1, last.relu, weights[0].device)
    if module.params.numel() != len(flat):
        raise RuntimeError(f"tinycudann has {module.params.numel()} parameters, expected {len(flat)}: not its layout")
    return module, flat


def _carried(weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"], width: int) -> Float[Tensor, "o w"]:
    """Matrix of a layer that reads hidden neurons, the last of which is constant one."""
    return torch.cat([padded(weight, len(weight), width - 1), bias[:, None]], 1)


def _one(matrix: Float[Tensor, "o i"], column: int) -> Float[Tensor, "o i"]:
    """Zeros, except a 1 that copies the constant one from ``column`` to the last neuron."""
    one = torch.zeros_like(matrix)
    one[-1, column] = 1
    return one


@functools.lru_cache(maxsize=64)
def _module(inputs: int, outputs: int, width: int, hidden: int, relu: bool, device: torch.device) -> Any:
    """tiny-cuda-nn's module for the sizes of a chain; its own parameters are not used."""
    config = {
        "otype": "FullyFusedMLP" if width in FUSED else "CutlassMLP",
        "activation": "ReLU",
        "output_activation": "ReLU" if relu else "None",
        "n_neurons": width or ALIGNED,
        "n_hidden_layers": hidden,
    }
    return importlib.import_module("tinycudann").Network(inputs, outputs, config).to(device)


def padded(matrix: Float[Tensor, "_ _"], rows: int, columns: int) -> Float[Tensor, "{rows} {columns}"]:
    """The matrix padded with zeros below and to the right.

    >>> padded(torch.ones(1, 1), 2, 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return functional.pad(matrix, (0, columns - matrix.shape[1], 0, rows - matrix.shape[0]))


def up(width: int) -> int:
    """The next multiple of ``ALIGNED``.

    >>> up(16), up(17)
    (16, 32)
    """
    return -(-width // ALIGNED) * ALIGNED
