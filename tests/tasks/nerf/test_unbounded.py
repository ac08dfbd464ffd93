"""Scenes without bounds: the spacing of samples is chosen, recorded and kept; a generated 360° capture is trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from enerf.config import parser
from enerf.core import images
from enerf.core.errors import InputError
from enerf.datasets.scenes import bounds, synthetic_around
from enerf.engine import checkpoint
from enerf.rendering import sampling
from enerf.tasks.nerf import setup, train, views
from tests.contents import refusal, same, saved

SMALL = "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --N_rand 32 --N_samples 8 --N_importance 8"
QUIET = "--i_print 0 --i_eval 0 --i_img 0 --i_video 0 --i_testset 0 --i_spectrum 0 --eval_rays 20 --device cpu"
HASHED = "--encoding hash --hash_levels 4 --hash_log2_entries 12 --hash_finest 64 --density exp --sampler proposal"
BASE = f"{SMALL} {QUIET} --backend torch --precision fp32 --N_iters 4 --no_final_eval".split()


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "around"
    return synthetic_around.write_scene(folder, views=8, width=20, height=16, supersample=1, progress=False)


def forget(folder: Path, *names: str) -> None:
    """Make a run one that was written before options existed."""
    path = checkpoint.checkpoints(folder)[-1]
    content = checkpoint.read(path)
    for name in names:
        del content["config"][name]
    torch.save(content, path)


def test_the_generated_capture_is_of_cameras_around_with_a_distant_background(make, scene):
    run = setup.prepare(make("run"))
    assert not run.scene.forward_facing
    assert run.scene.far > 100 * run.scene.near
    assert bounds.space_of(run.scene).contracted
    depth = np.asarray(images.read(scene / "depths/000.png"))
    assert depth.shape[:2] == (16, 20)
    assert synthetic_around.write_scene(scene, views=8, width=20, height=16, supersample=1, progress=False) == scene
    with pytest.raises(InputError, match="does not contain this scene"):
        synthetic_around.write_scene(scene, views=9)


@pytest.mark.parametrize("words", [[], HASHED.split()], ids=["positional", "hash"])
def test_the_choice_is_recorded_and_kept_at_resume(words, make):
    whole, parts = make("whole", *words), make("parts", *words)
    train.train(whole)
    for n in (2, 4):
        train.train(parser.replace(parts, N_iters=n))
    assert same(saved(whole.folder), saved(parts.folder))
    content = checkpoint.read(checkpoint.checkpoints(whole.folder)[-1])
    assert content["config"]["spacing"] == "piecewise"
    assert "spacing = piecewise" in (whole.folder / "config.txt").read_text()
    opened = setup.open_run(whole.folder, "cpu")
    assert setup.sampling_config(opened.config, opened.scene).knee == bounds.knee_of(opened.scene)
    assert "spacing (saved piecewise, requested linear)" in refusal(
        train.train, make("whole", *words, "--spacing", "linear", "--N_iters", "6")
    )


@pytest.mark.parametrize(("words", "spacing"), [([], "linear"), (["--lindisp"], "disparity")])
def test_runs_of_before_the_option_keep_their_spacing(words, spacing, make):
    config = make("run", *words, "--spacing", spacing)
    train.train(config)
    forget(config.folder, "spacing")
    train.train(make("run", *words, "--N_iters", "6"))
    assert saved(config.folder)["step"] == 6
    content = checkpoint.read(checkpoint.checkpoints(config.folder)[-1])
    assert content["config"]["spacing"] == spacing
    run = setup.open_run(config.folder, "cpu")
    chosen = setup.sampling_config(run.config, run.scene)
    assert (chosen.knee, chosen.lindisp) == (0.0, spacing == "disparity")


def test_disparity_is_lindisp_to_the_last_bit(make):
    train.train(make("a", "--lindisp"))
    train.train(make("b", "--spacing", "disparity"))
    assert same(saved(make("a").folder), saved(make("b").folder))
    assert "mutually exclusive" in refusal(make, "c", "--lindisp", "--spacing", "piecewise")


def test_a_very_wide_range_trains_and_renders(make):
    config = make("run", *HASHED.split(), "--far", "1e5")
    train.train(config)
    run = setup.open_run(config.folder, "cpu")
    assert run.scene.far > 1e5 * run.scene.near
    picture = views.renderer_of(run).picture(run.scene, run.scene.c2w[0], run.scene.camera)
    assert picture.rgb.isfinite().all()
    assert picture.depth.isfinite().all()
    knee = bounds.knee_of(run.scene)
    assert (sampling.complement(picture.depth, knee) > 0).all()
