"""Small scenes in the files that other programs export, for tests: generated text with their keys.

Sources: Polycam, github.com/PolyCam/polyform, README and ``capture_folder.py``; Record3D, issues 27, 67, 83 and 99 of
github.com/marek-simonik/record3d, and nerfstudio's ``record3d_utils.py``.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enerf.core import images
from enerf.datasets.scenes import poses
from enerf.datasets.scenes.posed_images import PosedImages
from tests.datasets.scenes import photographed

DEPTH = (1.25, 4.0)  # meters: nearest and farthest of the depth maps


def posed(folder: Path, n: int = 4) -> PosedImages:
    """A forward-facing scene of n views."""
    return photographed.described(folder, [photographed.PLAIN] * n, photographed.forward(n))


def write_polycam(scene: PosedImages, *, corrected: bool = True) -> Path:
    """Raw data of Polycam, as its app exports it; returns the folder of the capture."""
    keyframes, prefix = scene.source / "keyframes", "corrected_" * corrected
    for i, (camera, c2w) in enumerate(zip(scene.cameras, scene.c2w, strict=True)):
        stem = f"{7_000_000 + 33_333 * i}"  # a time in microseconds
        images.write_png(keyframes / f"{prefix}images" / f"{stem}.png", photographed.photograph(camera, c2w))
        content = {
            "width": camera.width,
            "height": camera.height,
            "fx": camera.fx,
            "fy": camera.fy,
            "cx": camera.cx,
            "cy": camera.cy,
            "blur_score": 120.5,
            **{f"t_{row}{column}": float(c2w[row, column]) for row in range(3) for column in range(4)},
        }
        file = keyframes / f"{prefix}cameras" / f"{stem}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        (keyframes / "depth").mkdir(exist_ok=True)
        millimeters = np.linspace(*DEPTH, 12 * 9).reshape(9, 12) * 1000
        Image.fromarray(millimeters.round().astype(np.uint16)).save(keyframes / "depth" / f"{stem}.png")
    (scene.source / "mesh_info.json").write_text("{}")
    return scene.source


def write_record3d(scene: PosedImages, *, unpacked: bool = False, per_frame: bool = True) -> Path:
    """A recording of Record3D, its EXR + JPG export or an unpacked .r3d file; returns its folder."""
    pictures = scene.source / ("rgbd" if unpacked else "rgb")
    rows = []
    for i, (camera, c2w) in enumerate(zip(scene.cameras, scene.c2w, strict=True)):
        images.write_png(pictures / f"{i}.png", photographed.photograph(camera, c2w))
        w, x, y, z = poses.quaternion(c2w[:, :3])
        rows.append([x, y, z, w, *c2w[:, 3]])
    camera = scene.cameras[0]
    content = {
        "w": camera.width,
        "h": camera.height,
        "dw": 192,
        "dh": 256,
        "fps": 60,
        "K": [camera.fx, 0, 0, 0, camera.fy, 0, camera.cx, camera.cy, 1],
        "poses": np.array(rows).tolist(),
        "frameTimestamps": [i / 60 for i in range(len(rows))],
    }
    if per_frame:
        content["perFrameIntrinsicCoeffs"] = [[c.fx, c.fy, c.cx, c.cy] for c in scene.cameras]
    (scene.source / ("metadata" if unpacked else "metadata.json")).write_text(json.dumps(content))
    return scene.source


def require_same(found: PosedImages, expected: PosedImages) -> None:
    """Check that poses and pinhole cameras are equal."""
    np.testing.assert_allclose(found.c2w, expected.c2w, atol=1e-9)
    for one, other in zip(found.cameras, expected.cameras, strict=True):
        assert (one.width, one.height) == (other.width, other.height)
        assert (one.fx, one.fy, one.cx, one.cy) == pytest.approx((other.fx, other.fy, other.cx, other.cy))
