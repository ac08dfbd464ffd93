"""Tests of built shapes' fields: variants of a comparison differ by what is asked for, and by nothing else."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning import layers
from enerf.config.options import METHODS, ConditioningOptions
from enerf.core.errors import InputError
from enerf.core.types import Space
from enerf.fields import encoders, init
from enerf.fields.activations import KINDS
from enerf.fields.backends.hashgrid import make_grid
from enerf.fields.shape import ShapeField
from enerf.tasks.shape.build import shape_field
from tests.grids import latin, pairs

SMALL: dict[str, Any] = {
    "depth": 4,
    "width": 16,
    "skip_at": 2,
    "bands": 3,
    "waves": 8,
    "grid": make_grid(2, 2, 8, 4, 8),
}
VARIANTS = {
    **{method: {"equilibrate": method} for method in METHODS},
    **{scale: {"equilibrate": "row", "equilibrate_scale": scale} for scale in ("kept", "constant", "learned")},
    "weight norm": {"weight_norm": True},
    "trunk.1": {"equilibrate": "row", "equilibrate_layers": "trunk.1"},
}


def built(seed: int = 3, variant: dict[str, Any] | None = None, **numbers: Any) -> ShapeField:
    return shape_field(ConditioningOptions(**(variant or {})), seed, **{**SMALL, **numbers})


def raw(field: nn.Module) -> dict[str, Tensor]:
    """The raw weights and the buffers of the encoder; of weight norm, whose raw weights are others, biases."""
    found = {}
    for name, value in field.state_dict().items():
        plain = name.replace(".parametrizations.weight.original", ".weight")
        if plain.endswith(("weight", "bias", "frequencies", "table")):
            found[plain] = value
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_finer_starts_as_siren_with_first_biases_in_their_range():
    sine, finer, biased = (
        built(activation=kind, encoding="none", **more)
        for kind, more in (("sine", {}), ("finer", {}), ("finer", {"first_biases": 5.0}))
    )
    assert same(raw(sine), raw(finer))
    first = biased.linears()[0].bias
    assert 2 < first.abs().max() <= 5
    assert torch.equal(first == finer.linears()[0].bias, torch.zeros(16, dtype=torch.bool))
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(biased.linears(), finer.linears(), strict=True))


# shared starts


@pytest.mark.parametrize(
    ("variant", "activation"), latin(2, [variant for variant in VARIANTS if variant != "weight norm"], KINDS)
)
def test_baseline_and_treatment_share_every_raw_weight(variant: str, activation: str):
    baseline = built(activation=activation)
    treatment = built(variant=VARIANTS[variant], activation=activation)
    assert same(raw(treatment), raw(baseline))
    assert layers.conditioned_layers(treatment)
    assert "head" not in layers.conditioned_layers(treatment)
    assert not layers.conditioned_layers(baseline)


def test_weight_norm_starts_from_the_baselines_weights():
    control, baseline = built(variant=VARIANTS["weight norm"]), built()
    assert set(layers.conditioned_layers(control).values()) == {"weight_norm"}
    for a, b in zip(control.linears(), baseline.linears(), strict=True):
        torch.testing.assert_close(a.weight, b.weight)


@pytest.mark.parametrize("encoding", encoders.KINDS)
def test_seeds_differ_in_every_weight_and_repeat(encoding: str):
    one, same_seed, other = (raw(built(seed, encoding=encoding)) for seed in (1, 1, 2))
    assert same(one, same_seed)
    assert all(not torch.equal(one[name], other[name]) for name in one)


def test_torchs_own_random_numbers_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    def refuse(seed: int) -> None:
        raise AssertionError("the GPUs' random numbers were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    torch.rand(3)
    before = torch.get_rng_state()
    for encoding in encoders.KINDS:
        built(encoding=encoding, start_radius=0.5)
        built(encoding=encoding, activation="sine", variant={"init": "he"})
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "numbers",
    [
        {"depth": 2, "skip_at": 0},
        {"width": 32},
        {"activation": "sine"},
        {"activation": "gaussian", "outputs": 3},
        {"variant": {"equilibrate": "row", "init": "he"}},
        {"start_radius": 0.5},
    ],
)
def test_fourier_features_depend_on_the_seed_alone(numbers: dict[str, Any]):
    def frequencies(field: ShapeField) -> Tensor:
        return next(value for name, value in raw(field).items() if name.endswith("frequencies"))

    plain = frequencies(built(encoding="fourier"))
    assert torch.equal(frequencies(built(encoding="fourier", **numbers)), plain)
    assert not torch.equal(frequencies(built(4, encoding="fourier", **numbers)), plain)
    torch.testing.assert_close(frequencies(built(encoding="fourier", wave_scale=12, **numbers)), 2 * plain)


# what is built


@pytest.mark.parametrize(("inputs", "encoding", "activation"), pairs([2, 3], ["none", "positional", "fourier"], KINDS))
def test_all_that_is_asked_for_together_answers_with_finite_values_and_gradients(
    inputs: int, encoding: str, activation: str
):
    for variant in ({}, VARIANTS["row"]):
        field = built(inputs=inputs, outputs=3, encoding=encoding, activation=activation, variant=variant)
        values = field(torch.rand(5, inputs, generator=torch.Generator().manual_seed(0)))
        assert values.shape == (5, 3)
        gradients = torch.autograd.grad(values.square().sum(), list(field.parameters()))
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)


def test_the_sizes_are_those_asked_for():
    field = built(encoding="hash", space=Space((0.0,) * 3, (2.0,) * 3), activation="softplus", beta=7)
    assert [layer.in_features for layer in field.linears()] == [4, 16, 20, 16, 16]
    assert (field.encoder.hashed.low + field.encoder.hashed.size).tolist() == [2.0] * 3
    assert (field.activation.kind, field.activation.beta) == ("softplus", 7)
    plain = shape_field(ConditioningOptions(), 0)
    assert [layer.out_features for layer in plain.linears()] == [*[256] * 8, 1]
    assert plain.trunk[5].in_features == 256 + 3 * 13


def test_sine_layers_begin_as_sirens_and_others_as_pytorchs():
    sine, gaussian = built(activation="sine", omega=20, width=64), built(activation="gaussian", width=64)
    for i, (a, b) in enumerate(zip(sine.linears(), gaussian.linears(), strict=True)):
        n = a.in_features
        assert float(a.weight.abs().max().detach()) == pytest.approx(1 / n if i == 0 else (6 / n) ** 0.5 / 20, rel=0.05)
        assert float(b.weight.abs().max().detach()) == pytest.approx(n**-0.5, rel=0.05)
        assert torch.equal(a.bias, b.bias)


# the start on a sphere


def over_the_sphere(field: ShapeField, radius: float) -> float:
    directions = torch.randn(2000, 3, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return float(field(radius * directions / directions.norm(dim=-1, keepdim=True)).mean())


STARTED = [{}, VARIANTS["row"], VARIANTS["column"], VARIANTS["kept"], VARIANTS["weight norm"], {"init": "unit_row"}]


@pytest.mark.parametrize(("variant", "encoding"), latin(2, STARTED, encoders.KINDS))
def test_every_arm_begins_on_the_sphere_and_shares_all_but_the_heads_size(variant: dict[str, Any], encoding: str):
    field = built(variant=variant, encoding=encoding, start_radius=0.4, width=64)
    assert abs(over_the_sphere(field, 0.4)) < 0.03
    assert over_the_sphere(field, 0.05) < -0.1
    assert over_the_sphere(field, 1.2) > 0.2
    if "weight_norm" not in variant and "init" not in variant:
        mine, plain = raw(field), raw(built(encoding=encoding, start_radius=0.4, width=64))
        ratio = mine.pop("head.weight") / plain.pop("head.weight")
        assert ratio.min() > 0
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
        assert same(mine, plain)


def test_maps_of_inputs_leave_out_layers_whose_encoded_inputs_begin_at_zero(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="enerf"):
        field = built(variant=VARIANTS["row"], start_radius=0.5)
    assert list(layers.conditioned_layers(field)) == ["trunk.1", "trunk.3"]
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "conditioning leaves out trunk.0: 18 of its inputs have zero initial weights" in said
    assert "leaves out trunk.2" in said
    assert set(layers.conditioned_layers(built(variant=VARIANTS["column"], start_radius=0.5))) == {
        f"trunk.{i}" for i in range(4)
    }
    assert set(layers.conditioned_layers(built(variant=VARIANTS["row"]))) == {f"trunk.{i}" for i in range(4)}


@pytest.mark.parametrize("activation", init.GEOMETRIC)
def test_the_sphere_is_trained_away_like_any_start(activation: str):
    field = built(start_radius=0.4, activation=activation, variant=VARIANTS["row"])
    values = field(torch.rand(5, 3, generator=torch.Generator().manual_seed(0)))
    for name, p in field.named_parameters():
        (gradient,) = torch.autograd.grad(values.sum(), p, retain_graph=True)
        assert gradient.isfinite().all(), name
        assert 0 < gradient.abs().max() < 1e3, name


# refusals


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"encoding": "waves"}, r"'waves'; it must be one of none, positional, fourier, hash"),
        ({"activation": "tanh"}, r"'tanh'; it must be one of relu"),
        ({"start_radius": 0.5, "activation": "sine"}, "its activation is sine, expected relu or softplus"),
        ({"start_radius": 0.5, "outputs": 3}, "it has 3 outputs, expected 1"),
        ({"start_radius": 0.5, "variant": {"init": "he"}}, "init he redraws weights that start_radius has set"),
        ({"variant": {"equilibrate": "row", "equilibrate_layers": "trnk.1"}}, r"'trnk\.1'.*trunk\.1"),
        (
            {"variant": {"equilibrate": "row", "equilibrate_layers": "head"}},
            "head cannot be conditioned: it has a single",
        ),
        ({"start_radius": 0.5, "variant": {"equilibrate": "row", "equilibrate_layers": "trunk.0"}}, "no layer is left"),
    ],
)
def test_what_does_not_go_together_is_reported_in_one_sentence(numbers: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said) as caught:
        built(**numbers)
    assert "\n" not in str(caught.value)


def test_a_conditioned_fields_weights_are_computed_from_the_raw_ones():
    field = built(variant=VARIANTS["row"])
    for layer in field.linears()[:-1]:
        assert parametrize.is_parametrized(layer, "weight")
        torch.testing.assert_close(layer.weight.norm(dim=0), torch.ones(layer.in_features))
