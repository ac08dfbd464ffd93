"""Tests of the extended matrix [1, H] of layer inputs."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from enerf.conditioning import layers, maps
from enerf.conditioning.diagnostics import layer_inputs
from enerf.fields.nerf import NeRF


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def test_a_unit_has_a_second_derivative_for_each_row():
    with pytest.raises(ValueError, match=r"second derivatives have shape \(3,\) for 4 rows of inputs"):
        layer_inputs.unit_block.__wrapped__(gaussian(4, 3), gaussian(3))


@pytest.mark.parametrize("method", [None, "row"])
@pytest.mark.parametrize("name", ["0", "2", "4"])
def test_the_block_of_a_unit_is_the_hessian_that_autograd_computes(name: str, method: str | None):
    model, x, y = net(), gaussian(9, 3), gaussian(9, 1, seed=1)
    if method:
        layers.condition(model, method, ["0", "2"])
    layers.bake(model)  # the theorem is about the weights that are applied
    inputs = layer_inputs.record_layer_inputs(model, [name], lambda: model(x))[name]
    layer, unit = model.get_submodule(name), 0

    def loss(unknowns: Tensor, shift: Tensor) -> Tensor:
        """The loss as a function of one unit's (b, w), and of a shift of its value at each sample."""
        bias = torch.cat([unknowns[:1], layer.bias[1:]])
        weight = torch.cat([unknowns[None, 1:], layer.weight[1:]])
        h = functional.linear(inputs, weight, bias) + functional.pad(shift[:, None], (0, len(bias) - 1))
        for later in model[int(name) + 1 :]:
            h = later(h)
        return functional.mse_loss(h, y)

    at = torch.cat([layer.bias[:1], layer.weight[unit]]).detach()
    none = torch.zeros(9, dtype=torch.float64)
    expected = torch.autograd.functional.hessian(lambda u: loss(u, none), at)
    second = torch.autograd.functional.hessian(lambda s: loss(at, s), none)
    torch.testing.assert_close(second, second.diagonal().diag())  # samples do not meet
    torch.testing.assert_close(layer_inputs.unit_block(inputs, second.diagonal()), expected)


def test_the_blocks_condition_is_at_most_that_of_the_extended_matrix_squared_times_the_spread_of_the_derivatives():
    inputs, second = gaussian(50, 4), gaussian(50, seed=1).square() + 0.1
    kappa, _ = layer_inputs.extended_condition_number(inputs)
    block = torch.linalg.cond(layer_inputs.unit_block(inputs, second)).item()
    assert block <= kappa**2 * (second.max() / second.min()).item() * (1 + 1e-9)


def test_scaling_the_columns_of_the_extended_matrix_well_lowers_its_condition_number():
    inputs = gaussian(200, 5) * torch.tensor([1.0, 10, 100, 1000, 10000]) + 3
    centered = (inputs - inputs.mean(0)) / inputs.std(0)
    assert layer_inputs.extended_condition_number(centered)[0] < 2
    assert layer_inputs.extended_condition_number(inputs)[0] > 1e3
    assert maps.row(layer_inputs.extended(inputs)).norm(dim=0).sub(1).abs().max() < 1e-12


def test_dead_inputs_are_counted_and_do_not_make_the_condition_number_infinite():
    inputs = gaussian(30, 5)
    inputs[:, 2] = 0
    kappa, rank = layer_inputs.extended_condition_number(inputs)
    assert rank == 5
    assert kappa == pytest.approx(layer_inputs.extended_condition_number(inputs[:, [0, 1, 3, 4]])[0])
    assert kappa < math.inf


def test_rounding_of_float32_inputs_is_no_direction():
    line = gaussian(300, 1)
    inputs = line @ gaussian(1, 6, seed=1)
    assert layer_inputs.extended_condition_number(inputs)[1] == 2
    assert layer_inputs.extended_condition_number(inputs.float())[1] == 2


def test_the_inputs_of_linear_layers_are_what_they_see_conditioned_or_not():
    model, x = net(), gaussian(9, 3)
    layers.condition(model, "row", ["2"])
    seen = []
    model[2].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    found = layer_inputs.record_layer_inputs(model, ["2", "0"], lambda: model(x))
    assert list(found) == ["2", "0"]
    assert torch.equal(found["2"], seen[0])
    assert torch.equal(found["0"], x)


def test_layers_that_are_applied_by_other_code_than_their_own_are_seen():
    field = NeRF(6, 8, 2, 1, use_viewdirs=True)
    layers.condition(field, "row", "trunk")
    points, viewdirs = gaussian(4, 5, 3).float(), functional.normalize(gaussian(4, 3, seed=1).float(), dim=-1)
    names = [name for name, module in field.named_modules() if isinstance(module, nn.Linear)]
    found = layer_inputs.record_layer_inputs(field, names, lambda: field(points, viewdirs))
    assert {name: tuple(h.shape) for name, h in found.items()} == {
        name: (20, field.get_submodule(name).in_features) for name in names
    }
    trunk = [functional.linear(found[f"trunk.{i}"], field.trunk[i].weight, field.trunk[i].bias) for i in range(6)]
    torch.testing.assert_close(found["trunk.1"], torch.relu(trunk[0]))
    torch.testing.assert_close(found["trunk.5"][:, 15:], torch.relu(trunk[4]))


