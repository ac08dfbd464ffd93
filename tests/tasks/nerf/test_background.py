"""Transparent images: what they are composited over in training and evaluation; hidden colors do not matter."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from enerf.config import parser
from enerf.core.errors import InputError
from enerf.core.types import Rendering
from enerf.datasets.scenes import pixels, poses
from enerf.engine import checkpoint
from enerf.tasks.nerf import losses, setup, train
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf.config import NerfConfig
from tests.contents import same

SMALL = "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --N_rand 32 --N_samples 6 --N_importance 6"
QUIET = "--i_print 0 --i_eval 0 --i_img 0 --i_video 0 --i_testset 0 --i_spectrum 0 --eval_rays 20 --device cpu"
QUIET += " --backend torch --precision fp32"
BASE = f"{SMALL} {QUIET} --raw_noise_std 1 --N_iters 4 --dataset_type blender --testskip 1".split()


def _scene(folder: Path, hidden: int, channels: int = 4, alpha: int = 0) -> Path:
    """A disc before a background of some color and alpha."""
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        frames = []
        for i, c2w in enumerate(poses.blender_circle(3)):
            disc = (np.hypot(*np.mgrid[-5.5:6.5, -7.5:8.5]) < 4)[..., None]
            color = np.where(disc, [200, 40, 80 * i], [hidden, hidden // 2, hidden])
            picture = np.concatenate([color, np.where(disc, 255, alpha)], -1)[..., :channels].astype(np.uint8)
            Image.fromarray(picture).save(folder / split / f"r_{i}.png")
            frames.append({"file_path": f"{split}/r_{i}", "transform_matrix": np.vstack([c2w, [0, 0, 0, 1]]).tolist()})
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    return folder


@pytest.fixture
def make(tmp_path):
    """Options of a run on a scene; the name of the experiment first, later words win."""

    def make(name: str, scene: Path, *words: str) -> NerfConfig:
        line = [*BASE, "--datadir", str(scene), "--basedir", str(tmp_path / "logs"), "--expname", name, *words]
        return parser.parse(NerfConfig, line)[0]

    return make


def _trained(config: NerfConfig) -> dict:
    train.train(parser.replace(config, no_final_eval=True))
    content = checkpoint.read(checkpoint.checkpoints(config.folder)[-1])
    return {key: content[key] for key in ("step", "model", "optimiser")}


def _forget_background(folder: Path) -> None:
    """Make a run one that was written before the option existed."""
    for file in checkpoint.checkpoints(folder):
        content = torch.load(file, weights_only=True)
        del content["config"]["background_color"]
        torch.save(content, file)
    text = (folder / "config.txt").read_text().splitlines()
    (folder / "config.txt").write_text("\n".join(line for line in text if not line.startswith("background")))


@pytest.mark.parametrize("words", [["--half_res"], ["--white_bkgd"]], ids="_".join)
def test_hidden_colors_are_not_learned(words, make, tmp_path):
    a, b = (_trained(make(str(hidden), _scene(tmp_path / str(hidden), hidden), *words)) for hidden in (0, 250))
    assert same(a, b)


def test_stored_colors_are_learned_as_in_nerf_pytorch(make, tmp_path, caplog):
    as_rgb = _trained(make("rgb", _scene(tmp_path / "rgb", 250, channels=3)))
    stored = _trained(make("stored", _scene(tmp_path / "rgba", 250), "--background_color", "stored"))
    assert same(stored["model"], as_rgb["model"])
    assert "whose stored colors are learned (--background_color stored)" in caplog.text


@pytest.mark.parametrize("words", [[], ["--white_bkgd"]], ids="_".join)
def test_opaque_images_are_trained_on_as_if_they_had_no_alpha(words, make, tmp_path):
    rgb = _scene(tmp_path / "rgb", 90, channels=3)
    plain = _trained(make("rgb", rgb, *words))
    assert same(_trained(make("rgba", _scene(tmp_path / "rgba", 90, alpha=255), *words)), plain)
    assert same(_trained(make("stored", rgb, *words, "--background_color", "stored")), plain)


def test_random_backgrounds_are_those_of_the_step_after_resuming(make, tmp_path):
    scene = _scene(tmp_path / "scene", 250)
    whole = _trained(make("whole", scene))
    _trained(make("parts", scene, "--N_iters", "2"))
    assert same(_trained(make("parts", scene)), whole)
    black = _trained(make("black", scene, "--background_color", "black"))
    assert not same(black["model"], whole["model"])


def test_a_background_shows_through_where_a_rendering_is_transparent():
    generator = torch.Generator().manual_seed(0)
    rgba, background = torch.rand(50, 4, generator=generator), torch.rand(50, 3, generator=generator)
    empty = torch.zeros(50, 1)
    black = Rendering(rgba[:, :3] * rgba[:, 3:], empty[:, 0], rgba[:, 3], empty, empty)
    wanted = torch.lerp(background, rgba[:, :3], rgba[:, 3:])
    torch.testing.assert_close(losses.over(black, background).rgb, wanted)


def test_chunks_get_their_rays_backgrounds(make, tmp_path):
    run = setup.prepare(make("run", _scene(tmp_path / "scene", 0)))
    chosen = pixels.fixed_pixels(run.scene, 0, 30)
    batch, target = pixels.rays_of(run.scene, chosen, 0.5), pixels.colors_of(run.scene, chosen)
    background = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
    sampling, generator = setup.sampling_config(run.config), torch.Generator()
    whole, parts = (
        nerf_step.gradient(
            run.fields, batch, target, sampling, generator, jitter=False, rays_at_once=n, background=background
        )
        for n in (30, 7)
    )
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize(
    ("words", "color"), [([], "black"), (["--white_bkgd"], "white"), (["--background_color", "white"], "white")]
)
def test_evaluation_lies_over_black_or_white_on_both_sides(words, color, make, tmp_path, caplog):
    caplog.set_level("INFO", "enerf")
    config = make("run", _scene(tmp_path / "scene", 120), *words, "--N_iters", "0")
    metrics = train.train(config)
    training = "random colors" if not words else "white"
    assert metrics["protocol"]["background"] == {"training": training, "evaluation": color}
    assert f"composited over {training} in training and {color} in evaluation" in caplog.text
    run = setup.open_run(config.folder, "cpu")
    assert (pixels.view_image(run.scene, 0)[0, 0] == (color == "white")).all()
    assert setup.sampling_config(run.config).white_bkgd == (color == "white")


def test_training_over_random_colors_can_be_evaluated_over_white(make, tmp_path):
    scene = _scene(tmp_path / "scene", 120)
    over_white = _trained(make("white", scene, "--white_bkgd", "--background_color", "random"))
    assert same(_trained(make("black", scene, "--background_color", "random")), over_white)


def test_runs_from_before_the_option_keep_their_stored_colors(make, tmp_path):
    scene = _scene(tmp_path / "scene", 250)
    whole = _trained(make("whole", scene, "--background_color", "stored"))
    started = make("old", scene, "--background_color", "stored", "--N_iters", "2")
    metrics = train.train(started)
    _forget_background(started.folder)
    run = setup.open_run(started.folder, "cpu")
    assert torch.equal(pixels.view_image(run.scene, 0)[0, 0], torch.tensor([250, 125, 250]) / 255)
    assert "background" not in metrics["protocol"]
    saved = checkpoint.read(checkpoint.checkpoints(started.folder)[-1])["config"]
    assert setup.with_background(make("old", scene), saved).data.background_color == "stored"
    for steps in ("3", "4"):  # the second call finds what the first one recorded
        resumed = _trained(make("old", scene, "--N_iters", steps))
    assert same(resumed, whole)


def test_black_and_white_at_once_are_refused(make):
    with pytest.raises(InputError, match="--white_bkgd and --background_color black are mutually exclusive"):
        make("run", Path("scene"), "--white_bkgd", "--background_color", "black")
