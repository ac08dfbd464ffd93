"""Every backend on every device against the reference implementation in float64: values, and gradients of everything.

The networks and the grid are those of the paper and of the fast preset. What a computer lacks is skipped.
"""

import functools
import os

import pytest
import torch
from torch import Tensor

from enerf.fields.backends import dense, hashgrid, registry
from enerf.fields.backends.dense import Layer, Network

# torch.compile loads parts of torch that torch itself calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

GRID = hashgrid.make_grid(8, 4, 14, 16, 512)
POINTS, RAYS = 96, 24
SEED = 333  # no unit is so near 0 that rounding decides whether its ReLU is active
CPU = torch.device("cpu")
CASES = [
    (device, backend, precision)
    for device in ("cpu", "cuda")
    for backend in ("torch", "compiled", "triton", "tinycudann")
    for precision in ("fp32", "bf16")
    if device == "cuda" or backend in ("torch", "compiled")
]


def paper() -> Network:
    """The network of the paper: 8 layers of 256, the positions joined again at layer 5, and directions."""
    trunk = [Layer((0, 6) if i == 5 else (i + 1 if i else 0,), 256, True) for i in range(8)]
    heads = [Layer((9,), 1, False), Layer((9,), 256, False), Layer((11, 1), 128, True), Layer((12,), 3, False)]
    return Network((63, 27), (*trunk, *heads), (10, 13))


def fast() -> Network:
    """A network like that of the fast preset: features of a hash grid and directions, 64 wide."""
    layers = (Layer((0,), 64, True), Layer((2,), 16, False), Layer((3, 1), 64, True), Layer((4,), 3, False))
    return Network((GRID.width, 3), (*layers, Layer((2,), 1, False)), (5, 6))


NETWORKS = {"paper": paper(), "fast": fast()}


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[registry.Backend, torch.device]:
    name, backend, precision = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    if name == "cuda" and backend == "compiled" and os.environ.get("JAXTYPING_DISABLE") != "1":
        pytest.skip("torch.compile does not see through checks of shapes: JAXTYPING_DISABLE=1 disables them")
    device = torch.device(name)
    if reason := registry.unavailable_reason(backend, precision, device):
        pytest.skip(reason)
    return registry.make(backend, precision, device), device


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@functools.cache
def network_case(name: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Inputs, weights and biases of a network, in float64 on the CPU."""
    network = NETWORKS[name]
    wide = [sum(network.widths[s] for s in layer.sources) for layer in network.layers]
    inputs = [drawn(n, w, seed=SEED + n) for n, w in zip((POINTS, RAYS), network.inputs, strict=True)]
    weights = [
        drawn(layer.width, w, seed=i) * (2 / w) ** 0.5
        for i, (layer, w) in enumerate(zip(network.layers, wide, strict=True))
    ]
    return inputs, weights, [0.3 * drawn(layer.width, seed=i) for i, layer in enumerate(network.layers)]


def evaluated(name: str, bind: dense.Bind, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Outputs of a network, and the gradients of a fixed function of them in inputs, weights and biases."""
    groups = [[x.to(device, dtype).requires_grad_() for x in group] for group in network_case(name)]
    outs = bind(NETWORKS[name], groups[1], groups[2])(groups[0])
    total = sum((out * drawn(*out.shape, seed=9).to(out)).sum() for out in outs)
    found = [*outs, *torch.autograd.grad(total, [x for group in groups for x in group])]
    return [x.detach().cpu().double() for x in found]


def encoded(encode: registry.Encode, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Features of points, and the gradients of a fixed function of them in points and table."""
    points = torch.rand(POINTS, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    table = drawn(GRID.offsets[-1], GRID.features, seed=4)
    # points whose cell is the same in both precisions
    points = (points * 4096).round() / 4096 + 1 / 16384
    leaves = [x.to(device, dtype).requires_grad_() for x in (points, table)]
    out = encode(*leaves, GRID)
    found = [out, *torch.autograd.grad((out * drawn(*out.shape, seed=5).to(out)).sum(), leaves)]
    return [x.detach().cpu().double() for x in found]


@functools.cache
def truth(name: str) -> list[Tensor]:
    """Values and gradients of a network, or of the encoding, by the reference in float64 on the CPU."""
    if name == "encoding":
        return encoded(hashgrid.encode, CPU, torch.float64)
    return evaluated(name, dense.bind, CPU, torch.float64)


def error(found: list[Tensor], true: list[Tensor]) -> float:
    """Largest relative error in the 2-norm."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, true, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_and_all_their_gradients_are_those_of_the_reference(name, case):
    backend, device = case
    found = error(evaluated(name, backend.bind, device, torch.float32), truth(name))
    if backend.precision == "fp32":
        assert found < 1e-5
    else:
        low = functools.partial(dense.bind, precision="bf16")
        assert 0 < found < 4 * error(evaluated(name, low, CPU, torch.float32), truth(name))


def test_the_encoding_and_its_gradients_are_those_of_the_reference(case):
    backend, device = case
    assert error(encoded(backend.encode, device, torch.float32), truth("encoding")) < 1e-4
