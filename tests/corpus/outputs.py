"""Extraction of meshes and rendering of videos from a finished run: numbers, boxes, files to write to."""

import os
from pathlib import Path

from tests.corpus.inputs import copied_run
from tests.corpus.registry import Command, table, values

EXTRACT = {
    "res_1": ["--resolution", "1"],
    "res_0": ("refuse", ["--resolution", "0"]),
    "res_1e6": ("refuse", ["--resolution", "1000000"]),
    "res_1e12": ("refuse", ["--resolution", str(10**12)]),
    "res_2e63": ("refuse", ["--resolution", str(2**63)]),
    "box_inverted": ("refuse", ["--box", "1", "1", "1", "0", "0", "0"]),
    "box_nan": ("refuse", ["--box", "nan", "0", "0", "1", "1", "1"]),
    "box_inf": ("refuse", ["--box", "-inf", "-inf", "-inf", "inf", "inf", "inf"]),
    "box_1e300": ["--box", "-1e300", "-1e300", "-1e300", "1e300", "1e300", "1e300"],
    "box_flat": ("refuse", ["--box", "0", "0", "0", "1", "1", "0"]),
    "box_5": ("refuse", ["--box", "0", "0", "0", "1", "1"]),
    "box_tiny": ["--box", "0", "0", "0", "1e-300", "1e-300", "1e-300"],
    "box_far": ["--box", "1e9", "1e9", "1e9", "2e9", "2e9", "2e9"],
    "level_nan": ("refuse", ["--level", "nan"]),
    "level_inf": ("refuse", ["--level", "inf"]),
    "level_1e308": ("refuse", ["--level", "1e308"]),
    "level_text": ("refuse", ["--level", "abc"]),
    "level_neg": ["--level=-1"],
    "coarsest_1e6": ["--coarsest", "1000000"],
    "coarsest_1": ["--coarsest", "1"],
    "check_1": ["--check", "1"],
    "check_2": ("refuse", ["--check", "2"]),
    "memory_tiny": ("refuse", ["--memory", "1e-9"]),
    "memory_1e300": ["--memory", "1e300"],
    "smooth_1": ["--smooth", "1"],
    "decimate_1": ["--decimate", "1"],
    "largest_-1": ("refuse", ["--largest", "-1"]),
    "crop_1e9": ["--crop", "1000000000"],
    "crop_-1": ["--crop=-1"],
    "frames_0": ["--views", "--frames", "0", "--size", "16"],
    "frames_-1": ("refuse", ["--views", "--frames", "-1"]),
    "size_1e6": ["--views", "--frames", "0", "--size", "1000000"],
    "out_dot": ("refuse", ["--out", "."]),
    "out_xyz": ("refuse", ["--out", "a.xyz"]),
    "out_folder": ("refuse", ["--out", "/tmp"]),
    "out_long": ("refuse", ["--out", "x" * 300 + ".ply"]),
    "out_proc": ("refuse", ["--out", "/proc/x.ply"]),
    "out_devfull": ("refuse", ["--out", "/dev/full.ply"]),
    "out_tilde": ("refuse", ["--out", "~nobodyhere/x.ply"]),
    "device_meta": ("refuse", ["--device", "meta"]),
    "datadir_gone": ("refuse", ["--datadir", "/nonexistent"]),
    "out_badutf8": ["--out", "a\udcff.ply"],
}
MORE_EXTRACT = {
    "res_1.5": ("refuse", ["--resolution", "1.5"]),
    "res_1e3": ("refuse", ["--resolution", "1e3"]),
    "res_-1": ("refuse", ["--resolution=-1"]),
    "memory_nan": ("refuse", ["--memory", "nan"]),
    "memory_inf": ("refuse", ["--memory", "inf"]),
    "coarsest_2e63": ("refuse", ["--coarsest", str(2**63)]),
    "smooth_2e63": ("refuse", ["--smooth", str(2**63)]),
    "decimate_2e63": ("refuse", ["--decimate", str(2**63)]),
    "frames_1e9": ("refuse", ["--views", "--frames", "1000000000"]),
    "size_2e31": ("refuse", ["--views", "--size", str(2**31)]),
    "floaters_2": ("refuse", ["--floaters", "2"]),
    "box_1e400": ("refuse", ["--box", "1e400", "0", "0", "1", "1", "1"]),
    "box_text": ("refuse", ["--box", "a", "0", "0", "1", "1", "1"]),
    "out_fifo": ("refuse", ["--out", "{folder}/fifo"]),
    "out_empty_name": ("refuse", ["--out", ".ply"]),
    "views_file": ("refuse", ["--views", "/dev/null", "--frames", "0", "--size", "16"]),
    "views_long": ("refuse", ["--views", "x" * 300, "--frames", "0"]),
    "datadir_fifo": ("refuse", ["--datadir", "{folder}/fifo"]),
}


