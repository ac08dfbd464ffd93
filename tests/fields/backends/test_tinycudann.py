"""Tests of the tiny-cuda-nn backend, against a stand-in that computes what its source says."""

import importlib.util
import sys
import types

import pytest
import torch
from torch import Tensor, nn

from enerf.fields.backends import dense, tinycudann
from enerf.fields.backends.dense import Layer, Network

FUSED = (16, 32, 64, 128)


class StandIn(nn.Module):
    """tinycudann.Network in torch: row-major matrices in one vector, inputs padded with ones, outputs cut."""

    made: list["StandIn"]

    def __init__(self, n_input_dims: int, n_output_dims: int, network_config: dict, seed: int = 1337) -> None:
        super().__init__()
        fused = network_config["otype"] == "FullyFusedMLP"
        hidden, width = network_config["n_hidden_layers"], network_config["n_neurons"]
        assert network_config["activation"] == "ReLU"
        assert not fused or (width in FUSED and hidden > 0)
        align = 16 if fused else 8
        n_in, out = (-(-n // align) * align for n in (n_input_dims, n_output_dims))
        sizes = [(width, n_in), *[(width, width)] * (hidden - 1), (out, width)] if hidden else [(out, n_in)]
        self.sizes, self.n_in, self.n_output_dims, self.config = sizes, n_in, n_output_dims, network_config
        self.params = nn.Parameter(torch.full((sum(a * b for a, b in sizes),), torch.nan))
        StandIn.made.append(self)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([x, torch.ones(len(x), self.n_in - x.shape[1], dtype=x.dtype)], 1)
        parts = self.params.split([a * b for a, b in self.sizes])
        for i, (part, size) in enumerate(zip(parts, self.sizes, strict=True)):
            h = h @ part.view(size).T
            if i < len(parts) - 1 or self.config["output_activation"] == "ReLU":
                h = torch.relu(h)
        return h[:, : self.n_output_dims]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    module = types.ModuleType("tinycudann")
    module.Network = StandIn  # type: ignore[attr-defined]
    StandIn.made = []
    monkeypatch.setitem(sys.modules, "tinycudann", module)
    monkeypatch.setattr(tinycudann, "unavailable_reason", lambda device=None: None)
    tinycudann._module.cache_clear()
    return StandIn


def nerf(width: int) -> Network:
    trunk = [Layer((0, 6) if i == 5 else (i + 1 if i else 0,), width, True) for i in range(8)]
    heads = [Layer((9,), 1, False), Layer((9,), width, False), Layer((11, 1), width // 2, True), Layer((12,), 3, False)]
    return Network((15, 9), (*trunk, *heads), (10, 13))


NETWORKS = {
    "nerf": nerf(20),
    "nerf, cutlass": nerf(130),
    "widths that differ": Network((5,), tuple(Layer((i,), w, i < 3) for i, w in enumerate((31, 7, 40, 2))), (4,)),
    "exactly full with the carrier": Network((15,), (Layer((0,), 63, True), Layer((1,), 16, False)), (2,)),
    "one layer": Network((3,), (Layer((0,), 4, False),), (1,)),
}


def _case(network: Network) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    like = {"generator": generator}
    inputs = [torch.randn(12 // (i + 1), w, **like) for i, w in enumerate(network.inputs)]
    wide = [sum(network.widths[s] for s in layer.sources) for layer in network.layers]
    weights = [torch.randn(la.width, w, **like) / w**0.5 for la, w in zip(network.layers, wide, strict=True)]
    biases = [torch.randn(layer.width, **like) for layer in network.layers]
    return [[t.requires_grad_() for t in group] for group in (inputs, weights, biases)]


@pytest.mark.parametrize("name", NETWORKS)
def test_values_and_gradients_are_those_of_the_reference(name: str, installed: type[StandIn]):
    network = NETWORKS[name]
    inputs, weights, biases = _case(network)
    leaves = [*inputs, *weights, *biases]
    result = tinycudann.bind(network, weights, biases)(inputs)
    true = dense.bind(network, weights, biases)(inputs)
    for a, b in zip(result, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    got, wanted = (torch.autograd.grad(sum(o.square().sum() for o in outs), leaves) for outs in (result, true))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()) + 1e-6)


def test_a_second_derivative_is_refused(installed: type[StandIn]):
    network = NETWORKS["one layer"]
    inputs, weights, biases = _case(network)
    (out,) = tinycudann.bind(network, weights, biases)(inputs)
    (slope,) = torch.autograd.grad(out.sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="a second derivative of a network, encoding or rendering was needed"):
        torch.autograd.grad(slope.sum(), weights)


def test_padding_and_the_carrier_stay_out_of_the_norms(installed: type[StandIn]):
    network = NETWORKS["widths that differ"]
    inputs, weights, biases = _case(network)
    unit = [w / w.norm(dim=0, keepdim=True) for w in weights]
    result = tinycudann.bind(network, unit, biases)(inputs)[0]
    got = torch.autograd.grad(result.square().sum(), weights)
    for weight, grad in zip(weights, got, strict=True):  # scaling an input's weights changes nothing
        assert grad.isfinite().all()
        assert ((weight * grad).sum(0).abs() < 1e-4 * (weight.norm(dim=0) * grad.norm(dim=0)) + 1e-4).all()


def test_a_network_is_cut_where_a_chain_cannot_go_on():
    assert tinycudann.chains(nerf(20)) == [(0, 1, 2, 3, 4), (5, 6, 7), (8,), (9,), (10, 11)]
    assert tinycudann.chains(NETWORKS["widths that differ"]) == [(0, 1, 2, 3)]
    linear = Network((3,), (Layer((0,), 4, False), Layer((1,), 4, True), Layer((2,), 1, False)), (3,))
    assert tinycudann.chains(linear) == [(0,), (1, 2)]


def test_chains_run_fused_where_they_fit(installed: type[StandIn]):
    for name in ("nerf", "nerf, cutlass", "exactly full with the carrier", "one layer"):
        network = NETWORKS[name]
        _, weights, biases = _case(network)
        tinycudann.bind(network, weights, biases)
    kinds = [(m.config["otype"], m.config["n_neurons"]) for m in installed.made if m.config["n_hidden_layers"]]
    assert set(kinds) == {("FullyFusedMLP", 16), ("FullyFusedMLP", 32), ("CutlassMLP", 144), ("FullyFusedMLP", 128),
                          ("FullyFusedMLP", 64)}  # fmt: skip
    assert all(m.config["otype"] == "CutlassMLP" for m in installed.made if not m.config["n_hidden_layers"])


def test_another_layout_is_an_error_not_a_wrong_answer(installed: type[StandIn], monkeypatch: pytest.MonkeyPatch):
    real = installed.__init__

    def other(self: StandIn, *args: object) -> None:
        real(self, *args)  # type: ignore[arg-type]
        self.params = nn.Parameter(torch.zeros(len(self.params) + 8))

    monkeypatch.setattr(installed, "__init__", other)
    _, weights, biases = _case(NETWORKS["one layer"])
    with pytest.raises(RuntimeError, match="not its layout"):
        tinycudann.bind(NETWORKS["one layer"], weights, biases)


def test_fp32_is_refused(installed: type[StandIn]):
    _, weights, biases = _case(NETWORKS["one layer"])
    with pytest.raises(ValueError, match="fp16, not in fp32"):
        tinycudann.bind(NETWORKS["one layer"], weights, biases, "fp32")


def test_where_it_is_missing_one_line_says_how_to_get_it_and_what_works_without():
    if importlib.util.find_spec("tinycudann") is not None:
        pytest.skip("tinycudann is installed")
    _, weights, biases = _case(NETWORKS["one layer"])
    with pytest.raises(RuntimeError, match=r"built from NVlabs/tiny-cuda-nn.*other backends work without it"):
        tinycudann.bind(NETWORKS["one layer"], weights, biases)


@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_gpu_it_is_the_reference_within_fp16(name: str):
    if reason := tinycudann.unavailable_reason():
        pytest.skip(reason)
    network = NETWORKS[name]
    inputs, weights, biases = ([t.detach().cuda() for t in group] for group in _case(network))
    result, true = (bind(network, weights, biases)(inputs) for bind in (tinycudann.bind, dense.bind))
    for a, b in zip(result, true, strict=True):
        assert float((a - b).norm() / b.norm()) < 0.02
