"""Tests of the kernel with matrix tiles: against the reference, and the choice between it and the vector kernel.

The tests of ``test_dense.py`` and ``test_kernel_safety.py`` run on it too, wherever it is available.
"""

import pytest
import torch
from torch import Tensor

from enerf.fields.backends import cpu_amx, cpu_dense, dense
from enerf.fields.backends.dense import Layer, Network
from enerf.fields.nerf import nerf_network

tiles = pytest.mark.skipif(not cpu_amx.is_available(), reason="this processor has no AMX with bf16")
# a skip connection, a buffer that three layers read, widths that are no multiples of tiles, rows shared by points
NETWORKS = {
    "paper": (nerf_network(63, 27, 256, 8), 640, 64),
    "fast": (nerf_network(32, 3, 64, 5), 1536, 24),
    "odd": (nerf_network(7, 9, 17, 7), 1330, 7),
    "wide": (
        Network((40,), (Layer((0,), 300, True), Layer((1, 1, 0), 33, False), Layer((2, 1), 20, False)), (3,)),
        50,
        1,
    ),
}


def outputs_and_gradients(
    bind, network: Network, n: int, shared: int, dtype: torch.dtype, fixed: bool = False, **options
) -> list[Tensor]:
    """Outputs and gradients of drawn arrays; ``fixed``: only the first input, weights and biases are trained."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=generator)).bfloat16().to(dtype).requires_grad_()

    wide = [sum(network.widths[s] for s in layer.sources) for layer in network.layers]
    weights = [drawn(layer.width, w, scale=(2 / w) ** 0.5) for layer, w in zip(network.layers, wide, strict=True)]
    biases = [drawn(layer.width, scale=0.1) for layer in network.layers]
    inputs = [drawn(n // (1 if i == 0 else shared), w) for i, w in enumerate(network.inputs)]
    if fixed:
        inputs[1:] = [x.detach() for x in inputs[1:]]
    outs = bind(network, weights, biases, **options)(inputs)
    cotangents = [drawn(n, network.widths[s]).detach() for s in network.outputs]
    trained = [x for x in (*inputs, *weights, *biases) if x.requires_grad]
    return [*(out.detach() for out in outs), *torch.autograd.grad(outs, trained, cotangents)]


def total_error(found: list[Tensor], exact: list[Tensor]) -> float:
    return sum(float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))


@tiles
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_gradients_are_no_less_exact_than_those_of_the_reference_in_bf16(name: str, fixed: bool):
    exact = outputs_and_gradients(dense.bind, *NETWORKS[name], torch.float64, fixed)
    reference = outputs_and_gradients(dense.bind, *NETWORKS[name], torch.float32, fixed, precision="bf16")
    found = outputs_and_gradients(cpu_amx.bind, *NETWORKS[name], torch.float32, fixed)
    assert total_error(found, exact) <= 1.1 * total_error(reference, exact)


@tiles
def test_sums_are_fp32():
    # one linear layer with factors that are bf16 numbers: nothing is rounded but the sums
    network = Network((200,), (Layer((0,), 40, False),), (1,))
    exact = outputs_and_gradients(dense.bind, network, 100, 1, torch.float64)
    found = outputs_and_gradients(cpu_amx.bind, network, 100, 1, torch.float32)
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(cpu_dense.unavailable_reason("bf16") is not None, reason="no bf16 products")
@pytest.mark.parametrize("name", NETWORKS)
def test_without_tiles_bf16_is_computed_with_vectors(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu_amx, "is_available", lambda: False)
    monkeypatch.setattr(cpu_amx, "bind", None)
    exact = outputs_and_gradients(dense.bind, *NETWORKS[name], torch.float64)
    reference = outputs_and_gradients(dense.bind, *NETWORKS[name], torch.float32, precision="bf16")
    found = outputs_and_gradients(cpu_dense.bind, *NETWORKS[name], torch.float32, precision="bf16")
    assert total_error(found, exact) <= 1.2 * total_error(reference, exact)


def test_tiles_are_not_used_on_a_processor_without_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu_amx.device, "cpu_flags", lambda: cpu_amx.FLAGS - {"amx_bf16"})
    assert not cpu_amx.is_available()