def test_a_layer_that_is_applied_twice_has_the_rows_of_both():
    layer = nn.Linear(2, 3)
    model = nn.Sequential(layer)
    found = layer_inputs.record_layer_inputs(model, ["0"], lambda: (model(torch.zeros(4, 2)), model(torch.ones(1, 2))))
    assert found["0"].tolist() == [[0.0, 0.0]] * 4 + [[1.0, 1.0]]


CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 7)),
    (nn.Conv2d(4, 6, (3, 2), stride=2, padding=(2, 1), groups=2), (2, 4, 7, 6)),
    (nn.Conv2d(3, 5, 3, padding="same", dilation=2), (2, 3, 6, 6)),
    (nn.Conv2d(3, 5, (2, 3), padding="same"), (2, 3, 6, 6)),
    (nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular"), (2, 3, 6, 6)),
    (nn.Conv3d(2, 4, 2, stride=(1, 2, 1), padding="valid"), (2, 2, 4, 5, 3)),
    (nn.Conv2d(3, 5, 3), (3, 6, 6)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's advice about even taps
@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=str)
def test_a_convolution_is_its_matrix_times_its_patches(layer: nn.Module, shape: tuple[int, ...]):
    model, x = nn.Sequential(layer.double()), gaussian(*shape)
    found = layer_inputs.record_layer_inputs(model, ["0"], lambda: model(x))["0"]
    weight = layer.weight.reshape(layer.groups, -1, found.shape[-1])
    products = found.reshape(layer.groups, -1, found.shape[-1]) @ weight.mT  # groups, rows, outputs of the group
    channels = products.movedim(0, 1).flatten(1) + layer.bias
    out = layer(x) if len(shape) == layer.weight.dim() else layer(x)[None]
    torch.testing.assert_close(channels, out.movedim(1, -1).flatten(0, -2))


def test_of_groups_the_worst_is_told():
    inputs = torch.stack([gaussian(40, 3), gaussian(40, 3, seed=1) * torch.tensor([1.0, 1, 1000])])
    assert layer_inputs.extended_condition_number(inputs) == max(
        layer_inputs.extended_condition_number(h) for h in inputs
    )


def test_what_has_no_inputs_to_tell_of_is_one_sentence():
    model = nn.Sequential(nn.Linear(2, 3), nn.Bilinear(2, 2, 3))
    with pytest.raises(ValueError, match=r"^0 is not applied, so it has no inputs$"):
        layer_inputs.record_layer_inputs(model, ["0"], lambda: None)
    with pytest.raises(ValueError, match=r"^1 is a Bilinear; inputs are recorded for linear layers and convolutions$"):
        layer_inputs.record_layer_inputs(model, ["1"], lambda: None)
    with pytest.raises(ValueError, match="no layer is named 'x'"):
        layer_inputs.record_layer_inputs(model, ["x"], lambda: None)


def test_kappa_of_inputs_that_are_not_finite_is_nan_in_any_group():
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    finite = layer_inputs.extended_condition_number(inputs)
    assert finite[1] == 4
    for group in (0, 1):
        broken = inputs.clone()
        broken[group, 2, 1] = math.nan
        kappa, rank = layer_inputs.extended_condition_number(broken)
        assert math.isnan(kappa)
        assert rank == 0


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_inputs_of_preconditioned_layers_are_recorded_and_no_statistics_change(kind: str):
    torch.manual_seed(0)
    layer = nn.Linear(5, 3) if kind == "linear" else nn.Conv2d(2, 3, 2)
    x = torch.randn(4, 5) if kind == "linear" else torch.randn(4, 2, 5, 5)
    plain = nn.Sequential(layer)
    expected = layer_inputs.record_layer_inputs(plain, ["0"], lambda: plain(x))["0"]
    layers.condition(plain, "batch_norm")
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    assert torch.equal(layer_inputs.record_layer_inputs(plain, ["0"], lambda: plain(x))["0"], expected)
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())
    assert layers.conditioned_layers(plain) == {"0": "batch_norm"}


@pytest.mark.parametrize("names", [["0"], ["0", "1"]])
def test_inputs_of_tied_layers_cannot_be_told_apart(names: list[str]):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    with pytest.raises(ValueError, match="0 shares its weight with 1, so their inputs cannot be told apart"):
        layer_inputs.record_layer_inputs(net, names, lambda: net(torch.ones(1, 4)))
