"""Baking: what it replaces and what it leaves alone, and the layout of the result."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from enerf.conditioning import layers, state_dict
from tests.grids import latin


def with_foreign() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)).double()
        parametrizations.orthogonal(net[1])
    parametrize.register_parametrization(net[2], "bias", nn.Tanh())
    layers.condition(net, "row", ["0", "2"])
    return net


def test_parametrizations_of_others_stay_unless_one_asks():
    net = with_foreign()
    x = torch.ones(2, 4, dtype=torch.float64)
    before, training = net(x), net[1].parametrizations.training
    layers.bake(net)
    assert layers.conditioned_layers(net) == {}
    assert parametrize.is_parametrized(net[1], "weight")
    assert net[1].parametrizations.training == training
    assert list(net[2].parametrizations) == ["bias"]
    assert torch.equal(net(x), before)
    layers.bake(net, foreign=True)
    assert not any(parametrize.is_parametrized(layer) for layer in net)
    assert [type(layer) for layer in net] == [nn.Linear] * 3
    assert torch.equal(net(x), before)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_norms_that_others_have_applied_stay_unless_one_asks(name: str):
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)).double()
    getattr(parametrizations, name)(net[1])
    assert layers.condition(net, name, zero_rows="refused") == ["0", "2"]
    assert layers.conditioned_layers(net) == {"0": name, "2": name}
    net.eval()
    before = net(torch.ones(2, 3, dtype=torch.float64))
    assert set(state_dict.baked_state(net, net.state_dict())) == set(layers.bake(copy.deepcopy(net)).state_dict())
    layers.bake(net)
    assert [parametrize.is_parametrized(layer) for layer in net] == [False, True, False]
    layers.bake(net, foreign=True)
    assert not any(parametrize.is_parametrized(layer) for layer in net)
    assert torch.equal(net(torch.ones(2, 3, dtype=torch.float64)), before)


def test_a_chain_with_one_of_others_is_refused_and_unchanged():
    net = with_foreign()
    parametrize.register_parametrization(net[2], "weight", nn.Tanh())
    keys = list(net.state_dict())
    with pytest.raises(ValueError, match="weight of a ParametrizedLinear has another parametrization on top"):
        layers.bake(net)
    assert list(net.state_dict()) == keys
    before = net(torch.ones(1, 4, dtype=torch.float64))
    assert torch.equal(layers.bake(net, foreign=True)(torch.ones(1, 4, dtype=torch.float64)), before)


def test_states_are_converted_around_parametrizations_of_others():
    net, other = with_foreign(), with_foreign()
    baked = state_dict.baked_state(net, net.state_dict())
    assert set(baked) == set(layers.bake(copy.deepcopy(net)).state_dict())
    with torch.no_grad():
        other[0].parametrizations.weight.original.mul_(3)
    other.load_state_dict(state_dict.unbaked_state(other, baked))
    x = torch.ones(2, 4, dtype=torch.float64)
    torch.testing.assert_close(other(x), net(x), rtol=1e-12, atol=0)
    assert set(state_dict.key_map(net).values()) == set(baked)


METHODS = ["row", "column", "ruiz", "weight_standardisation", "weight_norm", "spectral_norm"]
KINDS = {
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), torch.channels_last),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), torch.channels_last),
    "transposed2d": (lambda: nn.ConvTranspose2d(4, 6, 3), torch.channels_last),
    "conv3d": (lambda: nn.Conv3d(4, 6, 2), torch.channels_last_3d),
}


@pytest.mark.parametrize(("method", "kind"), latin(2, METHODS, KINDS))
def test_baked_weights_are_channels_last_if_the_raw_ones_are(method: str, kind: str):
    make, like = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(make()).eval().to(memory_format=like)
        layers.condition(net, method, "all")
    before = net[0].weight.detach().clone()
    layers.bake(net)
    assert net[0].weight.is_contiguous(memory_format=like)
    assert torch.equal(net[0].weight, before)
    assert net[0].weight.requires_grad
    assert isinstance(net[0].weight, nn.Parameter)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_the_state_of_a_recurrent_layer_that_has_run_is_converted(kind: type[nn.LSTM]):
    net = kind(4, 8)
    layers.condition_tensor(net, "weight_hh_l0")
    x = torch.randn(3, 2, 4)
    expected = net(x)[0]
    plain = kind(4, 8)
    plain.load_state_dict(state_dict.baked_state(net, net.state_dict()))
    torch.testing.assert_close(plain(x)[0], expected)
    net.load_state_dict(state_dict.unbaked_state(net, plain.state_dict()))
    torch.testing.assert_close(net(x)[0], expected)


@pytest.mark.parametrize("method", ["weight_norm", "row", "fourier", "spectral_norm"])
def test_frozen_layers_are_baked_to_frozen_parameters(method: str):
    net = nn.Sequential(nn.Linear(8, 8))
    layers.condition(net, method)
    net.requires_grad_(False)
    layers.bake(net)
    assert sorted(dict(net.named_parameters())) == ["0.bias", "0.weight"]
    assert not net[0].weight.requires_grad
    net.requires_grad_(True)
    net(torch.ones(2, 8)).sum().backward()
    assert net[0].weight.grad is not None


@pytest.mark.parametrize("method", ["row", "weight_norm", "spectral_norm"])
def test_states_are_checked_copied_and_converted(method: str):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    plain = copy.deepcopy(net).state_dict()
    layers.condition(net, method, ["0"])
    for shape in ((5, 3), (3, 8)):
        with pytest.raises(ValueError, match=r"0\.weight has shape .*, expected \(8, 3\)"):
            state_dict.unbaked_state(net, {**plain, "0.weight": torch.randn(*shape)})
    with pytest.raises(ValueError, match=r"1\.bias has shape \(3,\), expected \(2,\)"):
        state_dict.unbaked_state(net, {**plain, "1.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"1\.bias has shape \(3,\), expected \(2,\)"):
        state_dict.baked_state(net, {**net.state_dict(), "1.bias": torch.zeros(3)})
    kept = {key: value.clone() for key, value in plain.items()}
    made = state_dict.unbaked_state(net, plain)
    for value in made.values():
        value.zero_()
    assert all(torch.equal(plain[key], kept[key]) for key in kept)
    for dtype in (torch.float16, torch.float64):
        converted = state_dict.unbaked_state(net, {key: value.to(dtype) for key, value in plain.items()})
        assert {value.dtype for value in converted.values()} == {torch.float32}


@pytest.mark.parametrize("convert", [state_dict.baked_state, state_dict.unbaked_state])
def test_a_model_without_values_holds_no_state(convert):
    net = nn.Sequential(nn.Linear(3, 8))
    plain = copy.deepcopy(net).state_dict()
    layers.condition(net, "row")
    state = plain if convert is state_dict.unbaked_state else net.state_dict()
    with pytest.raises(ValueError, match="of the model is on the meta device, expected a model with values"):
        convert(copy.deepcopy(net).to("meta"), state)
