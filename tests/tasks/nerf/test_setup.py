"""Scenes as the options of a run describe them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enerf.config import parser
from enerf.core.errors import InputError
from enerf.datasets.scenes import poses, view_checks
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import setup
from enerf.tasks.nerf import train as nerf_train
from enerf.tasks.nerf.config import NerfConfig

SMALL = ["--netdepth", "1", "--netwidth", "4", "--netdepth_fine", "1", "--netwidth_fine", "4", "--N_samples", "4"]
QUICK = ["--N_rand", "8", "--N_iters", "1", "--i_img", "0", "--i_video", "0", "--i_eval", "0", "--no_final_eval"]


@pytest.fixture
def make(tmp_path):
    """Options of a run on a scene in Blender's format, 40 units away, with OpenCV axes."""
    for split, count in (("train", 4), ("test", 2)):
        (tmp_path / "scene" / split).mkdir(parents=True)
        frames = []
        for i, c2w in enumerate(poses.blender_circle(9, 40.0)[:count]):
            pixels = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "scene" / split / f"{i}.png")
            matrix = np.concatenate([c2w * (1, -1, -1, 1), [[0, 0, 0, 1]]]).tolist()
            frames.append({"file_path": f"{split}/{i}", "transform_matrix": matrix})
        content = json.dumps({"camera_angle_x": 0.7, "frames": frames})
        (tmp_path / "scene" / f"transforms_{split}.json").write_text(content)

    def make(*words: str) -> NerfConfig:
        data = ["--dataset_type", "blender", "--datadir", str(tmp_path / "scene"), "--basedir", str(tmp_path)]
        rest = ["--expname", "run", "--device", "cpu", "--backend", "torch"]
        return parser.parse(nerf_config.NerfConfig, [*SMALL, *QUICK, *data, *rest, *words])[0]

    return make


def test_range_and_axes_are_recorded_and_taken_again_by_what_opens_the_run(make, caplog):
    config = make("--near", "20", "--far", "60", "--pose_axes", "opencv")
    nerf_train.train(config)
    assert "in front of them" not in caplog.text
    opened = setup.open_run(Path(config.folder)).scene
    assert (opened.near, opened.far) == (20.0, 60.0)
    assert np.allclose(opened.c2w[:4].numpy(), poses.blender_circle(9, 40.0)[:4], atol=1e-4)
    assert "in front of them" not in caplog.text
    with pytest.raises(InputError, match=r"near \(saved 20.0, requested 10.0\)"):
        nerf_train.train(make("--near", "10", "--far", "60", "--pose_axes", "opencv"))


def test_poses_are_checked_for_new_runs_only_and_not_at_all_on_request(make, monkeypatch):
    calls = []
    monkeypatch.setattr(view_checks, "warn_of_axes", lambda *args: calls.append(args[3]))
    nerf_train.train(make("--no_pose_check"))
    assert calls == []
    nerf_train.train(make("--no_reload", "--pose_axes", "opencv"))
    assert calls == ["opencv"]
    setup.open_run(Path(make().folder))
    nerf_train.train(make("--pose_axes", "opencv", "--N_iters", "2"))
    assert calls == ["opencv"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--dataset_type", "llff", "--near", "2"], "options --near and --far: found 2 and 0, expected 0: LLFF scenes"),
        (["--near", "5", "--far", "5"], "option --near: found 5, expected less than --far, 5"),
    ],
)
def test_impossible_ranges_are_one_sentence(words, found, make):
    with pytest.raises(InputError, match=found):
        make(*words).check()


def test_a_range_that_its_default_contradicts_is_one_sentence(make):
    with pytest.raises(InputError, match="found depths from 7 to 6, expected near above 0 and below far"):
        setup.load_scene(make("--near", "7"))
