"""Tests of the options of classifiers: what goes together, and how what does not is told."""

import dataclasses
from typing import Any

import pytest

from enerf.conditioning import attention
from enerf.config import parser
from enerf.core.errors import InputError
from enerf.optim.table import MATRIX_OPTIMIZERS
from enerf.tasks.classifier import build as classifier_build
from enerf.tasks.classifier.config import (
    ATTENTION_INITS,
    ATTENTION_TREATMENTS,
    MODELS,
    NORMALIZATIONS,
    NORMS,
    OPTIMIZERS,
    SHIFT,
    TREATMENTS,
    ClassifierConfig,
    NormalizationOptions,
)

IMAGES = {"images": "data/cifar-10-batches-bin"}
SHIPPED = [
    path
    for path in sorted(parser.CONFIG_FOLDER.rglob("*.txt"))
    if any(line.split("=")[0].strip() == "model" for line in path.read_text(encoding="utf-8").splitlines())
]
VITS = [name for name in MODELS if name.startswith("vit")]


def made(**changes: Any) -> ClassifierConfig:
    return parser.from_dict(ClassifierConfig, {**IMAGES, **changes})


def refusal(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        made(**changes).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# parts


def test_a_normalization_is_what_normalizes_activations_and_what_is_done_to_weights():
    pairs = [NormalizationOptions(normalisation=name).parts for name in NORMALIZATIONS]
    assert pairs == [
        *((norm, treatment) for norm in NORMS for treatment in TREATMENTS),
        *(("ln", treatment) for treatment in ATTENTION_TREATMENTS),
    ]
    assert NormalizationOptions().parts == ("", "")


def test_words_are_those_that_networks_are_built_by():
    assert set(MODELS) == set(classifier_build.TITLES)
    assert {norm for name in MODELS for norm in classifier_build.norms_of(name)} == set(NORMS)


# refusals


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("equilibrate", "ruiz", "ruiz"),
        ("equilibrate_gradient", "detached", "detached"),
        ("equilibrate_scale", "kept", "kept"),
        ("equilibrate_p", 1.0, "1.0"),
    ],
)
def test_options_of_the_map_need_the_map(option: str, value: Any, told: str):
    for normalisation in ("", "bn", "bn+w", "bn+ws", "bn+bnp", "none"):
        assert refusal(normalisation=normalisation, **{option: value}) == (
            f"option --{option}: found {told} with --normalisation {normalisation or '(empty)'}, expected one with +e: "
            "only equilibration has such an option"
        )
    for normalisation in ("bn+e", "gn+e", "none+e"):
        made(normalisation=normalisation, **{option: value}).check()


def test_options_of_attention_need_a_transformer_and_what_they_are_for():
    vit = {"model": "vit_s"}
    made(**vit, normalisation="ln+sc", attention_shift=2.0, equilibrate_scale="kept").check()
    made(**vit, init="shifted_attention", attention_shift=2.0).check()
    for normalisation in ("", "ln+e", "ln+pa"):
        assert refusal(**vit, normalisation=normalisation, attention_shift=2.0) == (
            f"option --attention_shift: found 2 with --normalisation {normalisation or '(empty)'}, expected ln+sc, or "
            "--init shifted_attention"
        )
    assert "expected one with +e" in refusal(**vit, normalisation="ln+sc", equilibrate_p=1.0)
    for init in ATTENTION_INITS:
        made(**vit, init=init).check()
        assert refusal(model="resnet18", init=init) == (
            f"option --init: found {init} with --model resnet18, expected vit_s or vit_b: other networks have no "
            "attention"
        )


def test_names_and_numbers_of_attention_are_those_of_the_library():
    assert (ATTENTION_INITS, SHIFT) == (attention.INITS, attention.SHIFT)


def test_without_images_there_is_nothing_to_learn():
    expected = "option --images: found nothing, expected a folder or an archive of labeled images"
    assert refusal(images="") == expected


def test_a_run_has_a_length():
    expected = "options --epochs and --N_iters: found 0 for both, expected how long to train"
    assert refusal(epochs=0.0, N_iters=0) == expected
    made(epochs=0.0, N_iters=1).check()
    made(epochs=0.5, N_iters=0).check()


INTRINSIC = [name for name in OPTIMIZERS if name.startswith("intrinsic")]
STRENGTHS = {
    "l2": (INTRINSIC, "an intrinsic one (--weight_decay is for the others)"),
    "weight_decay": ([n for n in OPTIMIZERS if n not in INTRINSIC], "another (an intrinsic one takes --l2)"),
    "momentum": (["sgd", "rmsprop", "intrinsic_rmsprop"], "sgd or rmsprop"),
}


