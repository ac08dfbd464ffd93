"""Laws of the methods that are compared: each is a configuration that can be run, and changes its own options only."""

from typing import Any

import pytest

from enerf.config import parser
from enerf.experiments import compare, methods
from enerf.tasks.classifier.config import NORMALISATIONS, ClassifierConfig
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
        normalised = methods.CLASSIFIERS[method].get("normalisation", "")
        given = {**given, "model": "vit_s" if normalised.startswith("ln") else "densenet"}
    return parser.from_dict(KINDS[kind], {**given, **changes})


def arm(kind: str, method: str, **changes: Any) -> Any:
    return compare.arm_config(base_of(kind, method, **changes), method, None, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_is_a_configuration_that_can_be_run(kind: str):
    for method in methods_of(kind):
        made = arm(kind, method)
        assert type(made) is KINDS[kind], method
        made.check()
        said = parser.to_dict(made)
        assert methods_of(kind)[method].items() <= said.items(), method
        assert (said["seed"], said["no_final_eval"]) == (0, False), method


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_is_one_that_a_command_line_takes(kind: str):
    for method in methods_of(kind):
        text = parser.to_text(arm(kind, method))
        words = [f"--{line.replace(' = ', '=', 1)}" for line in text.splitlines() if " = " in line]
        assert parser.parse(KINDS[kind], words)[0] == arm(kind, method), method


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_differs_from_the_plain_arm_by_its_own_options_only(kind: str):
    for method, own in methods_of(kind).items():
        base = base_of(kind, method)
        plain = parser.to_dict(parser.replace(base, **compare.KINDS[kind].plain))
        said = parser.to_dict(arm(kind, method))
        differing = {name for name in plain if plain[name] != said[name]} - {"expname"}
        assert differing == {name for name, value in own.items() if value != plain[name]}, method
        assert bool(differing) == (method != "plain"), method


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_is_another_one_whatever_the_configuration_says(kind: str):
    for changes in ({}, OTHERWISE.get(kind, {})):
        made: dict[tuple[str, ...], str] = {}
        for method in methods_of(kind):
            said = parser.to_dict(arm(kind, method, **changes)) | {"expname": ""}
            key = tuple(f"{name}={value}" for name, value in said.items())
            assert key not in made, f"{method} is {made.get(key)}"
            made[key] = method


def test_what_one_arm_begins_with_is_the_plain_start_for_every_kind():
    for kind, found in compare.KINDS.items():
        plain = parser.to_dict(parser.from_dict(KINDS[kind], {}))
        assert {name: plain[name] for name in found.plain} == found.plain
    begun = {"equilibrate": "ruiz", "init": "he"}
    assert parser.to_dict(arm("nerf", "plain", **begun)) == parser.to_dict(arm("nerf", "plain"))
    begun |= {"equilibrate_scale": "kept", "normalisation": "bn+e"}
    assert parser.to_dict(arm("classifier", "bn+e", **begun)) == parser.to_dict(arm("classifier", "bn+e"))


def test_every_normalisation_is_a_method_under_its_own_name():
    for name in NORMALISATIONS:
        assert methods.CLASSIFIERS[name] == {"normalisation": name}


def test_arms_of_an_optimiser_differ_among_themselves_by_what_their_names_say():
    ours = {name: changes for name, changes in methods.CLASSIFIERS.items() if "optimiser" in changes}
    assert len({frozenset(changes) for changes in ours.values()}) == 1
    strengths = ("weight_decay", "l1", "l2")
    for name, changes in ours.items():
        regularised = [option for option in strengths if changes[option]]
        assert len(regularised) == (name != "adam"), name
        assert (changes["shrinkage"] == "soft") == name.endswith("_soft")
        assert changes["optimiser"].startswith("intrinsic") == name.startswith("intrinsic")


def methods_of(kind: str) -> methods.Methods:
    return compare.KINDS[kind].methods
