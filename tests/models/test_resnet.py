"""ResNets for small images."""

import pytest
import torch
from torch import nn

from enerf.models.resnet import Residual, ResNet


@pytest.mark.parametrize(("layers", "published"), [(18, 11_173_962), (50, 23_520_842)])
def test_parameters_and_layers_are_as_many_as_published(layers: int, published: int):
    with torch.device("meta"):
        net = ResNet(layers, 10)
    assert sum(p.numel() for p in net.parameters()) == published
    weights = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(weights) == layers


@pytest.mark.parametrize(("layers", "last"), [(18, 512), (50, 2048)])
def test_maps_halve_three_times(layers: int, last: int):
    with torch.device("meta"):
        net = ResNet(layers, 10, 1)
        assert net.body(net.stem(torch.empty(1, 1, 32, 32))).shape == (1, last, 4, 4)
        assert net.body(net.stem(torch.empty(1, 1, 28, 28))).shape == (1, last, 4, 4)


def test_a_block_whose_branch_is_zero_is_the_identity_on_positive_maps():
    block = Residual("none", nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)), 4, 4, 1)
    for p in block.parameters():
        nn.init.zeros_(p)
    x = torch.rand(2, 4, 5, 5)
    assert torch.equal(block(x), x)


def test_another_number_of_layers_is_refused():
    with pytest.raises(ValueError, match=r"a ResNet of 34 layers; expected 18 or 50"):
        ResNet(34, 10)
