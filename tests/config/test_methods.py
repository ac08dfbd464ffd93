"""Tests of the compared methods: each is a valid configuration, and changes its own options only."""

from typing import Any

import pytest

from enerf.config import parser
from enerf.config.methods import FIELDS, Methods, as_options, conditioning_of, methods_with
from enerf.experiments import variants
from enerf.tasks import registry
from enerf.tasks.classifier.config import NORMALIZATIONS, ClassifierConfig
from enerf.tasks.classifier.methods import CLASSIFIERS
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape.config import ShapeConfig

KINDS = {"nerf": NerfConfig, "shape": ShapeConfig, "classifier": ClassifierConfig}
# where every option that some method changes has another value than in any of them
OTHERWISE: dict[str, dict[str, Any]] = {
    "classifier": {"shrinkage": "soft", "layers": "hidden", "momentum": 0.5, "lrate": 0.3, "weight_decay": 0.7}
}


def base_of(kind: str, method: str, **changes: Any) -> Any:
    """A configuration that fits the method."""
    given = {"nerf": {}, "shape": {"mesh": "ball.obj"}, "classifier": {"images": "cifar-10-batches-bin"}}[kind]
    if kind == "classifier":
        normalized = CLASSIFIERS.changes[method].get("normalisation", "")
        given = {**given, "model": "vit_s" if normalized.startswith("ln") else "densenet"}
    if (kind, method) == ("shape", "iga"):
        given = {"image": "photo.png", "encoding": "positional"}
    return parser.from_dict(KINDS[kind], {**given, **changes})


def variant(kind: str, method: str, **changes: Any) -> Any:
    return variants.variant_config(base_of(kind, method, **changes), method, None, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_is_a_configuration_that_can_be_run(kind: str):
    for method in methods_of(kind):
        made = variant(kind, method)
        assert type(made) is KINDS[kind], method
        made.check()
        values = parser.to_dict(made)
        assert methods_of(kind)[method].items() <= values.items(), method
        assert (values["seed"], values["no_final_eval"]) == (0, False), method


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_is_one_that_a_command_line_takes(kind: str):
    for method in methods_of(kind):
        text = parser.to_text(variant(kind, method))
        words = [f"--{line.replace(' = ', '=', 1)}" for line in text.splitlines() if " = " in line]
        assert parser.parse(KINDS[kind], words)[0] == variant(kind, method), method


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_differs_from_the_plain_arm_by_its_own_options_only(kind: str):
    for method, own in methods_of(kind).items():
        base = base_of(kind, method)
        plain = parser.to_dict(parser.replace(base, **registry.task(kind).load("methods").common))
        values = parser.to_dict(variant(kind, method))
        differing = {name for name in plain if plain[name] != values[name]} - {"expname"}
        assert differing == {name for name, value in own.items() if value != plain[name]}, method
        assert bool(differing) == (method != "plain"), method


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_is_another_one_also_with_other_options_of_training(kind: str):
    for changes in ({}, OTHERWISE.get(kind, {})):
        made: dict[tuple[str, ...], str] = {}
        for method in methods_of(kind):
            values = parser.to_dict(variant(kind, method, **changes)) | {"expname": ""}
            key = tuple(f"{name}={value}" for name, value in values.items())
            assert key not in made, f"{method} is {made.get(key)}"
            made[key] = method


def test_what_one_arm_begins_with_is_the_plain_start_for_every_kind():
    for kind, config in KINDS.items():
        found = registry.task(kind).load("methods")
        plain = parser.to_dict(parser.from_dict(config, {}))
        assert {name: plain[name] for name in found.common} == found.common
    begun = {"equilibrate": "ruiz", "init": "he"}
    assert parser.to_dict(variant("nerf", "plain", **begun)) == parser.to_dict(variant("nerf", "plain"))
    begun |= {"equilibrate_scale": "kept", "normalisation": "bn+e"}
    assert parser.to_dict(variant("classifier", "bn+e", **begun)) == parser.to_dict(variant("classifier", "bn+e"))


def test_every_normalisation_is_a_method_under_its_own_name():
    for name in NORMALIZATIONS:
        assert CLASSIFIERS.changes[name] == {"normalisation": name}


def test_variants_of_an_optimizer_differ_by_the_options_in_their_names():
    ours = {name: c for name, c in CLASSIFIERS.changes.items() if c.get("optimiser", "muon") != "muon"}
    assert len({frozenset(changes) for changes in ours.values()}) == 1
    strengths = ("weight_decay", "l1", "l2")
    for name, changes in ours.items():
        regularised = [option for option in strengths if changes[option]]
        assert len(regularised) == (name != "adam"), name
        assert (changes["shrinkage"] == "soft") == name.endswith("_soft")
        assert changes["optimiser"].startswith("intrinsic") == name.startswith("intrinsic")


def test_methods_with_muon_differ_from_those_without_in_the_optimizer_alone():
    with_muon = {name: c for name, c in CLASSIFIERS.changes.items() if c.get("optimiser") == "muon"}
    for name, changes in with_muon.items():
        own = {"optimiser": "muon", "momentum": 0.0, "l1": 0.0, "l2": 0.0, "shrinkage": "sign"}
        assert changes == {**own, **CLASSIFIERS.changes[name.removesuffix("_muon")]}
    assert len(with_muon) == 2 * 6


@pytest.mark.parametrize("kind", ["nerf", "shape"])
def test_a_method_is_the_options_that_the_command_line_tells_it_stands_for(kind: str):
    for method, changes in methods_of(kind).items():
        base = base_of(kind, method)
        asked = as_options(method).split()
        words = [f"--{line.replace(' = ', '=', 1)}" for line in parser.to_text(base).splitlines() if " = " in line]
        one, _ = parser.parse(KINDS[kind], [*words, *asked])
        arm = variant(kind, method)
        assert one.conditioning.methods == arm.conditioning.methods == conditioning_of(changes), method
        ours, theirs = parser.to_dict(one), parser.to_dict(arm)
        differing = {name for name in ours if ours[name] != theirs[name]}
        names_of_weights = {"conditioning", "equilibrate", "weight_norm"}  # two names of one method
        assert differing <= {*names_of_weights, "expname", "no_final_eval"}, method


def test_options_of_a_ratio_of_rates_name_the_ratio():
    assert as_options("muon_e*2.5") == "--conditioning row+muon, and --lrate_matrices of 2.5 times --lrate"
    assert [as_options(name) for name in ("he*5", "muon*", "muon*0", "rows", "")] == [""] * 5


def test_methods_with_a_conditioning_are_found_by_every_name_of_it():
    by_row = ["equilibrate", "detached", "kept", "constant", "gain", "row_gains", "own_kept", "own_gain"]
    assert methods_with("row", FIELDS) == by_row
    assert methods_with("muon+row", FIELDS) == methods_with("row+muon", FIELDS) == ["muon_e", "muon_gain"]
    assert methods_with("weight_norm", FIELDS) == ["weight_norm"]
    for text in ("column+muon", "ws", "rows", "row+column", ""):
        assert methods_with(text, FIELDS) == []
    assert methods_with("row", CLASSIFIERS) == methods_with("none", CLASSIFIERS) == []
    for method, changes in FIELDS.changes.items():
        if name := changes.get("conditioning"):
            assert method in methods_with(name, FIELDS)


def methods_of(kind: str) -> dict[str, dict[str, Any]]:
    known: Methods = registry.task(kind).load("methods")
    return known.changes
