"""Tests of whole runs on a generated scene of six tiny images: training, saving, resuming, error messages."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from enerf.config import conditionings, parser
from enerf.core import device, images
from enerf.core.errors import InputError, NotFinite
from enerf.datasets.scenes import poses, synthetic
from enerf.engine import checkpoint as engine_checkpoint
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import evaluate as nerf_evaluate
from enerf.tasks.nerf import image_metrics as nerf_image_metrics
from enerf.tasks.nerf import losses as nerf_losses
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf import train as nerf_train
from enerf.tasks.nerf import video as nerf_video
from enerf.tasks.nerf import views as nerf_views
from enerf.tasks.nerf.config import NerfConfig
from tests.contents import same

MODEL = ["--netdepth", "6", "--netwidth", "16", "--netdepth_fine", "2", "--netwidth_fine", "16", "--use_viewdirs"]
RAYS = ["--N_rand", "32", "--N_samples", "8", "--N_importance", "8", "--raw_noise_std", "1", "--eval_rays", "20"]
RATES = [
    "--N_iters",
    "10",
    "--lrate",
    "5e-3",
    "--lrate_decay",
    "1",
    "--i_testset",
    "0",
    "--i_video",
    "0",
    "--i_img",
    "0",
]
OFTEN = ["--i_print", "5", "--i_eval", "5", "--i_spectrum", "5", "--i_weights", "5"]
BASE = [*MODEL, *RAYS, *RATES, *OFTEN, "--factor", "1", "--llffhold", "3", "--device", "cpu", "--expname", "run"]
SHORT = ["--N_iters", "2", "--i_spectrum", "0"]
MEASURED = ("seconds", "rays_per_second")  # differs from run to run


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    return synthetic.write_scene(folder, views=6, width=16, height=12, supersample=1, progress=False)


@pytest.fixture
def make(scene, tmp_path):
    """Options of a run in a folder of the test's own; later words win."""

    def make(*words: str) -> NerfConfig:
        return parser.parse(
            nerf_config.NerfConfig, [*BASE, "--datadir", str(scene), "--basedir", str(tmp_path / "logs"), *words]
        )[0]

    return make


@pytest.fixture(scope="module")
def finished(scene, tmp_path_factory) -> Path:
    """The folder of ten plain steps in one go; look, do not write."""
    basedir = tmp_path_factory.mktemp("finished")
    config, _ = parser.parse(nerf_config.NerfConfig, [*BASE, "--datadir", str(scene), "--basedir", str(basedir)])
    nerf_train.train(config)
    return config.folder


@pytest.fixture
def copied(finished, make) -> NerfConfig:
    """The options of a finished run, in a copy of its folder."""
    config = make()
    shutil.copytree(finished, config.folder)
    return config


def saved(folder: Path) -> dict:
    """Return the content of the last checkpoint without times and folder."""
    content = engine_checkpoint.read(engine_checkpoint.checkpoints(folder)[-1])
    return {key: content[key] for key in ("step", "model", "optimiser", "curve", "collapsed", "blank_for")}


