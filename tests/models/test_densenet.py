"""DenseNet-BC."""

import pytest
import torch
from torch import nn

from enerf.models.densenet import DenseLayer, DenseNet, layers_per_block


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameters_are_as_many_as_published():
    with torch.device("meta"):
        assert parameters(DenseNet(10)) == 769_162
        assert round(parameters(DenseNet(10, depth=250, growth=24)) / 1e6, 1) == 15.3
        assert round(parameters(DenseNet(10, depth=190, growth=40)) / 1e6, 1) == 25.6


@pytest.mark.parametrize("depth", [10, 22, 40, 100])
def test_the_depth_counts_convolutions_and_the_head(depth: int):
    with torch.device("meta"):
        net = DenseNet(10, depth=depth, growth=4)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == depth


@pytest.mark.parametrize(("depth", "near"), [(50, "46 and 52"), (99, "94 and 100"), (4, "10"), (9, "10"), (-3, "10")])
def test_a_depth_that_there_is_not_tells_the_nearest(depth: int, near: str):
    with pytest.raises(ValueError, match=rf"depth is {depth}, .* 6 n \+ 4 layers, n from 1; the nearest: {near}$"):
        layers_per_block(depth)


@pytest.mark.parametrize("kind", ["bn", "gn", "none"])
def test_a_layer_keeps_its_input_and_adds_its_growth(kind: str):
    x = torch.randn(2, 8, 6, 6)
    before = x.clone()
    out = DenseLayer(8, 4, kind)(x)
    assert out.shape == (2, 12, 6, 6)
    assert torch.equal(out[:, :8], before)
    assert torch.equal(x, before)


def test_maps_halve_twice():
    net = DenseNet(10, depth=10, growth=4)
    assert net.body(net.stem(torch.rand(1, 3, 28, 28))).shape[2:] == (7, 7)
