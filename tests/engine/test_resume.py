"""Tests of resuming: which changed options are errors, warnings, or ignored."""

import pytest

from enerf.config import options, parser
from enerf.core.errors import InputError
from enerf.engine import resume
from enerf.experiments import variants
from enerf.tasks import registry
from enerf.tasks.nerf.config import NerfConfig
from tests.contents import refusal

# Options of each effect; a new value here is a decision, not an accident.
AFFECTS = {
    **dict.fromkeys(("netdepth", "netwidth", "encoding", "activation", "equilibrate", "model", "optimiser"), "model"),
    **dict.fromkeys(("datadir", "factor", "llffhold", "mesh", "margin", "images", "augment", "testskip"), "data"),
    **dict.fromkeys(("N_iters", "lrate", "seed", "init", "precision", "precrop_iters", "N_importance"), "training"),
    **dict.fromkeys(("expname", "device", "backend", "i_print", "chunk", "resolution", "no_reload"), "neutral"),
}


def config(**values) -> NerfConfig:
    return parser.from_dict(NerfConfig, values)


@pytest.mark.parametrize("kind", [task.kind for task in registry.tasks()])
def test_every_option_of_a_run_says_what_it_affects(kind: str):
    declared = options.declared(registry.task(kind).load("config"))
    assert {name: item.metadata["affects"] for name, item in declared.items() if name in AFFECTS} == {
        name: effect for name, effect in AFFECTS.items() if name in declared
    }
    for wrong in ({}, {"affects": "color"}):
        with pytest.raises((TypeError, ValueError), match="affects"):
            options.option(1, "help", **wrong)


def test_changed_options_are_named_by_effect_and_only_where_both_have_them():
    saved = {"netwidth": 64, "N_rand": 8, "i_print": 7, "datadir": "there", "gone": 3}
    asked = config(netwidth=32, N_rand=9, datadir="here")
    assert resume.changed_options(saved, asked, "model") == ["netwidth (saved 64, requested 32)"]
    assert resume.changed_options(saved, asked, "training") == ["N_rand (saved 8, requested 9)"]
    assert resume.changed_options(saved, asked, "data") == ["datadir (saved there, requested here)"]
    assert resume.changed_options(saved, asked, "neutral") == ["i_print (saved 7, requested 100)"]


def test_a_fine_network_that_comes_or_goes_changes_the_model_its_number_of_samples_the_training():
    for there, asked, effects in (
        (64, 32, ["training"]),
        (64, 0, ["model", "training"]),
        (0, 8, ["model", "training"]),
    ):
        changed = [
            effect
            for effect in ("model", "data", "training", "neutral")
            if resume.changed_options({"N_importance": there}, config(N_importance=asked), effect)
        ]
        assert changed == effects


@pytest.mark.parametrize(("schedule", "counts"), [("cosine", True), ("milestones", True), ("decay", False)])
def test_the_length_counts_where_the_learning_rate_depends_on_it(schedule: str, counts: bool):
    saved = {"N_iters": 1000, "max_seconds": 0.0, "lrate_schedule": schedule}
    asked = config(N_iters=2000, max_seconds=5.0, lrate_schedule=schedule)
    found = resume.changed_options(saved, asked, "training")
    assert found == (
        ["N_iters (saved 1000, requested 2000)", "max_seconds (saved 0.0, requested 5.0)"] if counts else []
    )


@pytest.mark.parametrize("option", ["precision", "precrop_iters", "testskip", "ft_path", "raw_noise_std", "half_res"])
def test_options_that_change_a_result_are_in_the_rules(option: str):
    item = options.declared(NerfConfig)[option]
    assert item.metadata["affects"] in ("data", "training")


def test_a_comparison_of_1000_steps_is_not_taken_for_one_of_2000(tmp_path, monkeypatch):
    content = {"step": 400, "config": {"kind": "nerf", "N_iters": 1000, "lrate_schedule": "cosine"}}
    monkeypatch.setattr(variants.checkpoint, "checkpoints", lambda folder: [tmp_path / "000400.pt"])
    monkeypatch.setattr(variants.checkpoint, "read", lambda path: content)
    longer = config(N_iters=2000, lrate_schedule="cosine")
    assert "other options: N_iters (saved 1000, requested 2000)" in refusal(variants.check_unchanged, longer)
    variants.check_unchanged(config(N_iters=1000, lrate_schedule="cosine"))
    content["config"]["lrate_schedule"] = "decay"
    variants.check_unchanged(config(N_iters=2000))
    with pytest.raises(InputError, match="400 steps done there, 300 requested"):
        variants.check_unchanged(config(N_iters=300))


def test_a_saved_auto_counts_as_what_it_was_resolved_to():
    saved = {"precision": "auto", "resolved": {"backend": "torch", "precision": "bf16", "device": "cpu"}}
    asked = config(precision="fp32")
    assert resume.changed_options(saved, asked, "training") == ["precision (saved bf16, requested fp32)"]
    assert resume.changed_options(saved, config(precision="bf16"), "training") == []
    assert resume.changed_options(saved, config(), "training") == []
    assert resume.changed_options({"precision": "auto"}, asked, "training") == []  # earlier versions did not say