def journal(folder: Path) -> list[dict]:
    """The journal, less the clocks."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def refusal(config: NerfConfig) -> str:
    with pytest.raises(InputError) as caught:
        nerf_train.train(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def at_step(monkeypatch, n: int, act) -> None:
    """Do something within the step after ``n`` finished ones."""
    original, seen = nerf_step.gradient, []

    def gradient(*args, **kwargs):
        seen.append(1)
        if len(seen) == n + 1:
            act()
        return original(*args, **kwargs)

    monkeypatch.setattr(nerf_step, "gradient", gradient)


# one seed, one result


def test_two_runs_with_one_seed_are_equal_to_the_last_bit(make, finished):
    again = make("--expname", "again")
    torch.manual_seed(12345)  # the global generator is not what decides
    result = nerf_train.train(again)
    assert same(saved(finished), saved(again.folder))
    assert journal(finished) == journal(again.folder)
    before = json.loads((finished / "metrics.json").read_text())
    assert {**result, "seconds": 0} == {**before, "seconds": 0}
    for name in ("image000.png", "image003.png"):
        assert (finished / "test/final" / name).read_bytes() == (again.folder / "test/final" / name).read_bytes()


def test_another_seed_is_another_run(make, finished):
    nerf_train.train(make("--seed", "1", "--no_final_eval"))
    assert not same(saved(finished)["model"], saved(make().folder)["model"])


@pytest.mark.parametrize(
    "words",
    [
        *([], ["--equilibrate"], ["--weight_norm"], ["--no_batching", "--precrop_iters", "7", "--N_importance", "0"]),
        *(["--conditioning", "row+muon+batch_norm"], ["--conditioning", "fourier"]),
        ["--conditioning", "spectral_norm", "--equilibrate_scale", "learned"],
    ],
    ids=["plain", "equilibrate", "weight_norm", "coarse_crops", "muon", "fourier", "spectral_norm"],
)
def test_five_and_resume_and_five_steps_are_ten_to_the_last_bit(words, make):
    whole, parts = make("--expname", "whole", *words), make("--expname", "parts", *words)
    nerf_train.train(parser.replace(whole, no_final_eval=True))
    for n_iters in (5, 10):
        nerf_train.train(parser.replace(parts, N_iters=n_iters, no_final_eval=True))
    assert same(saved(whole.folder), saved(parts.folder))
    assert saved(parts.folder)["step"] == 10
    assert [point[0] for point in saved(parts.folder)["curve"]] == [5, 10]
    assert journal(whole.folder) == journal(parts.folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_goes_on_to_the_same_end(number, make, finished, monkeypatch):
    config = make()
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: os.kill(os.getpid(), number))
        with pytest.raises(KeyboardInterrupt):
            nerf_train.train(config)
    assert [path.name for path in engine_checkpoint.checkpoints(config.folder)] == ["000005.pt", "000007.pt"]
    assert not (config.folder / "metrics.json").exists()
    nerf_train.train(config)
    assert same(saved(config.folder), saved(finished))


def test_a_killed_run_goes_on_from_its_last_checkpoint_and_its_journal_forgets_lost_work(make, finished, monkeypatch):
    def die() -> None:
        raise ZeroDivisionError

    config = make("--i_print", "1")
    with monkeypatch.context() as patch:
        at_step(patch, 7, die)
        with pytest.raises(ZeroDivisionError):
            nerf_train.train(config)
    assert [line["step"] for line in journal(config.folder) if "loss" in line] == [1, 2, 3, 4, 5, 6, 7]
    nerf_train.train(config)
    assert same(saved(config.folder), saved(finished))
    assert [line["step"] for line in journal(config.folder) if "loss" in line] == list(range(1, 11))


def test_a_finished_run_is_not_trained_or_measured_again(copied, monkeypatch):
    at_step(monkeypatch, 0, lambda: pytest.fail("trained again"))
    monkeypatch.setattr(nerf_evaluate, "evaluate", lambda run: pytest.fail("measured again"))
    before = (copied.folder / "metrics.json").read_bytes()
    assert nerf_train.train(copied) == json.loads(before)
    assert (copied.folder / "metrics.json").read_bytes() == before


def test_figures_of_another_protocol_are_measured_anew(copied):
    assert "llffhold (saved 3, requested 2)" in refusal(parser.replace(copied, llffhold=2))  # other training views
    result = nerf_train.train(parser.replace(copied, final_pixels=True))
    assert result["protocol"]["average"] == result["protocol"]["curve"]
    result = nerf_train.train(parser.replace(copied, final_pixels=True, final_rays=7))
    assert result["protocol"]["average"] == "mean per-image PSNR of 7 fixed pixels a test view"
    assert "of 20 fixed pixels" in result["protocol"]["curve"]
    assert result["protocol"]["fit"] == "that of the curve of training views, of as many pixels in all"
    with pytest.raises(InputError, match="option --final_rays: found 7 without --final_pixels, expected both"):
        parser.replace(copied, final_rays=7).check()


def test_without_the_final_evaluation_there_are_no_figures(make):
    config = make(*SHORT, "--no_final_eval")
    assert nerf_train.train(config) is None
    assert not (config.folder / "metrics.json").exists()


# what is written


def test_metrics_have_the_promised_form(finished, scene):
    found = json.loads((finished / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert (found["scene"], found["method"], found["steps"], found["seed"]) == ("toy", "nerf", 10, 0)
    assert found["device"] == "cpu"
    protocol = {
        key: found["protocol"][key] for key in ("factor", "llffhold", "test_views", "height", "width", "average")
    }
    assert protocol == {
        **{"factor": 1, "llffhold": 3, "test_views": ["image000.png", "image003.png"], "height": 12, "width": 16},
        "average": "mean over test images of per-image PSNR",
    }
    assert set(found["mean"]) == {"psnr", "ssim", "lpips"}
    assert [view["name"] for view in found["views"]] == ["image000.png", "image003.png"]
    assert set(found["seconds"]) == {"train", "eval"}
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert [step for step, _ in found["curve"]] == [5, 10]
    for key in ("psnr", "ssim"):
        assert found["mean"][key] == pytest.approx(sum(view[key] for view in found["views"]) / 2)


def test_figures_are_those_of_the_pictures_that_are_written(finished, scene):
    found = json.loads((finished / "metrics.json").read_text())
    for view in found["views"]:
        ours, photograph = (images.read(path / view["name"]) for path in (finished / "test/final", scene / "images"))
        assert nerf_image_metrics.psnr(torch.from_numpy(ours), torch.from_numpy(photograph)) == pytest.approx(
            view["psnr"], abs=0.05
        )


def test_the_effective_options_lie_beside_the_results(finished, scene):
    written, _ = parser.parse(nerf_config.NerfConfig, ["--config", str(finished / "config.txt")])
    assert (
        written
        == parser.parse(
            nerf_config.NerfConfig,
            [
                *(*BASE, "--datadir", str(scene), "--basedir", str(finished.parent), "--background_color", "random"),
                *("--dataset_type", "llff", "--spacing", "linear", "--batches", "all"),
            ],
        )[0]
    )
    assert (
        parser.from_dict(
            nerf_config.NerfConfig, engine_checkpoint.read(engine_checkpoint.checkpoints(finished)[-1])["config"]
        )
        == written
    )


def test_the_journal_tells_losses_rates_figures_and_conditions(finished):
    lines = journal(finished)
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == [5, 10]
    assert [line["lrate"] for line in training] == pytest.approx([5e-3 * 0.1 ** (n / 1000) for n in (4, 9)], rel=1e-12)
    assert [line["step"] for line in lines if "test_psnr" in line] == [5, 10]
    spectra = [line["spectrum"] for line in lines if "spectrum" in line]
    assert set(spectra[0]) >= {"coarse.trunk.0", "fine.feature"}


def test_a_conditioned_run_is_called_so_and_opens_baked_to_the_same_pictures(make):
    config = make("--equilibrate", *SHORT)
    result = nerf_train.train(config)
    assert result["method"] == "e-nerf"
    opened = nerf_setup.open_run(config.folder)
    assert not any("parametrizations" in name for name in opened.state.model.state_dict())
    again = nerf_views.measure(nerf_views.renderer_of(opened), opened.scene, opened.scene.test, None)
    assert [view["psnr"] for view in again] == [view["psnr"] for view in result["views"]]


def test_pictures_and_videos_come_when_they_are_due(make, monkeypatch):
    monkeypatch.setattr(nerf_video, "FRAMES", 2)
    config = make(*SHORT, "--i_img", "1", "--i_testset", "2", "--i_video", "2", "--i_eval", "0", "--no_final_eval")
    nerf_train.train(config)
    assert [path.name for path in sorted(config.folder.glob("video*"))] == ["video_000002.mp4"]
    assert [p.name for p in sorted((config.folder / "test/000002").iterdir())] == ["image000.png", "image003.png"]
    assert saved(config.folder)["curve"] == []


def test_training_learns_the_scene(make):
    words = ["--N_iters", "150", "--i_eval", "150", "--eval_rays", "0", "--raw_noise_std", "0", "--lrate_decay", "250"]
    words += ["--netdepth", "2", "--multires", "4", "--N_rand", "128"]
    result = nerf_train.train(make(*words, "--i_spectrum", "0"))
    ((_, quick),) = result["curve"]
    assert result["mean"]["psnr"] > result["constant_psnr"] + 1
    assert quick == pytest.approx(result["mean"]["psnr"], abs=1e-3)  # all pixels of a view are the view


# backend and precision are those the run began with


def flags(monkeypatch, *names: str) -> None:
    """From now on the processor has these instruction sets."""
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(names))


def resolved(config: NerfConfig) -> dict:
    return engine_checkpoint.read(engine_checkpoint.checkpoints(config.folder)[-1])["config"]["resolved"]


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


BF16 = {"backend": "torch", "precision": "bf16", "device": "cpu"}
QUICK = ["--i_spectrum", "0", "--i_eval", "0", "--final_pixels"]


def test_a_run_resumed_on_another_processor_takes_the_recorded_backend_again(make, monkeypatch, caplog):
    flags(monkeypatch)
    first = nerf_train.train(make(*QUICK, "--N_iters", "2"))
    flags(monkeypatch, "avx2", "fma", "avx512_bf16")  # a new run would take other kernels, and bf16
    config = make(*QUICK, "--N_iters", "3")
    second = nerf_train.train(config)
    assert resolved(config) == {**BF16, "precision": "fp32"}
    found = [(m["backend"], m["precision"], m["steps"]) for m in (first, second)]
    assert found == [("torch", "fp32", 2), ("torch", "fp32", 3)]
    assert (
        parser.parse(nerf_config.NerfConfig, ["--config", str(config.folder / "config.txt")])[0].train.precision
        == "auto"
    )
    assert warnings_of(caplog) == []
    assert not any(name.startswith(("eval_", "trained_")) for name in second)


def test_what_cannot_be_taken_again_is_one_line_and_metrics_tell_both(make, monkeypatch, caplog):
    flags(monkeypatch, "avx512_bf16")
    nerf_train.train(make(*QUICK, "--N_iters", "2"))
    flags(monkeypatch)
    config = make(*QUICK, "--N_iters", "3")
    result = nerf_train.train(config)
    line = "this run was trained with torch, bf16; now torch, fp32 is used: this processor has no bf16 instructions"
    assert warnings_of(caplog) == [line]
    assert (result["precision"], result["trained_earlier"]) == ("fp32", [{**BF16, "until": 2}])
    assert resolved(config) == {**BF16, "precision": "fp32", "earlier": [{**BF16, "until": 2}]}


def test_metrics_tell_the_precision_of_training_whatever_evaluates(make, monkeypatch, caplog):
    flags(monkeypatch, "avx512_bf16")
    config = make(*QUICK, "--N_iters", "1")
    nerf_train.train(config)
    again = nerf_evaluate.evaluate(nerf_setup.open_run(config.folder))
    assert again["precision"] == "bf16"
    assert "eval_precision" not in again
    flags(monkeypatch)
    elsewhere = nerf_evaluate.evaluate(nerf_setup.open_run(config.folder))
    told = {name: elsewhere[name] for name in ("precision", "backend", "eval_precision", "eval_backend")}
    assert told == {"precision": "bf16", "backend": "torch", "eval_precision": "fp32", "eval_backend": "torch"}
    assert len(warnings_of(caplog)) == 1


def test_runs_of_earlier_versions_have_their_options_for_a_record(make, monkeypatch, caplog):
    flags(monkeypatch, "avx512_bf16")
    config = make(*QUICK, "--N_iters", "1")
    nerf_train.train(config)
    (path,) = engine_checkpoint.checkpoints(config.folder)
    content = engine_checkpoint.read(path)
    del content["config"]["resolved"]
    for precision, expected in (("auto", "fp32"), ("bf16", "bf16")):
        content["config"]["precision"] = precision
        torch.save(content, path)
        flags(monkeypatch, *(["avx512_bf16"] if expected == "bf16" else []))
        assert str(nerf_setup.open_run(config.folder).backend) == f"torch, {expected}"
    assert warnings_of(caplog) == []


# every way to run


@pytest.mark.parametrize(
    "words",
    [
        ["--N_importance", "0"],
        ["--no_ndc"],
        ["--no_ndc", "--lindisp"],
        ["--no_ndc", "--spherify"],
        ["--white_bkgd"],
        ["--llffhold", "0"],
        ["--no_batching", "--precrop_iters", "1", "--precrop_frac", "0.1"],
        ["--i_embed", "-1"],
        ["--use_viewdirs", "False"],
        ["--perturb", "0"],
        ["--pixel_centers", "0"],
        ["--N_samples", "2", "--N_importance", "1"],
        ["--equilibrate", "jacobi", "--equilibrate_layers", "trunk"],
        ["--equilibrate", "row_column", "--equilibrate_gradient", "detached"],
        ["--init", "he"],
        *(["--conditioning", name] for name in conditionings.names() if name not in ("soap", "jacobi")),
        ["--conditioning", "layer_norm", "--encoding", "hash", "--sampler", "proposal", "--shading", "ray"],
    ],
    ids="_".join,
)
def test_every_option_trains_and_measures(words, make):
    config = make(*SHORT, *words)
    result = nerf_train.train(config)
    assert result["steps"] == 2
    assert all(math.isfinite(view["psnr"]) for view in result["views"])
    assert len(result["views"]) == (1 if "--llffhold" in words else 2)
    has_fine = any(name.startswith("fine.") for name in saved(config.folder)["model"])
    assert has_fine == ("0" not in words or "--N_importance" not in words)


def test_training_ends_when_its_time_is_up(make):
    result = nerf_train.train(make("--N_iters", "100000", "--max_seconds", "0.05", "--i_spectrum", "0"))
    assert 0 < result["steps"] < 100000
    assert 0.05 <= result["seconds"]["train"] < 5


def close(a: dict, b: dict) -> bool:
    return all(torch.allclose(a[name], b[name], rtol=1e-3, atol=1e-5) for name in a)


def test_parts_and_a_lack_of_memory_change_nothing_but_rounding(make, monkeypatch):
    still = ["--perturb", "0", "--raw_noise_std", "0", *SHORT, "--no_final_eval", "--i_eval", "0"]
    nerf_train.train(make(*still))
    nerf_train.train(make(*still, "--expname", "parts", "--netchunk", "100"))

    def lack() -> None:
        raise MemoryError

    at_step(monkeypatch, 1, lack)
    nerf_train.train(make(*still, "--expname", "lack"))
    whole, parts, lacking = (saved(make("--expname", name).folder)["model"] for name in ("run", "parts", "lack"))
    assert close(parts, whole)
    assert close(lacking, whole)


def test_a_scene_in_blenders_format(tmp_path, make):
    scene = tmp_path / "ball"
    for split in ("train", "test"):
        (scene / split).mkdir(parents=True)
        frames = []
        for i, c2w in enumerate(poses.blender_circle(3)):
            disc = np.hypot(*np.mgrid[-5.5:6.5, -7.5:8.5]) < 4
            picture = np.concatenate([np.full((12, 16, 3), 80 * i), disc[..., None] * 255], -1).astype(np.uint8)
            Image.fromarray(picture).save(scene / split / f"r_{i}.png")
            matrix = np.concatenate([c2w, [[0, 0, 0, 1]]]).tolist()
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": matrix})
        (scene / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    words = ["--datadir", str(scene), "--dataset_type", "blender", "--white_bkgd", "--testskip", "2", "--half_res"]
    result = nerf_train.train(make(*SHORT, *words))
    assert result["protocol"]["llffhold"] is None
    assert (result["protocol"]["height"], result["protocol"]["width"], result["protocol"]["factor"]) == (6, 8, 2)
    assert [view["name"] for view in result["views"]] == ["test/r_0.png", "test/r_2.png"]
    assert all(view["ssim"] is None for view in result["views"])


# rendering only


def test_render_only_shows_the_test_views_as_they_were_measured_and_trains_nothing(copied):
    before = sorted(p.name for p in (copied.folder / "checkpoints").iterdir())
    assert nerf_train.train(parser.replace(copied, render_only=True, render_test=True, N_iters=99)) is None
    folder = copied.folder / "renderonly_test_000010"
    assert (folder / "video.mp4").stat().st_size > 0
    for i, name in enumerate(("image000.png", "image003.png")):
        frame, measured = (
            images.read(folder / "video_frames" / f"{i:04d}.png"),
            images.read(copied.folder / "test/final" / name),
        )
        assert np.array_equal(frame, measured)
    assert sorted(p.name for p in (copied.folder / "checkpoints").iterdir()) == before


def test_render_only_renders_the_path_smaller_on_request(copied, monkeypatch):
    monkeypatch.setattr(nerf_video, "FRAMES", 2)
    nerf_train.train(parser.replace(copied, render_only=True, render_factor=2))
    frames = sorted((copied.folder / "renderonly_path_000010/video_frames").glob("*.png"))
    assert [images.read(frame).shape for frame in frames] == [(6, 8, 3)] * 2


def test_render_only_needs_weights(make):
    assert "option --render_only found no checkpoint there to render" in refusal(make("--render_only"))


# error messages, and what they leave unchanged


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--netwidth", "8"], "netwidth (saved 16, requested 8)"),
        (["--multires", "3", "--netdepth", "3"], "netdepth (saved 6, requested 3), multires (saved 10, requested 3)"),
        (["--equilibrate"], "equilibrate (saved none, requested row)"),
        (["--weight_norm"], "weight_norm (saved False, requested True)"),
        (["--N_importance", "0"], "N_importance (saved 8, requested 0)"),
    ],
)
def test_a_run_does_not_go_on_with_another_model_and_the_sentence_says_what_changed(change, told, copied, make):
    before = {p: p.read_bytes() for p in copied.folder.rglob("*") if p.is_file()}
    sentence = refusal(make(*change, "--N_iters", "12"))
    assert sentence.startswith(f"{copied.folder}/checkpoints/000010.pt: ")
    assert f"other model options: {told}; expected" in sentence
    assert {p: p.read_bytes() for p in copied.folder.rglob("*") if p.is_file()} == before


def test_a_run_that_goes_on_with_another_task_says_so(copied, caplog):
    changed = {"lrate": 1e-3, "N_iters": 11, "no_final_eval": True}
    assert "lrate (saved 0.005, requested 0.001)" in refusal(parser.replace(copied, **changed))
    nerf_train.train(parser.replace(copied, **changed, resume_with_changes=True))
    expected = "resuming with a changed option, recorded in the history: lrate (saved 0.005, requested 0.001)"
    assert expected in caplog.messages
    assert saved(copied.folder)["step"] == 11


def test_starting_anew_keeps_the_earlier_run_aside(copied, make):
    before = {p.name: p.read_bytes() for p in (copied.folder / "checkpoints").iterdir()}
    figures = (copied.folder / "metrics.json").read_bytes()
    result = nerf_train.train(make("--no_reload", "--lrate", "1e-3"))
    folder = copied.folder
    assert {p.name: p.read_bytes() for p in (folder / "checkpoints.1").iterdir()} == before
    assert (folder / "metrics.json.1").read_bytes() == figures
    assert (folder / "train.jsonl.1").is_file()
    assert result["mean"] != json.loads(figures)["mean"]  # same seed, steps and protocol: still not the old figures
    assert engine_checkpoint.read(engine_checkpoint.checkpoints(folder)[-1])["config"]["lrate"] == 1e-3
    nerf_train.train(make("--no_reload", *SHORT))
    assert (folder / "checkpoints.1").is_dir()
    assert [p.name for p in (folder / "checkpoints.2").iterdir()]


def test_a_mistake_does_not_set_anything_aside(copied, make, tmp_path):
    refusal(make("--no_reload", "--datadir", str(tmp_path / "nowhere")))
    assert len(engine_checkpoint.checkpoints(copied.folder)) == 2


def test_a_missing_scene_is_told_with_its_layout_and_leaves_nothing(make, tmp_path):
    sentence = refusal(make("--datadir", str(tmp_path / "nowhere")))
    assert str(tmp_path / "nowhere") in sentence
    assert "poses_bounds.npy" in sentence
    assert not (tmp_path / "logs").exists()


def test_a_damaged_checkpoint_is_told_by_its_name_and_the_run_goes_on_from_the_one_before(copied, finished, caplog):
    paths = engine_checkpoint.checkpoints(copied.folder)
    paths[-1].write_bytes(paths[-1].read_bytes()[:-100])
    nerf_train.train(copied)
    assert any(line.startswith(f"{paths[-1]}: cannot be read as a checkpoint (") for line in caplog.messages)
    assert same(saved(copied.folder), saved(finished))
    for path in paths:
        path.write_bytes(b"")
    assert refusal(copied).startswith(f"{paths[-1]}: cannot be read as a checkpoint (")


def test_a_full_disk_is_one_sentence_and_keeps_the_last_checkpoint(copied, finished, monkeypatch):
    def full(content, file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    sentence = refusal(parser.replace(copied, N_iters=12))
    assert sentence.startswith(
        f"{copied.folder}/checkpoints/000012.pt: the checkpoint cannot be written (No space left"
    )
    assert sorted(p.name for p in (copied.folder / "checkpoints").iterdir()) == ["000005.pt", "000010.pt"]
    assert same(saved(copied.folder), saved(finished))


def test_a_folder_that_cannot_be_written_is_one_sentence(make, tmp_path):
    (tmp_path / "logs").write_text("")
    assert refusal(make()).startswith(f"{tmp_path}/logs/run: cannot be written (")


def test_nan_stops_the_run_keeps_the_last_good_checkpoint_and_leaves_it_able_to_go_on(make, finished, monkeypatch):
    config, original, seen = make(), nerf_losses.photometric, []

    def broken(*args):
        seen.append(1)
        return original(*args) * (math.nan if len(seen) == 8 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(nerf_losses, "photometric", broken)
        with pytest.raises(NotFinite, match=r"^step 7: the loss is nan; the state before it is saved: .*/000007.pt$"):
            nerf_train.train(config)
    assert [path.name for path in engine_checkpoint.checkpoints(config.folder)] == ["000005.pt", "000007.pt"]
    assert all(torch.isfinite(value).all() for value in saved(config.folder)["model"].values())
    nerf_train.train(config)
    assert same(saved(config.folder), saved(finished))


# starting from weights


def test_a_run_can_start_from_anothers_checkpoint_or_from_its_weights_alone(make, finished):
    checkpoint = engine_checkpoint.checkpoints(finished)[-1]
    there = saved(finished)
    config = make("--ft_path", str(checkpoint), "--N_iters", "0", "--seed", "7", "--no_reload")
    result = nerf_train.train(config)
    assert same(saved(config.folder)["model"], there["model"])
    assert (saved(config.folder)["step"], saved(config.folder)["optimiser"]["state"]) == (0, {})
    assert result["mean"] == json.loads((finished / "metrics.json").read_text())["mean"]
    config = make("--ft_path", str(checkpoint), "--N_iters", str(there["step"]), "--expname", "whole")
    nerf_train.train(config)
    for part in ("model", "optimiser", "step"):
        assert same(saved(config.folder)[part], there[part]), part


def test_weights_that_do_not_fit_are_told(make, finished, tmp_path):
    checkpoint = engine_checkpoint.checkpoints(finished)[-1]
    assert refusal(make("--ft_path", str(checkpoint), "--equilibrate")).startswith(f"{checkpoint}: its weights are of")
    assert refusal(make("--ft_path", str(tmp_path / "no.pt"))) == f"{tmp_path}/no.pt: no such checkpoint"