@pytest.mark.parametrize("option", STRENGTHS)
def test_strengths_are_those_of_the_optimiser(option: str):
    fitting, expected = STRENGTHS[option]
    for optimiser in OPTIMIZERS:
        if optimiser in fitting:
            made(optimiser=optimiser, **{option: 0.125}).check()
        else:
            told = refusal(optimiser=optimiser, **{option: 0.125})
            assert told == f"option --{option}: found 0.125 with --optimiser {optimiser}, expected {expected}"


def test_kernels_of_convolutions_are_not_for_soap():
    made(optimiser="muon").check()
    assert refusal(optimiser="soap") == (
        "option --optimiser: found soap with --model densenet, expected --model vit_s or vit_b, or --optimiser muon: "
        "it does not update kernels of convolutions"
    )


def test_a_rate_of_matrices_needs_an_optimizer_of_matrices():
    for optimiser in MATRIX_OPTIMIZERS:
        made(model="vit_s", optimiser=optimiser, lrate_matrices=0.5, weight_decay=0.1).check()
        assert refusal(optimiser=optimiser, momentum=0.5).endswith("expected sgd or rmsprop")
        assert refusal(optimiser=optimiser, l2=0.5).startswith("option --l2: found 0.5")
    for optimiser in OPTIMIZERS:
        words = ["--images", "x", "--optimiser", optimiser, "--lrate_matrices", "0.5"]
        with pytest.raises(InputError) as refused:
            parser.parse(ClassifierConfig, words)
        assert str(refused.value) == (
            f"option --lrate_matrices: found 0.5 with --optimiser {optimiser}, expected --optimiser muon or soap: "
            "others have the rate --lrate for all parameters"
        )
        parser.parse(ClassifierConfig, words, is_base=True)  # it is for methods with another optimizer


@pytest.mark.parametrize("normalisation", ["", "bn", "bn+e", "bn+bnp"])
def test_one_image_has_no_statistics_of_a_batch(normalisation: str):
    assert refusal(N_batch=1, normalisation=normalisation) == (
        "option --N_batch: found 1, expected at least 2 with batch normalization, which needs statistics of several "
        "images (--normalisation gn does not)"
    )
    made(N_batch=2, normalisation=normalisation).check()


@pytest.mark.parametrize("more", [{"normalisation": "gn"}, {"normalisation": "none+e"}, {"model": "vit_s"}], ids=str)
def test_one_image_is_a_batch_where_none_is_normalised_over(more: dict[str, str]):
    made(N_batch=1, **more).check()


def test_random_crops_need_a_size():
    assert refusal(augment="crop") == (
        "option --augment crop needs --image_size: found 0, expected the side of the crops"
    )
    made(augment="crop", image_size=64).check()


@pytest.mark.parametrize("model", MODELS)
def test_layer_normalisation_belongs_to_transformers_and_the_others_to_cnns(model: str):
    expected = "one that begins with ln" if model in VITS else "one that begins with bn, gn or none"
    for normalisation in ("", *NORMALIZATIONS):
        norm = normalisation.partition("+")[0]
        if norm == "" or norm in classifier_build.norms_of(model):
            made(model=model, normalisation=normalisation).check()
        else:
            told = refusal(model=model, normalisation=normalisation)
            assert told == f"option --normalisation: found {normalisation} with --model {model}, expected {expected}"


def test_the_same_is_refused_on_a_command_line():
    with pytest.raises(InputError, match="option --images: found nothing"):
        parser.parse(ClassifierConfig, ["--model", "resnet18"])
    for words, expected in (
        (["--model", "alexnet"], r"option --model: found 'alexnet', expected one of inception, densenet, googlenet"),
        (["--normalisation", "bn+"], r"option --normalisation: found 'bn\+', expected one of "),
        (["--momentum", "1"], "option --momentum: found '1', expected at most 0.9999"),
        (["--label_smoothing", "1"], "option --label_smoothing: found '1', expected at most 0.99"),
        (["--epochs", "1e308"], "option --epochs: found '1e308', expected at most"),
        (["--shrinkage", "soft"], "option --shrinkage: found soft with --optimiser sgd, expected an intrinsic one"),
        (["--N_batch", "0"], "option --N_batch: found '0', expected at least 1"),
        (["--N_rand", "4"], "unknown option 'N_rand'"),
        (["--conditioning", "row"], r"unknown option 'conditioning'; expected --normalisation .* bn\+e, bn\+w, bn\+ws"),
        (
            ["--equilibrate"],
            r"option --equilibrate: found with --normalisation \(empty\), expected --normalisation bn\+e",
        ),
        (["--conditioning", "row+muon"], r"unknown option 'conditioning'; expected .* or --optimiser muon"),
        (["--weight_norm"], r"unknown option 'weight_norm'; expected --normalisation bn\+w"),
        (["--equilibrate", "row", "--equilibrate_scale", "fixed"], r"option --equilibrate: found with"),
        (["--equilibrate=row", "--normalisation", "gn"], r"found with --normalisation gn, expected .* gn\+e"),
        (["--equilibrate", "--model", "vit_s"], r"found with --normalisation \(empty\), expected .* ln\+e"),
    ):
        with pytest.raises(InputError, match=expected):
            parser.parse(ClassifierConfig, ["--images", "x", *words])


