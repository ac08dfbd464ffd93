"""COLMAP models: files cut off, headers that lie, contradictions between files, names that lead elsewhere."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.corpus.damage import cut, encoded, flipped
from tests.corpus.inputs import base, copied, nerf, special_file
from tests.corpus.registry import Command, table

Edit = Callable[[bytes], bytes]
NAN, INF = float("nan"), float("inf")
L = 1 << 63


def _put(at: int, form: str, *numbers: Any) -> Edit:
    """Replace numbers at an offset."""
    return lambda data: data[:at] + struct.pack(f"<{form}", *numbers) + data[at + struct.calcsize(f"<{form}") :]


def _counted(change: int) -> Edit:
    """Change the number of records that the header states."""
    return lambda data: struct.pack("<Q", struct.unpack_from("<Q", data)[0] + change) + data[8:]


def _only(data: bytes) -> Edit:
    return lambda before: data


HALVES: dict[str, Any] = {
    "empty": ("refuse", _only(b"")),
    "4_bytes": ("refuse", _only(bytes(4))),
    "count_only": ("refuse", lambda d: d[:8]),
    "half": ("refuse", lambda d: cut(d, 1, 2)),
    "most": ("refuse", lambda d: cut(d, 19, 20)),
    "count_1e9": ("refuse", _put(0, "Q", 10**9)),
    "count_2e63": ("refuse", _put(0, "Q", L)),
    "count_2e64": ("refuse", _put(0, "Q", 2 * L - 1)),
    "count_more": ("refuse", _counted(1)),
    "count_less": ("refuse", _counted(-1)),
    "zeros_after": ("refuse", lambda d: d + bytes(64)),
    "text": ("refuse", _only(b"# Camera list with one line of data per camera:\n")),
}
# One camera: identifier at 8, model at 12, width and height at 16, fx, fy, cx, cy from 32.
CAMERAS: dict[str, Any] = {
    "count_0": ("refuse", _only(bytes(8))),
    "id_other": ("refuse", _put(8, "I", 77)),
    "model_-1": ("refuse", _put(12, "i", -1)),
    "model_99": ("refuse", _put(12, "i", 99)),
    "model_other": ("refuse", _put(12, "i", 4)),  # of eight parameters
    "model_shorter": ("refuse", _put(12, "i", 0)),
    "width_0": ("refuse", _put(16, "Q", 0)),
    "width_2e63": ("refuse", _put(16, "Q", L)),
    "height_1e9": ("refuse", _put(24, "Q", 10**9)),
    "size_swapped": ("refuse", _put(16, "QQ", 30, 40)),
    "size_twice": ("accept", _put(16, "QQ4d", 80, 60, 100, 100, 40, 30)),
    "width_41": ("accept", _put(16, "Q", 41)),  # within a pixel
    "f_0": ("refuse", _put(32, "d", 0)),
    "f_-1": ("refuse", _put(32, "d", -50)),
    "f_nan": ("refuse", _put(32, "d", NAN)),
    "f_inf": ("refuse", _put(40, "d", INF)),
    "f_1e99": _put(32, "dd", 1e99, 1e99),
    "f_1e-300": _put(32, "dd", 1e-300, 1e-300),
    "cx_nan": ("refuse", _put(48, "d", NAN)),
    "cx_1e9": ("refuse", _put(48, "d", 1e9)),
    "cx_edge": ("accept", _put(48, "d", 40)),
}
# The first image: identifier at 8, quaternion at 12, translation at 44, camera at 68, name from 72: image000.png.
NAME, END = 72, 84
IMAGES: dict[str, Any] = {
    "count_0": ("refuse", _only(bytes(8))),
    "camera_missing": ("refuse", _put(68, "I", 9)),
    "id_twice": ("refuse", _put(8, "I", 2)),
    "id_of_none": ("accept", _put(8, "I", 4_000_000_000)),  # its tracks are left out
    "q_0": ("refuse", _put(12, "4d", 0, 0, 0, 0)),
    "q_nan": ("refuse", _put(12, "d", NAN)),
    "q_inf": ("refuse", _put(12, "d", INF)),
    "q_1e300": ("refuse", _put(12, "d", 1e300)),
    "q_other": _put(12, "4d", 0, 1, 0, 0),
    "t_nan": ("refuse", _put(44, "d", NAN)),
    "t_inf": ("refuse", _put(60, "d", INF)),
    "t_1e30": ("refuse", _put(44, "d", 1e30)),
    "t_1e300": ("refuse", _put(44, "d", 1e300)),
    "name_empty": ("refuse", lambda d: d[:NAME] + d[END:]),
    "name_endless": ("refuse", lambda d: d[:NAME] + b"a" * (1 << 20)),
    "name_5000": ("refuse", lambda d: d[:NAME] + b"a/" * 2500 + d[NAME:]),
    "name_long_part": ("refuse", lambda d: d[:NAME] + b"a" * 300 + d[NAME:]),
    "name_dotdot": ("refuse", lambda d: d[:NAME] + b"../images/" + d[NAME:]),
    "name_absolute": ("refuse", lambda d: d[:NAME] + b"/etc/passwd" + d[END:]),
    "name_devzero": ("refuse", lambda d: d[:NAME] + b"/dev/zero" + d[END:]),
    "name_backslash": ("refuse", lambda d: d[:NAME] + b"..\\" + d[NAME:]),
    "name_drive": ("accept", lambda d: d[:NAME] + b"C:\\" + d[NAME:]),
    "name_newline": ("refuse", lambda d: d[:NAME] + b"a\nerror: all is well" + d[END:]),
    "name_escape": ("refuse", lambda d: d[:NAME] + b"\x1b[2J.png" + d[END:]),
    "name_latin1": ("refuse", lambda d: d[:NAME] + b"\xff.png" + d[END:]),
    "name_of_none": ("refuse", lambda d: d[:NAME] + b"other.png" + d[END:]),
    "name_of_folder": ("refuse", lambda d: d[:NAME] + b"." + d[END:]),
    "name_twice": ("refuse", lambda d: d[:NAME] + b"image001.png" + d[END:]),
    "n_points_1e9": ("refuse", _put(END + 1, "Q", 10**9)),
    "n_points_2e60": ("refuse", _put(END + 1, "Q", 1 << 60)),
    "n_points_2e63": ("refuse", _put(END + 1, "Q", L)),
    "xy_nan": ("accept", _put(END + 9, "dd", NAN, NAN)),  # positions of 2-D points are not read
    "point_of_none": ("accept", _put(END + 25, "q", 10**15)),
    **{f"flip{i}": (lambda d, i=i: flipped(d, i, 4)) for i in range(4)},
}
# The first point: identifier at 8, position at 16, color, error at 43, length of its track at 51.
POINTS: dict[str, Any] = {
    "count_0": ("accept", _only(bytes(8))),
    "id_twice": ("refuse", _put(8, "Q", 2)),
    "id_2e63": ("refuse", _put(8, "Q", L)),
    "x_nan": ("refuse", _put(16, "d", NAN)),
    "x_inf": ("refuse", _put(24, "d", INF)),
    "x_1e300": ("refuse", _put(16, "d", 1e300)),
    "x_1e90": ("accept", _put(16, "d", 1e90)),  # one misplaced point
    "error_nan": ("accept", _put(43, "d", NAN)),
    "track_1e9": ("refuse", _put(51, "Q", 10**9)),
    "track_2e63": ("refuse", _put(51, "Q", L)),
    "track_2e61": ("refuse", _put(51, "Q", 1 << 61)),
    "track_of_none": ("accept", _put(59, "II", 4_000_000_000, 9)),
    **{f"flip{i}": (lambda d, i=i: flipped(d, i, 4)) for i in range(4)},
}


def _model(scene: Path) -> Path:
    return scene / "sparse" / "0"


def _edited(prefix: str, name: str, edits: dict[str, Any]) -> None:
    @table(prefix, edits)
    def _(folder: Path, edit: Edit) -> Command:
        scene = copied("colmap", folder)
        file = _model(scene) / name
        file.write_bytes(edit(file.read_bytes()))
        return nerf(folder, scene)


_edited("colmap_cameras", "cameras.bin", HALVES | CAMERAS)
_edited("colmap_images", "images.bin", HALVES | IMAGES)
_edited("colmap_points", "points3D.bin", HALVES | POINTS)

KINDS = ("fifo", "folder", "devzero", "loop", "dangling", "empty")


def _special(name: str) -> None:
    @table(f"colmap_{name.removesuffix('.bin')}_file", {kind: kind for kind in KINDS}, "refuse")
    def _(folder: Path, kind: str) -> Command:
        scene = copied("colmap", folder)
        (_model(scene) / name).unlink()
        special_file(_model(scene) / name, kind)
        return nerf(folder, scene)


for _name in ("cameras.bin", "images.bin", "points3D.bin"):
    _special(_name)


def _lines(data: bytes, n: int, line: bytes) -> bytes:
    """Replace the n-th line that is no comment."""
    lines = data.split(b"\n")
    at = [i for i, each in enumerate(lines) if not each.startswith(b"#")][n]
    return b"\n".join([*lines[:at], line, *lines[at + 1 :]])


POSE = b"1 1 0 0 0 0 0 0 1 image000.png"
TEXT: dict[str, Any] = {
    "as_written": ("accept", ("cameras", lambda d: d)),
    "crlf": ("accept", ("images", lambda d: d.replace(b"\n", b"\r\n"))),
    "bom": ("accept", ("cameras", lambda d: b"\xef\xbb\xbf" + d)),
    "utf16": ("refuse", ("cameras", lambda d: d.decode().encode("utf-16"))),
    "nul": ("refuse", ("cameras", lambda d: d + bytes(100))),
    "header_only": ("refuse", ("cameras", lambda d: d[: d.rindex(b"#")])),
    "cameras_half": ("refuse", ("cameras", lambda d: d[:-9])),
    "images_half": ("refuse", ("images", lambda d: cut(d, 1, 2))),
    "points_half": ("refuse", ("points3D", lambda d: cut(d, 1, 2))),
    "more_announced": ("refuse", ("images", lambda d: d.replace(b"images: 8", b"images: 1000"))),
    "words_few": ("refuse", ("cameras", lambda d: _lines(d, 0, b"1 PINHOLE 40 30"))),
    "words_many": ("refuse", ("cameras", lambda d: _lines(d, 0, b"1 PINHOLE 40 30 50 50 20 15 0"))),
    "model_text": ("refuse", ("cameras", lambda d: _lines(d, 0, b"1 LENS 40 30 50 50 20 15"))),
    "f_text": ("refuse", ("cameras", lambda d: _lines(d, 0, b"1 PINHOLE 40 30 fifty 50 20 15"))),
    "f_1e999": ("refuse", ("cameras", lambda d: _lines(d, 0, b"1 PINHOLE 40 30 1e999 50 20 15"))),
    "f_digits": ("refuse", ("cameras", lambda d: _lines(d, 0, b"1 PINHOLE 40 30 " + b"9" * 5000 + b" 50 20 15"))),
    "id_digits": ("refuse", ("cameras", lambda d: _lines(d, 0, b"9" * 5000 + b" PINHOLE 40 30 50 50 20 15"))),
    "id_-1": ("refuse", ("cameras", lambda d: _lines(d, 0, b"-1 PINHOLE 40 30 50 50 20 15"))),
    "id_other_digits": ("refuse", ("cameras", lambda d: _lines(d, 0, "١ PINHOLE 40 30 50 50 20 15".encode()))),
    "pose_alone": ("accept", ("images", lambda d: _lines(d, 1, b""))),
    "pose_short": ("refuse", ("images", lambda d: _lines(d, 0, POSE[:15]))),
    "pose_nan": ("refuse", ("images", lambda d: _lines(d, 0, POSE.replace(b"1 1 0", b"1 nan 0")))),
    "pairs": ("refuse", ("images", lambda d: _lines(d, 1, b"1.5 2.5"))),
    "name_dotdot": ("refuse", ("images", lambda d: d.replace(b" image000.png", b" ../../image000.png"))),
    "color_300": ("refuse", ("points3D", lambda d: _lines(d, 0, b"1 0 0 0 300 0 0 0 1 0"))),
    "track_odd": ("refuse", ("points3D", lambda d: _lines(d, 0, b"1 0 0 0 3 0 0 0 1"))),
    "line_50MB": ("refuse", ("points3D", lambda d: b"1 " * (25 << 20))),
    "latin1": ("refuse", ("images", lambda d: d.replace(b"image000", b"im\xe4ge000"))),
}


@table("colmap_text", TEXT)
def _(folder: Path, case: tuple[str, Edit]) -> Command:
    from enerf.datasets.scenes import colmap

    scene = copied("colmap", folder)
    posed = colmap.read(scene)
    shutil.rmtree(_model(scene))
    colmap.write(_model(scene), posed, text=True)
    name, edit = case
    file = _model(scene) / f"{name}.txt"
    file.write_bytes(edit(file.read_bytes()))
    return nerf(folder, scene)


def _second(scene: Path, edit: Edit) -> None:
    """Add a second model, of which a file is changed."""
    shutil.copytree(_model(scene), scene / "sparse" / "1")
    file = scene / "sparse" / "1" / "images.bin"
    file.write_bytes(edit(file.read_bytes()))


def _mask(data: bytes) -> Callable[[Path], Any]:
    def put(scene: Path) -> None:
        (scene / "masks").mkdir()
        (scene / "masks" / "image001.png.png").write_bytes(data)

    return put


def _special_mask(kind: str) -> Callable[[Path], Any]:
    def put(scene: Path) -> None:
        (scene / "masks").mkdir()
        special_file(scene / "masks" / "image001.png.png", kind)

    return put


SCENES: dict[str, Any] = {
    "as_it_is": ("accept", lambda s: None),
    "no_points": ("accept", lambda s: (_model(s) / "points3D.bin").unlink()),
    "no_cameras": ("refuse", lambda s: (_model(s) / "cameras.bin").unlink()),
    "no_images_bin": ("refuse", lambda s: (_model(s) / "images.bin").unlink()),
    "halves": ("refuse", lambda s: (_model(s) / "images.bin").rename(_model(s) / "images.txt")),
    "below_sparse": ("accept", lambda s: [p.rename(s / "sparse" / p.name) for p in _model(s).iterdir()]),
    "below_colmap": ("accept", lambda s: (s / "sparse").rename(s / "colmap")),
    "no_photographs": ("refuse", lambda s: shutil.rmtree(s / "images")),
    "one_photograph_missing": ("refuse", lambda s: (s / "images" / "image003.png").unlink()),
    "one_more_photograph": ("accept", lambda s: shutil.copy(s / "images/image003.png", s / "images/other.png")),
    "photograph_other_shape": (
        "refuse",
        lambda s: (s / "images/image003.png").write_bytes(encoded("L", "PNG", (9, 30))),
    ),
    "second_same": ("accept", lambda s: _second(s, lambda d: d)),
    "second_damaged": ("refuse", lambda s: _second(s, lambda d: d[:100])),
    "second_1e9": ("refuse", lambda s: _second(s, _put(0, "Q", 10**9))),
    "number_of_31_digits": ("accept", lambda s: shutil.copytree(_model(s), s / "sparse" / ("9" * 31))),
    "sparse_is_a_file": ("refuse", lambda s: (shutil.rmtree(s / "sparse"), (s / "sparse").write_text("x"))),
    "mask_other_shape": ("refuse", _mask(encoded("L", "PNG", (30, 40)))),
    "mask_black": ("accept", _mask(b"P5 40 30 255\n" + bytes(1200))),
    "mask_no_image": ("refuse", _mask(b"no image")),
    "mask_fifo": ("refuse", _special_mask("fifo")),
    "mask_devzero": ("refuse", _special_mask("devzero")),
    "mask_dangling": ("accept", _special_mask("dangling")),
    "masks_of_others": ("accept", lambda s: shutil.copytree(base("llff", "images"), s / "masks")),
}


@table("colmap_scene", SCENES)
def _(folder: Path, edit: Callable[[Path], Any]) -> Command:
    scene = copied("colmap", folder)
    edit(scene)
    return nerf(folder, scene)