@table("extract", EXTRACT | MORE_EXTRACT)
def _(folder: Path, more: list[str]) -> Command:
    run = copied_run(folder)
    os.mkfifo(folder / "fifo")
    given = {word.split("=")[0] for word in more}
    more = more if "--resolution" in given else ["--resolution", "8", *more]
    more = more if "--level" in given else ["--level", "0.001", *more]
    return Command("extract_mesh.py", (run, "--device", "cpu", *more), writes="")


_OF_SHAPES = ("res_1", "res_1e6", "box_inverted", "box_nan", "box_inf", "level_1e308", "crop_1e9", "memory_tiny")


@table("extract_shape", values(EXTRACT, *_OF_SHAPES, "coarsest_1e6"))
def _(folder: Path, more: list[str]) -> Command:
    more = more if "--resolution" in more else ["--resolution", "8", *more]
    return Command("extract_mesh.py", (copied_run(folder, "shape"), "--device", "cpu", *more), writes="")


VIDEO = {
    "frames_0": ("refuse", ["--frames", "0"]),
    "frames_-1": ("refuse", ["--frames", "-1"]),
    "frames_1": ("accept", ["--frames", "1"]),
    "frames_1e10": ["--frames", str(10**10)],
    "frames_1e400": ["--frames", "1" + "0" * 400],
    "fps_0": ("refuse", ["--fps", "0"]),
    "fps_nan": ("refuse", ["--fps", "nan"]),
    "fps_inf": ("refuse", ["--fps", "inf"]),
    "fps_1e-9": ["--fps", "1e-9"],
    "fps_1e300": ["--fps", "1e300"],
    "factor_0": ("refuse", ["--factor", "0"]),
    "factor_nan": ("refuse", ["--factor", "nan"]),
    "factor_inf": ["--factor", "inf"],
    "factor_1e300": ["--factor", "1e300"],
    "out_dot": ("refuse", ["--out", "."]),
    "out_root": ("refuse", ["--out", "/"]),
    "out_folder": ("refuse", ["--out", "/tmp"]),
    "out_empty": ("refuse", ["--out", ""]),
    "out_long": ("refuse", ["--out", "x" * 300 + ".mp4"]),
    "out_dash": ["--out=-x.mp4"],
    "out_percent": ["--out", "a%d b.mp4"],
    "out_colon": ["--out", "pipe:1.mp4"],
    "out_noext": ["--out", "abc"],
    "out_png": ["--out", "abc.png"],
    "path_circle": ["--path", "circle"],
    "path_turntable": ["--path", "turntable"],
    "path_interp": ["--path", "interpolate"],
    "run_missing": ("refuse", []),
    "device_meta": ("refuse", ["--device", "meta"]),
    "out_badutf8": ["--out", "a\udcff.mp4"],
}
MORE_VIDEO = {
    "frames_1.5": ("refuse", ["--frames", "1.5"]),
    "frames_2e63": ("refuse", ["--frames", str(2**63)]),
    "fps_-1": ("refuse", ["--fps=-1"]),
    "fps_text": ("refuse", ["--fps", "fast"]),
    "factor_-1": ("refuse", ["--factor=-1"]),
    "factor_1e5": ("refuse", ["--factor", "100000"]),
    "path_unknown": ("refuse", ["--path", "straight"]),
    "datadir_gone": ("refuse", ["--datadir", "/nonexistent"]),
    "datadir_fifo": ("refuse", ["--datadir", "{folder}/fifo"]),
    "out_dotdot": ("refuse", ["--out", ".."]),
    "out_proc": ("refuse", ["--out", "/proc/x.mp4"]),
    "out_tilde": ("refuse", ["--out", "~nobodyhere/x.mp4"]),
}


@table("video", VIDEO | MORE_VIDEO)
def _(folder: Path, more: list[str]) -> Command:
    run = copied_run(folder) if more else folder / "nosuch"
    os.mkfifo(folder / "fifo")
    frames = [] if any(word.startswith("--frames") for word in more) else ["--frames", "2"]
    return Command("render_video.py", (run, "--device", "cpu", "--factor", "4", *frames, *more), writes="")


RUN_PATHS = {
    "missing": "{folder}/nosuch",
    "file": "/etc/passwd",
    "fifo": "{folder}/fifo",
    "devnull": "/dev/null",
    "empty": "",
    "long": "x" * 300,
    "deep": "a/" * 3000,
    "tilde": "~nobodyhere/x",
    "badutf8": "a\udcffb",
    "no_run": "{folder}",
}
SCRIPTS = {
    "render": "render_video.py",
    "extract": "extract_mesh.py",
    "eval": "eval_nerf.py",
    "analyze": "analyse_conditioning.py",
}


def _run_path(command: str) -> None:
    @table(f"run_{command}", RUN_PATHS, "refuse")
    def _(folder: Path, run: str) -> Command:
        os.mkfifo(folder / "fifo")
        return Command(SCRIPTS[command], (run, "--device", "cpu"), writes="")


for _command in SCRIPTS:
    _run_path(_command)
