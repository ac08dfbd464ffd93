"""Exports of other programs as these write them: where files lie, how they are named, and keys that are unusual."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from enerf.datasets.scenes import colmap, formats, transforms_file
from enerf.datasets.scenes.settings import SceneSettings
from enerf.geometry.colored_points import read_scene
from tests.contents import refusal
from tests.datasets.scenes import exports, photographed
from tests.datasets.scenes.transforms_scene import GLOBAL, N, content_with, frame_with, write_picture, write_scene

SETTINGS = SceneSettings(factor=1, llffhold=2, pose_check=False, read_points=read_scene)


@pytest.fixture
def scene(tmp_path):
    """A scene that a test may write in a program's form."""
    return exports.posed(tmp_path / "scene")


# transforms.json ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["D:\\project\\photos\\{}.png", "/Users/me/images/{}.png", "../images/{}.png"])
def test_images_of_another_machine_are_found_by_the_last_parts_of_their_paths(pattern, tmp_path, caplog):
    """rc2nerf and agi2nerf write ``str(folder / name)``, backslashes on Windows; colmap2nerf ``../images/NAME``."""
    content = {**GLOBAL, "frames": [frame_with(i, pattern.format(i)) for i in range(N)]}
    with caplog.at_level(logging.INFO, "enerf"):
        posed = transforms_file.read(write_scene(tmp_path, content))
    assert posed.names == tuple(f"images/{i}.png" for i in range(N))
    assert f"{N} images are not where it says" in caplog.text


def test_names_in_another_case_and_images_beside_the_file_are_found(tmp_path):
    file = write_scene(tmp_path, {**GLOBAL, "frames": [frame_with(i, f".\\Images\\{i}.PNG") for i in range(N)]})
    assert transforms_file.read(file).names == tuple(f"images/{i}.png" for i in range(N))
    for i in range(N):
        (tmp_path / "images" / f"{i}.png").rename(tmp_path / f"{i}.PNG")
    assert transforms_file.read(file).names == tuple(f"{i}.PNG" for i in range(N))


def test_an_image_at_its_stated_path_precedes_others_of_its_name(tmp_path):
    content = content_with()
    for i in range(N):
        write_picture(tmp_path / f"{i}.png")
    assert transforms_file.read(write_scene(tmp_path, content)).names[1] == "images/1.png"


def test_absolute_names_in_the_lists_of_a_split_are_those_of_the_frames(tmp_path):
    names = [f"C:\\out\\images\\{i}.png" for i in range(N)]
    content = {**GLOBAL, "frames": [frame_with(i, name) for i, name in enumerate(names)]}
    content |= {"train_filenames": names[1:], "test_filenames": names[:1]}
    assert transforms_file.read(write_scene(tmp_path, content)).test == (0,)


def test_masks_depths_and_points_of_another_machine_are_found(tmp_path):
    content = content_with(ply_file_path="C:\\out\\sparse_pc.ply")
    content["frames"][1] |= {"mask_path": "/data/masks/1.png", "depth_file_path": "D:\\depth\\1.png"}
    for folder in ("masks", "depth"):
        write_picture(tmp_path / folder / "1.png")
    (tmp_path / "sparse_pc.ply").write_text("ply\n")
    file = write_scene(tmp_path, content)
    posed = transforms_file.read(file)
    assert posed.masks[1] == tmp_path / "masks" / "1.png"
    assert posed.depths[1] == tmp_path / "depth" / "1.png"
    assert transforms_file.input_files(file) == [file, tmp_path / "sparse_pc.ply"]


def test_two_frames_of_one_image_are_refused_wherever_it_is(tmp_path):
    content = {**GLOBAL, "frames": [frame_with(0, "C:\\a\\0.png"), frame_with(1, "C:\\b\\0.png")]}
    assert "two frames of images/0.png" in refusal(transforms_file.read, write_scene(tmp_path, content))


