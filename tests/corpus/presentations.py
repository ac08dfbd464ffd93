"""What is made of finished runs to look at: baked planes, pages, reports, points, the viewer's options."""

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.damage import cut, flipped, zeroed, zipped
from tests.corpus.inputs import base, copied, copied_run, special_file
from tests.corpus.registry import Command, table, values
from tests.corpus.runs import MORE_RUNS, RUNS

CPU = ("--device", "cpu")
PLACES = {
    "out_dot": ("refuse", ["--out", "."]),
    "out_root": ("refuse", ["--out", "/"]),
    "out_proc": ("refuse", ["--out", "/proc/x"]),
    "out_tilde": ("refuse", ["--out", "~nobodyhere/x"]),
    "out_long": ("refuse", ["--out", "x" * 300]),
    "out_fifo": ("refuse", ["--out", "{folder}/fifo"]),
    "out_run": ("refuse", ["--out", "{folder}/run"]),
    "out_file": ("refuse", ["--out", "{folder}/file"]),
    "datadir_gone": ("refuse", ["--datadir", "/nonexistent"]),
}


def _words(folder: Path, more: list[str]) -> list[str]:
    os.mkfifo(folder / "fifo")
    (folder / "file").write_text("kept")
    return [word.replace("{folder}", str(folder)) for word in more]


BAKE = {
    "planes_1": ("accept", ["--planes", "1", "--seconds", "0"]),
    "planes_-1": ("refuse", ["--planes=-1"]),
    "planes_2e63": ("refuse", ["--planes", str(2**63), "--seconds", "0"]),
    "seconds_nan": ("refuse", ["--seconds", "nan"]),
    "seconds_-1": ("refuse", ["--seconds=-1"]),
    "seconds_inf": ("refuse", ["--seconds", "inf"]),
    "seconds_1e-9": ("accept", ["--planes", "4", "--seconds", "1e-9"]),
    "again_0": ["--planes", "4", "--seconds", "0", "--again", "False"],
    "datadir_gone": ("refuse", ["--datadir", "/nonexistent"]),
    "device_meta": ("refuse", ["--device", "meta"]),
}


@table("bake", BAKE)
def _(folder: Path, more: list[str]) -> Command:
    device = () if "--device" in more else CPU
    return Command("bake_planes.py", (copied_run(folder), *device, *more), writes="")


def _array(**arrays: Any) -> bytes:
    path = base("planes_of_arrays.npz")
    np.savez(path, **arrays)
    return path.read_bytes()


def _bytes_of_planes() -> bytes:
    """The file of a stack of two planes."""
    import torch

    from enerf.core.types import Camera
    from enerf.rendering.planes import storage
    from enerf.rendering.planes.stack import PlaneStack

    path = base("planes_good.npz")
    if not path.exists():
        tiles = torch.full((2, 32, 32, 4), 128, dtype=torch.uint8)
        index = torch.tensor([[[0]], [[1]]], dtype=torch.int32)
        grid, pose = Camera(32, 32, 32.0, 32.0, 16.0, 16.0), torch.eye(3, 4, dtype=torch.float64)
        storage.save(PlaneStack(pose, grid, torch.tensor([0.2, 0.8]), tiles, index), path)
    return path.read_bytes()


# Planes in a run's folder are a cache: those that are damaged, or of another checkpoint, are made again.
STORED = {
    "other": _bytes_of_planes,
    "empty": lambda: b"",
    "text": lambda: b"hello\n",
    "zip_other": lambda: zipped({"a.txt": b"x"}),
    "zip_bomb": lambda: zipped({"tiles.npy": bytes(1 << 28)}, compression=8),
    "npy_header": lambda: zipped({"tiles.npy": b"\x93NUMPY\1\0" + struct.pack("<H", 65535)}),
    "pickled": lambda: _array(tiles=np.array([{"a": 1}], dtype=object)),
    "tiles_float": lambda: _array(tiles=np.zeros((1, 32, 32, 4))),
    "cut_half": lambda: cut(_bytes_of_planes(), 5, 10),
    "flipped": lambda: flipped(_bytes_of_planes(), 1, 1),
    "zeroed": lambda: zeroed(_bytes_of_planes(), 1),
}


@table(
    "planes_file",
    {f"{name}_{file}": (file, make) for name, make in STORED.items() for file in ("", "_tuned")},
    "accept",
)
def _(folder: Path, chosen: tuple[str, Callable[[], bytes]]) -> Command:
    run, (file, make) = copied_run(folder), chosen
    (run / f"{file}.npz").write_bytes(make())
    words = (run, *CPU, "--fast", "--frames", "1", "--out", folder / "v.mp4")
    return Command("render_video.py", words, changes_inputs=True, writes="")


@table("planes_place", {kind: kind for kind in ("fifo", "folder", "loop", "devzero", "dangling")})
def _(folder: Path, kind: str) -> Command:
    run = copied_run(folder)
    special_file(run / "planes.npz", kind)
    words = (run, *CPU, "--fast", "--frames", "1", "--out", folder / "v.mp4")
    return Command("render_video.py", words, changes_inputs=True, writes="")


WEB = {
    "seconds_0": ["--seconds", "0", "--layers", "100"],
    "layers_0": ("refuse", ["--layers", "0"]),
    "layers_nan": ("refuse", ["--layers", "nan"]),
    "quality_-1": ("refuse", ["--quality=-1"]),
    "quality_101": ("refuse", ["--quality", "101"]),
    "title_script": ["--seconds", "0", "--title", "</script><script>alert(1)</script>"],
    "title_badutf8": ["--seconds", "0", "--title", "a\udcff"],
    "single_folder": ("refuse", ["--single", "--out", "/tmp"]),
    "single_noext": ["--single", "--seconds", "0", "--out", "{folder}/page"],
    "original_gone": ("refuse", ["--seconds", "0", "--original", "/nonexistent"]),
    "up_x": ("refuse", ["--up", "x"]),
}


