"""Tests of built fields: variants of a comparison differ by the requested options only."""

import logging
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning import layers, maps
from enerf.config.options import ConditioningOptions
from enerf.core.errors import InputError
from enerf.fields import conditioning
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.config import ModelOptions

MODEL = ModelOptions(
    netdepth=6, netwidth=16, netdepth_fine=7, netwidth_fine=12, multires=2, multires_views=1, use_viewdirs=True
)
WIDE = ModelOptions(netdepth=3, netwidth=128, use_viewdirs=True)
VARIANTS = {
    **{method: {"equilibrate": method} for method in maps.METHODS},
    "detached": {"equilibrate": "row", "equilibrate_gradient": "detached"},
    "trunk": {"equilibrate": "row", "equilibrate_layers": "trunk"},
}
HEADS = ("coarse.density_head", "coarse.rgb_head", "fine.density_head", "fine.rgb_head")


def _build(model: ModelOptions = MODEL, seed: int = 3, with_fine: bool = True, **options: str | bool) -> RadianceFields:
    return nerf_build.radiance_fields(model, ConditioningOptions(**options), with_fine, seed)


def _linears(fields: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in fields.named_modules() if isinstance(m, nn.Linear) and "parametr" not in name}


def _raw(fields: nn.Module) -> dict[str, Tensor]:
    """What the optimizer sees: raw weights and biases."""
    found = {}
    for name, layer in _linears(fields).items():
        is_raw = parametrize.is_parametrized(layer, "weight")
        found[f"{name}.weight"] = layer.get_parameter("parametrizations.weight.original") if is_raw else layer.weight
        found[f"{name}.bias"] = layer.bias
    return found


def _applied(fields: nn.Module) -> dict[str, Tensor]:
    return {name: layer.weight.detach() for name, layer in _linears(fields).items()}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# shared starts


@pytest.mark.parametrize("variant", VARIANTS)
def test_baseline_and_treatment_share_every_raw_weight(variant: str):
    baseline, treatment = _build(), _build(**VARIANTS[variant])
    assert _same(_raw(treatment), _raw(baseline))
    assert layers.conditioned_layers(treatment)
    assert not layers.conditioned_layers(baseline)
    changed = [n for n, w in _applied(treatment).items() if not torch.equal(w, _applied(baseline)[n])]
    assert changed == list(layers.conditioned_layers(treatment))


def test_weight_norm_starts_from_the_baselines_weights():
    control = _build(weight_norm=True)
    assert set(layers.conditioned_layers(control).values()) == {"weight_norm"}
    for name, weight in _applied(_build()).items():
        torch.testing.assert_close(_applied(control)[name], weight)


def test_seeds_differ_in_every_weight():
    one, other = _raw(_build(seed=1)), _raw(_build(seed=2))
    assert all(not torch.equal(one[name], other[name]) for name in one)


def test_coarse_and_fine_start_differently():
    same_size = ModelOptions(netdepth=3, netwidth=8, netdepth_fine=3, netwidth_fine=8)
    raw = _raw(_build(same_size))
    assert all(not torch.equal(w, raw[n.replace("coarse", "fine")]) for n, w in raw.items() if "coarse" in n)


def test_the_coarse_field_does_not_depend_on_there_being_a_fine_one():
    alone = _build(with_fine=False)
    assert alone.fine is None
    both = _raw(_build())
    assert _same(_raw(alone), {name: w for name, w in both.items() if name.startswith("coarse")})