def _nerfstudio(n: int, **keys) -> dict:
    """What ``ns-process-data polycam`` writes: cameras of frames, no ``applied_transform``, orientation "none"."""
    camera = {"fl_x": 20.0, "fl_y": 21.0, "cx": 8.5, "cy": 5.75, "w": 16, "h": 12}
    frames = [frame_with(i, f"./images/frame_{i + 1:05d}.JPG", **camera) for i in range(n)]
    return {"camera_model": "OPENCV", "orientation_override": "none", "frames": frames, **keys}


def test_output_of_ns_process_data_is_read(tmp_path):
    for i in range(N):
        Path(tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (16, 12)).save(tmp_path / "images" / f"frame_{i + 1:05d}.JPG", format="JPEG")
    (tmp_path / "transforms.json").write_text(json.dumps(_nerfstudio(N)))
    posed = transforms_file.read(tmp_path)
    assert posed.names[0] == "images/frame_00001.JPG"
    assert posed.unread == ("orientation_override",)
    assert [(c.fx, c.cy, c.width) for c in posed.cameras] == [(20.0, 5.75, 16)] * N


def test_an_export_of_nerfcapture_is_read(tmp_path):
    """``nerfcapture2nerf.py``: names without suffix, w and h 0 or numbers with a point, depth maps beside images."""
    frames = [frame_with(i, f"images/{i}", depth_path=f"images/{i}.depth.png") for i in range(N)]
    for i in range(N):
        write_picture(tmp_path / "images" / f"{i}.depth.png")
    content = {**GLOBAL, "w": 16.0, "h": 12.0, "integer_depth_scale": 10 / 65535, "frames": frames}
    del content["camera_model"]
    posed = transforms_file.read(write_scene(tmp_path, content))
    assert posed.names == tuple(f"images/{i}.png" for i in range(N))
    assert posed.depths[0] == tmp_path / "images" / "0.depth.png"
    assert posed.depth_unit == pytest.approx(10 / 65535)


# COLMAP's format ------------------------------------------------------------------------------------------------------


