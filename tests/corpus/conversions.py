"""Conversion of scenes: what formats cannot express, places that cannot be written to, images that are no images."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.damage import cut, encoded, exif
from tests.corpus.inputs import base, converted, copied, special_file
from tests.corpus.registry import Command, table

Edit = Callable[[Path], Any]
L = "x" * 300
# Scene, target, options.
PAIRS: dict[str, Any] = {
    "llff_llff": ("accept", ("llff", "llff")),
    "llff_colmap": ("refuse", ("llff", "colmap")),  # depths of views
    "llff_colmap_lossy": ("accept", ("llff", "colmap", "--lossy")),
    "llff_transforms_lossy": ("accept", ("llff", "transforms", "--lossy")),
    "llff_ngp_lossy": ("accept", ("llff", "transforms", "--lossy", "--dialect", "instant-ngp")),
    "colmap_llff": ("refuse", ("colmap", "llff")),  # points
    "colmap_llff_lossy": ("accept", ("colmap", "llff", "--lossy")),
    "colmap_llff_near_far": ("accept", ("colmap", "llff", "--lossy", "--near", "1", "--far", "20")),
    "colmap_transforms": ("refuse", ("colmap", "transforms")),  # which views see which points
    "colmap_transforms_lossy": ("accept", ("colmap", "transforms", "--lossy")),
    "colmap_colmap": ("accept", ("colmap", "colmap")),
    "transforms_colmap": ("accept", ("transforms", "colmap")),
    "transforms_llff_lossy": ("accept", ("transforms", "llff", "--lossy")),
    "transforms_ngp": ("refuse", ("transforms", "transforms", "--dialect", "instant-ngp")),
    "transforms_link": ("accept", ("transforms", "transforms", "--link")),
    "blender_colmap": ("accept", ("blender", "colmap")),
    "blender_transforms": ("accept", ("blender", "transforms")),
    "blender_llff": ("refuse", ("blender", "llff")),  # no depths
    "blender_llff_near_far": ("accept", ("blender", "llff", "--near", "2", "--far", "6")),
    "blender_target": ("refuse", ("llff", "blender")),
    "near_above_far": ("refuse", ("blender", "llff", "--near", "6", "--far", "2")),
    "near_nan": ("refuse", ("blender", "llff", "--near", "nan", "--far", "2")),
    "near_-1": ("refuse", ("blender", "llff", "--near=-1", "--far", "2")),
    "near_1e308": ("any", ("blender", "llff", "--near", "1e307", "--far", "1e308")),
    "near_for_colmap": ("refuse", ("blender", "colmap", "--near", "2", "--far", "6")),
    "dialect_for_colmap": ("refuse", ("blender", "colmap", "--dialect", "instant-ngp")),
    "dialect_other": ("refuse", ("blender", "transforms", "--dialect", "blender")),
    "axes_opencv": ("accept", ("blender", "transforms", "--pose_axes", "opencv")),
    "axes_w2c": ("accept", ("blender", "transforms", "--pose_axes", "opengl_w2c")),
    "axes_other": ("refuse", ("blender", "transforms", "--pose_axes", "xyz")),
    "type_other": ("refuse", ("blender", "transforms", "--dataset_type", "llff")),
    "type_unknown": ("refuse", ("blender", "transforms", "--dataset_type", "LINEMOD")),
}


@table("convert", PAIRS)
def _(folder: Path, case: tuple[str, ...]) -> Command:
    what, target, *more = case
    return converted(folder, copied(what, folder), target, *more)


OUT: dict[str, Any] = {
    "empty": ("accept", "{folder}/empty"),
    "deep": ("accept", "{folder}/out/a/b/c"),
    "inside": ("accept", "{folder}/in/out"),
    "unicode": ("accept", "{folder}/out/ünï cødé"),
    "full": ("refuse", "{folder}/full"),
    "itself": ("refuse", "{folder}/in"),
    "file": ("refuse", "{folder}/full/notes.txt"),
    "below_file": ("refuse", "{folder}/full/notes.txt/out"),
    "fifo": ("refuse", "{folder}/fifo"),
    "link": ("refuse", "{folder}/link"),
    "dangling": ("refuse", "{folder}/dangling"),
    "devnull": ("refuse", "/dev/null"),
    "proc": ("refuse", "/proc/enerf"),
    "root": ("refuse", "/"),
    "long": ("refuse", L),
    "5000": ("refuse", "/".join(["x" * 200] * 30)),
    "nothing": ("refuse", ""),
    "tilde": ("refuse", "~nobodyhere/x"),
    "bad_utf8": ("refuse", "\udcff"),
    "dot": ("refuse", "."),
}


@table("convert_out", OUT)
def _(folder: Path, out: str) -> Command:
    scene = copied("transforms", folder)
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("empty")
    (folder / "dangling").symlink_to("nowhere")
    return Command("convert_scene.py", (scene, "--to", "colmap", "--out", out), writes="")


def _image(name: str, data: bytes) -> Edit:
    return lambda scene: (scene / "images" / name).write_bytes(data)


def _instead(name: str, kind: str) -> Edit:
    def edit(scene: Path) -> None:
        (scene / name).unlink(missing_ok=True)
        special_file(scene / name, kind)

    return edit


def _frames(change: Callable[[Any], Any]) -> Edit:
    """Change the object in ``transforms.json``."""

    def edit(scene: Path) -> None:
        content = json.loads((scene / "transforms.json").read_text())
        change(content)
        (scene / "transforms.json").write_text(json.dumps(content))

    return edit


def _companion(key: str, name: str, make: Edit) -> Edit:
    def edit(scene: Path) -> None:
        make(scene)
        _frames(lambda content: content["frames"][2].__setitem__(key, name))(scene)

    return edit


def _sparse_giant(scene: Path) -> None:
    """A mask of 8 TiB that takes no space."""
    with (scene / "giant.png").open("wb") as file:
        file.truncate(1 << 43)


FISHEYE = {"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k2": 0.0, "k3": 0.0, "k4": 0.0}
CHANGES: dict[str, Any] = {
    "image_missing_transforms": ("accept", ("transforms", "colmap", lambda s: (s / "images/image003.png").unlink())),
    "image_missing": ("refuse", ("colmap", "colmap", lambda s: (s / "images/image003.png").unlink())),
    "image_shape": ("refuse", ("colmap", "colmap", _image("image003.png", encoded("L", "PNG", (30, 40))))),
    "image_small": ("accept", ("colmap", "colmap", _image("image003.png", encoded("L", "PNG", (20, 15))))),
    "image_text": ("refuse", ("colmap", "colmap", _image("image003.png", b"no image"))),
    "image_empty": ("refuse", ("colmap", "colmap", _image("image003.png", b""))),
    "image_fifo": ("refuse", ("colmap", "colmap", _instead("images/image003.png", "fifo"))),
    "image_devzero": ("refuse", ("colmap", "colmap", _instead("images/image003.png", "devzero"))),
    "image_folder": ("refuse", ("colmap", "colmap", _instead("images/image003.png", "folder"))),
    "image_loop": ("refuse", ("colmap", "colmap", _instead("images/image003.png", "loop"))),
    "image_turned": (
        "refuse",
        ("llff", "colmap", _image("image003.png", encoded("RGB", "PNG", (30, 40), exif=exif(6)))),
    ),
    "llff_half": ("refuse", ("llff", "llff", lambda s: np.save(s / "poses_bounds.npy", np.zeros((8, 17))))),
    "llff_smaller_images": ("accept", ("llff", "llff", lambda s: (s / "images").rename(s / "images_8"))),
    "llff_number": ("any", ("llff", "llff", lambda s: (s / "images").rename(s / "images_99999999"))),
    "mask_of_another": (
        "accept",
        ("transforms", "colmap", _companion("mask_path", "images/image001.png", lambda s: None)),
    ),
    "mask_jpeg": (
        "accept",
        (
            "transforms",
            "colmap",
            _companion("mask_path", "m.jpg", lambda s: (s / "m.jpg").write_bytes(encoded("L", "JPEG"))),
        ),
    ),
    "mask_cut_jpeg": (
        "refuse",
        (
            *("transforms", "colmap"),
            _companion("mask_path", "m.jpg", lambda s: (s / "m.jpg").write_bytes(cut(encoded("L", "JPEG"), 1, 2))),
        ),
    ),
    "mask_fifo": ("refuse", ("transforms", "colmap", _companion("mask_path", "m.png", _instead("m.png", "fifo")))),
    "mask_devzero": (
        "refuse",
        ("transforms", "colmap", _companion("mask_path", "m.png", _instead("m.png", "devzero"))),
    ),
    "mask_giant": ("refuse", ("transforms", "colmap", _companion("mask_path", "giant.png", _sparse_giant))),
    "depths_colmap": (
        "refuse",
        ("transforms", "colmap", _companion("depth_file_path", "images/image001.png", lambda s: None)),
    ),
    "depths_transforms": (
        "accept",
        ("transforms", "transforms", _companion("depth_file_path", "images/image001.png", lambda s: None)),
    ),
    "fisheye_colmap": ("accept", ("transforms", "colmap", _frames(lambda c: c.update(FISHEYE)))),
    "fisheye_llff": ("refuse", ("transforms", "llff", _frames(lambda c: c.update(FISHEYE)))),
    "distortion_llff": ("refuse", ("transforms", "llff", _frames(lambda c: c.update(k1=0.1)))),
    "split_colmap": (
        "accept",
        ("transforms", "colmap", _frames(lambda c: c.update(test_filenames=[c["frames"][0]["file_path"]]))),
    ),
    "no_split_colmap": ("refuse", ("transforms", "colmap", _frames(lambda c: c.update(test_filenames=[])))),
    "ply_nan": (
        "refuse",
        (
            "transforms",
            "colmap",
            lambda s: (s / "sparse_pc.ply").write_bytes(cut((s / "sparse_pc.ply").read_bytes(), 1, 2)),
        ),
    ),
    "names_equal": (
        "refuse",
        (
            *("transforms", "llff"),
            lambda s: (
                (s / "images" / "a").mkdir(),
                shutil.copy(s / "images/image000.png", s / "images/a/b.png"),
                shutil.copy(s / "images/image000.png", s / "images/a_b.png"),
                _frames(lambda c: [c["frames"][i].update(file_path=f"images/a{x}b.png") for i, x in enumerate("/_")])(
                    s
                ),
            ),
        ),
    ),
    "name_of_a_mask": (
        "refuse",
        (
            *("transforms", "llff"),
            lambda s: (
                (s / "images/image000.png").rename(s / "images/image001_mask.png"),
                _frames(lambda c: c["frames"][0].update(file_path="images/image001_mask.png"))(s),
            ),
        ),
    ),
    "scene_read_only": ("accept", ("colmap", "colmap", lambda s: s.chmod(0o555))),
    "nothing": ("refuse", ("colmap", "colmap", shutil.rmtree)),
    "blender_outside": (
        "refuse",
        (
            *("blender", "colmap"),
            lambda s: (
                shutil.copy(base("blender", "train", "r_0.png"), s.parent / "r_0.png"),
                (s / "transforms_train.json").write_text(
                    (s / "transforms_train.json").read_text().replace("./train/r_0", "../r_0")
                ),
            ),
        ),
    ),
}


@table("convert_scene", CHANGES)
def _(folder: Path, case: tuple[str, str, Edit]) -> Command:
    what, target, edit = case
    scene = copied(what, folder)
    edit(scene)
    lossy = ["--lossy"] if what == "llff" or (target == "llff" and "distortion" not in str(folder)) else []
    return converted(folder, scene, target, *lossy)
