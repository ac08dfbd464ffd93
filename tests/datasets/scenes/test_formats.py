"""Detection of the formats of scenes, which files a scene consists of, and what is said of folders that are none."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enerf.core import images
from enerf.datasets.scenes import formats, poses, synthetic
from enerf.datasets.scenes.settings import SceneSettings
from enerf.geometry.colored_points import read_scene
from enerf.tasks.nerf import config as nerf_config
from tests.contents import refusal
from tests.datasets.scenes import exports, photographed

FULL = SceneSettings(factor=1, llffhold=2, pose_check=False, read_points=read_scene)
KINDS = ("llff", "blender", "transforms", "polycam", "record3d", "colmap")


def _write_blender(folder: Path) -> Path:
    for split in ("train", "test"):
        frames = []
        for i, c2w in enumerate(poses.blender_circle(3)):
            images.write_png(folder / split / f"{i}.png", np.full((6, 8, 3), 40 * i, np.uint8))
            frames.append({"file_path": f"{split}/{i}", "transform_matrix": np.vstack([c2w, [0, 0, 0, 1]]).tolist()})
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> dict[str, Path]:
    """A small scene in each format; look, do not write."""
    root = tmp_path_factory.mktemp("scenes")
    found = {"llff": synthetic.write_scene(root / "llff", 4, width=24, height=18, supersample=1, progress=False)}
    found["blender"] = _write_blender(root / "blender")
    for kind in ("transforms", "colmap"):
        posed = photographed.described(root / kind, [photographed.PLAIN] * 4, photographed.forward(4))
        found[kind] = photographed.write(posed, kind)
    found["polycam"] = exports.write_polycam(exports.posed(root / "polycam"))
    found["record3d"] = exports.write_record3d(exports.posed(root / "record3d"))
    return found


@pytest.fixture
def merged(scenes, tmp_path):
    """Copies several scenes into one folder."""

    def merge(*kinds: str) -> Path:
        for kind in kinds:
            shutil.copytree(scenes[kind], tmp_path / "scene", dirs_exist_ok=True)
        return tmp_path / "scene"

    return merge


def test_the_options_name_the_formats_that_there_are():
    assert nerf_config.FORMATS == ("auto", *formats.FORMATS) == ("auto", *KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_is_detected_and_loaded(kind, scenes):
    name, shown = formats.detect(scenes[kind])
    assert name == kind
    assert shown
    scene = formats.load(name, scenes[kind], FULL)
    assert scene.name == kind
    assert set(scene.train).isdisjoint(scene.test)
    assert scene.train
    assert scene.test


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        (("llff", "colmap"), "llff"),
        (("transforms", "colmap"), "transforms"),
        (("transforms", "polycam"), "transforms"),
        (("transforms", "record3d"), "transforms"),
        (("colmap",), "colmap"),
    ],
)
def test_a_format_precedes_the_one_that_its_files_were_made_from(kinds, name, merged):
    folder = merged(*kinds)
    assert formats.detect(folder)[0] == name
    if "colmap" in kinds[1:]:
        (folder / "colmap").mkdir()
        (folder / "sparse").rename(folder / "colmap" / "sparse")
        assert formats.detect(folder)[0] == name


@pytest.mark.parametrize("kinds", [("llff", "transforms"), ("llff", "blender"), ("blender", "transforms", "colmap")])
def test_folders_in_several_formats_are_one_sentence_that_names_them(kinds, merged):
    text = refusal(formats.detect, merged(*kinds))
    wanted = [kind for kind in KINDS if kind in kinds and not (kind == "colmap" and "transforms" in kinds)]
    assert text.endswith(f"expected one format: give --dataset_type {' or '.join(wanted)}")
    assert all(f"({kind})" in text for kind in wanted)


def test_every_place_of_a_colmap_model_is_detected(scenes, tmp_path):
    model = scenes["colmap"] / "sparse" / "0"
    for i, place in enumerate(("sparse/0", "sparse", "colmap/sparse/0", "colmap", "")):
        folder = tmp_path / str(i)
        shutil.copytree(model, folder / place)
        assert formats.detect(folder) == ("colmap", "a COLMAP model")


def _files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ((".hidden",), "or a COLMAP model in sparse/0"),
        (("notes.txt", "other/a.txt"), "or a COLMAP model in sparse/0"),
        (("a.jpg", "b.JPG"), "of photographs alone, enerf process makes one"),
        (("images/a.jpg",), "of photographs alone, enerf process makes one"),
        (("images_8/a.jpg", "x/a.txt"), "of photographs alone, enerf process makes one"),
        (("fern/poses_bounds.npy", "horns/poses_bounds.npy"), "fern is one"),
        (("x/a.jpg", "lego/transforms_train.json", "lego/transforms_test.json"), "lego is one"),
        (("transforms_train.json",), "or a COLMAP model in sparse/0"),
        (("poses_bounds.npy/a", "transforms.json/b"), "or a COLMAP model in sparse/0"),
    ],
)
def test_folders_that_are_no_scene_say_what_they_may_be(names, hint, tmp_path):
    text = refusal(formats.detect, _files(tmp_path, *names))
    assert text.startswith(f"{tmp_path} is no scene, expected poses_bounds.npy (LLFF), transforms.json")
    assert text.endswith(hint)


def test_what_is_no_folder_is_one_sentence(tmp_path):
    (tmp_path / "transforms.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nothing", tmp_path / "transforms.json", tmp_path / "pipe", tmp_path / ("a" * 300)):
        assert refusal(formats.detect, path).startswith(f"{path} is not a folder, expected a scene")


def test_another_format_than_the_folders_is_named_in_the_message(scenes):
    for kind in KINDS:
        for other in KINDS:
            if other != kind:
                text = refusal(formats.load, kind, scenes[other], FULL)
                assert f"{scenes[other]} has no scene in the format {kind}" in text
                assert text.endswith(f"give --dataset_type {other}, or auto")


@pytest.mark.parametrize(
    ("kind", "changes", "found"),
    [
        ("llff", {"near": 2.0}, "options --near and --far: found 2 and 0, expected 0: LLFF scenes"),
        ("blender", {"test_views": "0"}, "option --test_views: found 0, expected none: Blender scenes"),
    ],
)
def test_options_that_a_format_does_not_have_are_one_sentence(kind, changes, found, scenes):
    assert found in refusal(formats.load, kind, scenes[kind], replace(FULL, **changes))


def _relative(kind: str, folder: Path, settings: SceneSettings = FULL) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in formats.input_files(kind, folder, settings)]


def test_the_files_of_a_scene_are_those_that_it_is_read_from(scenes):
    photos = [f"images/{i:02d}.png" for i in range(4)]
    model = [f"sparse/0/{part}.bin" for part in ("cameras", "images", "points3D")]
    assert _relative("colmap", scenes["colmap"]) == [*model, *photos]
    assert _relative("transforms", scenes["transforms"]) == ["transforms.json", "sparse_pc.ply", *photos]
    unread = replace(FULL, read_points=None)
    assert _relative("transforms", scenes["transforms"], unread) == ["transforms.json", *photos]
    shots = [f"images/image{i:03d}.png" for i in range(4)]
    assert _relative("llff", scenes["llff"]) == ["poses_bounds.npy", *shots]
    assert len(_relative("blender", scenes["blender"])) == 2 + 3 + 1  # every eighth test view
    for kind in KINDS:
        assert all(path.is_file() for path in formats.input_files(kind, scenes[kind], FULL))


@pytest.mark.parametrize("kind", ["transforms", "colmap"])
def test_downsampled_images_and_masks_are_files_of_a_scene_if_they_are_read(kind, tmp_path):
    posed = photographed.described(tmp_path, [photographed.PLAIN] * 3, photographed.forward(3))
    images.write_png(tmp_path / "mask.png", np.full((18, 24), 255, np.uint8))
    photographed.write(replace(posed, masks=(None, tmp_path / "mask.png", None)), kind)
    half = replace(FULL, factor=2)
    before = sorted(tmp_path.rglob("*"))
    assert "images/01.png" in _relative(kind, tmp_path, half)
    assert sorted(tmp_path.rglob("*")) == before
    formats.load(kind, tmp_path, half)
    assert "images_2/01.png" in _relative(kind, tmp_path, half)
    assert ("mask.png" in _relative(kind, tmp_path, half)) == (kind == "transforms")
    assert "mask.png" not in _relative(kind, tmp_path, replace(half, use_masks=False))


@pytest.mark.parametrize("kind", ["transforms", "colmap"])
def test_what_is_wrong_with_a_scene_is_logged_once_in_a_run(kind, tmp_path, caplog):
    c2w = photographed.around(5)
    c2w[2] = c2w[1]
    posed = photographed.described(tmp_path, (photographed.PLAIN,) * 5, c2w)
    photographed.write(replace(posed, depths=(tmp_path / "depth.png", *[None] * 4)), kind)  # which does not exist
    settings = SceneSettings(pose_check=False)
    with caplog.at_level(logging.INFO, "enerf"):
        formats.load(kind, tmp_path, settings)
        formats.input_files(kind, tmp_path, settings)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(set(told))
    assert sum("the same pose as that of an earlier view in view 2" in text for text in told) == 1
    assert any("depth maps do not exist" in text for text in told) == (kind == "transforms")
