"""GoogLeNet for small images."""

import torch
from torch import nn

from enerf.models.googlenet import GoogLeNet

PUBLIC = 6_166_250  # of the well-known public version, whose convolutions have biases


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameters_are_the_public_versions_without_the_biases_before_norms():
    with torch.device("meta"):
        net = GoogLeNet(10, 3, "bn")
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.bias is None for m in convolutions)
    assert parameters(net) == PUBLIC - sum(m.out_channels for m in convolutions) == 6_158_346


def test_there_are_nine_modules_and_two_pools_between_them():
    with torch.device("meta"):
        net = GoogLeNet(10)
    kinds = [type(m).__name__ for m in net.body]
    assert kinds == [*["Branches"] * 2, "MaxPool2d", *["Branches"] * 5, "MaxPool2d", *["Branches"] * 2]


def test_maps_halve_twice_and_end_with_the_papers_1024_channels():
    with torch.device("meta"):
        net = GoogLeNet(10)
        assert net.body(net.stem(torch.empty(1, 3, 32, 32))).shape == (1, 1024, 8, 8)
        assert net.body(net.stem(torch.empty(1, 3, 28, 28))).shape == (1, 1024, 7, 7)
