"""Building blocks of the convolutional classifiers."""

import pytest
import torch
from torch import nn

from enerf.models import norms


@pytest.mark.parametrize("channels", [1, 4, 12, 24, 37, 48, 64, 96, 342, 2048])
def test_groups_are_as_many_as_divide_the_channels_up_to_32(channels: int):
    made = norms.norm("gn", channels)
    assert isinstance(made, nn.GroupNorm)
    assert channels % made.num_groups == 0
    assert made.num_groups <= 32
    assert all(channels % more for more in range(made.num_groups + 1, 33))


@pytest.mark.parametrize("kind", norms.CNN_NORMS)
def test_a_convolution_has_a_bias_where_nothing_normalizes_and_nowhere_else(kind: str):
    assert (norms.conv(kind, 3, 8, 3).bias is not None) == (kind == "none")


@pytest.mark.parametrize("kind", norms.CNN_NORMS)
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_sizes_are_kept_or_halved(kind: str, kernel: int):
    x = torch.rand(2, 3, 14, 14)
    assert norms.conv_norm_relu(kind, 3, 8, kernel)(x).shape == (2, 8, 14, 14)
    assert norms.conv_norm_relu(kind, 3, 8, kernel, stride=2)(x).shape == (2, 8, 7, 7)
    assert norms.conv(kind, 3, 8, kernel, padding=0)(x).shape == (2, 8, 15 - kernel, 15 - kernel)


@pytest.mark.parametrize("kind", norms.CNN_NORMS)
def test_the_relu_writes_over_nothing_that_is_anothers(kind: str):
    x = torch.randn(2, 3, 6, 6)
    before = x.clone()
    assert norms.conv_norm_relu(kind, 3, 8, 3)(x).min() >= 0
    assert torch.equal(x, before)


def test_widths_scale_and_keep_four_channels():
    assert [norms.scaled(64, w) for w in (1, 0.5, 2, 0.01)] == [64, 32, 128, 4]


@pytest.mark.parametrize("make", [lambda: norms.norm("ln", 8), lambda: norms.conv("batch", 3, 8, 3)])
def test_an_unknown_kind_is_told_in_one_sentence(make):
    with pytest.raises(ValueError, match=r"norm is '(ln|batch)'; it must be one of bn, gn, none"):
        make()
