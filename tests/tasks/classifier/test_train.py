"""Tests of whole classifier runs, on generated figures: what is learned, saved, resumed, compared and refused."""

import json
import math
import os
import pickle
import signal
import tarfile
from pathlib import Path

import pytest
import torch

from enerf.conditioning import layers
from enerf.config import parser
from enerf.core import device as core_device
from enerf.core.errors import InputError, NotFinite
from enerf.datasets.labelled import synthetic
from enerf.engine import checkpoint
from enerf.experiments import analyze, compare
from enerf.experiments.options import AnalyzeOptions, CompareOptions
from enerf.tasks.classifier import evaluate as classifier_evaluate
from enerf.tasks.classifier import setup as classifier_setup
from enerf.tasks.classifier import step as classifier_step
from enerf.tasks.classifier import train as classifier_train
from enerf.tasks.classifier.config import ClassifierConfig
from tests import contents
from tests.contents import same, saved

MODEL = ["--model", "densenet", "--depth", "10", "--width", "0.5"]
VIT = ["--model", "vit_s", "--depth", "2", "--width", "0.1", "--patch", "7", "--optimiser", "adamw"]
RATES = ["--N_batch", "16", "--epochs", "2", "--lrate", "0.1", "--i_print", "2", "--eval_images", "20"]
BASE = [*MODEL, *RATES, "--device", "cpu", "--precision", "fp32", "--expname", "run"]


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> Path:
    """Eighty grey pictures to train on, and forty others, as idx files."""
    return synthetic.write_idx(tmp_path_factory.mktemp("figures") / "figures", 80, 40)


@pytest.fixture
def make(figures, tmp_path):
    """Options of a run in a folder of the test's own; later words win."""

    def make(*words: str, path: Path = figures) -> ClassifierConfig:
        told = [*BASE, "--images", str(path), "--basedir", str(tmp_path / "logs"), *words]
        return parser.parse(ClassifierConfig, told)[0]

    return make


def refusal(config) -> str:
    return contents.refusal(classifier_train.train, config)


# one seed, one result


def test_two_runs_with_one_seed_are_equal_to_the_last_bit_and_another_seed_is_another(make):
    one, two, other = make(), make("--expname", "two"), make("--expname", "other", "--seed", "1")
    told = []
    for config in (one, two, other):
        torch.manual_seed(len(told))  # the global generator decides nothing
        told.append(classifier_train.train(config)["test"])
    assert same(saved(one.folder), saved(two.folder))
    assert told[0] == told[1]
    assert not same(saved(one.folder)["model"], saved(other.folder)["model"])


@pytest.mark.parametrize(
    "words",
    [
        ["--normalisation", "bn+e", "--momentum", "0.9", "--weight_decay", "1e-3"],
        ["--normalisation", "none+bnp", "--lrate", "1e-3"],
        ["--normalisation", "bn+w", "--mixup", "0.5", "--label_smoothing", "0.1", "--augment", "shift"],
        [*VIT, "--normalisation", "ln+e", "--equilibrate_scale", "learned"],
        [*VIT, "--normalisation", "ln+sc", "--attention_shift", "2", "--init", "conditioned_attention"],
        [*VIT, "--normalisation", "ln+pa"],
        ["--optimiser", "intrinsic_adam", "--l1", "1e-3", "--lrate", "1e-3"],
        ["--normalisation", "bn+e", "--optimiser", "muon", "--lrate_matrices", "0.02", "--weight_decay", "1e-3"],
    ],
    ids=["bn+e", "none+bnp", "bn+w mixed", "vit", "vit, sc", "vit, pa", "intrinsic", "muon"],
)
def test_a_resumed_run_is_the_run_in_one_go(make, words):
    whole, parts = make(*words, "--no_final_eval"), make(*words, "--expname", "parts", "--no_final_eval")
    classifier_train.train(whole)
    for n_iters in (3, 0):
        classifier_train.train(parser.replace(parts, N_iters=n_iters))
    told, again = saved(whole.folder), saved(parts.folder)
    assert told["step"] == again["step"] == 10
    assert same(told["model"], again["model"])
    assert same(told["optimiser"], again["optimiser"])


