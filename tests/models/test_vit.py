"""Vision transformers."""

import pytest
import torch
from torch import Tensor, nn

from enerf.conditioning import layers
from enerf.models.vit import SIZES, VisionTransformer, resized


def small(size: int = 16, patch: int = 4, channels: int = 3) -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        return VisionTransformer(10, channels, size, patch, dim=24, depth=3, heads=6)


def images(n: int = 4, channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "published"), [("vit_s", 22_050_664), ("vit_b", 86_567_656)])
def test_parameters_are_as_many_as_published(name: str, published: int):
    with torch.device("meta"):
        net = VisionTransformer(1000, 3, 224, 16, *SIZES[name])
        assert net(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert sum(p.numel() for p in net.parameters()) == published


def test_the_papers_size_s_is_half_of_b():
    assert resized(SIZES["vit_b"], 0.5).dim == SIZES["vit_s"].dim == 384
    assert all(resized(SIZES["vit_s"], w).dim % 6 == 0 for w in (0.01, 0.1, 0.33, 1.7))
    assert resized(SIZES["vit_s"], 1) == SIZES["vit_s"]


@pytest.mark.parametrize("treatment", [None, "row", "weight_norm"])
def test_evaluation_computes_what_training_does(treatment: str | None):
    net = small()
    if treatment:
        layers.condition(net, treatment, "all")
    trained = net.train()(images()).detach()
    with torch.no_grad():
        tested = net.eval()(images())
    torch.testing.assert_close(tested, trained, atol=1e-5, rtol=1e-5)


def test_torchs_fused_block_which_approximates_on_cuda_is_never_taken():
    for block in small().blocks:
        assert isinstance(block, nn.TransformerEncoderLayer)
        assert block.activation_relu_or_gelu == 0
    x = torch.linspace(-4, 4, 33)
    assert torch.equal(block.activation(x), nn.GELU("none")(x))


def permuted(pictures: Tensor, patch: int, order: Tensor) -> Tensor:
    folded = nn.functional.unfold(pictures, patch, stride=patch)[:, :, order]
    return nn.functional.fold(folded, pictures.shape[2:], patch, stride=patch)


@pytest.mark.parametrize("treatment", [None, "row"])
def test_without_positions_the_order_of_the_patches_does_not_matter(treatment: str | None):
    net = small().double().eval()
    if treatment:
        layers.condition(net, treatment, "all")
    pictures = images().double()
    shuffled = permuted(pictures, 4, torch.randperm(16, generator=torch.Generator().manual_seed(2)))
    with torch.no_grad():
        assert (net(shuffled) - net(pictures)).abs().max() > 1e-6
        net.positions.zero_()
        torch.testing.assert_close(net(shuffled), net(pictures))


def test_a_token_is_the_linear_map_of_its_own_patch():
    net = small().double()
    pictures = images().double()
    tokens = net.patches(pictures).flatten(2)
    of_patch = pictures[:, :, 4:8, 8:12].flatten(1) @ net.patches.weight.flatten(1).T + net.patches.bias
    torch.testing.assert_close(tokens[:, :, 1 * 4 + 2], of_patch)


@pytest.mark.parametrize(("size", "patch"), [(28, 16), (32, 7), (32, 0), (32, 64)])
def test_patches_that_do_not_fill_the_images_are_refused(size: int, patch: int):
    with pytest.raises(
        ValueError, match=rf"patch is {patch}; expected a number that divides the images' {size} pixels"
    ):
        small(size, patch)


def test_nothing_is_dropped():
    net = small()
    assert all(m.p == 0 for m in net.modules() if isinstance(m, nn.Dropout))
    assert all(block.self_attn.dropout == 0 for block in net.blocks)


def test_blocks_start_from_weights_of_their_own():
    one, other = (block.self_attn.in_proj_weight for block in list(small().blocks)[:2])
    assert not torch.equal(one, other)
