"""Planes of runs: made once, made again when they are stale, refused where they cannot show the scene."""

import json
import logging
import shutil
from pathlib import Path

import cv2
import pytest
import torch

from enerf.core.errors import InputError
from enerf.datasets.scenes import synthetic
from enerf.rendering.planes import storage
from enerf.tasks.nerf import opened, planes, setup, train
from enerf.tasks.nerf.exposure import Exposure

SMALL = "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --N_rand 32 --N_samples 6 --N_importance 6"
QUIET = "--i_print 0 --i_eval 0 --i_img 0 --i_video 0 --i_testset 0 --i_spectrum 0 --eval_rays 20 --device cpu"
QUIET += " --backend torch --precision fp32 --factor 1 --llffhold 3 --no_final_eval"
BASE = f"{SMALL} {QUIET} --N_iters 4".split()


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    return synthetic.write_scene(folder, views=6, width=16, height=12, supersample=1, progress=False)


@pytest.fixture
def run(make):
    """Folder of a trained run, by further options."""

    def run(*words: str, name: str = "run") -> Path:
        config = make(name, *words)
        train.train(config)
        return config.folder

    return run


def changed(path: Path) -> tuple[int, int]:
    return path.stat().st_mtime_ns, path.stat().st_ino


def test_planes_are_baked_and_tuned_once(run):
    folder = run()
    path = planes.bake_folder(folder, 8, 0.2, device="cpu")
    assert path == folder / planes.TUNED
    before = [changed(folder / name) for name in (planes.BAKED, planes.TUNED)]
    planes.bake_folder(folder, 8, 0.2, device="cpu")
    assert [changed(folder / name) for name in (planes.BAKED, planes.TUNED)] == before
    assert planes.bake_folder(folder, 8, 0.0, device="cpu") == folder / planes.BAKED
    planes.bake_folder(folder, 8, 0.2, again=True, device="cpu")
    assert all(changed(folder / name) != old for name, old in zip((planes.BAKED, planes.TUNED), before, strict=True))


def test_planes_of_an_earlier_step_are_made_again(run, make):
    folder = run()
    planes.bake_folder(folder, 8, 0.1, device="cpu")
    tuned = storage.load(folder / planes.TUNED).metadata
    train.train(make("run", "--N_iters", "6"))
    found = planes.best_stack(setup.open_run(folder, "cpu"), folder).metadata
    assert (tuned["made_from"]["step"], found["made_from"]["step"]) == (4, 6)
    assert storage.load(folder / planes.BAKED).metadata == found


def test_planes_of_other_cameras_are_stale(run, tmp_path):
    """A run that is opened with another scene, by mistake."""
    folder = run()
    other = synthetic.write_scene(
        tmp_path / "other", views=6, width=16, height=12, seed=3, supersample=1, progress=False
    )
    planes.bake_folder(folder, 8, 0.0, device="cpu", source=str(other))
    assert planes.stored_stack(setup.open_run(folder, "cpu", str(other)), folder) is not None
    assert planes.stored_stack(setup.open_run(folder, "cpu"), folder) is None


def test_a_scene_that_was_moved_is_asked_for(run, scene, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(scene, moved)
    folder = run("--datadir", str(moved))
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"its scene .*moved is not found, expected its new path by --datadir"):
        setup.open_run(folder, "cpu")
    assert setup.open_run(folder, "cpu", str(tmp_path / "elsewhere")).scene.name


def test_tuning_of_fewer_steps_than_photographs_is_warned_of(run, caplog):
    with caplog.at_level(logging.WARNING):
        planes.bake_folder(run(), 8, 1e-9, device="cpu")
    assert "steps of tuning are fewer than the 4 photographs" in caplog.text


def test_another_number_of_planes_is_made(run):
    folder = run()
    opened_run = setup.open_run(folder, "cpu")
    assert [planes.stack_of(opened_run, folder, n).metadata["made_from"]["planes"] for n in (8, 9)] == [8, 9]