@table("web", WEB | PLACES)
def _(folder: Path, more: list[str]) -> Command:
    return Command("export_web.py", (copied_run(folder), *CPU, *_words(folder, more)), writes="")


@table("web_shape", values(WEB, "title_script", "original_gone") | {"faces_3": ("refuse", ["--faces", "3"])})
def _(folder: Path, more: list[str]) -> Command:
    words = (copied_run(folder, "shape"), *CPU, "--resolution", "8", *more)
    return Command("export_web.py", words, writes="")


MESHES = {
    "good": ("accept", lambda path: shutil.copy(base("mesh", "m.ply"), path)),
    "empty": ("refuse", lambda path: path.write_bytes(b"")),
    "cut": ("refuse", lambda path: path.write_bytes(base("mesh", "m.ply").read_bytes()[:500])),
    "cloud": ("refuse", lambda path: shutil.copy(base("mesh", "cloud.ply"), path)),
    "binary": ("refuse", lambda path: path.write_bytes(os.urandom(999))),
    "fifo": ("refuse", os.mkfifo),
    "folder": ("refuse", lambda path: path.mkdir()),
}


@table("web_mesh", MESHES)
def _(folder: Path, make: Callable[[Path], Any]) -> Command:
    make(folder / "a.ply")
    return Command("export_web.py", (folder / "a.ply", "--out", folder / "out"))


@table("web_kind", {"class": "class"}, "refuse")
def _(folder: Path, kind: str) -> Command:
    return Command("export_web.py", (copied_run(folder, kind),), writes="")


REPORT = {
    "good": ("accept", []),
    "datadir_gone": ("accept", ["--datadir", "/nonexistent"]),  # without photographs, which it says
    "views_0": ("accept", ["--views", "0"]),
    "views_-1": ("refuse", ["--views=-1"]),
    "width_0": ("refuse", ["--width", "0"]),
    "video_nan": ("refuse", ["--video_mb", "nan"]),
    "title_script": ("accept", ["--title", "</title><script>alert(1)</script>"]),
    "title_template": ("accept", ["--title", "{{ 7 * 7 }}{% raw %}"]),
    "page_gone": ("refuse", ["--page", "/nonexistent.html"]),
    "page_fifo": ("refuse", ["--page", "{folder}/fifo"]),
    "page_text": ["--page", "{folder}/file"],
}


@table("report", REPORT | {name: entry for name, entry in PLACES.items() if name not in ("out_file", "datadir_gone")})
def _(folder: Path, more: list[str]) -> Command:
    more = _words(folder, more)
    out = () if "--out" in more else ("--out", folder / "r.html")
    return Command("report.py", (copied_run(folder), *out, *more), writes="")


@table("report_kind", {"shape": "shape", "class": "class"}, "accept")
def _(folder: Path, kind: str) -> Command:
    return Command("report.py", (copied_run(folder, kind), "--out", folder / "r.html"), writes="")


@table("report_run", RUNS | MORE_RUNS)
def _(folder: Path, edit: Callable[[Path], Any]) -> Command:
    run = copied_run(folder)
    edit(run)
    return Command("report.py", (run, "--out", folder / "r.html"), writes="")


@table("report_place", {kind: kind for kind in ("fifo", "empty", "missing", "loop")}, "refuse")
def _(folder: Path, kind: str) -> Command:
    special_file(folder / "run", kind)
    return Command("report.py", (folder / "run", "--out", folder / "r.html"), writes="")


POINTS = {
    "good": ("any", []),
    "points_0": ("refuse", ["--points", "0"]),
    "points_1": ["--points", "1"],
    "points_2e63": ("refuse", ["--points", str(2**63)]),
    "opacity_0": ["--opacity", "0"],
    "opacity_nan": ("refuse", ["--opacity", "nan"]),
    "opacity_2": ("refuse", ["--opacity", "2"]),
    "frames_0": ("refuse", ["--frames", "0"]),
    "frames_2e63": ("refuse", ["--frames", str(2**63)]),
    "path_unknown": ("refuse", ["--path", "straight"]),
    "link": ["--link", "--opacity", "0"],
}


@table("points", POINTS | PLACES)
def _(folder: Path, more: list[str]) -> Command:
    more = _words(folder, more)
    out = () if "--out" in more else ("--out", folder / "out")
    return Command("export_points.py", (copied_run(folder), *CPU, *out, *more), writes="")


VIEW = {
    "port_65536": ["--port", "65536"],
    "port_-1": ["--port=-1"],
    "port_text": ["--port", "http"],
    "host_text": ["--host", "not an address"],
    "host_unknown": ["--host", "198.51.100.1"],
    "size_-1": ["--size=-1"],
    "size_1e9": ["--size", str(10**9)],
    "datadir_gone": ["--datadir", "/nonexistent"],
    "third": ["{folder}/run", "{folder}/run"],
    "other": ["/nonexistent"],
}


@table("view", VIEW, "refuse")
def _(folder: Path, more: list[str]) -> Command:
    more = _words(folder, more)
    return Command("view.py", (copied_run(folder), *CPU, *more), writes="")


@table("view_kind", {"class": "class"}, "refuse")
def _(folder: Path, kind: str) -> Command:
    return Command("view.py", (copied_run(folder, kind), *CPU), writes="")


@table("bake_kind", {"shape": "logs/shape", "class": "logs/class", "scene": "llff"}, "refuse")
def _(folder: Path, what: str) -> Command:
    return Command("bake_planes.py", (copied(what, folder),))
