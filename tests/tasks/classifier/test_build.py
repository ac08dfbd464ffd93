"""Tests of built classifiers: variants of a comparison differ by what is asked for, and by nothing else."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from enerf.conditioning import layers
from enerf.tasks.classifier import build as classifier_build
from enerf.tasks.classifier.config import ATTENTION_INITS, ATTENTION_TREATMENTS, MODELS, TREATMENTS
from tests.grids import latin, pairs

CNNS = ("inception", "densenet", "googlenet", "resnet18", "resnet50")
SMALL: dict[str, dict[str, Any]] = {
    "densenet": {"width": 0.4, "depth": 10},
    "vit_s": {"width": 0.1, "depth": 2},
    "vit_b": {"width": 0.1, "depth": 2},
}
VARIANTS = [(name, norm) for name in MODELS for norm in classifier_build.norms_of(name)]
# every other pair of an arm and a treatment; without a norm, standardised weights overflow
TREATED = [
    *((*arm, t) for arm, t in latin(2, VARIANTS, TREATMENTS) if arm[1] in ("bn", "ln") or t in ("", "e")),
    *(("vit_s", "ln", t) for t in ATTENTION_TREATMENTS),
]
RAW = ("w", "ws", "e", "bnp")


def built(name: str, norm: str = "", seed: int = 3, **numbers: Any) -> nn.Module:
    chosen = {"classes": 7, "channels": 3, "size": 16, "width": 0.1, **SMALL.get(name, {}), **numbers}
    return classifier_build.network(name, norm=norm or classifier_build.norms_of(name)[0], seed=seed, **chosen)


def images(n: int = 6, channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def raw(model: nn.Module) -> dict[str, Tensor]:
    """The raw weights, under the names of the plain model."""
    found = {}
    for name, p in model.named_parameters():
        plain = name.removesuffix(".original").replace("parametrizations.", "")
        found[plain] = p
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# networks


@pytest.mark.parametrize(
    ("name", "norm", "channels", "size"), [(*arm, *shape) for arm, shape in latin(2, VARIANTS, [(1, 28), (3, 32)])]
)
def test_every_network_gives_logits_in_any_memory_format(name: str, norm: str, channels: int, size: int):
    net = built(name, norm, channels=channels, size=size).double().eval()
    pictures = images(3, channels, size).double()
    with torch.no_grad():
        logits = net(pictures)
        assert logits.shape == (3, 7)
        torch.testing.assert_close(net(pictures.to(memory_format=torch.channels_last)), logits)
        last = net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(last(pictures.to(memory_format=torch.channels_last)), logits)


@pytest.mark.parametrize(("name", "norm"), VARIANTS)
def test_a_samples_logits_do_not_depend_on_its_company(name: str, norm: str):
    net = built(name, norm).double()
    pictures = images().double()
    net.train()(pictures)
    with torch.no_grad():
        together = net.eval()(pictures)
        apart = torch.cat([net(picture[None]) for picture in pictures])
    torch.testing.assert_close(together, apart)
    assert (together[0] - together[1]).abs().max() > 0


@pytest.mark.parametrize("name", MODELS)
def test_seeds_repeat_and_differ_in_every_weight(name: str):
    one, again, other = (raw(built(name, seed=seed)) for seed in (1, 1, 2))
    assert same(one, again)
    drawn = [n for n, m in built(name).named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert all(not torch.equal(one[f"{n}.weight"], other[f"{n}.weight"]) for n in drawn)


def test_torchs_own_random_numbers_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    def refuse(seed: int) -> None:
        raise AssertionError("the GPUs' random numbers were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    torch.rand(3)
    before = torch.get_rng_state()
    for name in MODELS:
        classifier_build.condition(built(name), "e", init="he")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", MODELS)
def test_the_last_layer_is_the_head_and_nothing_is_dropped(name: str):
    net = built(name)
    assert list(net.named_modules())[-1][0] == "head"
    assert all(m.p == 0 for m in net.modules() if isinstance(m, nn.Dropout))


@pytest.mark.parametrize("name", MODELS)
def test_more_width_or_depth_is_more_parameters_and_other_sizes_are_the_same_network(name: str):
    def count(**numbers: Any) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in built(name, **numbers).parameters())

    assert count(width=0.2) < count(width=0.4) < count(width=0.8)
    if name in classifier_build.MODELS_WITH_DEPTH:
        assert count(depth=10) < count(depth=16)
        own = 100 if name == "densenet" else 12
        assert count(depth=0) == count(depth=own)
    if name in CNNS:
        assert count(size=28) == count(size=64)


@pytest.mark.parametrize(("size", "patch"), [(28, 4), (32, 4), (64, 4), (96, 16), (224, 16)])
def test_patches_follow_the_images_size(size: int, patch: int):
    with torch.device("meta"):
        assert built("vit_s", size=size).patches.kernel_size == (patch, patch)
        assert built("vit_s", size=size, patch=2).patches.kernel_size == (2, 2)


# treatments


@pytest.mark.parametrize(("name", "norm", "treatment"), TREATED)
def test_each_treatment_trains_with_finite_gradients_and_bakes_to_the_same_logits(name: str, norm: str, treatment: str):
    net = built(name, norm)
    names = classifier_build.condition(net, treatment)
    assert list(layers.conditioned_layers(net)) == (names if treatment not in ("", "pa") else [])
    optimiser = torch.optim.SGD(net.parameters(), 1e-3)
    labels = torch.arange(6) % 7
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    nn.functional.cross_entropy(net(images()), labels).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    optimiser.step()
    assert not torch.equal(before["head.bias"], net.get_parameter("head.bias"))
    with torch.no_grad():
        logits = net.eval()(images())
        assert logits.isfinite().all()
        assert torch.equal(layers.bake(copy.deepcopy(net))(images()), logits)


@pytest.mark.parametrize(
    ("name", "treatment", "init"), pairs(["resnet18", "densenet", "vit_s"], ["ws", "e", "bnp"], layers.INITS)
)
def test_baseline_and_treatment_share_every_raw_weight(name: str, treatment: str, init: str):
    baseline, treated = built(name), built(name)
    classifier_build.condition(baseline, "", init=init)
    assert classifier_build.condition(treated, treatment, init=init)
    assert same(raw(treated), raw(baseline))
    assert same(raw(baseline), raw(built(name))) == (init == "default")


@pytest.mark.parametrize("name", ["resnet18", "vit_s"])
def test_weight_norm_starts_from_the_baselines_weights(name: str):
    baseline, control = built(name).eval(), built(name).eval()
    classifier_build.condition(baseline, "", init="he")
    classifier_build.condition(control, "w", init="he")
    torch.testing.assert_close(control(images()), baseline(images()))


def test_preconditioned_gradients_leave_the_outputs():
    baseline, control = built("googlenet").eval(), built("googlenet").eval()
    classifier_build.condition(control, "bnp")
    assert torch.equal(control(images()), baseline(images()))


@pytest.mark.parametrize("method", ["row", "column", "row_column", "ruiz"])
def test_the_map_is_the_one_asked_for(method: str):
    net = built("inception")
    names = classifier_build.condition(net, "e", method=method, gradient="detached", scale="kept", p=1)
    assert layers.conditioned_layers(net) == dict.fromkeys(names, method)
    held: Any = net.get_submodule("head.parametrizations.weight")[0]
    assert (held.gradient, held.scale, held.p) == ("detached", "kept", 1)


@pytest.mark.parametrize("treatment", ["", *RAW])
def test_words_choose_the_layers(treatment: str):
    def chosen(name: str, words: str) -> list[str]:
        return classifier_build.condition(built(name), treatment, layers=words)

    assert chosen("resnet18", "first_conv_and_last_linear") == ["stem.0", "head"]
    assert chosen("vit_s", "first_conv_and_last_linear") == ["patches", "head"]
    every = [n for n, m in built("resnet18").named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert chosen("resnet18", "all") == every
    assert chosen("resnet18", "hidden") == every[:-1]


def test_what_preconditioning_does_not_suit_is_skipped_and_logged_in_one_line(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="enerf"):
        names = classifier_build.condition(built("vit_s"), "bnp")
    assert names == ["patches", *(f"blocks.{i}.linear{j}" for i in (0, 1) for j in (1, 2)), "head"]
    (record,) = caplog.records
    assert record.getMessage() == (
        "batch_norm skips blocks.0.self_attn, blocks.1.self_attn (batch_norm preconditions linear layers and "
        "convolutions, and it is a MultiheadAttention); blocks.0.self_attn.out_proj, blocks.1.self_attn.out_proj "
        "(batch_norm preconditions linear layers and convolutions, and it is a NonDynamicallyQuantizableLinear)"
    )
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="enerf"):
        assert "blocks.0.self_attn" in classifier_build.condition(built("vit_s"), "e")
    assert not caplog.records


ATTENTION = ["blocks.0.self_attn", "blocks.1.self_attn"]


@pytest.mark.parametrize("treatment", ATTENTION_TREATMENTS)
def test_treatments_of_attention_share_every_raw_weight_with_the_baseline(treatment: str):
    treated = built("vit_s")
    assert classifier_build.condition(treated, treatment, layers="hidden") == ATTENTION
    assert same(raw(treated), raw(built("vit_s")))
    assert (treated.eval()(images()) - built("vit_s").eval()(images())).abs().max() > 1e-3


def test_the_shift_and_its_scale_are_those_asked_for():
    net, plain = built("vit_s"), built("vit_s")
    classifier_build.condition(net, "sc", scale="kept", shift=2.0)
    found: Any = net.get_submodule("blocks.0.self_attn.parametrizations.in_proj_weight")[0]
    assert (found.method, found.scale, found.shift) == ("spectral_shift", "kept", 2.0)
    classifier_build.condition(plain, "", init="shifted_attention", shift=2.0)
    added = raw(plain)["blocks.0.self_attn.in_proj_weight"] - raw(built("vit_s"))["blocks.0.self_attn.in_proj_weight"]
    torch.testing.assert_close(added, 2 * torch.eye(added.shape[1]).repeat(3, 1))


def test_with_a_shift_of_ten_the_class_token_sees_no_image_at_first():
    spreads = []
    for how in ({"shift": 10.0}, {"shift": 1.0}, {"shift": 10.0, "scale": "kept"}):
        net = built("vit_s", width=0.25, size=32, patch=8).eval()
        classifier_build.condition(net, "sc", **how)
        with torch.no_grad():
            spreads.append(float(net(images(size=32)).std(0).max()))
    assert spreads[0] < 1e-4
    assert min(spreads[1:]) > 0.01


@pytest.mark.parametrize("init", ATTENTION_INITS)
def test_initializations_of_attention_change_its_projections_and_nothing_else(init: str):
    plain, net, again = built("vit_s"), built("vit_s"), built("vit_s")
    assert classifier_build.condition(net, "", init=init, seed=1) == ATTENTION
    classifier_build.condition(again, "sc", init=init, seed=1)
    assert same(raw(net), raw(again))
    before = raw(plain)
    changed = [name for name, p in raw(net).items() if not torch.equal(p, before[name])]
    assert changed == [f"{name}.in_proj_weight" for name in ATTENTION]


# words


def test_tables_name_the_model_and_what_was_reduced():
    assert set(classifier_build.TITLES) == set(MODELS)
    assert [classifier_build.model_title(name) for name in MODELS] == [
        "Inception",
        "DenseNet-BC-100-12",
        "GoogLeNet",
        "ResNet-18",
        "ResNet-50",
        "ViT-S/4",
        "ViT-B/4",
    ]
    assert classifier_build.model_title("vit_b", size=224) == "ViT-B/16"
    assert classifier_build.model_title("vit_s", depth=6, width=0.5, patch=7, size=28) == "ViT-S/7, 6 blocks, width 0.5"
    assert classifier_build.model_title("densenet", depth=22, width=0.5) == "DenseNet-BC-22-6"
    assert classifier_build.model_title("inception", width=2) == "Inception, width 2"


# refusals


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("resnet", {}, r"model is 'resnet'; it must be one of inception.*did you mean resnet"),
        ("resnet18", {"norm": "ln"}, r"norm is 'ln', and ResNet-18 has no layer norm; expected bn or gn or none"),
        ("vit_s", {"norm": "bn"}, r"norm is 'bn', and ViT-S has no batch norm; expected ln"),
        ("vit_b", {"norm": "none"}, r"norm is 'none', and ViT-B has no variant without a norm; expected ln"),
        ("inception", {"norm": "batch"}, r"norm is 'batch' for Inception; expected bn or gn or none"),
        ("resnet50", {"depth": 20}, r"depth is 20, but that of ResNet-50 is fixed; .* for densenet, vit_s, vit_b"),
        ("densenet", {"depth": 50}, r"depth is 50, .*the nearest: 46 and 52"),
        ("vit_s", {"depth": -1}, r"depth is -1 for ViT-S; expected a number of layers, or 0"),
        ("googlenet", {"patch": 4}, r"patch is 4, but GoogLeNet has no patches; it can be set for vit_s, vit_b"),
        ("vit_s", {"patch": -4}, r"patch is -4 for ViT-S; expected a number of pixels, or 0"),
        ("vit_s", {"patch": 7}, r"patch is 7; expected a number that divides the images' 16 pixels"),
        ("vit_s", {"width": 0}, r"width is 0 for ViT-S; expected a number above 0"),
        ("resnet18", {"width": float("nan")}, r"width is nan for ResNet-18; expected a number above 0"),
        ("resnet18", {"classes": 0}, r"classes is 0; ResNet-18 needs at least 1"),
        ("resnet18", {"channels": 0}, r"channels is 0; ResNet-18 needs at least 1"),
        ("densenet", {"size": 4}, r"size is 4; DenseNet-BC needs at least 8"),
    ],
)
def test_what_cannot_be_built_is_reported_in_one_sentence(name: str, numbers: dict[str, Any], said: str):
    chosen: dict[str, Any] = {"classes": 7, "channels": 3, "size": 16, "seed": 0, "norm": "bn"}
    chosen["norm"] = "ln" if name.startswith("vit") else "bn"
    with pytest.raises(ValueError, match=said) as caught:
        classifier_build.network(name, **{**chosen, **numbers})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"treatment": "x"}, r"treatment is 'x'; it must be one of w, ws, e, bnp, sc, pa, or empty"),
        ({"treatment": "e", "method": "rows"}, r"method is 'rows'; .*did you mean row"),
        ({"treatment": "e", "layers": "haed"}, r"no layer is named 'haed'; the nearest known names are head"),
        ({"treatment": "e", "scale": "free"}, r"scale is 'free'; it must be one of fixed"),
        ({"treatment": "", "init": "her"}, r"init is 'her'; it must be one of default"),
        ({"treatment": "sc", "layers": "Conv2d"}, r"no layer belongs to 'Conv2d' .*it has no projections of queries"),
        ({"treatment": "pa", "layers": "head"}, r"head cannot be conditioned: it has no projections of queries"),
        ({"treatment": "bnp", "layers": "blocks.0.self_attn"}, r"blocks\.0\.self_attn cannot be conditioned"),
    ],
)
def test_what_cannot_be_treated_is_reported_in_one_sentence(asked: dict[str, Any], said: str):
    net = built("vit_s")
    with pytest.raises(ValueError, match=said):
        classifier_build.condition(net, **asked)
    assert not layers.conditioned_layers(net)
    assert same(raw(net), raw(built("vit_s")))


def test_words_refuse_what_networks_refuse():
    with pytest.raises(ValueError, match="the nearest: 46 and 52"):
        classifier_build.model_title("densenet", depth=50)
    with pytest.raises(ValueError, match="model is 'lenet'"):
        classifier_build.model_title("lenet")
