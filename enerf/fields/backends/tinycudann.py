"""Dense networks by tiny-cuda-nn, where it is installed (twin: ``dense.bind``; it computes in fp16, on a GPU).

tiny-cuda-nn runs bias-free chains of ReLU layers of one width, and keeps all of a chain's matrices in one flat vector,
row after row. A network is cut into such **chains**: a layer joins the chain of the layer before it if it reads that
layer and nothing else, nothing else reads that layer, and that layer has a ReLU. NeRF's 8 layers make two (the skip
begins the second), its heads and its feature layer one each.

Biases are kept exactly: the input gets a column of ones, and every hidden layer a neuron that is always one (its weight
from the one before it is 1, from all others 0), which carries the biases of the next layer. This costs one neuron a
layer, so a 64-wide network runs as a 128-wide one, a 256-wide one as 272: 63 or 127 make the most of it. Up to 128
neurons with the carrier run as ``FullyFusedMLP``, more, or a single layer, as ``CutlassMLP``.

Inputs, outputs and hidden layers are padded with zeros to what tiny-cuda-nn's matrices need, after the weights arrive
here. So norms that equilibration takes never see padding, and gradients reach the weights and biases through the very
operations that lay them out. tiny-cuda-nn reads its vector on every pass; it is put in place of the module's own.

Its hash grid is not offered: it places a point x at x·(scale) + 1/2 of a level with another rule for resolutions, so
no table of ``hashgrid`` means the same there. Use ``triton_hashgrid``.

This has been tested against a stand-in that follows tiny-cuda-nn's source (parameters, padding), not on a GPU.
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

from enerf.fields.backends.dense import Bound, Network, spread

FUSED = (16, 32, 64, 128)  # neurons of a FullyFusedMLP
ALIGNED = 16  # inputs and outputs are padded to multiples of it, here, so that tiny-cuda-nn adds nothing of its own

Chain = tuple[int, ...]  # indices of consecutive layers


def unavailable_reason(device: torch.device | None = None) -> str | None:
    """None where networks can be bound on a device (None: on a CUDA device), else the reason in one line."""
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
    """The network with its weights, evaluated by tiny-cuda-nn: differentiable in weights, biases and inputs.

    Parameters
    ----------
    network
        What is computed.
    weights, biases
        Of each layer, in order: (width, sum of the widths it reads) and (width,).
    precision
        ``bf16`` asks for short factors; tiny-cuda-nn has fp16, which is finer and ends at 65,504.

    Raises
    ------
    RuntimeError
        Where ``unavailable_reason`` gives a reason.
    ValueError
        If fp32 is asked for.
    """
    if reason := unavailable_reason(weights[0].device):
        raise RuntimeError(reason)
    if precision == "fp32":
        raise ValueError("tiny-cuda-nn computes in fp16, not in fp32: take another backend for fp32")
    parts = [(chain, *_assembled(network, chain, weights, biases)) for chain in chains(network)]
    first = len(network.inputs)

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        slots: dict[int, Tensor] = dict(enumerate(spread(inputs)))
        for chain, module, flat in parts:
            seen = [slots[s] for s in network.layers[chain[0]].sources]
            x = torch.cat([*seen, torch.ones_like(seen[0][:, :1])], -1)
            out = functional_call(module, {"params": flat}, (padded(x, x.shape[0], up(x.shape[1])),))
            slots[first + chain[-1]] = out[:, : network.layers[chain[-1]].width].float()
        return tuple(slots[s] for s in network.outputs)

    return run


def chains(network: Network) -> list[Chain]:
    """The network's layers, cut into what tiny-cuda-nn computes at once."""
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
    """Width of a chain's hidden layers in tiny-cuda-nn, with the neuron that carries the biases; 0 without any."""
    if len(chain) == 1:
        return 0
    widest = max(network.layers[i].width for i in chain[:-1]) + 1
    return next((width for width in FUSED if width >= widest), up(widest))


def _assembled(
    network: Network, chain: Chain, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[torch.nn.Module, Tensor]:
    """tiny-cuda-nn's module of a chain, and its parameters as a function of the weights and biases."""
    width, last = neurons(network, chain), network.layers[chain[-1]]
    matrices = []
    for i in chain:
        weight, bias = weights[i].float(), biases[i].float()
        matrix = torch.cat([weight, bias[:, None]], 1)  # its last column meets the constant one
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
    seen = up(weights[chain[0]].shape[1] + 1)
    module = _module(seen, up(last.width), width, len(chain) - 1, last.relu, weights[0].device)
    if module.params.numel() != len(flat):
        raise RuntimeError(
            f"tinycudann wants {module.params.numel()} parameters, {len(flat)} were laid out: not its layout"
        )
    return module, flat


def _carried(weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"], width: int) -> Float[Tensor, "o w"]:
    """A layer's matrix over hidden neurons of which the last is always one."""
    return torch.cat([padded(weight, len(weight), width - 1), bias[:, None]], 1)


def _one(matrix: Float[Tensor, "o i"], column: int) -> Float[Tensor, "o i"]:
    """Zeros, and a 1 that takes the constant one of a column to the last neuron."""
    one = torch.zeros_like(matrix)
    one[-1, column] = 1
    return one


@functools.lru_cache(maxsize=64)
def _module(inputs: int, outputs: int, width: int, hidden: int, relu: bool, device: torch.device) -> Any:
    """tiny-cuda-nn's module for a chain's sizes; its own parameters are never used."""
    config = {
        "otype": "FullyFusedMLP" if width in FUSED else "CutlassMLP",
        "activation": "ReLU",
        "output_activation": "ReLU" if relu else "None",
        "n_neurons": width or ALIGNED,
        "n_hidden_layers": hidden,
    }
    return importlib.import_module("tinycudann").Network(inputs, outputs, config).to(device)


def padded(matrix: Float[Tensor, "_ _"], rows: int, columns: int) -> Float[Tensor, "{rows} {columns}"]:
    """The matrix with zeros below and to its right.

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
