"""Learned gains: one number a matrix or a row; shapes, checkpoints of earlier versions and their optimizer state."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from enerf.conditioning import layers, maps, state_dict
from enerf.conditioning.parametrization import MAPS
from tests.grids import latin

KEY = "parametrizations.weight.0.gain"
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {"amsgrad": True}),
    "nadam": (torch.optim.NAdam, {}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "asgd": (torch.optim.ASGD, {}),
}


def network(scale: str = "learned", method: str = "row", seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Conv1d(6, 4, 1, groups=2), nn.Flatten(), nn.Linear(4, 4))
    layers.condition(net.double(), method, ["0", "2", "4"] if method != "jacobi" else ["4"], scale=scale)
    return net


def train(net: nn.Module, optimizer: torch.optim.Optimizer, n: int, seed: int) -> list[Tensor]:
    for step in range(n):
        x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + step))
        optimizer.zero_grad()
        hidden = net[1](net[0](x))[..., None]
        net[4](net[3](net[2](hidden))).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def as_before(state: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    """The state dict as earlier versions wrote it: gains of single matrices without an axis."""
    return {k: v.reshape(()) if k in keys else v for k, v in copy.deepcopy(state).items()}


@pytest.mark.parametrize("assign", [False, True])
def test_gains_of_earlier_checkpoints_load(assign: bool):
    net, other = network(), network(seed=1)
    keys = {f"{i}.{KEY}" for i in (0, 4)}
    old = as_before(net.state_dict(), keys)
    assert all(old[key].dim() == 0 for key in keys)
    other.load_state_dict(old, assign=assign)
    for a, b in zip(other.state_dict().values(), net.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)  # torch casts NAdam's counters
    upgraded = state_dict.upgraded_state(other, old)
    assert all(torch.equal(upgraded[key], value) for key, value in net.state_dict().items())
    assert all(old[key].dim() == 0 for key in keys)


def test_constant_gains_keep_the_shape_they_have_in_checkpoints():
    net = network("constant")
    assert net.state_dict()[f"0.{KEY}"].shape == ()
    other = network("constant", seed=1)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other[0].weight, net[0].weight)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_goes_on_from_the_optimizer_state_of_earlier_checkpoints(kind: str):
    make, options = OPTIMIZERS[kind]
    net = network()
    optimizer = make(net.parameters(), lr=0.01, **options)
    train(net, optimizer, 3, 0)
    names = [name for name, _ in net.named_parameters()]
    old_model = as_before(net.state_dict(), {f"0.{KEY}", f"4.{KEY}"})
    old = copy.deepcopy(optimizer.state_dict())
    for number, entry in old["state"].items():
        if names[number] in old_model and old_model[names[number]].dim() == 0:
            old["state"][number] = {k: v.reshape(()) if isinstance(v, Tensor) else v for k, v in entry.items()}
    expected = train(net, optimizer, 3, 10)
    resumed = network(seed=2)
    resumed.load_state_dict(old_model)
    again = make(resumed.parameters(), lr=0.01, **options)
    again.load_state_dict(state_dict.upgraded_optimizer_state(again, old))
    for a, b in zip(train(resumed, again, 3, 10), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)  # torch casts NAdam's counters


# one gain a row


@pytest.mark.parametrize("method", [m for m in MAPS if m not in ("jacobi", "spectral_shift")])
def test_rows_keep_their_norms_and_learn_them(method: str):
    raw = network("fixed", method)[0].parametrizations.weight.original.detach()
    net = network("learned_rows", method)
    torch.testing.assert_close(net[0].weight.norm(dim=0), raw.norm(dim=0), rtol=1e-12, atol=0)
    gain = net.get_parameter(f"0.{KEY}")
    assert gain.shape == (3,)
    assert net.get_parameter(f"2.{KEY}").shape == (2, 3)
    with torch.no_grad():
        gain.mul_(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    expected = raw.norm(dim=0) * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(net[0].weight.norm(dim=0), expected, rtol=1e-12, atol=0)
    net[0].weight.square().sum().backward()
    torch.testing.assert_close(gain.grad * gain, 2 * expected.square(), rtol=1e-10, atol=0)


def test_with_row_the_layer_starts_as_the_plain_one_whatever_its_rows_are():
    weight = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight *= torch.tensor([1.0, 1e6, 1e-5, 1e-9, 0.0], dtype=torch.float64)
    layer = nn.Linear(5, 6).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    layers.condition(nn.Sequential(layer), "row", scale="learned_rows", zero_rows="conditioned")
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-12, atol=0)


def test_it_is_weight_norm_with_lengths_of_inputs():
    ours, theirs = nn.Linear(4, 6).double(), nn.Linear(6, 4, bias=False).double()
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.T)
    layers.condition(nn.Sequential(ours), "row", scale="learned_rows")
    layers.condition(nn.Sequential(theirs), "weight_norm")
    c = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (ours.weight * c).sin().sum().backward()
    (theirs.weight.T * c).sin().sum().backward()
    found, expected = ours.parametrizations.weight, theirs.parametrizations.weight
    torch.testing.assert_close(found.original.grad, expected.original1.grad.T, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.get_parameter("0.gain").grad, expected.original0.grad[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("method", "scale"), latin(1, ["row", "column", "weight_standardisation"], ["learned_rows"]))
def test_trained_weights_come_back_after_baking(method: str, scale: str):
    net = network(scale, method)
    train(net, torch.optim.SGD(net.parameters(), lr=0.1), 5, 0)
    other = network(scale, method, seed=3)
    other.load_state_dict(state_dict.unbaked_state(other, state_dict.baked_state(net, net.state_dict())))
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if method == "row" else None
    for i in (0, 2, 4):
        if tolerance:
            torch.testing.assert_close(other[i].weight, net[i].weight, **tolerance)
        else:  # the map does not produce these weights again, but their rows keep their norms
            views = net[i].weight, other[i].weight
            norms = [maps.norms.floored(w.reshape(2, 2, 3) if i == 2 else w, -2) for w in views]
            torch.testing.assert_close(norms[1], norms[0], rtol=1e-9, atol=1e-12)


def test_the_gain_of_a_buffer_is_trained():
    module = nn.Module()
    module.register_buffer("table", torch.randn(4, 3))
    layers.condition_tensor(module, "table", scale="learned")
    assert [name for name, p in module.named_parameters() if p.requires_grad] == ["parametrizations.table.0.gain"]


@pytest.mark.parametrize(
    ("method", "scale"), [("row", "learned"), ("column", "learned_rows"), ("spectral_norm", "learned")]
)
def test_gains_of_frozen_layers_are_frozen(method: str, scale: str):
    net = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 4)).requires_grad_(False)
    net[1].requires_grad_(True)
    layers.condition(net, method, ["0", "1"], scale=scale)
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {name for name in dict(net.named_parameters()) if name.startswith("1.")}
    before = net[0].weight.detach().clone()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net.train()(torch.ones(2, 3)).square().mean().backward()
    optimizer.step()
    if method != "spectral_norm":  # whose power iteration goes on
        assert torch.equal(net[0].weight, before)