def _realityscan(scene, **other) -> Path:
    """COLMAP's text files as RealityScan writes them, with the images beside them.

    A camera for each image in no order, FULL_OPENCV with zeros, exponents of three digits, names with spaces
    (LichtFeld Studio, issues 514, 719 and 810), ``-nan(ind)`` (Brush, pull request 412), names of files in another
    case (Brush, issue 170).
    """
    folder = photographed.write(scene, "colmap")
    shutil.rmtree(folder / "sparse")
    colmap.write(folder, scene, text=True)
    n = len(scene.names)
    lines = ["# Camera list with one line of data per camera:", "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    lines.append(f"# Number of cameras: {n}")
    for i in reversed(range(n)):
        c = scene.cameras[i]
        numbers = other.get(f"camera{i}", f"{c.fx} {c.fy} {c.cx} {c.cy} 0 0 0 0 0 0 0.0 0.0")
        lines.append(f"{40 + i} FULL_OPENCV {c.width} {c.height} {numbers}")
    (folder / "cameras.txt").unlink()
    (folder / "Cameras.txt").write_text("\n".join(lines) + "\n")
    text = (folder / "images.txt").read_text().splitlines()
    for i, at in enumerate(range(4, 4 + 2 * n, 2)):
        words = text[at].split()
        pose = " ".join(f"{float(word):.17e}".replace("e-0", "e-00").replace("e+0", "e+00") for word in words[1:8])
        text[at] = f"{words[0]} {pose} {40 + i} {other.get('names', 'map plan ({}).jpg').format(i)}"
    (folder / "images.txt").unlink()
    (folder / "Images.txt").write_text("\n".join(text) + "\n")
    for i, file in enumerate(scene.files):
        file.rename(folder / f"map plan ({i}).jpg")
    (folder / "images").rmdir()
    return folder


def test_an_export_of_realityscan_is_read(scene, caplog):
    folder = _realityscan(scene)
    assert formats.detect(folder)[0] == "colmap"
    with caplog.at_level(logging.INFO, "enerf"):
        posed = colmap.read(folder)
    exports.require_same(posed, scene)
    assert {camera.model for camera in posed.cameras} == {"FULL_OPENCV"}
    assert posed.names == tuple(f"map plan ({i}).jpg" for i in range(4))
    assert "images are read from" in caplog.text
    assert formats.load("colmap", folder, SETTINGS).images.shape == (4, 18, 24, 3)


def test_images_of_cameras_with_no_numbers_are_left_out(scene, caplog):
    bad = "-nan(ind) -nan(ind) 12 9 0 0 0 0 0 0 0.0 0.0"
    posed = colmap.read(_realityscan(scene, camera1=bad))
    assert posed.names == tuple(f"map plan ({i}).jpg" for i in (0, 2, 3))
    assert len(posed.cameras) == len(posed.c2w) == 3
    assert posed.points is not None
    assert posed.points.view.max() == 2
    assert "are left out (1): map plan (1).jpg" in caplog.text


def test_a_model_without_any_usable_camera_is_refused(scene):
    bad = {f"camera{i}": "1.#IND 1.#QNAN0 12 9 0 0 0 0 0 0 0 0" for i in range(4)}
    assert "found no image whose camera has finite parameters" in refusal(colmap.read, _realityscan(scene, **bad))


@pytest.mark.parametrize(
    "names", ["C:\\photos\\map plan ({}).jpg", "/data/Map Plan ({}).JPG", "sub\\map plan ({}).jpg"]
)
def test_names_of_images_of_another_machine_are_found(names, scene):
    assert colmap.read(_realityscan(scene, names=names)).names == tuple(f"map plan ({i}).jpg" for i in range(4))


def test_names_that_lead_to_no_image_or_to_the_same_one_are_refused(scene):
    folder = _realityscan(scene, names="C:\\photos\\{}.jpg")
    assert "found the absolute image name 'C:/photos/0.jpg'" in refusal(colmap.read, folder)
    text = (folder / "Images.txt").read_text()
    for i, name in enumerate(("C:\\a\\map plan (0).jpg", "D:\\b\\map plan (0).jpg")):
        text = text.replace(f"C:\\photos\\{i}.jpg", name)
    (folder / "Images.txt").write_text(text.replace("C:\\photos\\2", "map plan (2)").replace("C:\\photos\\3", "x"))
    assert "found two names that mean" in refusal(colmap.read, folder)


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [("masks", "{}.png"), ("masks", "{}.mask.png"), ("images", "{}.mask.png"), ("masks", "STEM.png")],
)
def test_masks_of_every_program_are_found(folder, pattern, scene):
    """COLMAP ``a.jpg.png``; RealityScan ``a.jpg.mask.png`` (LichtFeld Studio, request 551); Metashape ``a.png``."""
    photographed.write(scene, "colmap")
    for name in scene.names:
        path = scene.source / folder / pattern.format(name).replace("STEM", name.removesuffix(".png"))
        write_picture(path, 24, 18)
    assert all(path is not None and path.parent.name == folder for path in colmap.read(scene.source).masks)


def test_a_mask_of_a_stem_that_two_images_have_is_not_used(scene):
    names = ("a.png", "a.jpg", "b.png", "c.png")
    changed = replace(scene, names=names, files=tuple(scene.source / "images" / name for name in names))
    photographed.write(changed, "colmap")
    for name in ("a", "b", "c"):
        write_picture(scene.source / "masks" / f"{name}.png", 24, 18)
    masks = dict(zip(colmap.read(scene.source).names, colmap.read(scene.source).masks, strict=True))
    assert masks["a.png"] is masks["a.jpg"] is None
    assert masks["b.png"] == scene.source / "masks" / "b.png"


def test_images_in_a_folder_of_another_name_are_found_but_not_masks_or_downsampled_ones(scene):
    folder = photographed.write(scene, "colmap")
    for name in ("masks", "images_2", "depth_maps"):
        shutil.copytree(folder / "images", folder / name)
    (folder / "images").rename(folder / "undistorted")
    for datadir in (folder, folder / "sparse" / "0"):
        assert colmap.read(datadir).files[0] == folder / "undistorted" / "00.png"
