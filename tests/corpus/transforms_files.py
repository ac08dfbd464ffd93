"""``transforms.json`` of nerfstudio and instant-ngp: keys of a wrong type or value, and damaged companions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.damage import cut, encoded
from tests.corpus.inputs import copied, nerf, special_file
from tests.corpus.registry import Command, Expect, table

Content = dict[str, Any]
Edit = Callable[[Content], Any]
FILE = "transforms.json"
NAN = float("nan")


def _top(key: str, value: Any) -> Edit:
    return lambda content: content.__setitem__(key, value)


def _own(key: str, value: Any, frame: int = 1) -> Edit:
    return lambda content: content["frames"][frame].__setitem__(key, value)


def _both(*edits: Edit) -> Edit:
    return lambda content: [edit(content) for edit in edits]


def _without(key: str) -> Edit:
    return lambda content: content.pop(key)


# Values that no key of a camera may have; where a key is optional, null is as if it were missing.
WRONG = {"text": "many", "list": [1, 2], "object": {"a": 1}, "true": True, "nan": NAN, "1e999": 10**400}
NUMBERS = ("w", "h", "fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2")
TYPES: dict[str, tuple[Expect, Edit]] = {
    f"{key}_{name}": ("refuse", _top(key, value))
    for i, key in enumerate(NUMBERS)
    for name, value in list(WRONG.items())[i % 2 :: 2]
}
VALUES: dict[str, tuple[Expect, Edit] | Edit] = {
    "as_it_is": ("accept", lambda c: None),
    "nulls": ("accept", lambda c: c.update(dict.fromkeys(("k1", "k2", "p1", "p2", "applied_scale", "mask_path")))),
    "w_0": ("refuse", _top("w", 0)),
    "w_-40": ("refuse", _top("w", -40)),
    "w_40.5": ("refuse", _top("w", 40.5)),
    "w_2e63": ("refuse", _top("w", 2**63)),
    "w_alone": ("refuse", _without("h")),
    "size_missing": ("accept", _both(_without("w"), _without("h"))),
    "size_swapped": ("refuse", lambda c: c.update(w=30, h=40)),
    "size_twice": ("accept", lambda c: c.update(w=80, h=60)),
    "size_of_a_frame": ("refuse", _both(_without("w"), _without("h"), _own("w", 30), _own("h", 40))),
    "fl_x_0": ("refuse", _top("fl_x", 0)),
    "fl_x_-50": ("refuse", _top("fl_x", -50)),
    "fl_x_1e30": ("refuse", _top("fl_x", 1e30)),
    "fl_missing": ("refuse", _both(_without("fl_x"), _without("fl_y"))),
    "fl_y_alone": ("accept", _without("fl_x")),
    "angle_pi": ("refuse", _both(_without("fl_x"), _without("fl_y"), _top("camera_angle_x", 3.15))),
    "angle_alone": ("accept", _both(_without("fl_x"), _without("fl_y"), _top("camera_angle_x", 0.8))),
    "angle_contradicts": ("accept", _top("camera_angle_x", 0.1)),
    "cx_1e9": ("refuse", _top("cx", 1e9)),
    "k1_1e30": ("refuse", _top("k1", 1e30)),
    "k1_1e6": ("accept", _top("k1", 1e6)),
    "k4": ("refuse", _top("k4", 0.1)),
    "k3_-100": ("accept", _top("k3", -100.0)),  # the picture is a circle within the image
    "params_short": ("refuse", _top("distortion_params", [0.1])),
    "params_text": ("refuse", _top("distortion_params", "0 0 0 0 0 0")),
    "params_nan": ("refuse", _top("distortion_params", [NAN] * 6)),
    "params_1e6": ("refuse", _top("distortion_params", [0.0] * 10**6)),
    "model_unknown": ("refuse", _top("camera_model", "LENS")),
    "model_vr180": ("refuse", _top("camera_model", "VR180_L")),
    "model_number": ("refuse", _top("camera_model", 4)),
    "model_list": ("refuse", _top("camera_model", ["OPENCV"])),
    "model_panorama": ("refuse", _top("camera_model", "EQUIRECTANGULAR")),  # focal lengths contradict it
    "fisheye_contradicts": ("refuse", _top("is_fisheye", True)),
    "fisheye_text": ("refuse", _top("is_fisheye", "yes")),
    "ftheta": ("refuse", _top("ftheta_p0", 1.0)),
    "scale_0": ("refuse", _top("applied_scale", 0)),
    "scale_-1": ("refuse", _top("applied_scale", -1)),
    "scale_text": ("refuse", _top("applied_scale", "1")),
    "scale_1e30": ("refuse", _top("applied_scale", 1e30)),
    "transform_text": ("accept", _top("applied_transform", "identity")),  # understood and not used
    "aabb_text": ("accept", _top("aabb_scale", "wide")),
    "unknown_keys": ("accept", lambda c: c.update({f"key{i}\n\x1b": i for i in range(1000)})),
    "frames_missing": ("refuse", _without("frames")),
    "frames_empty": ("refuse", _top("frames", [])),
    "frames_object": ("refuse", _top("frames", {"0": {}})),
    "frames_null": ("refuse", _top("frames", [None] * 8)),
    "frames_nested": ("refuse", lambda c: c.update(frames=[c["frames"]])),
    "one_frame": ("refuse", lambda c: c.update(frames=c["frames"][:1])),
    "frame_twice": ("accept", lambda c: c["frames"].append(c["frames"][0])),
    "frame_contradicts": ("refuse", lambda c: c["frames"].append({**c["frames"][0], **_pose(c, 3)})),
    "frames_1e5": ("any", lambda c: c.update(frames=c["frames"] * 12_500)),
    "path_missing": ("refuse", lambda c: c["frames"][1].pop("file_path")),
    "path_number": ("refuse", _own("file_path", 7)),
    "path_empty": ("refuse", _own("file_path", "")),
    "path_dotdot": ("accept", _own("file_path", "../images/image001.png")),  # by its last parts
    "path_dotdot_missing": ("refuse", _own("file_path", "../images/image999.png")),
    "path_absolute": ("refuse", _own("file_path", "/etc/passwd")),
    "path_devzero": ("refuse", _own("file_path", "/dev/zero")),
    "path_drive": ("accept", _own("file_path", "C:\\images\\image001.png")),
    "path_drive_missing": ("refuse", _own("file_path", "C:\\images\\image999.png")),
    "path_folder": ("accept", _own("file_path", "images")),  # images.png is missing, and left out
    "path_nul": ("refuse", _own("file_path", "a\0b.png")),
    "path_escape": ("refuse", _own("file_path", "\x1b[2J.png")),
    "path_surrogate": ("refuse", _own("file_path", "\ud800.png")),
    "path_5000": ("any", _own("file_path", "a" * 5000)),
    "path_no_suffix": ("accept", _own("file_path", "./images/image001")),
    "path_backslash": ("accept", _own("file_path", "images\\image001.png")),
    "one_image_missing": ("accept", _own("file_path", "images/nowhere.png")),  # left out with a warning
    "all_images_missing": ("refuse", lambda c: [f.update(file_path=f"x{i}.png") for i, f in enumerate(c["frames"])]),
    "matrix_missing": ("refuse", lambda c: c["frames"][1].pop("transform_matrix")),
    "matrix_text": ("refuse", _own("transform_matrix", "identity")),
    "matrix_3x3": ("refuse", _own("transform_matrix", np.eye(3).tolist())),
    "matrix_nan": ("refuse", _own("transform_matrix", (NAN * np.eye(4)).tolist())),
    "matrix_0": ("refuse", _own("transform_matrix", (0 * np.eye(4)).tolist())),
    "matrix_mirror": ("refuse", _own("transform_matrix", np.diag([1.0, 1, -1, 1]).tolist())),
    "matrix_1e40": ("refuse", _own("transform_matrix", [[1, 0, 0, 1e40], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    "matrix_far": ("refuse", _own("transform_matrix", [[1, 0, 0, 1e20], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    "matrix_bools": ("refuse", _own("transform_matrix", [[True] * 4] * 4)),
    "matrices_same": ("refuse", lambda c: [f.update(_pose(c, 0)) for f in c["frames"]]),
    "train_text": ("refuse", _top("train_filenames", "images/image000.png")),
    "train_numbers": ("refuse", _top("train_filenames", [0, 1])),
    "train_nested": ("refuse", _top("train_filenames", [["images/image000.png"]])),
    "train_none": ("refuse", _top("train_filenames", [])),
    "train_unknown": ("refuse", _top("train_filenames", ["images/other.png"])),
    "train_dotdot": ("refuse", _top("train_filenames", ["../../etc/passwd"])),
    "train_and_test": ("refuse", lambda c: c.update(train_filenames=_names(c), test_filenames=_names(c)[:2])),
    "test_all": ("refuse", lambda c: c.update(test_filenames=_names(c))),
    "test_two": ("accept", lambda c: c.update(test_filenames=_names(c)[:2])),
    "test_unknown": ("any", _top("test_filenames", ["images/other.png"])),
    "test_twice": ("accept", lambda c: c.update(test_filenames=_names(c)[:1] * 3)),
    "val_and_test": ("accept", lambda c: c.update(test_filenames=_names(c)[:2], val_filenames=_names(c)[1:3])),
    "train_one": ("any", lambda c: c.update(train_filenames=_names(c)[:1], test_filenames=_names(c)[1:])),
    "test_null": ("accept", _top("test_filenames", None)),
    "ply_number": ("refuse", _top("ply_file_path", 3)),
    "ply_dotdot": ("accept", _top("ply_file_path", "../sparse_pc.ply")),
    "ply_dotdot_missing": ("refuse", _top("ply_file_path", "../other.ply")),
    "ply_absolute": ("refuse", _top("ply_file_path", "/dev/zero")),
    "ply_folder": ("refuse", _top("ply_file_path", "images")),
    "ply_image": ("refuse", _top("ply_file_path", "images/image000.png")),
    "ply_nowhere": ("accept", _top("ply_file_path", "nowhere.ply")),
    "mask_number": ("refuse", _own("mask_path", 3)),
    "mask_dotdot": ("refuse", _own("mask_path", "../mask.png")),
    "mask_folder": ("refuse", _own("mask_path", "images")),
    "mask_json": ("refuse", _own("mask_path", FILE)),
    "mask_nowhere": ("accept", _own("mask_path", "nowhere.png")),
    "mask_photograph": ("accept", _own("mask_path", "images/image002.png")),
    "depth_number": ("refuse", _own("depth_file_path", 3)),
    "depth_dotdot": ("refuse", _own("depth_file_path", "../depth.png")),
    "depth_folder": ("refuse", _own("depth_file_path", "images")),
    "depth_nowhere": ("accept", _own("depth_file_path", "nowhere.png")),
    "depth_unit_text": ("refuse", _both(_top("integer_depth_scale", "mm"), _own("depth_path", "images/image000.png"))),
}


def _names(content: Content) -> list[str]:
    return [frame["file_path"] for frame in content["frames"]]


def _pose(content: Content, index: int) -> Content:
    return {"transform_matrix": content["frames"][index]["transform_matrix"]}


@table("transforms", TYPES | VALUES)
def _(folder: Path, edit: Edit) -> Command:
    scene = copied("transforms", folder)
    content = json.loads((scene / FILE).read_text())
    edit(content)
    text = json.dumps(content)
    (scene / FILE).write_text(text, encoding="utf-8", errors="surrogatepass")
    return nerf(folder, scene)


RAW: dict[str, Any] = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "half": lambda d: cut(d, 1, 2),
    "zeros_after": lambda d: d + bytes(100),
    "deep": b"[" * 200_000,
    "deep_inside": lambda d: d.replace(b'"frames": [', b'"frames": [' + b"[" * 100_000, 1),
    "utf16": lambda d: d.decode().encode("utf-16"),
    "latin1": lambda d: d.replace(b"image001", b"im\xe4ge001"),
    "digits_5000": lambda d: d.replace(b'"w": 40', b'"w": ' + b"4" * 5000),
    "nested_1e6": b'{"frames": ' + b"[[]," * 10**6 + b"[]" + b"]" * 10**6 + b"}",
}


@table("transforms_raw", RAW, "refuse")
def _(folder: Path, raw: bytes | Callable[[bytes], bytes]) -> Command:
    scene = copied("transforms", folder)
    file = scene / FILE
    file.write_bytes(raw(file.read_bytes()) if callable(raw) else raw)
    return nerf(folder, scene)


def _filled(key: str, name: str, data: bytes, expect: Expect = "refuse") -> tuple[Expect, tuple[str, str, bytes]]:
    return expect, (key, name, data)


HEAD = b"ply\nformat binary_little_endian 1.0\nelement vertex %d\n"
XYZ = b"property double x\nproperty double y\nproperty double z\nend_header\n"
FILES = {
    "mask_shape": _filled("mask_path", "m.png", encoded("L", "PNG", (30, 40))),
    "mask_twice": _filled("mask_path", "m.png", encoded("L", "PNG", (80, 60)), "any"),
    "mask_rgb": _filled("mask_path", "m.png", encoded("RGB", "PNG"), "accept"),
    "mask_jpeg": _filled("mask_path", "m.jpg", encoded("L", "JPEG"), "accept"),
    "mask_empty": _filled("mask_path", "m.png", b""),
    "mask_cut": _filled("mask_path", "m.png", encoded("L", "PNG")[:-40]),
    "depth_empty": _filled("depth_file_path", "d.png", b"", "accept"),  # not read in a training without depths
    "ply_empty": _filled("ply_file_path", "p.ply", b""),
    "ply_1e9": _filled("ply_file_path", "p.ply", HEAD % 10**9 + XYZ + bytes(240)),
    "ply_2e63": _filled("ply_file_path", "p.ply", HEAD % 2**63 + XYZ + bytes(240)),
    "ply_cut": _filled("ply_file_path", "p.ply", HEAD % 10 + XYZ + bytes(100)),
    "ply_nan": _filled("ply_file_path", "p.ply", HEAD % 2 + XYZ + np.full(6, NAN).tobytes()),
    "ply_1e308": _filled("ply_file_path", "p.ply", HEAD % 2 + XYZ + np.full(6, 1e308).tobytes()),
    "ply_behind": _filled("ply_file_path", "p.ply", HEAD % 2 + XYZ + np.full(6, 1e4).tobytes(), "any"),
    "ply_no_xyz": _filled("ply_file_path", "p.ply", HEAD % 2 + b"property double a\nend_header\n" + bytes(16)),
    "ply_no_vertex": _filled("ply_file_path", "p.ply", HEAD % 0 + XYZ),
    "ply_lists": _filled(
        "ply_file_path", "p.ply", HEAD % 1 + b"property list uint double x\nend_header\n" + b"\xff" * 40
    ),
}


@table("transforms_files", FILES)
def _(folder: Path, case: tuple[str, str, bytes]) -> Command:
    scene = copied("transforms", folder)
    key, name, data = case
    (scene / name).write_bytes(data)
    _name(scene, key, name)
    return nerf(folder, scene)


def _name(scene: Path, key: str, name: str) -> None:
    """Let the file, or its second frame, name a file."""
    content = json.loads((scene / FILE).read_text())
    (content if key == "ply_file_path" else content["frames"][1])[key] = name
    (scene / FILE).write_text(json.dumps(content))


SPECIAL: dict[str, tuple[Expect, tuple[str, str]]] = {
    f"{key.split('_')[0]}_{kind}": ("accept" if kind == "dangling" else "refuse", (key, kind))
    for key in ("mask_path", "depth_file_path", "ply_file_path")
    for kind in ("fifo", "devzero", "folder", "dangling")
}
SPECIAL |= {f"file_{kind}": ("refuse", ("", kind)) for kind in ("fifo", "devzero", "folder", "loop", "dangling")}


@table("transforms_special", SPECIAL)
def _(folder: Path, case: tuple[str, str]) -> Command:
    scene = copied("transforms", folder)
    key, kind = case
    if key:
        _name(scene, key, "special.png")
        special_file(scene / "special.png", kind)
    else:
        (scene / FILE).unlink()
        special_file(scene / FILE, kind)
    return nerf(folder, scene, "--dataset_type", "transforms")


def _instant_ngp(content: Content) -> None:
    """Make the keys those of instant-ngp."""
    content.pop("camera_model", None)
    content.pop("ply_file_path", None)
    content["aabb_scale"] = 16


def _rename(content: Content, key: str, to: str) -> None:
    content[to] = content.pop(key)


INSTANT_NGP: dict[str, Any] = {
    "as_it_is": ("accept", lambda c: None),
    "x_fov_0": ("refuse", _top("x_fov", 0)),
    "x_fov_181": ("refuse", _top("x_fov", 181)),
    "x_fov_text": ("refuse", _top("x_fov", "50")),
    "frame_precedes": ("accept", _own("fl_x", 60.0)),
    "frame_nan": ("refuse", _own("fl_x", NAN)),
    "start_alone": (
        "accept",
        lambda c: c["frames"][1].update(transform_matrix_start=c["frames"][1].pop("transform_matrix")),
    ),
    "start_text": ("refuse", _own("transform_matrix", None)),
    "sharpness_text": ("accept", _own("sharpness", "blurred")),
    "depth_scale_-1": ("accept", _both(_top("integer_depth_scale", -1.0), _own("depth_path", "nowhere.png"))),
    "depth_scale_nan": ("refuse", _both(_top("integer_depth_scale", NAN), _own("depth_path", "nowhere.png"))),
}


@table("transforms_ngp", INSTANT_NGP)
def _(folder: Path, edit: Edit) -> Command:
    scene = copied("transforms", folder)
    content = json.loads((scene / FILE).read_text())
    _instant_ngp(content)
    edit(content)
    (scene / FILE).write_text(json.dumps(content))
    return nerf(folder, scene)


@table("transforms_images", {"none_left": ("refuse", 0), "one_left": ("refuse", 1), "two_left": ("any", 2)})
def _(folder: Path, left: int) -> Command:
    scene = copied("transforms", folder)
    for path in sorted((scene / "images").iterdir())[left:]:
        path.unlink()
    if not left:
        shutil.rmtree(scene / "images")
    return nerf(folder, scene)
