"""``transforms_*.json`` of Blender scenes: damaged JSON, absurd numbers, paths that lead elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.inputs import base, blender, copied, special_file
from tests.corpus.registry import Command, table

Edit = Callable[[dict[str, Any]], str]
TRAIN = "transforms_train.json"
I4 = np.eye(4).tolist()


def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(base("blender", TRAIN).read_text())
    return content


def _frame(name: str, value: Any) -> Edit:
    def edit(content: dict[str, Any]) -> str:
        content["frames"][1][name] = value
        return json.dumps(content)

    return edit


def _matrix(value: Any) -> Edit:
    return _frame("transform_matrix", value)


def _path(value: Any) -> Edit:
    return _frame("file_path", value)


def _key(name: str, value: Any) -> Edit:
    return lambda content: json.dumps({**content, name: value})


JSON = {
    "empty": ("refuse", lambda c: ""),
    "null": ("refuse", lambda c: "null"),
    "list": ("refuse", lambda c: "[]"),
    "number": ("refuse", lambda c: "1"),
    "no_frames": ("refuse", lambda c: json.dumps({"camera_angle_x": 1.0})),
    "frames_empty": ("refuse", _key("frames", [])),
    "frames_dict": ("refuse", _key("frames", {"a": 1})),
    "frames_null": ("refuse", _key("frames", [None])),
    "frames_nested": ("refuse", _key("frames", [[]])),
    "deep_1e5": ("refuse", lambda c: "[" * 100000 + "]" * 100000),
    "deep_dict": ("refuse", lambda c: '{"a":' * 50000 + "1" + "}" * 50000),
    "deep_frames": ("refuse", _key("frames", "X")),
    "spaces_100MB": lambda c: json.dumps(c) + " " * (100 << 20),
    "spaces_before": lambda c: " " * (100 << 20) + json.dumps(c),
    "bom": lambda c: "\ufeff" + json.dumps(c),
    "nan_token": ("refuse", lambda c: json.dumps(c).replace("0.69", "NaN")),
    "inf_token": ("refuse", lambda c: json.dumps(c).replace("0.69", "1e999")),
    "digits_5000": ("refuse", lambda c: json.dumps(c).replace("0.69", "9" * 5000)),
    "digits_400": ("refuse", lambda c: json.dumps(c).replace("0.69", "9" * 400)),
    "angle_true": ("refuse", _key("camera_angle_x", True)),
    "angle_0": ("refuse", _key("camera_angle_x", 0)),
    "angle_pi": ("refuse", _key("camera_angle_x", 3.15)),
    "angle_string": ("refuse", _key("camera_angle_x", "0.69")),
    "angle_denormal": _key("camera_angle_x", 5e-324),
    "angle_1e-20": _key("camera_angle_x", 1e-20),
    "angle_almost_pi": _key("camera_angle_x", 3.14159265358979),
    "m_nan": ("refuse", _matrix([[float("nan")] * 4] * 4)),
    "m_inf": ("refuse", _matrix([[float("inf")] * 4] * 4)),
    "m_string": ("refuse", _matrix("abc")),
    "m_strings": _matrix([[str(x) for x in r] for r in I4]),
    "m_null": ("refuse", _matrix(None)),
    "m_ragged": ("refuse", _matrix([[1], [2, 3]])),
    "m_dict": ("refuse", _matrix({"a": 1})),
    "m_bigint": ("refuse", _matrix([[10**400, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    "m_1e308": ("any", _matrix((1e308 * np.eye(4)).tolist())),
    "m_zero": ("refuse", _matrix((0 * np.eye(4)).tolist())),
    "m_mirror": ("refuse", _matrix(np.diag([1, 1, -1, 1]).tolist())),
    "m_5x5": ("refuse", _matrix(np.eye(5).tolist())),
    "m_bool": _matrix(
        [[True, False, False, False], [False, True, False, False], [False, False, True, False], [False] * 3 + [True]]
    ),
    "m_complex_text": ("refuse", _matrix([["1j"] * 4] * 4)),
    "m_deep": (
        "refuse",
        lambda c: json.dumps(c).replace('"transform_matrix": [[', '"transform_matrix": ' + "[" * 500 + "[[", 1),
    ),
    "m_t_1e30": _matrix([[1, 0, 0, 1e30], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]),
    "m_t_1e300": _matrix([[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]),
    "p_dotdot": ("any", _path("../../../../../../etc/hostname")),
    "p_absolute": ("any", _path("/etc/passwd")),
    "p_nul": ("refuse", _path("a\0b")),
    "p_surrogate": ("refuse", _path("\ud800")),
    "p_long": ("refuse", _path("a" * 5000)),
    "p_deep": ("refuse", _path("a/" * 3000)),
    "p_empty": ("refuse", _path("")),
    "p_dot": ("refuse", _path(".")),
    "p_slash": ("refuse", _path("/")),
    "p_number": ("refuse", _path(7)),
    "p_devzero": ("refuse", _path("/dev/zero")),
    "p_folder": ("refuse", _path("./train")),
    "p_newline": ("refuse", _path("a\nerror: all is well")),
    "p_escape": ("refuse", _path("\x1b[2J\x1b]0;pwned\x07")),
    "p_tilde": ("refuse", _path("~nobodyhere/x")),
    "frames_1e5": lambda c: json.dumps({"camera_angle_x": 0.69, "frames": c["frames"][:1] * 3000}),
}
MORE_JSON = {
    "bom_twice": lambda c: "\ufeff\ufeff" + json.dumps(c),
    "trailing_comma": ("refuse", lambda c: json.dumps(c)[:-1] + ",}"),
    "comments": ("refuse", lambda c: "// made by hand\n" + json.dumps(c)),
    "two_documents": ("refuse", lambda c: json.dumps(c) * 2),
    "duplicate_key": lambda c: json.dumps(c)[:-1] + ', "camera_angle_x": 0.7}',
    "angle_missing": ("refuse", lambda c: json.dumps({"frames": c["frames"]})),
    "path_missing": ("refuse", lambda c: json.dumps({**c, "frames": [{"transform_matrix": I4}]})),
    "matrix_missing": ("refuse", lambda c: json.dumps({**c, "frames": [{"file_path": "./train/r_0"}]})),
    "m_3x4": _matrix(I4[:3]),
    "m_last_row": _matrix([*I4[:3], [1, 1, 1, 1]]),
    "m_empty": ("refuse", _matrix([])),
    "m_1e400_text": ("refuse", lambda c: json.dumps(c).replace("[[", "[[1e400, ", 1)),
    "p_with_suffix": ("accept", _path("./train/r_1.png")),
    "p_upper": ("refuse", _path("./TRAIN/R_1")),
    "p_backslash": _path(".\\train\\r_1"),
    "p_none": ("refuse", _path(None)),
    "p_list": ("refuse", _path(["./train/r_1"])),
    "p_percent": ("refuse", _path("./train/%s%n")),
    "p_space": ("refuse", _path(" ./train/r_1 ")),
    "far_away": _matrix([[1, 0, 0, 40], [0, 1, 0, 0], [0, 0, 1, 40], [0, 0, 0, 1]]),
}


@table("json", JSON | MORE_JSON)
def _(folder: Path, edit: Edit) -> Command:
    scene = copied("blender", folder)
    (scene / TRAIN).write_text(edit(_content()), encoding="utf-8", errors="surrogatepass")
    return blender(folder, scene)


RAW = {
    "binary": bytes(range(256)) * 4,
    "utf16": json.dumps({}).encode("utf-16"),
    "latin1": b'{"camera_angle_x": 0.69, "x": "\xff"}',
    "utf32": json.dumps({}).encode("utf-32"),
    "gzip": b"\x1f\x8b\x08" + bytes(60),
    "nul": bytes(1000),
    "truncated_utf8": b'{"x": "\xe6\x97',
}


@table("json_raw", RAW, "refuse")
def _(folder: Path, raw: bytes) -> Command:
    scene = copied("blender", folder)
    (scene / TRAIN).write_bytes(raw)
    return blender(folder, scene)


PLACES = {"json_file": TRAIN, "json_test_file": "transforms_test.json", "json_image": "train/r_1.png"}
PLACES |= {"json_first_image": "train/r_0.png", "json_test_image": "test/r_0.png"}
KINDS = ("fifo", "folder", "devzero", "loop", "dangling", "missing", "empty")


def _special(place: str) -> None:
    @table(place, {kind: kind for kind in KINDS}, "refuse")
    def _(folder: Path, kind: str) -> Command:
        scene = copied("blender", folder)
        (scene / PLACES[place]).unlink()
        special_file(scene / PLACES[place], kind)
        return blender(folder, scene)


for _place in PLACES:
    _special(_place)
