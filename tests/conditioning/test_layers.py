"""Tests of conditioned layers, on a model with the names of a NeRF."""

import copy
import math
import pickle

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning import layers, maps
from enerf.conditioning.maps import METHODS

HEADS = frozenset({"density_head", "rgb_head"})
TRUNK = [f"{network}.trunk.{i}" for network in ("coarse", "fine") for i in range(8)]


class Field(nn.Module):
    """An eight-layer NeRF, 16 wide."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.ModuleList(nn.Linear(6 if i == 0 else 22 if i == 5 else 16, 16) for i in range(8))
        self.density_head = nn.Linear(16, 1)
        self.feature = nn.Linear(16, 16)
        self.view = nn.Linear(20, 8)
        self.rgb_head = nn.Linear(8, 3)

    def forward(self, points: Tensor, views: Tensor) -> Tensor:
        hidden = points
        for i, linear in enumerate(self.trunk):
            hidden = linear(torch.cat([points, hidden], -1) if i == 5 else hidden).relu()
        density = self.density_head(hidden).relu()
        hidden = self.view(torch.cat([self.feature(hidden), views], -1)).relu()
        return torch.cat([density, self.rgb_head(hidden).sigmoid()], -1)


def nerf(seed: int = 0) -> nn.ModuleDict:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.ModuleDict({"coarse": Field(), "fine": Field()})


def outputs(model: nn.ModuleDict) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    points, views = torch.randn(9, 6, generator=generator), torch.randn(9, 4, generator=generator)
    return torch.stack([model["coarse"](points, views), model["fine"](points, views)])


def weights(model: nn.Module) -> dict[str, Tensor]:
    """What each layer applies."""
    with torch.no_grad():
        return {name: m.weight.clone() for name, m in model.named_modules() if isinstance(m, nn.Linear)}


# select


def test_hidden_is_every_linear_but_the_heads():
    names, skipped = layers.select(nerf(), "hidden", HEADS)
    others = [f"{network}.{name}" for network in ("coarse", "fine") for name in ("feature", "view")]
    assert set(names) == set(TRUNK) | set(others)
    assert len(names) == 20
    assert skipped == {}


def test_hidden_leaves_single_outputs_out_even_if_nobody_declared_them_heads():
    selection = layers.select(nerf(), "hidden")
    assert "coarse.density_head" not in selection.names
    assert "coarse.rgb_head" in selection.names
    assert set(selection.skipped) == {"coarse.density_head", "fine.density_head"}


def test_trunk_is_every_linear_with_that_path_component():
    assert layers.select(nerf(), "trunk", HEADS).names == TRUNK


def test_group_words_never_take_a_declared_head():
    assert "fine.trunk.7" not in layers.select(nerf(), "trunk", {"fine.trunk.7"}).names


def test_a_name_means_every_path_that_ends_with_it():
    assert layers.select(nerf(), "trunk.0", HEADS).names == ["coarse.trunk.0", "fine.trunk.0"]
    assert layers.select(nerf(), "fine.trunk.0", HEADS).names == ["fine.trunk.0"]
    assert layers.select(nerf()["coarse"], "trunk.0", HEADS).names == ["trunk.0"]


def test_a_name_matches_whole_path_components_only():
    with pytest.raises(ValueError, match=r"no layer is named 'unk.0'"):
        layers.select(nerf(), "unk.0", HEADS)


def test_names_come_in_the_models_order_each_once():
    names = layers.select(nerf(), " view, trunk.1 ,coarse.trunk.1, rgb_head,", HEADS).names
    assert names == [
        *("coarse.trunk.1", "coarse.view", "coarse.rgb_head"),
        *("fine.trunk.1", "fine.view", "fine.rgb_head"),
    ]


def test_words_and_names_mix():
    assert len(layers.select(nerf(), "trunk, feature", HEADS).names) == 18


@pytest.mark.parametrize(("words", "square"), [("trunk", 6), ("hidden", 7)])
def test_for_jacobi_group_words_take_square_layers_and_say_what_they_skipped(words: str, square: int):
    names, skipped = layers.select(nerf(), words, HEADS, method="jacobi")
    assert len(names) == 2 * square
    assert skipped["fine.trunk.5"] == "jacobi needs a square matrix, and this one is 16 × 22"
    assert not set(names) & set(skipped)


def test_selecting_sees_through_earlier_conditioning_and_changes_nothing():
    model = nerf()
    before = layers.select(model, "hidden", HEADS)
    layers.condition(model, "row", before.names)
    keys = list(model.state_dict())
    assert layers.select(model, "hidden", HEADS) == before
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("trunc.0", "no layer is named 'trunc.0'; the nearest known names are trunk.0"),
        ("xyz", r"no layer is named 'xyz'; the layers are coarse.trunk.0, .*, …$"),
        ("coarse", "coarse is a Field; the layers that can be conditioned are Linear, Conv1d"),
        ("density_head", r"^coarse.density_head cannot be conditioned: it has a single output"),
        ("density_head", r"\(W of shape 16 × 1\) into sign\(W\), with zero gradient$"),
        (" , ", "no layers are named; expected all, hidden, trunk, first_conv_and_last_linear, or layer names"),
    ],
)
def test_select_says_what_is_wrong_with_a_word(words: str, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        layers.select(nerf(), words, HEADS)


def test_select_refuses_a_named_layer_that_is_not_square_for_jacobi():
    with pytest.raises(ValueError, match=r"coarse.trunk.0 cannot .* jacobi needs a square matrix, .* 16 × 6"):
        layers.select(nerf(), "trunk.0", HEADS, method="jacobi")


def test_select_refuses_a_group_without_members():
    with pytest.raises(ValueError, match=r"no layer belongs to 'trunk' .the layers are 0."):
        layers.select(nn.Sequential(nn.Linear(3, 3)), "trunk")
    with pytest.raises(ValueError, match=r"no layer belongs to 'hidden' \(0: jacobi needs a square"):
        layers.select(nn.Sequential(nn.Linear(3, 4)), "hidden", method="jacobi")


# condition


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gradient", maps.GRADIENTS)
def test_a_conditioned_layer_applies_the_map_of_its_raw_weight(method: str, gradient: str):
    plain, model = nerf(), nerf()
    names = layers.select(model, "hidden", HEADS, method).names
    assert layers.condition(model, method, names, gradient) == names
    before, after = weights(plain), weights(model)
    for name in before:
        expected = METHODS[method](before[name], gradient) if name in names else before[name]
        assert torch.equal(after[name], expected)


@pytest.mark.parametrize("gradient", maps.GRADIENTS)
def test_the_gradient_option_reaches_the_raw_weight(gradient: str):
    model = nn.Sequential(nn.Linear(4, 5).double())
    raw = model[0].weight.detach().clone().requires_grad_()
    layers.condition(model, "row", ["0"], gradient)
    inputs = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model(inputs).square().sum().backward()
    copied = nn.functional.linear(inputs, maps.row(raw, gradient), model[0].bias)
    (expected,) = torch.autograd.grad(copied.square().sum(), raw)
    torch.testing.assert_close(model[0].parametrizations.weight.original.grad, expected)


def test_conditioning_draws_nothing_and_keeps_the_raw_weights():
    plain, model = nerf(), nerf()
    state = torch.random.get_rng_state()
    for name in layers.condition(model, "row", layers.select(model, "hidden", HEADS).names):
        raw = model.get_parameter(f"{name}.parametrizations.weight.original")
        assert torch.equal(raw, plain.get_parameter(f"{name}.weight"))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_keys_of_a_conditioned_layer():
    model = nn.Sequential(nn.Linear(3, 4))
    layers.condition(model, "row", ["0"])
    assert set(model.state_dict()) == {"0.bias", "0.parametrizations.weight.original"}


def test_the_state_dict_goes_round():
    model, other = nerf(0), nerf(1)
    for each in (model, other):
        layers.condition(each, "row_column", TRUNK)
    assert not torch.equal(outputs(other), outputs(model))
    other.load_state_dict(model.state_dict())
    assert torch.equal(outputs(other), outputs(model))


def test_a_deep_copy_is_conditioned_and_independent():
    model = nerf()
    layers.condition(model, "row", TRUNK)
    before = outputs(model)
    copied = copy.deepcopy(model)
    assert torch.equal(outputs(copied), before)
    assert layers.conditioned_layers(copied) == layers.conditioned_layers(model)
    layers.bake(copied)
    with torch.no_grad():
        copied["fine"].trunk[0].weight.zero_()
    assert torch.equal(outputs(model), before)
    assert len(layers.conditioned_layers(model)) == 16


def test_layers_keep_their_type_hooks_and_identity_and_baked_ones_their_class():
    class Own(nn.Linear):
        pass

    model, calls = nn.Sequential(nn.Linear(3, 4), Own(4, 2)), []
    first, second = model
    second.register_forward_hook(lambda *_: calls.append("after"))
    layers.condition(model, "row", "all")
    copied = copy.deepcopy(model)
    for net in (model, copied):
        assert isinstance(net[0], nn.Linear)
        assert isinstance(net[1], Own)
        net(torch.ones(1, 3))
    assert calls == ["after"] * 2
    for net in (model, copied):
        layers.bake(net)
        assert [type(layer) for layer in net] == [nn.Linear, Own]
        assert net[1].__class__.__mro__ == Own.__mro__
    assert model[0] is first
    assert model[1] is second
    assert torch.equal(pickle.loads(pickle.dumps(first)).weight, first.weight)


def test_a_conditioned_model_is_not_pickled_whole():
    model = nn.Sequential(nn.Linear(3, 4))
    layers.condition(model, "row", ["0"])
    with pytest.raises(RuntimeError, match="state_dict"):
        pickle.dumps(model)


def test_caching_computes_the_same_weight_once():
    model = nn.Sequential(nn.Linear(3, 4))
    layers.condition(model, "row", ["0"])
    with parametrize.cached():
        assert model[0].weight is model[0].weight
    assert model[0].weight is not model[0].weight


def test_the_print_shows_the_options():
    model = nn.Sequential(nn.Linear(3, 4))
    layers.condition(model, "row", ["0"], "detached")
    assert "Equilibrated(method=row, gradient=detached)" in repr(model)


@pytest.mark.parametrize(
    ("names", "method", "gradient", "sentence"),
    [
        (["trunc.0"], "row", "through", "no layer is named 'trunc.0'; the nearest known names are trunk.0"),
        (["fine.trunk.0", "fine"], "row", "through", "fine is a Field; the layers that can be cond"),
        (["fine.trunk.0", "fine.density_head"], "row", "through", "single output"),
        (["fine.trunk.0"], "jacobi", "through", "jacobi needs a square matrix"),
        (["fine.trunk.0", "coarse.view"], "row", "through", "coarse.view is conditioned already"),
        (
            ["fine.trunk.0"],
            "rows",
            "through",
            "method is 'rows'; it must be one of row, column, row_column, jaco",
        ),
        (["fine.trunk.0"], "row", "thru", "gradient is 'thru'; it must be one of through, detached"),
    ],
)
def test_condition_says_what_is_wrong_and_touches_nothing(names: list[str], method: str, gradient: str, sentence: str):
    model = nerf()
    layers.condition(model, "column", ["coarse.view"])
    with pytest.raises(ValueError, match=sentence):
        layers.condition(model, method, names, gradient)
    assert layers.conditioned_layers(model) == {"coarse.view": "column"}


@pytest.mark.parametrize(
    ("method", "how", "sentence"),
    [
        ("spectral_shift", {"p": math.inf}, "p is inf, but spectral_shift divides by no norm"),
        ("spectral_shift", {"gradient": "detached"}, "gradient is 'detached' and p is 2.0, but spectral_shift divides"),
        ("fourier", {"packing": "head"}, "packing is 'head', but fourier treats a weight as a whole"),
    ],
)
def test_options_without_effect_are_refused(method: str, how: dict[str, object], sentence: str):
    model = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 4))
    with pytest.raises(ValueError, match=sentence):
        layers.condition(model, method, "all", **how)
    assert layers.conditioned_layers(model) == {}


@pytest.mark.parametrize("method", ["column", "row_column"])
def test_columns_of_a_single_input_are_refused(method: str):
    model = nn.Sequential(nn.Linear(1, 4))
    with pytest.raises(ValueError, match=r"single input, and column equilibration .* \(W of shape 1 × 4\)"):
        layers.condition(model, method, ["0"])
    assert layers.condition(model, "row", ["0"]) == ["0"]


def test_shapes_are_executed():
    with pytest.raises(TypeCheckError):
        layers.Equilibrated("row")(torch.ones(3))


# controls


def test_weight_norm_keeps_the_start_and_is_reported():
    model, plain = nerf(), nerf()
    layers.weight_norm(model, TRUNK)
    layers.condition(model, "row", ["fine.feature"])
    for name in TRUNK:
        torch.testing.assert_close(weights(model)[name], weights(plain)[name])
    found = layers.conditioned_layers(model)
    assert found == {**dict.fromkeys(TRUNK, "weight_norm"), "fine.feature": "row"}
    with pytest.raises(ValueError, match=r"fine.trunk.0 is conditioned already"):
        layers.condition(model, "row", ["fine.trunk.0"])
    with pytest.raises(ValueError, match=r"fine.feature is conditioned already"):
        layers.weight_norm(model, ["fine.feature"])


def test_unit_row_starts_where_the_row_conditioned_model_starts():
    model, control = nerf(), nerf()
    layers.condition(model, "row", TRUNK)
    layers.unit_row_(control, TRUNK)
    assert torch.equal(outputs(model), outputs(control))
    assert layers.conditioned_layers(control) == {}
    assert control.get_parameter("fine.trunk.0.weight").requires_grad


def test_unit_row_refuses_what_row_refuses():
    model = nerf()
    with pytest.raises(ValueError, match="single output"):
        layers.unit_row_(model, ["fine.trunk.0", "fine.density_head"])
    layers.condition(model, "row", ["fine.view"])
    with pytest.raises(ValueError, match=r"fine.view is conditioned already"):
        layers.unit_row_(model, ["fine.trunk.0", "fine.view"])
    assert torch.equal(weights(model)["fine.trunk.0"], weights(nerf())["fine.trunk.0"])


@pytest.mark.parametrize("init", layers.INITS)
def test_initialize_draws_from_its_generator_alone_and_spares_biases_and_others(init: str):
    models = [nerf(), nerf()]
    state = torch.random.get_rng_state()
    for model in models:
        layers.initialize_(model, TRUNK, init, torch.Generator().manual_seed(5))
    assert torch.equal(torch.random.get_rng_state(), state)
    plain, first, second = (dict(m.named_parameters()) for m in (nerf(), *models))
    for name, start in plain.items():
        assert torch.equal(first[name], second[name])
        drawn = init != "default" and name.removesuffix(".weight") in TRUNK
        assert torch.equal(first[name], start) != drawn


def test_initialize_has_the_scale_it_promises():
    model = nn.Sequential(nn.Linear(300, 200))
    generator = torch.Generator().manual_seed(0)
    layers.initialize_(model, ["0"], "he", generator)
    assert model[0].weight.std().item() == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    layers.initialize_(model, ["0"], "glorot", generator)
    assert model[0].weight.abs().max().item() == pytest.approx(math.sqrt(6 / 500), rel=1e-3)
    layers.initialize_(model, ["0"], "unit_row", generator)
    torch.testing.assert_close(model[0].weight.norm(dim=0), torch.ones(300))


def test_initialize_refuses_unknown_starts_and_conditioned_layers():
    model, generator = nerf(), torch.Generator()
    with pytest.raises(ValueError, match="init is 'xavier'; it must be one of default, glorot, he, unit_row"):
        layers.initialize_(model, TRUNK, "xavier", generator)
    layers.condition(model, "row", TRUNK)
    with pytest.raises(ValueError, match=r"coarse.trunk.0 is conditioned already"):
        layers.initialize_(model, TRUNK, "he", generator)


# bake


@pytest.mark.parametrize("gradients", [True, False])
def test_baking_keeps_every_bit_and_leaves_plain_weights(gradients: bool):
    model = nerf()
    layers.condition(model, "row", TRUNK[:8])
    layers.condition(model, "row_column", TRUNK[8:12], "detached")
    layers.condition(model, "jacobi", ["fine.feature"])
    layers.weight_norm(model, TRUNK[12:])
    with torch.set_grad_enabled(gradients):
        before = outputs(model)
        assert layers.bake(model) is model
        assert torch.equal(outputs(model), before)
    assert layers.conditioned_layers(model) == {}
    assert set(model.state_dict()) == set(nerf().state_dict())
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(dict(nerf().named_parameters()))
    assert all(p.requires_grad and p.is_leaf for p in parameters.values())
    assert all(type(m) in (nn.Linear, nn.ModuleList, nn.ModuleDict, Field) for m in model.modules())


def test_a_baked_state_dict_loads_into_a_plain_model():
    model, plain = nerf(0), nerf(1)
    layers.condition(model, "row", TRUNK)
    plain.load_state_dict(layers.bake(model).state_dict())
    assert torch.equal(outputs(plain), outputs(model))


def test_baking_a_plain_model_changes_nothing():
    model = nerf()
    layers.bake(model)
    assert list(model.state_dict()) == list(nerf().state_dict())
    assert torch.equal(outputs(model), outputs(nerf()))