def test_comparisons_whose_methods_set_it_themselves_take_equilibrate():
    words = ["--images", "x", "--equilibrate", "row"]
    assert parser.parse(ClassifierConfig, words, is_base=True)[0].conditioning.equilibrate == "row"


def test_equilibrate_of_a_file_needs_its_treatment_unless_a_run_has_written_it(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("images = x\nequilibrate = row\n")
    with pytest.raises(InputError, match="option --equilibrate: found with"):
        parser.parse(ClassifierConfig, ["--config", str(file)])
    config, _ = parser.parse(ClassifierConfig, ["--config", str(file), "--normalisation", "bn+e"])
    assert config.conditioning.parts == ("bn", "e")
    recorded = tmp_path / "config.txt"
    recorded.write_text(parser.to_text(parser.replace(config, normalisation="bn")))
    assert parser.parse(ClassifierConfig, ["--config", str(recorded)])[0].conditioning.parts == ("bn", "")
    with pytest.raises(InputError, match="option --equilibrate: found with"):
        parser.parse(ClassifierConfig, ["--config", str(recorded), "--equilibrate"])


# there and back


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "vit_b", "normalisation": "ln+e", "equilibrate": "ruiz", "equilibrate_p": 1.0},
        {"images": "a folder/of images # 3", "layers": "stem, *.conv", "N_iters": 7, "epochs": 0.0, "augment": "none"},
        {"optimiser": "intrinsic_adam", "l1": 1e-5, "l2": 0.1, "shrinkage": "soft", "max_seconds": 1.5},
        {"optimiser": "adamw", "weight_decay": 0.05, "lrate_schedule": "milestones", "mixup": 0.8, "no_reload": True},
    ],
    ids=str,
)
def test_a_configuration_reads_back_to_the_same_values(changes: dict[str, Any], tmp_path):
    asked = made(**changes)
    path = tmp_path / "config.txt"
    path.write_text(parser.to_text(asked), encoding="utf-8")
    assert parser.parse(ClassifierConfig, ["--config", str(path)])[0] == asked
    assert parser.from_dict(ClassifierConfig, parser.to_dict(asked)) == asked


def test_no_option_is_in_two_tables():
    names = [item.name for table in dataclasses.fields(ClassifierConfig) for item in dataclasses.fields(table.type)]
    assert len(names) == len(set(names))


def test_a_run_is_named_for_its_images_and_its_network():
    assert made(images="data/cifar-10.tar.gz").scene == "cifar-10_densenet"
    assert made(images="data/digits/", model="vit_s").scene == "digits_vit_s"
    assert made(basedir="there").folder.as_posix() == "there/cifar-10-batches-bin_densenet"
    assert made(basedir="there", expname="mine").folder.as_posix() == "there/mine"


# configurations that come along


def test_there_are_recipes_for_every_network():
    assert {parser.parse(ClassifierConfig, _words(path))[0].model.model for path in SHIPPED} >= set(MODELS)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_recipe_says_what_it_says_and_fits_every_normalization_of_its_network(path):
    found, _ = parser.parse(ClassifierConfig, _words(path))
    said = parser.to_dict(found)
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if equals and not line.startswith("#") and name != "images":
            assert str(said[name]) == value or float(said[name]) == float(value)
    for norm in classifier_build.norms_of(found.model.model):
        parser.replace(found, normalisation=norm).check()
        parser.replace(found, normalisation=f"{norm}+e").check()


def _words(path) -> list[str]:
    return ["--config", str(path), "--images", "somewhere"]