def test_a_video_takes_what_was_baked_with_any_options(run):
    folder = run()
    opened_run = setup.open_run(folder, "cpu")
    baked = planes.stack_of(opened_run, folder, 9).metadata
    assert planes.best_stack(opened_run, folder).metadata == baked
    planes.bake_folder(folder, 10, 0.1, device="cpu")
    assert planes.best_stack(opened_run, folder).metadata["made_from"]["seconds"] == 0.1


def test_planes_that_were_made_with_any_options_are_taken_on_request(run):
    folder = run()
    planes.bake_folder(folder, 9, 0.0, device="cpu")
    tuned = planes.bake_folder(folder, 0, 0.1, device="cpu", any_options=True)
    assert storage.load(tuned).metadata["made_from"]["planes"] == 9
    before = [changed(folder / name) for name in (planes.BAKED, planes.TUNED)]
    for seconds, name in ((60.0, planes.TUNED), (0.0, planes.BAKED)):
        assert planes.bake_folder(folder, 0, seconds, device="cpu", any_options=True) == folder / name
    assert [changed(folder / name) for name in (planes.BAKED, planes.TUNED)] == before


def test_damaged_planes_are_made_again_with_a_warning(run, caplog):
    folder = run()
    planes.bake_folder(folder, 8, 0.0, device="cpu")
    (folder / planes.BAKED).write_bytes(b"nothing")
    with caplog.at_level(logging.WARNING, "enerf"):
        planes.bake_folder(folder, 8, 0.0, device="cpu")
    assert "planes.npz: cannot be read as baked planes" in caplog.text
    assert storage.load(folder / planes.BAKED).metadata["scene"] == "toy"


def test_a_video_by_planes_is_one_of_its_own(run):
    folder = run()
    views = opened.open_views(folder, "cpu")
    path = views.write_video(None, "interpolate", 3, 10.0, fast=True)
    assert path == folder / "video_interpolate_fast.mp4"
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert views.write_video(None, "interpolate", 3, 10.0, depth=True, fast=True).name.endswith("_depth_fast.mp4")
    assert (folder / planes.BAKED).is_file()


def test_planes_look_like_the_field(run):
    folder = run("--N_iters", "60", "--N_samples", "24", "--N_importance", "24", "--lrate", "1e-2")
    opened_run = setup.open_run(folder, "cpu")
    views, scene = opened.open_views(folder, "cpu"), opened_run.present_scene
    stack = planes.stack_of(opened_run, folder)
    pictures = (r.picture(scene, scene.c2w[0], scene.camera) for r in (planes.PlanesRenderer(stack), views._renderer))
    fast, slow = pictures
    assert float((fast.rgb - slow.rgb).square().mean()) < 5e-3
    assert float((fast.depth - slow.depth).abs().mean()) < 0.05


@pytest.mark.parametrize("words", [["--no_ndc"], ["--no_ndc", "--spherify"]])
def test_scenes_that_are_not_forward_facing_are_refused_in_one_sentence(run, words):
    folder = run(*words)
    for call in (
        lambda: planes.bake_folder(folder, device="cpu"),
        lambda: opened.open_views(folder, "cpu").write_video(None, None, 2, 10.0, fast=True),
    ):
        with pytest.raises(InputError, match="expected a forward-facing one: planes are parallel") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not (folder / planes.BAKED).exists()


@pytest.mark.parametrize("kind", ["gain", "affine"])
def test_photographs_are_brought_to_the_mean_exposure(kind):
    maps = Exposure(kind, range(4), 4)
    with torch.no_grad():
        maps.values += 0.2 * torch.randn(maps.values.shape, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(5, 6, 3, generator=generator)
    photographed = maps(image.reshape(-1, 3), torch.full((30,), 2)).reshape(5, 6, 3)
    torch.testing.assert_close(planes.unexposed(maps, photographed, 2), image, rtol=1e-4, atol=1e-5)


def test_runs_with_refined_poses_and_exposure_are_baked(run):
    folder = run("--refine_poses", "--exposure", "affine", "--coarse_to_fine", "2", "--no_pose_matches")
    path = planes.bake_folder(folder, 8, 0.1, device="cpu")
    assert json.dumps(storage.load(path).metadata)
