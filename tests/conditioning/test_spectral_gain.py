"""Spectral normalization with a gain: the layer starts as it was."""

import pytest
import torch
from torch import nn

from enerf.conditioning import bake, condition, layer_report, parameter_groups, unbaked_state

LAYERS = {
    "linear": lambda: nn.Linear(6, 5),
    "convolution": lambda: nn.Conv2d(3, 4, 3),
    "transposed": lambda: nn.ConvTranspose2d(3, 4, 3),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("scale", ["constant", "learned"])
def test_initial_weights_do_not_change_and_the_gain_is_the_largest_singular_value(kind, scale):
    torch.manual_seed(0)
    net = nn.Sequential(LAYERS[kind]()).double()
    with torch.no_grad():
        net[0].weight += 1.0  # the largest singular value is far from the next, so that power iterations converge
    raw = net[0].weight.detach().clone()
    assert condition(net, "spectral_norm", ["0"], scale=scale) == ["0"]
    for _ in range(300):  # power iterations
        applied = net[0].weight
    torch.testing.assert_close(applied, raw, rtol=1e-10, atol=1e-10)
    assert ("0.parametrizations.weight.1.gain" in dict(net.named_parameters())) == (scale == "learned")
    before = net.eval()[0].weight
    assert torch.equal(bake(net)[0].weight, before)


@pytest.mark.parametrize("scale", ["constant", "learned"])
def test_the_gain_is_exact_whatever_the_power_iteration_has_found(scale):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(256, 256))
    exact = torch.linalg.svdvals(net[0].weight)[0]
    condition(net, "spectral_norm", ["0"], scale=scale)
    torch.testing.assert_close(net[0].parametrizations.weight[1].gain, exact.detach().reshape(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", ["fixed", "constant", "learned"])
def test_weights_of_half_precision_are_normalized(scale, dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8)).to(dtype)
    with torch.no_grad():
        net[0].weight += 1.0
    exact = torch.linalg.matrix_norm(net[0].weight.double(), 2)
    condition(net, "spectral_norm", ["0"], scale=scale)
    assert net[0].weight.dtype == dtype
    expected = 1.0 if scale == "fixed" else exact.item()
    assert torch.linalg.matrix_norm(net[0].weight.double(), 2).item() == pytest.approx(expected, rel=0.02)


def test_a_report_of_weights_does_no_power_iteration():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64))
    condition(net, "spectral_norm", ["0"])
    before = {key: value.clone() for key, value in net.state_dict().items()}
    layer_report(net)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(module.training for module in net.modules())


def test_an_assigned_weight_is_applied_again():
    net = nn.Sequential(nn.Linear(6, 5)).double()
    condition(net, "spectral_norm", ["0"], scale="learned")
    weight = 1 + torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = {"0.weight": weight, "0.bias": torch.zeros(5, dtype=torch.float64)}
    net.load_state_dict(unbaked_state(net, wanted))
    for _ in range(300):
        applied = net[0].weight
    torch.testing.assert_close(applied, wanted["0.weight"], rtol=1e-4, atol=1e-5)


def test_raw_weights_have_no_scale_and_gains_are_gains():
    net = nn.Sequential(nn.Linear(6, 5))
    condition(net, "spectral_norm", ["0"], scale="learned")
    groups = parameter_groups(net)
    assert list(groups.scale_invariant) == ["0.parametrizations.weight.original"]
    assert list(groups.gains) == ["0.parametrizations.weight.1.gain"]


@pytest.mark.parametrize("scale", ["kept", "learned_rows"])
def test_other_scales_are_refused_with_those_that_there_are(scale: str):
    net = nn.Sequential(nn.Linear(6, 5))
    with pytest.raises(ValueError, match=f"^scale is '{scale}', but .*; expected fixed, constant or learned$"):
        condition(net, "spectral_norm", ["0"], scale=scale)
    with pytest.raises(ValueError, match="spectral_norm is not a map: gradient, every, scale and p apply to row"):
        condition(net, "spectral_norm", ["0"], scale="learned", p=1)
    assert list(net.state_dict()) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("scale", ["fixed", "constant", "learned"])
def test_an_assigned_weight_is_normalized_by_its_own_largest_singular_value(kind, scale):
    torch.manual_seed(0)
    net = nn.Sequential(LAYERS[kind]()).double()
    condition(net, "spectral_norm", ["0"], scale=scale)
    net.eval()
    assigned = torch.randn_like(net[0].weight) + 1.0
    net[0].weight = assigned
    matrix = assigned.movedim(1 if kind == "transposed" else 0, 0).flatten(1)
    expected = assigned / torch.linalg.matrix_norm(matrix, 2) if scale == "fixed" else assigned
    torch.testing.assert_close(net[0].weight, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", ["fixed", "constant", "learned"])
def test_tied_layers_stay_tied(scale):
    torch.manual_seed(0)
    first, second = nn.Linear(256, 256), nn.Linear(256, 256)
    second.weight = first.weight
    net = nn.Sequential(first, nn.Tanh(), second)
    assert condition(net, "spectral_norm", scale=scale) == ["0", "2"]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        net(torch.randn(4, 256)).square().sum().backward()
        optimizer.step()
    net.eval()
    assert torch.equal(net[0].weight, net[2].weight)
    shared = {id(p) for p in net[0].parametrizations.parameters()}
    assert shared == {id(p) for p in net[2].parametrizations.parameters()}
    assert net.load_state_dict(net.state_dict())
    applied = net[0].weight.detach().clone()
    bake(net)
    assert net[0].weight is net[2].weight
    assert torch.equal(net[0].weight, applied)


@pytest.mark.parametrize("scale", ["constant", "learned"])
def test_weights_that_are_not_finite_make_a_gain_that_is_none(scale):
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3))
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state["1.weight"][0, 0] = float("nan")
    condition(net, "spectral_norm", scale=scale)
    converted = unbaked_state(net, state)
    assert converted["1.parametrizations.weight.1.gain"].isnan().all()
    assert converted["0.parametrizations.weight.1.gain"].isfinite().all()
    broken = nn.Sequential(nn.Linear(4, 3))
    with torch.no_grad():
        broken[0].weight[1, 1] = float("inf")
    assert condition(broken, "spectral_norm", scale=scale) == ["0"]
    assert broken(torch.ones(1, 4)).isnan().all()
