"""Outputs of convolutions under torch's weight and spectral norm, seen in what a layer computes, not in its weight."""

import pytest
import torch
from torch import Tensor, nn

from enerf.conditioning import condition

LAYERS = {
    "convolution": lambda: nn.Conv2d(3, 5, (2, 3)),
    "transposed 1d": lambda: nn.ConvTranspose1d(4, 3, 3),
    "transposed 2d": lambda: nn.ConvTranspose2d(2, 5, (3, 2), stride=2),
    "transposed 3d": lambda: nn.ConvTranspose3d(3, 2, 2),
    "transposed, as many inputs": lambda: nn.ConvTranspose2d(4, 4, 3),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def network(kind: str) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(LAYERS[kind]()).double()


def responses(net: nn.Sequential) -> Tensor:
    """What a layer without its bias makes of a one at each place of its smallest input: a row for each output channel.

    That is one pixel for a transposed convolution, and one patch for a convolution, so that every weight acts once.
    """
    layer = net[0]
    is_transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    pixels = tuple(1 for _ in layer.kernel_size) if is_transposed else layer.kernel_size
    count = layer.in_channels * torch.Size(pixels).numel()
    ones = torch.eye(count, dtype=torch.float64).reshape(count, layer.in_channels, *pixels)
    with torch.no_grad():
        found = layer(ones) - layer(torch.zeros_like(ones))
    return found.movedim(1, 0).flatten(1)


@every_layer
def test_a_length_of_weight_norm_scales_one_output_channel(kind: str):
    net = network(kind)
    condition(net, "weight_norm", "all")
    lengths, before = net[0].parametrizations.weight.original0, responses(net)
    assert lengths.numel() == net[0].out_channels
    torch.testing.assert_close(lengths.detach().flatten(), before.norm(dim=1), rtol=1e-12, atol=0)
    factors = torch.arange(2.0, 2 + lengths.numel(), dtype=torch.float64)
    with torch.no_grad():
        lengths.mul_(factors.reshape(lengths.shape))
    torch.testing.assert_close(responses(net), factors[:, None] * before, rtol=1e-12, atol=1e-15)


def test_groups_of_a_transposed_convolution_share_lengths_by_their_place_in_the_group():
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2)).double()
    condition(net, "weight_norm", "all")
    lengths, before = net[0].parametrizations.weight.original0, responses(net)
    factors = torch.arange(2.0, 5.0, dtype=torch.float64)
    with torch.no_grad():
        lengths.mul_(factors.reshape(lengths.shape))
    torch.testing.assert_close(responses(net), factors.repeat(2)[:, None] * before, rtol=1e-12, atol=1e-15)


@every_layer
def test_under_spectral_norm_the_matrix_of_responses_has_norm_one(kind: str):
    net = network(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        condition(net, "spectral_norm", "all")
    for _ in range(500):  # power iterations
        _ = net[0].weight
    size = torch.linalg.matrix_norm(responses(net.eval()), 2)
    torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-9, atol=0)


@every_layer
def test_the_gain_of_spectral_norm_is_the_norm_of_the_matrix_of_responses(kind: str):
    net = network(kind)
    exact = torch.linalg.matrix_norm(responses(net), 2)
    condition(net, "spectral_norm", "all", scale="learned")
    torch.testing.assert_close(net[0].parametrizations.weight[1].gain.detach(), exact.reshape(1), rtol=1e-12, atol=0)
