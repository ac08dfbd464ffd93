"""Fourier reparameterized weights: bases, initialization, layers."""

import copy
import math

import pytest
import torch
from torch import nn

from enerf.conditioning import bake, baked_state, condition, conditioned_layers, parameter_groups, unbaked_state
from enerf.conditioning.fourier import bases, coefficients
from enerf.config.options import ConditioningOptions
from enerf.tasks.shape.build import shape_field


def test_bases_are_the_papers_formula_by_a_slow_loop():
    low, high, phases, n_in = 3, 2, 4, 7
    found = bases(n_in, low, high, phases, amplitude=0.5)
    assert found.shape == ((low + high) * phases, n_in)
    frequencies = [(i + 1) / low for i in range(low)] + [i + 1 for i in range(high)]
    for i, omega in enumerate(frequencies):
        for p in range(phases):
            for j in range(n_in):
                z = -math.pi * low + 2 * math.pi * low * j / (n_in - 1)
                expected = 0.5 * math.cos(omega * z + 2 * math.pi * p / phases)
                assert found[i * phases + p, j].item() == pytest.approx(expected, abs=1e-12)


def test_initial_weights_have_hes_variance_whatever_the_amplitude():
    for amplitude in (0.01, 1.0):
        torch.manual_seed(0)
        of_bases = bases(128, amplitude=amplitude)
        weight = coefficients(2000, of_bases) @ of_bases
        assert weight.var().item() == pytest.approx(2 / 128, rel=0.02)


def test_weights_are_the_same_wherever_the_layer_is():
    plain, meta = nn.Sequential(nn.Linear(16, 8)), nn.Sequential(nn.Linear(16, 8, device="meta"))
    for net in (plain, meta):
        torch.manual_seed(0)
        condition(net, "fourier")
        drawn = torch.rand(3)
    torch.manual_seed(0)
    coefficients(8, bases(16))
    assert torch.equal(torch.rand(3), drawn)  # the numbers are drawn for a layer without values too
    assert meta[0].weight.is_meta
    assert meta[0].weight.shape == plain[0].weight.shape


def test_the_first_and_the_last_input_have_equal_weights():
    net = nn.Sequential(nn.Linear(16, 8)).double()
    condition(net, "fourier")
    torch.testing.assert_close(net[0].weight[:, 0], net[0].weight[:, -1])


def test_layers_are_conditioned_baked_and_converted():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    condition(net, "fourier", ["2"])
    assert conditioned_layers(net) == {"2": "fourier"}
    assert "2.parametrizations.weight.original" in parameter_groups(net).matrices
    x = torch.randn(4, 16)
    net(x).square().mean().backward()
    assert net[2].parametrizations.weight.original.grad.shape == (8, 2048)
    plain = baked_state(net, net.state_dict())
    again = unbaked_state(net, plain)
    before, state = net(x), copy.deepcopy(net.state_dict())
    net.load_state_dict(again)
    torch.testing.assert_close(net(x), before)  # another Λ with the same weights
    net.load_state_dict(state)
    assert torch.equal(bake(net)(x), before)


def test_the_seed_decides_the_weights():
    nets = []
    for seed in (0, 0, 1):
        net = nn.Sequential(nn.Linear(16, 8))
        torch.manual_seed(seed)
        condition(net, "fourier")
        nets.append(net[0].weight)
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


def test_autocast_does_not_round_the_weights_and_baking_keeps_every_bit():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16))
    condition(net, "fourier", "all")
    x, exact = torch.randn(4, 16), net[0].weight.detach().clone()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net[0].weight, exact)
        before = net(x)
        assert before.dtype == torch.bfloat16
        assert torch.equal(bake(net)(x), before)
    assert torch.equal(net[0].weight, exact)


def test_convolutions_are_refused():
    with pytest.raises(ValueError, match="0 cannot be conditioned: Fourier bases are defined for the matrices"):
        condition(nn.Sequential(nn.Conv2d(3, 4, 3)), "fourier", ["0"])
    with pytest.raises(ValueError, match="fourier is not a map"):
        condition(nn.Sequential(nn.Linear(3, 4)), "fourier", scale="learned")


def test_a_sine_layer_starts_at_the_scale_of_siren():
    field = shape_field(
        ConditioningOptions(conditioning="fourier"), 0, encoding="none", activation="sine", depth=3, width=256
    )
    assert conditioned_layers(field) == {"trunk.1": "fourier", "trunk.2": "fourier"}
    assert field.trunk[1].weight.std().item() == pytest.approx((2 / 256) ** 0.5 / 30, rel=0.1)
    assert not field.trunk[1].bias.any()
    assert field.trunk[0].bias.any()


def test_zero_and_frozen_weights_are_not_redrawn():
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    nn.init.zeros_(net[0].weight)
    net[1].weight.requires_grad_(False)
    done = condition(net, "fourier")
    assert done == ["2"]
    assert done.left_out["0"].startswith("its weight is zero")
    assert done.left_out["1"].startswith("it is frozen")
    with pytest.raises(ValueError, match="1 cannot be conditioned: it is frozen"):
        condition(net, "fourier", ["1"], zero_rows="conditioned")
    assert condition(net, "fourier", ["0"], zero_rows="conditioned") == ["0"]


def test_frozen_biases_stay_and_the_bases_are_not_inverted_to_draw(monkeypatch: pytest.MonkeyPatch):
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 5))
    net[0].bias.requires_grad_(False)
    before = net[0].bias.clone()
    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "pinv", lambda *_: pytest.fail("the weight is replaced anyway"))
        condition(net, "fourier")
    assert torch.equal(net[0].bias, before)
    assert not net[1].bias.any()
    wanted = torch.randn(5, 6)
    wanted[:, -1] = wanted[:, 0]  # as of all products with the bases
    net[0].weight = wanted
    torch.testing.assert_close(net[0].weight, wanted, rtol=1e-4, atol=1e-4)