def test_an_interrupted_run_is_saved_and_goes_on(make, monkeypatch):
    config, followed, seen = make(), classifier_step.gradient_step, []

    def interrupted(*more, **named):
        seen.append(1)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return followed(*more, **named)

    monkeypatch.setattr(classifier_step, "gradient_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        classifier_train.train(config)
    assert saved(config.folder)["step"] == 4
    assert classifier_train.train(config)["steps"] == 10


def test_a_value_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(make):
    with pytest.raises(NotFinite, match=r"not finite|the loss is"):
        classifier_train.train(make("--normalisation", "none", "--lrate", "1e30", "--i_weights", "1"))
    steps = [int(path.stem) for path in checkpoint.checkpoints(make().folder)]
    assert steps == list(range(1, len(steps) + 1))


def test_variants_of_one_seed_share_raw_weights_and_batches(make, monkeypatch):
    raw, seen, original = {}, {}, classifier_step.gradient_step
    for method in ("bn", "bn+e", "bn+w", "bn+ws", "none+bnp"):
        run = classifier_setup.prepare(make("--normalisation", method))
        module = run.model.get_submodule("stem")
        raw[method] = layers.bake(run.model).stem.weight if method == "bn" else None
        if method == "bn+e":
            assert torch.equal(module.parametrizations.weight.original, raw["bn"])
        monkeypatch.setattr(
            classifier_step,
            "gradient_step",
            lambda model, images, *more, m=method, **named: (
                seen.setdefault(m, images.clone()),
                original(model, images, *more, **named),
            )[1],
        )
        classifier_train.train(make("--normalisation", method, "--expname", method, "--N_iters", "1"))
    assert all(torch.equal(images, seen["bn"]) for images in seen.values())


# what is learned


@pytest.mark.parametrize("normalisation", ["bn", "bn+e"])
def test_figures_are_learned_and_the_metrics_say_how(normalisation, tmp_path):
    path = synthetic.write_cifar(tmp_path / "cifar-10-batches-bin", 600, 100)
    words = ["--images", str(path), "--normalisation", normalisation, "--epochs", "6", "--augment", "none"]
    words += ["--model", "resnet18", "--width", "0.125", "--optimiser", "adam", "--lrate", "2e-3", "--N_batch", "20"]
    words += ["--basedir", str(tmp_path), "--expname", "run", "--device", "cpu", "--lrate_schedule", "cosine"]
    config = parser.parse(ClassifierConfig, words)[0]
    metrics = classifier_train.train(config)
    assert metrics["test"]["accuracy"] > 70
    assert metrics["test"]["images"] == 100
    assert metrics["method"] == f"{normalisation}-adam"
    assert metrics["model"] == "ResNet-18, width 0.125"
    assert (metrics["epochs"], metrics["steps"], metrics["steps_an_epoch"]) == (6, 180, 30)
    assert [row[0] for row in metrics["curve"]] == [30, 60, 90, 120, 150, 180]
    assert metrics["curve"][-1][2] == metrics["test"]["accuracy"]
    assert metrics["kappa"]["layers"] == len(classifier_setup.prepare(config).layers)
    assert json.loads((config.folder / "metrics.json").read_text()) == metrics
    journal = [json.loads(line) for line in (config.folder / "train.jsonl").read_text().splitlines()]
    assert sum("spectrum" in row for row in journal) == 6


def test_epochs_are_whole_batches_and_n_iters_is_a_limit(make):
    assert classifier_setup.resolve_steps(make()).train.N_iters == 10
    assert classifier_setup.resolve_steps(make("--epochs", "0.5")).train.N_iters == 3
    assert classifier_setup.resolve_steps(make("--N_iters", "7")).train.N_iters == 7
    assert classifier_setup.resolve_steps(make("--N_iters", "7", "--epochs", "0")).train.N_iters == 7
    again = classifier_setup.resolve_steps(classifier_setup.resolve_steps(make()))
    assert again == classifier_setup.resolve_steps(make())
    assert (again.run.i_eval, again.run.i_spectrum) == (5, 5)


def test_a_finished_run_is_not_measured_again(make, monkeypatch):
    first = classifier_train.train(make())
    monkeypatch.setattr(classifier_evaluate, "evaluate", lambda *of: pytest.fail("measured again"))
    assert classifier_train.train(make()) == json.loads((make().folder / "metrics.json").read_text())
    assert first["steps"] == 10
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        classifier_train.train(make("--eval_images", "10"))


def test_after_another_runs_steps_there_is_no_time_of_a_step(make):
    classifier_train.train(make("--N_iters", "2", "--no_final_eval"))
    start = ["--expname", "next", "--N_iters", "4", "--ft_path", str(checkpoint.checkpoints(make().folder)[-1])]
    assert classifier_train.train(make(*start))["step_ms"] is None
    assert classifier_train.train(make(*start, "--no_reload"))["step_ms"] > 0


def test_that_nothing_is_left_to_train_is_logged(make, caplog):
    classifier_train.train(make("--N_iters", "2", "--no_final_eval"))
    with caplog.at_level("INFO", logger="enerf"):
        classifier_train.train(make("--N_iters", "2", "--epochs", "3", "--no_final_eval"))
    assert "nothing is left to train: step 2 of --N_iters 2" in caplog.messages


def test_the_first_convolution_and_the_last_linear_layer_alone(make):
    run = classifier_setup.prepare(make("--normalisation", "bn+e", "--layers", "first_conv_and_last_linear"))
    assert layers.conditioned_layers(run.model) == {"stem": "row", "head": "row"}
    assert classifier_setup.method_name(run.config) == "bn+e-first_conv_and_last_linear"


def test_a_frozen_network_answers_as_the_network_in_evaluation(make):
    run = classifier_setup.prepare(make("--normalisation", "bn+e", "--init", "he"))
    images = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(classifier_setup.frozen(run.model)(images), run.model.eval()(images))


@pytest.mark.usefixtures("two_threads")
def test_an_odd_number_of_images_and_narrow_layers_are_no_end_of_the_process(make):
    """torch's convolutions of 8 channels in channels-last order are, on a CPU with two threads."""
    words = [
        "--model",
        "resnet18",
        "--depth",
        "0",
        "--width",
        "0.125",
        "--N_batch",
        "25",
        "--N_iters",
        "2",
        "--no_final_eval",
    ]
    classifier_train.train(make(*words))
    assert saved(make().folder)["step"] == 2


# comparisons and analyses


def test_a_comparison_reports_what_failed_and_trains_nothing_twice(make, monkeypatch):
    base = make("--expname", "cmp")
    text = compare.compare(base, CompareOptions(methods="bn,bn+e,none", lrates="0.1,1e30"))
    rows = [line.split()[2] for line in text.splitlines()[2:] if line.startswith("figures")]
    assert {"bn@0.1", "bn+e@0.1", "none@0.1"} <= set(rows)
    assert "none@1e+30, seed 0, failed: step" in text
    assert (base.folder / "curves.png").stat().st_size > 10_000
    measured = json.loads((base.folder / "comparison.json").read_text())
    assert {run["arm"] for run in measured} == set(rows)
    monkeypatch.setattr(classifier_train.trainer, "fit", lambda *more, **named: pytest.fail("trained again"))
    again = CompareOptions(methods="bn,bn+e", lrates="0.1")
    assert len(compare.compare(base, again).splitlines()) == 4


def test_a_variant_does_not_go_on_with_other_options_but_for_longer(make):
    compare.compare(make("--expname", "cmp", "--N_iters", "2"), CompareOptions(methods="bn"))
    for words in (["--lrate", "0.2"], ["--augment", "none"], ["--weight_decay", "0.1"]):
        changed = make("--expname", "cmp", "--N_iters", "2", *words)
        with pytest.raises(InputError, match=f"this variant was trained with other options: {words[0][2:]} "):
            compare.compare(changed, CompareOptions(methods="bn"))
    text = compare.compare(make("--expname", "cmp", "--N_iters", "3"), CompareOptions(methods="bn"))
    assert text.splitlines()[2].split()[-1] == "0.6"


def test_a_comparison_of_nothing_but_failures_has_failed(make):
    with pytest.raises(NotFinite, match="1 of 1 runs failed; none, seed 0: step"):
        compare.compare(make("--lrate", "1e30"), CompareOptions(methods="none"))


def test_all_variants_multiply_alike(make):
    base = make("--expname", "cmp", "--precision", "auto", "--N_iters", "1")
    compare.compare(base, CompareOptions(methods="bn,gn"))
    told = json.loads((base.folder / "comparison.json").read_text())
    assert len({run["precision"] for run in told}) == 1


def test_a_resumed_run_multiplies_as_it_began(make, monkeypatch):
    monkeypatch.setattr(core_device, "has_bf16", lambda device: False)
    classifier_train.train(make("--precision", "auto", "--N_iters", "1"))
    monkeypatch.setattr(core_device, "has_bf16", lambda device: True)
    metrics = classifier_train.train(make("--precision", "auto", "--N_iters", "2"))
    assert (metrics["precision"], metrics["steps"]) == ("fp32", 2)
    content = checkpoint.read(checkpoint.checkpoints(make().folder)[-1])
    assert content["config"]["precision"] == "auto"
    assert content["config"]["resolved"] == {"backend": "torch", "precision": "fp32", "device": "cpu"}


def test_optimizers_stand_in_one_comparison_and_intrinsic_l2_is_adamw(make):
    base = make("--expname", "cmp", "--N_iters", "4")
    compare.compare(base, CompareOptions(methods="adam,adamw,intrinsic_l2,intrinsic_l1_soft"))
    variants = {run["arm"]: run for run in json.loads((base.folder / "comparison.json").read_text())}
    assert variants["adamw"]["test"] == variants["intrinsic_l2"]["test"]
    assert variants["adam"]["test"] != variants["adamw"]["test"]
    assert variants["adam"]["protocol"]["lrate"] == 1e-3


def test_muon_and_its_rate_of_the_matrices_stand_in_a_comparison(make):
    base = make("--expname", "cmp", "--N_iters", "4", "--lrate", "1e-3")
    compare.compare(base, CompareOptions(methods="bn,bn_muon,bn+e_muon*5"))
    variants = {run["arm"]: run for run in json.loads((base.folder / "comparison.json").read_text())}
    assert [run["method"] for run in variants.values()] == ["bn", "bn-muon", "bn+e-muon*5"]
    assert variants["bn_muon"]["protocol"]["optimiser"] == "muon"
    with pytest.raises(InputError, match="found bn and bn_muon, which are the same training with the other options"):
        compare.compare(parser.replace(base, optimiser="muon", momentum=0.0), CompareOptions(methods="bn,bn_muon"))
    of_batch = ["bn_muon", "bn_unit_row_muon", "bn+w_muon", "bn+ws_muon", "bn+e_muon", "bn+e_gain_muon"]
    with_muon = of_batch + [name.replace("bn", "ln") for name in of_batch]
    for wrong in ("bn*5", "bn_muon*0", "bn_muon*"):
        with pytest.raises(InputError) as caught:
            compare.compare(base, CompareOptions(methods=f"bn,{wrong}"))
        assert f"found '{wrong}', expected a positive factor after the star" in str(caught.value)
        assert str(caught.value).endswith(f"before it one of {', '.join(with_muon)}")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--normalisation", "bn+e"], "head"),
        (["--normalisation", "gn"], ""),
        ([*VIT, "--normalisation", "ln+w"], ""),
        ([*VIT, "--normalisation", "ln+pa"], "self_attn"),
    ],
    ids=["bn+e", "gn", "vit", "vit, pa"],
)
def test_runs_are_analyzed(make, tmp_path, words, names):
    config = make(*words, "--N_iters", "2", "--epochs", "0", "--no_final_eval")
    classifier_train.train(config)
    out = tmp_path / "analysis"
    chosen = AnalyzeOptions(out=str(out), layers=names, rays=6, device="cpu")
    analyze.analyze([config.folder], chosen)
    content = (out / "analysis.json").read_text()
    assert '"hessian_max"' in content
    assert '"gauss_newton_kappa"' in content


