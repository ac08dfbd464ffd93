"""Raw data of Polycam and recordings of Record3D: keys of a wrong type or value, missing and damaged companions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.inputs import copied, nerf, special_file
from tests.corpus.registry import Command, Expect, table

Content = dict[str, Any]
Edit = Callable[[Content], Any]
DEPTHS = ("--near", "0.5", "--far", "20")


def _key(key: str, value: Any) -> Edit:
    return lambda content: content.__setitem__(key, value)


CAMERA: dict[str, tuple[Expect, Edit]] = {
    "as_it_is": ("accept", lambda c: None),
    "fx_missing": ("refuse", lambda c: c.pop("fx")),
    "fx_0": ("refuse", _key("fx", 0)),
    "fx_text": ("refuse", _key("fx", "30")),
    "fx_nan": ("refuse", _key("fx", float("nan"))),
    "fx_1e999": ("refuse", _key("fx", 10**400)),
    "cx_1e9": ("refuse", _key("cx", 1e9)),
    "width_-1": ("refuse", _key("width", -1)),
    "width_2e9": ("refuse", _key("width", 2 * 10**9)),
    "height_7": ("refuse", _key("height", 7)),
    "t_null": ("refuse", _key("t_11", None)),
    "t_1e40": ("refuse", _key("t_03", 1e40)),
    "t_0": ("refuse", lambda c: c.update({f"t_{i}{j}": 0.0 for i in range(3) for j in range(3)})),
    "blur_text": ("accept", _key("blur_score", "low")),
}


def _polycam(folder: Path) -> Path:
    """The scene of ``transforms.json`` as raw data of Polycam."""
    scene = copied("transforms", folder)
    content = json.loads((scene / "transforms.json").read_text())
    (scene / "keyframes" / "corrected_cameras").mkdir(parents=True)
    for i, frame in enumerate(content["frames"]):
        camera = {key: content.get(key, frame.get(key)) for key in ("w", "h", "fl_x", "fl_y", "cx", "cy")}
        named = dict(zip(("width", "height", "fx", "fy", "cx", "cy"), camera.values(), strict=True))
        rows = enumerate(frame["transform_matrix"][:3])
        named |= {f"t_{row}{column}": value for row, values in rows for column, value in enumerate(values)}
        (scene / "keyframes" / "corrected_cameras" / f"{i}.json").write_text(json.dumps(named))
        place = scene / "keyframes" / "corrected_images" / f"{i}.png"
        place.parent.mkdir(exist_ok=True)
        (scene / frame["file_path"]).rename(place)
    (scene / "transforms.json").unlink()
    return scene


@table("polycam", CAMERA)
def _(folder: Path, edit: Edit) -> Command:
    scene = _polycam(folder)
    file = scene / "keyframes" / "corrected_cameras" / "1.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return nerf(folder, scene, *DEPTHS)


FILES: dict[str, tuple[Expect, tuple[str, str | bytes]]] = {
    "camera_list": ("refuse", ("corrected_cameras/1.json", b"[]")),
    "camera_empty": ("refuse", ("corrected_cameras/1.json", b"")),
    "camera_fifo": ("refuse", ("corrected_cameras/1.json", "fifo")),
    "camera_devzero": ("refuse", ("corrected_cameras/1.json", "devzero")),
    "image_missing": ("accept", ("corrected_images/1.png", "missing")),
    "image_fifo": ("refuse", ("corrected_images/1.png", "fifo")),
    "image_text": ("refuse", ("corrected_images/1.png", b"no image")),
    "depth_text": ("refuse", ("depth/1.png", b"no image")),
    "depth_devzero": ("any", ("depth/1.png", "devzero")),
    "depth_folder": ("any", ("depth/1.png", "folder")),
}


@table("polycam_files", FILES)
def _(folder: Path, change: tuple[str, str | bytes]) -> Command:
    scene, (name, kind) = _polycam(folder), change
    path = scene / "keyframes" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(kind) if isinstance(kind, bytes) else special_file(path, kind)
    return nerf(folder, scene, *DEPTHS)


RECORDING: dict[str, tuple[Expect, Edit]] = {
    "as_it_is": ("accept", lambda c: None),
    "poses_missing": ("refuse", lambda c: c.pop("poses")),
    "poses_object": ("refuse", _key("poses", {})),
    "poses_short": ("accept", lambda c: c.update(poses=c["poses"][:4])),
    "poses_6": ("refuse", lambda c: c.update(poses=[pose[:6] for pose in c["poses"]])),
    "poses_0": ("refuse", lambda c: c.update(poses=[[0] * 7 for _ in c["poses"]])),
    "poses_nan": ("refuse", lambda c: c.update(poses=[[float("nan")] * 7 for _ in c["poses"]])),
    "poses_text": ("refuse", lambda c: c.update(poses=["0 0 0 1 0 0 0"])),
    "poses_same": ("refuse", lambda c: c.update(poses=[[0, 0, 0, 1, 0, 0, 0] for _ in c["poses"]])),
    "poses_1e6": ("any", lambda c: c.update(poses=c["poses"] * 20_000)),
    "k_3": ("refuse", _key("K", [1, 2, 3])),
    "k_nested": ("refuse", _key("K", np.eye(3).tolist())),
    "k_1e999": ("refuse", _key("K", [10**400] * 9)),
    "w_null": ("refuse", _key("w", None)),
    "h_1e12": ("refuse", _key("h", 10**12)),
    "own_short": ("accept", _key("perFrameIntrinsicCoeffs", [[1, 1, 1, 1]])),
    "own_0": ("refuse", lambda c: c.update(perFrameIntrinsicCoeffs=[[0] * 4 for _ in c["poses"]])),
}


@table("record3d", RECORDING)
def _(folder: Path, edit: Edit) -> Command:
    from enerf.datasets.scenes import poses

    scene = copied("transforms", folder)
    source = json.loads((scene / "transforms.json").read_text())
    camera = {key: source.get(key, source["frames"][0].get(key)) for key in ("w", "h", "fl_x", "fl_y", "cx", "cy")}
    (scene / "rgb").mkdir()
    rows = []
    for i, frame in enumerate(source["frames"]):
        matrix = np.array(frame["transform_matrix"])
        w, x, y, z = poses.quaternion(matrix[:3, :3]).tolist()
        rows.append([x, y, z, w, *matrix[:3, 3].tolist()])
        (scene / frame["file_path"]).rename(scene / "rgb" / f"{i}.png")
    k = [camera["fl_x"], 0, 0, 0, camera["fl_y"], 0, camera["cx"], camera["cy"], 1]
    content = {"w": camera["w"], "h": camera["h"], "K": k, "poses": rows}
    edit(content)
    (scene / "metadata.json").write_text(json.dumps(content))
    (scene / "transforms.json").unlink()
    return nerf(folder, scene, "--dataset_type", "record3d", *DEPTHS)
