"""Tests of the statistics that batch-norm preconditioning takes: mean and variance, by whatever kernel."""

import copy

import pytest
import torch
from torch import Tensor, nn

from enerf.conditioning import batch_norm

SHAPES = [(50, 8, 14, 14), (7, 3, 5, 6), (2, 64, 1, 1), (1, 4, 3, 3), (1, 1, 1, 2)]
FORMATS = {"rows": torch.contiguous_format, "channels last": torch.channels_last}
every_shape = pytest.mark.parametrize("shape", SHAPES)
every_format = pytest.mark.parametrize("laid", FORMATS)


def awkward(shape: tuple[int, ...], laid: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Channels with means and spreads of their own, over five orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    of_channels = (1, shape[1], *[1] * (len(shape) - 2))
    spread = torch.logspace(-3, 2, shape[1], dtype=torch.float64).reshape(of_channels)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    means = 3 * torch.randn(of_channels, generator=generator, dtype=torch.float64)
    return ((noise + means) * spread).to(dtype).contiguous(memory_format=FORMATS[laid])


def exact(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance in float64, from the definitions."""
    rows = inputs.double().movedim(1, -1).reshape(-1, inputs.shape[1])
    return rows.mean(0), (rows - rows.mean(0)).square().mean(0)


def assert_near(inputs: Tensor, rel: float) -> None:
    mean, variance = batch_norm._statistics(inputs)
    expected_mean, expected = exact(inputs)
    assert mean.dtype == variance.dtype == inputs.dtype
    scale = expected.sqrt() + expected_mean.abs()
    assert ((mean.double() - expected_mean).abs() <= rel * scale).all()
    assert ((variance.double() - expected).abs() <= rel * expected + 1e-12 * scale.square()).all()


@every_format
@every_shape
def test_of_images_they_are_those_of_the_definitions(shape: tuple[int, ...], laid: str):
    assert_near(awkward(shape, laid), 1e-4)


@every_format
@every_shape
def test_of_doubles_they_are_exact(shape: tuple[int, ...], laid: str):
    inputs = awkward(shape, laid, torch.float64)
    assert_near(inputs, 1e-12)
    variance, mean = torch.var_mean(inputs, (0, 2, 3), correction=0)
    found = batch_norm._statistics(inputs)
    assert torch.equal(found[0], mean)
    assert torch.equal(found[1], variance)


@pytest.mark.parametrize("part", ["every other row", "few channels", "every other image", "turned"])
def test_of_parts_of_images_that_have_gaps_in_memory_they_are_the_same(part: str):
    whole = awkward((6, 8, 9, 9), "rows")
    views = {"every other row": whole[:, :, ::2], "few channels": whole[:, 2:5], "every other image": whole[::2]}
    assert_near({**views, "turned": whole.transpose(2, 3)}[part], 1e-4)


@every_format
def test_a_channel_that_never_varies_has_variance_0_and_far_means_do_not_hide_a_variance(laid: str):
    inputs = awkward((8, 4, 6, 6), laid)
    inputs[:, 1] = 7.0
    mean, variance = batch_norm._statistics(inputs)
    assert mean[1] == 7
    assert variance[1] == 0
    far = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(1)) + 1000
    assert_near(far.contiguous(memory_format=FORMATS[laid]), 1e-4)


@pytest.mark.parametrize("shape", [(11, 5), (6, 4, 8), (2, 3, 3, 4, 3)])
def test_inputs_that_are_no_images_are_summed_as_ever(shape: tuple[int, ...]):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    axes = [axis for axis in range(len(shape)) if axis != 1]
    variance, mean = torch.var_mean(inputs, axes, correction=0)
    found = batch_norm._statistics(inputs)
    assert torch.equal(found[0], mean)
    assert torch.equal(found[1], variance)


def test_under_vmap_each_batch_has_its_own():
    batches = torch.stack([awkward((4, 3, 5, 5), "rows") + i for i in range(3)])
    found = torch.func.vmap(batch_norm._statistics)(batches)
    for i, batch in enumerate(batches):
        mean, variance = exact(batch)
        torch.testing.assert_close(found[0][i].double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[1][i].double(), variance, rtol=1e-5, atol=1e-9)


@every_format
def test_a_layer_preconditions_alike_whichever_kernel_summed(laid: str):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 3, 3)
    batch_norm.precondition_(layer)
    single, double = layer.to(memory_format=FORMATS[laid]), copy.deepcopy(layer).double()
    for step in range(3):
        inputs = awkward((6, 4, 8, 8), laid) + step
        for each, fed in ((single, inputs), (double, inputs.double())):
            each.zero_grad()
            each(fed).sin().mean().backward()
        torch.testing.assert_close(single.input_mean.double(), double.input_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(single.input_variance.double(), double.input_variance, rtol=1e-4, atol=0)
        for a, b in zip(single.parameters(), double.parameters(), strict=True):
            assert (a.grad - b.grad).norm() <= 1e-3 * b.grad.norm()
