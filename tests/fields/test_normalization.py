"""Batch and layer normalization in coordinate networks."""

import copy

import pytest
import torch
from torch import Tensor, nn

from enerf.fields import normalization
from enerf.fields.activations import Activation
from enerf.fields.backends import dense, registry
from enerf.fields.backends.module import add_normalization, frozen
from enerf.fields.encoders import Encoder
from enerf.fields.nerf import NeRF
from enerf.fields.shape import ShapeField

CPU = torch.device("cpu")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def field(kind: str, activation: str = "relu", outputs: int = 1) -> ShapeField:
    torch.manual_seed(0)
    made = ShapeField(Encoder(3), 3, 8, outputs, activation=Activation(activation), skip_at=1).double()
    add_normalization(made, kind)
    for norm in made.norms.values():
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    return made.double()


def by_hand(made: ShapeField, x: Tensor) -> Tensor:
    """The network as a loop over layers and points, in the field's present mode."""
    h = x
    for i, layer in enumerate(made.trunk):
        out = layer(torch.cat([x, h], -1) if i == made.skip_at else h)
        norm = made.norms[str(i)]
        if isinstance(norm, nn.LayerNorm):
            mean, var = out.mean(-1, keepdim=True), out.var(-1, correction=0, keepdim=True)
        elif made.training:
            mean, var = out.mean(0), out.var(0, correction=0)
        else:
            mean, var = norm.running_mean, norm.running_var
        h = made.activation((out - mean) / torch.sqrt(var + norm.eps) * norm.weight + norm.bias)
    return made.head(h)[..., 0]


@pytest.mark.parametrize("kind", ["layer_norm", "batch_norm"])
@pytest.mark.parametrize("activation", ["relu", "sine"])
def test_values_are_the_formula_in_both_modes(kind, activation):
    made, x = field(kind, activation), drawn(20, 3)
    torch.testing.assert_close(made(x), by_hand(made, x))
    made.eval()
    torch.testing.assert_close(made(x), by_hand(made, x))
    points = x.clone().requires_grad_()
    torch.testing.assert_close(made(points), by_hand(made, x))
    assert torch.autograd.grad(made(points).sum(), points)[0].abs().sum() > 0


def test_folded_batch_normalization_is_the_plain_network():
    made = field("batch_norm")
    for seed in range(3):
        made(drawn(50, 3, seed=seed))
    made.eval()
    layers = made.linears()
    folded = normalization.folded([each.weight for each in layers], [each.bias for each in layers], made.norms)
    (plain,) = dense.bind(made.network, *folded)([drawn(20, 3)])
    torch.testing.assert_close(plain[:, 0], by_hand(made, drawn(20, 3)))
    made.train()
    assert normalization.folded([each.weight for each in layers], [each.bias for each in layers], made.norms) is None


def test_evaluation_uses_the_backend_and_does_not_change_statistics():
    made = field("batch_norm").float().eval()
    calls = []

    def bind(network, weights, biases):
        calls.append(network)
        return dense.bind(network, weights, biases)

    made.bind = bind
    before = copy.deepcopy(made.state_dict())
    with frozen(made):
        made(drawn(5, 3).float())
    assert calls == [made.network]
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())


@pytest.mark.parametrize("kind", ["layer_norm", "batch_norm"])
def test_densities_of_a_radiance_field_are_those_of_its_forward_pass(kind):
    torch.manual_seed(0)
    made = NeRF(4, 8, 2, 1, True, skip_at=2)
    add_normalization(made, kind)
    made.eval()
    points, viewdirs = drawn(6, 5, 3).float(), nn.functional.normalize(drawn(6, 3), dim=-1).float()
    torch.testing.assert_close(made.densities()(points.reshape(-1, 3)), made(points, viewdirs).density.flatten())
    assert set(made.norms) == {"0", "1", "2", "3", "6"}  # four of the trunk, and the view layer after head and feature


@pytest.mark.parametrize("kind", ["layer_norm", "batch_norm"])
def test_reduced_precision_differs_by_its_rounding(kind):
    made = field(kind).float()
    exact = made(drawn(200, 3).float())
    registry.use(made, registry.make("torch", "bf16", CPU))
    made.activation = Activation("relu")
    rounded = made(drawn(200, 3).float())
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.abs().max()


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="'group_norm'; it must be one of layer_norm, batch_norm"):
        add_normalization(field("layer_norm"), "group_norm")


def test_a_batch_of_one_row_is_normalized_by_the_running_statistics():
    made = field("batch_norm")
    made(drawn(50, 3))
    alone = made(drawn(1, 3))
    statistics = made.norms["0"].running_mean.clone()
    torch.testing.assert_close(alone, made.eval()(drawn(1, 3)))
    assert torch.equal(made.norms["0"].running_mean, statistics)
