"""Small scenes described by a transforms.json, for tests."""

import json

import numpy as np
from PIL import Image

from enerf.datasets.scenes import poses

W, H, N = 16, 12, 4
GLOBAL = {"camera_model": "OPENCV", "w": W, "h": H, "fl_x": 20.0, "fl_y": 21.0, "cx": 8.5, "cy": 5.75}


def pose(i):
    return np.concatenate([poses.blender_circle(11)[i], [[0, 0, 0, 1]]])


def write_picture(path, width=W, height=H, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path, **options)


def frame_with(i, name=None, **keys):
    return {"file_path": name or f"images/{i}.png", "transform_matrix": pose(i).tolist(), **keys}


def content_with(n=N, **keys):
    return {**GLOBAL, **keys, "frames": [frame_with(i) for i in range(n)]}


def write_file(folder, content):
    file = folder / "transforms.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def write_scene(folder, content=None, n=N):
    for i in range(n):
        write_picture(folder / "images" / f"{i}.png")
    return write_file(folder, content_with() if content is None else content)
