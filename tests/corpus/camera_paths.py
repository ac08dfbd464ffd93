"""Camera paths for videos: damaged JSON, absurd numbers, files that are none."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.corpus.inputs import copied_run
from tests.corpus.registry import Command, table

I4 = [1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
CAMERA = {"camera_to_world": I4, "fov": 50, "aspect": 1.5}
PATH = {"render_width": 12, "render_height": 8, "fps": 10, "seconds": 0.2, "keyframes": [], "camera_path": [CAMERA]}


def _with(**values: Any) -> str:
    return json.dumps({**PATH, **values})


def _camera(**values: Any) -> str:
    return _with(camera_path=[{**CAMERA, **values}])


FILES = {
    "good": ("accept", _with()),
    "behind": ("accept", _camera(camera_to_world=[-1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1])),
    "far": ("accept", _camera(camera_to_world=[*I4[:11], 1e9, *I4[12:]])),
    "beyond": ("accept", _camera(camera_to_world=[*I4[:11], -1e9, *I4[12:]])),
    "keyframes_only": ("accept", _with(camera_path=[], keyframes=[{"matrix": I4, "fov": 50}])),
    "keyframe_text": ("accept", _with(keyframes=[{"matrix": json.dumps(I4), "fov": 50}])),
    "keyframe_text_deep": ("refuse", _with(keyframes=[{"matrix": "[" * 100_000, "fov": 50}])),
    "keyframe_text_number": ("refuse", _with(keyframes=[{"matrix": "1", "fov": 50}])),
    "empty": ("refuse", ""),
    "null": ("refuse", "null"),
    "list": ("refuse", "[]"),
    "deep": ("refuse", "[" * 100_000),
    "no_cameras": ("refuse", _with(camera_path=[])),
    "cameras_text": ("refuse", _with(camera_path="abc")),
    "camera_null": ("refuse", _with(camera_path=[None])),
    "matrix_text": ("refuse", _camera(camera_to_world="abc")),
    "matrix_short": ("refuse", _camera(camera_to_world=[1.0])),
    "matrix_nested": ("refuse", _camera(camera_to_world=[[[1.0]]])),
    "matrix_zero": ("refuse", _camera(camera_to_world=[0.0] * 16)),
    "matrix_1e300": ("refuse", _camera(camera_to_world=[*I4[:11], 1e300, *I4[12:]])),
    "matrix_nan": ("refuse", _camera(camera_to_world=[*I4[:11], float("nan"), *I4[12:]])),
    "fov_0": ("refuse", _camera(fov=0)),
    "fov_nan": ("refuse", _camera(fov=float("nan"))),
    "fov_1e400": ("refuse", _with().replace('"fov": 50', '"fov": 1e400')),
    "width_1e9": ("refuse", _with(render_width=10**9)),
    "area": ("refuse", _with(render_width=16_000, render_height=16_000)),
    "width_text": ("refuse", _with(render_width="12")),
    "fps_0": ("refuse", _with(fps=0)),
    "fps_list": ("refuse", _with(fps=[10])),
    "seconds_1e300": ("refuse", _with(camera_path=[], keyframes=[{"matrix": I4, "fov": 50}], seconds=1e300)),
    "fisheye": ("refuse", _with(camera_type="fisheye")),
    "type_dict": ("refuse", _with(camera_type={})),
    "transforms_damaged": ("refuse", lambda folder: (folder / "dataparser_transforms.json").write_text("{")),
    "transforms_flat": (
        "refuse",
        lambda folder: (folder / "dataparser_transforms.json").write_text('{"transform": [[0,0,0,0]], "scale": 0}'),
    ),
    "fifo": ("refuse", lambda folder: ((folder / "path.json").unlink(), os.mkfifo(folder / "path.json"))),
}


@table("camera_path", FILES)
def _(folder: Path, content: str | Callable[[Path], Any]) -> Command:
    run, file = copied_run(folder), folder / "path.json"
    file.write_text(content if isinstance(content, str) else _with())
    if not isinstance(content, str):
        content(folder)
    return Command("render_video.py", (run, "--device", "cpu", "--path", file, "--out", folder / "v.mp4"), writes="")
