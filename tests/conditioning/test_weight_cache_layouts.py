"""Tests of the memory layout of cached weights: that of the raw weights, with the same values and gradients."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning import layers
from enerf.conditioning.weight_cache import computed_once
from tests.grids import latin

TREATED: dict[str, tuple[str, dict[str, Any]]] = {
    "row": ("row", {}),
    "column": ("column", {}),
    "ruiz": ("ruiz", {}),
    "row detached": ("row", {"gradient": "detached"}),
    "row learned": ("row", {"scale": "learned"}),
    "standardized": ("weight_standardisation", {}),
    "weight norm": ("weight_norm", {}),
}
FORMATS = {"rows": torch.contiguous_format, "channels last": torch.channels_last}
every_treatment = pytest.mark.parametrize("treated", TREATED)
every_format = pytest.mark.parametrize("laid", FORMATS)


def network(treated: str, laid: str, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Convolutions, two of them alike, one in groups, one with a kernel of one pixel; and a head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        alike = [nn.Conv2d(6, 6, 3, padding=1) for _ in range(2)]
        net = nn.Sequential(nn.Conv2d(3, 6, 3), *alike, nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(4, 5, 1), nn.Flatten())
        net.append(nn.Linear(80, 3))
    method, options = TREATED[treated]
    layers.condition(net, method, "Conv2d", **options)
    return net.to(dtype).to(memory_format=FORMATS[laid])


def raw(layer: nn.Module) -> Tensor:
    """The tensor that is learned."""
    found = layer.get_submodule("parametrizations.weight")
    return found.original if hasattr(found, "original") else found.original1


def loss(net: nn.Module, laid: str) -> Tensor:
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return torch.tanh(net(images.contiguous(memory_format=FORMATS[laid]))).square().sum()


@every_format
@every_treatment
def test_inside_a_weight_has_the_strides_of_the_raw_one_and_the_values_of_outside(treated: str, laid: str):
    for dtype in (torch.float64, torch.float32):
        net = network(treated, laid, dtype)
        convolutions = [layer for layer in net if parametrize.is_parametrized(layer)]
        assert len(convolutions) == 5
        outside = [layer.weight.detach().clone() for layer in convolutions]
        with computed_once(net):
            for layer, before in zip(convolutions, outside, strict=True):
                assert layer.weight.stride() == raw(layer).stride()
                assert layer.weight.is_contiguous(memory_format=FORMATS[laid])
                assert torch.equal(layer.weight, before)
                assert layer.weight.dtype == dtype
                assert layer.weight.is_leaf
                assert layer.weight.requires_grad


@pytest.mark.parametrize(("treated", "laid"), latin(2, TREATED, FORMATS))
def test_gradients_are_those_of_plain_backward(treated: str, laid: str):
    net = network(treated, laid)
    copied = copy.deepcopy(net)
    expected = loss(copied, laid)
    expected.backward()
    with computed_once(net):
        found = loss(net, laid)
        found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for (name, p), q in zip(net.named_parameters(), copied.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q[1].grad, rtol=1e-10, atol=1e-12, msg=name)


@every_treatment
def test_raw_weights_of_two_orders_are_each_kept_though_maps_are_computed_together(treated: str):
    net = network(treated, "rows")
    net[1].to(memory_format=torch.channels_last)
    assert raw(net[1]).stride() != raw(net[2]).stride()
    outside = [net[i].weight.detach().clone() for i in (1, 2)]
    with computed_once(net):
        for i, before in zip((1, 2), outside, strict=True):
            assert net[i].weight.stride() == raw(net[i]).stride()
            assert torch.equal(net[i].weight, before)


def test_frozen_weights_are_laid_out_too_and_get_no_gradient():
    net = network("row", "channels last")
    raw(net[1]).requires_grad_(False)
    with computed_once(net):
        assert net[1].weight.stride() == raw(net[1]).stride()
        assert not net[1].weight.requires_grad
        loss(net, "channels last").backward()
    assert raw(net[1]).grad is None
    assert raw(net[2]).grad is not None


def test_a_map_to_another_shape_is_left_as_it_is():
    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return torch.cat([weight, -weight])

    layer = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
    parametrize.register_parametrization(layer, "weight", Doubled(), unsafe=True)
    outside = layer.weight.detach().clone()
    with computed_once(layer):
        assert torch.equal(layer.weight, outside)
        layer(torch.randn(2, 3, 5, 5)).square().sum().backward()
    assert raw(layer).grad.shape == (4, 3, 3, 3)
