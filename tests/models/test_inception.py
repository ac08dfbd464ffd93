"""The small Inception."""

import pytest
import torch
from torch import nn

from enerf.models.inception import Branches, SmallInception


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameters_are_as_many_as_published():
    with torch.device("meta"):
        assert parameters(SmallInception(10, 3, "none")) == 1_649_402
        assert parameters(SmallInception(10, 3, "bn")) == parameters(SmallInception(10, 3, "gn")) == 1_651_114


def test_a_norm_costs_one_more_parameter_a_channel_than_a_bias():
    with torch.device("meta"):
        plain = SmallInception(10, 3, "none")
        channels = sum(m.out_channels for m in plain.modules() if isinstance(m, nn.Conv2d))
        assert parameters(SmallInception(10, 3, "bn")) - parameters(plain) == channels


def test_images_of_28_pixels_end_as_maps_of_7():
    net = SmallInception(10, 1, width=0.1).eval()
    assert net.body(net.stem(torch.rand(2, 1, 28, 28))).shape[2:] == (7, 7)


def test_branches_stand_next_to_each_other():
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(Branches(nn.Identity(), nn.ReLU())(x), torch.cat([x, x.relu()], 1))


@pytest.mark.parametrize("width", [0.1, 0.5, 2])
def test_the_width_scales_every_layer(width: float):
    with torch.device("meta"):
        own, scaled = SmallInception(10), SmallInception(10, width=width)
    for a, b in zip(own.modules(), scaled.modules(), strict=True):
        if isinstance(a, nn.Conv2d):
            assert b.out_channels == max(4, round(a.out_channels * width))