def test_hidden_layers_are_analyzed_unless_all_are_asked_for_the_head_among_them(make, tmp_path):
    config = make("--N_iters", "1", "--no_final_eval")
    classifier_train.train(config)
    for asked, has_head in (("", False), ("all", True)):
        chosen = AnalyzeOptions(out=str(tmp_path / f"out{asked}"), layers=asked, no_hessian=True, device="cpu")
        analyze.analyze([config.folder], chosen)
        content = (tmp_path / f"out{asked}" / "analysis.json").read_text()
        assert ('"head"' in content) == has_head


# refusals


def test_another_model_and_another_kind_are_refused_with_the_difference(make):
    classifier_train.train(make("--no_final_eval", "--N_iters", "1"))
    assert "depth (saved 10, requested 16)" in refusal(make("--depth", "16"))
    assert "normalisation (saved empty, requested bn+e)" in refusal(make("--normalisation", "bn+e"))
    path = checkpoint.checkpoints(make().folder)[-1]
    content = torch.load(path, weights_only=True)
    content["config"]["kind"] = "nerf"
    torch.save(content, path)
    assert "found a run of kind 'nerf', expected 'classifier'" in refusal(make())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--N_batch", "81"], "option --N_batch: found 81, expected at most the 80 training images"),
        (["--train_images", "81"], "--train_images is 81"),
        (["--depth", "11"], "depth"),
        (["--model", "resnet18", "--depth", "10"], "depth is 10, but that of ResNet-18 is fixed"),
        ([*VIT, "--patch", "5"], "5"),
        (["--layers", "stm"], "stem"),
        (["--augment", "crop", "--image_size", "32"], "expected --image_size only for folders of images"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_is_one_sentence(make, words, sentence):
    assert sentence in refusal(make(*words))


def test_a_missing_a_damaged_and_a_malicious_archive_are_one_sentence_each(make, tmp_path):
    assert "gone" in refusal(make(path=tmp_path / "gone"))
    damaged = tmp_path / "cifar-10-python.tar.gz"
    damaged.write_bytes(b"\x1f\x8b no archive")
    assert damaged.name in refusal(make(path=damaged))
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(_Evil(str(tmp_path / "ran"))))
    assert "expected a pickled file" in refusal(make(path=folder))
    with tarfile.open(tmp_path / "cifar-10-python.tar", "w") as archive:
        archive.add(folder, "cifar-10-batches-py")
    assert "expected a pickled file" in refusal(make(path=tmp_path / "cifar-10-python.tar"))
    assert not (tmp_path / "ran").exists()


class _Evil:
    """Would make a folder when it is unpickled carelessly."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_losses_and_rates_of_the_journal_are_finite(make):
    classifier_train.train(make("--no_final_eval"))
    lines = [json.loads(line) for line in (make().folder / "train.jsonl").read_text().splitlines()]
    rows = [row for row in lines if "loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert all(math.isfinite(row["loss"]) and 0 <= row["accuracy"] <= 100 for row in rows)


def test_an_image_that_was_replaced_in_its_folder_is_read_again(make, tmp_path):
    folder = synthetic.write_folder(tmp_path / "classes", 20, 10)
    config = make("--augment", "none", path=folder)
    before = classifier_setup.load_data(config)
    assert classifier_setup.load_data(config).train is before.train
    image = next((folder / "train" / "disc").iterdir())
    stamp = image.parent.stat()
    image.write_bytes(next((folder / "train" / "ring").iterdir()).read_bytes())
    os.utime(image.parent, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert not torch.equal(classifier_setup.load_data(config).train.images, before.train.images)