@pytest.mark.parametrize("init", ["default", "he", "glorot", "unit_row"])
def test_torchs_own_random_numbers_are_left_alone(init: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(seed: int) -> None:
        raise AssertionError("the GPUs' random numbers were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    torch.rand(3)  # so that this is no state that a seed starts from
    before = torch.get_rng_state()
    first = _build(init=init)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert _same(_raw(_build(init=init)), _raw(first))


# sizes


def test_the_networks_have_the_sizes_asked_for():
    fields = _build()
    assert (len(fields.coarse.trunk), fields.coarse.trunk[0].out_features) == (6, 16)
    assert (len(fields.fine.trunk), fields.fine.trunk[0].out_features) == (7, 12)
    assert fields.coarse.trunk[0].in_features == 3 * 5
    assert fields.coarse.view.in_features == 16 + 3 * 3


def test_without_an_embedding_nothing_is_encoded():
    fields = _build(ModelOptions(i_embed=-1, netwidth=8, use_viewdirs=True), with_fine=False)
    assert fields.coarse.trunk[0].in_features == 3
    assert fields.coarse.view.in_features == 8 + 3


# which layers


@pytest.mark.parametrize("options", [*VARIANTS.values(), {"weight_norm": True}])
def test_heads_are_never_conditioned(options: dict[str, str | bool]):
    fields = _build(**options)
    assert not set(HEADS) & set(layers.conditioned_layers(fields))


@pytest.mark.parametrize("init", ["he", "glorot", "unit_row"])
def test_a_start_leaves_the_heads_and_all_biases_as_they_were(init: str):
    plain, started = _raw(_build()), _raw(_build(init=init))
    for name, value in plain.items():
        stays = name.endswith("bias") or name.removesuffix(".weight") in HEADS
        assert torch.equal(started[name], value) is stays, name


def test_the_chosen_layers_are_conditioned_and_no_others():
    fields = _build(equilibrate="column", equilibrate_layers="trunk.0, coarse.feature")
    chosen = {"coarse.trunk.0", "coarse.feature", "fine.trunk.0"}
    assert layers.conditioned_layers(fields) == dict.fromkeys(chosen, "column")


def test_jacobi_takes_the_square_layers_and_says_which_it_leaves_out(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="enerf"):
        fields = _build(equilibrate="jacobi")
    square = {n for n, layer in _linears(fields).items() if layer.in_features == layer.out_features}
    assert set(layers.conditioned_layers(fields)) == square
    left_out = set(_linears(fields)) - square - set(HEADS)
    said = [record.getMessage() for record in caplog.records]
    assert {line.split("leaves out ")[1].split(":")[0] for line in said} == left_out
    assert "conditioning leaves out coarse.trunk.0: jacobi needs a square matrix" in "\n".join(said)


@pytest.mark.parametrize("options", [{}, {"equilibrate": "row"}, {"weight_norm": True}, {"init": "he"}])
def test_an_unknown_layer_is_refused_with_the_nearest_names(options: dict[str, str | bool]):
    with pytest.raises(InputError, match=r"--equilibrate_layers.*'trnk\.1'.*trunk\.1"):
        _build(equilibrate_layers="trnk.1", **options)


def test_a_density_head_is_refused_with_the_reason():
    with pytest.raises(InputError, match=r"density_head cannot be conditioned: it has a single output"):
        _build(equilibrate="row", equilibrate_layers="density_head")


# scales of the controls


def _hidden(fields: nn.Module) -> dict[str, Tensor]:
    return {name: w for name, w in _applied(fields).items() if name not in HEADS}


def test_a_unit_row_start_is_where_row_conditioning_starts():
    start = _build(init="unit_row")
    assert not layers.conditioned_layers(start)
    for weight in _hidden(start).values():
        torch.testing.assert_close(weight.norm(dim=0), torch.ones(weight.shape[1]))
    for name, weight in _hidden(_build(equilibrate="row")).items():
        torch.testing.assert_close(weight, _hidden(start)[name])


def test_he_starts_have_variance_two_over_inputs():
    for name, weight in _hidden(_build(WIDE, with_fine=False, init="he")).items():
        expected = math.sqrt(2 / weight.shape[1])
        assert math.isclose(weight.std(), expected, rel_tol=0.05), name
        assert abs(weight.mean()) < 0.05 * expected
        assert weight.abs().max() > 3 * expected  # normal, not uniform


def test_glorot_starts_fill_their_bound():
    for name, weight in _hidden(_build(WIDE, with_fine=False, init="glorot")).items():
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.99 * bound < weight.abs().max() <= bound, name
        assert math.isclose(weight.std(), bound / math.sqrt(3), rel_tol=0.05)


def test_a_start_and_a_map_go_together():
    fields = _build(init="he", equilibrate="row")
    assert _same(_raw(fields), _raw(_build(init="he")))
    for weight in _hidden(fields).values():
        torch.testing.assert_close(weight.norm(dim=0), torch.ones(weight.shape[1]))


@pytest.mark.parametrize("scale", ["kept", "constant", "learned"])
def test_a_kept_or_learned_scale_starts_with_the_size_of_its_own_start(scale: str):
    plain, field = _build(WIDE, init="he"), _build(WIDE, init="he", equilibrate="row", equilibrate_scale=scale)
    names = list(layers.conditioned_layers(field))
    assert len(names) >= 4
    for name in names:
        raw, applied = _applied(plain)[name], _applied(field)[name]
        torch.testing.assert_close(applied.norm(), raw.norm())
        torch.testing.assert_close(applied / applied.norm(dim=0), raw / raw.norm(dim=0))
        rows = applied.norm(dim=0)
        torch.testing.assert_close(rows, rows.mean().expand_as(rows))


def test_the_norm_and_the_skip_that_are_asked_for_are_used():
    fields = _build(ModelOptions(netdepth=8, netwidth=16, netskip=0), equilibrate="row", equilibrate_p=math.inf)
    weight = fields.coarse.trunk[5].weight
    assert weight.shape == (16, 16)
    torch.testing.assert_close(weight.abs().amax(0), torch.ones(16))


def test_an_equilibrated_field_answers_with_finite_values_and_gradients():
    fields = _build(equilibrate="row")
    points, viewdirs = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3)[:2]
    seen = fields.fine(points, viewdirs)
    (seen.density.sum() + seen.rgb.sum()).backward()
    for name, parameter in fields.fine.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


# names


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "nerf"),
        ({"equilibrate": "row"}, "e-nerf"),
        ({"equilibrate": "jacobi"}, "e-nerf-jacobi"),
        ({"equilibrate": "column", "equilibrate_gradient": "detached"}, "e-nerf-column-detached"),
        ({"equilibrate": "row", "init": "he", "equilibrate_layers": "trunk"}, "e-nerf-he-trunk"),
        ({"equilibrate": "row", "equilibrate_scale": "learned", "init": "he"}, "e-nerf-learned-he"),
        ({"equilibrate": "ruiz", "equilibrate_p": math.inf}, "e-nerf-ruiz-pinf"),
        ({"equilibrate_scale": "learned"}, "nerf"),
        ({"weight_norm": True}, "nerf-weight_norm"),
        ({"init": "unit_row"}, "nerf-unit_row"),
        ({"init": "glorot", "equilibrate_layers": "trunk"}, "nerf-glorot-trunk"),
        ({"equilibrate_layers": "trunk", "equilibrate_gradient": "detached"}, "nerf"),
    ],
)
def test_a_method_is_named_by_the_options_that_have_an_effect(options: dict[str, str | bool], name: str):
    assert conditioning.method_name(ConditioningOptions(**options)) == name
