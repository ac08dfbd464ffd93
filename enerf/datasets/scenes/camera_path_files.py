"""Camera paths in files of nerfstudio's format, ``camera_path.json``.

Each frame has a matrix ``camera_to_world`` (16 numbers row by row, OpenGL axes) and a vertical field of view in
degrees; ``keyframes`` have the same as ``matrix`` and ``fov``. Other keys: ``render_width``, ``render_height``,
``fps``, ``seconds``, ``is_cycle``. Source: nerfstudio, ``viewer/render_panel.py`` and ``cameras/camera_paths.py``.

Files of nerfstudio before 1.0 have each keyframe's ``matrix`` as a text, column by column.

**World.** Poses are in the coordinates of the scene's own files, so that runs with other scene coordinates share them.
nerfstudio's are in coordinates that it makes of these, as ``dataparser_transforms.json`` in its folder of results says:
if a copy of that file lies in a folder, the paths in this folder are in nerfstudio's coordinates, read and written.
That file's transform and scale map from the coordinates that the scene had before ``applied_transform`` and
``applied_scale`` of its ``transforms.json``; so that file is read as well.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core import io
from enerf.core.errors import InputError, shown
from enerf.core.types import Camera
from enerf.datasets.scenes import coordinates, keyframes
from enerf.datasets.scenes.keyframes import Keyframe

MOST_FRAMES, LARGEST_SIDE, MOST_PIXELS = 100_000, 1 << 14, 1 << 24
FARTHEST = 1e12  # coordinate of a camera
TRANSFORMS = "dataparser_transforms.json"
BEFORE_APPLIED = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]  # applied by nerfstudio before it wrote applied_transform
TOLERANCE = 1e-3  # of rotations' products with their transpose
Poses = Float64[np.ndarray, "n 3 4"]


@dataclass(frozen=True)
class CameraPath:
    """Cameras of a video, in the coordinates of the scene's files.

    Attributes
    ----------
    poses, fovs
        Pose (OpenGL axes) and vertical field of view in degrees of each frame.
    width, height
        Size of the frames in pixels.
    fps
        Frames per second.
    keyframes
        Cameras that the path was made of; may be empty.
    closed
        Whether it ends where it begins.
    """

    poses: Poses
    fovs: Float64[np.ndarray, " n"]
    width: int
    height: int
    fps: float | int
    keyframes: tuple[Keyframe, ...] = ()
    closed: bool = False

    def camera(self, frame: int) -> Camera:
        """Pinhole camera of a frame."""
        focal = 0.5 * self.height / math.tan(0.5 * math.radians(float(self.fovs[frame])))
        return Camera(self.width, self.height, focal, focal, 0.5 * self.width, 0.5 * self.height)


def through(
    passed: tuple[Keyframe, ...],
    seconds: float | int,
    fps: float | int,
    width: int,
    height: int,
    *,
    closed: bool = False,
) -> CameraPath:
    """The path of a length in seconds through keyframes; the last frame is one step before the end, as nerfstudio's.

    Raises
    ------
    ValueError
        If there is no keyframe.
    """
    n = min(MOST_FRAMES, max(1, round(seconds * fps)))
    poses, fovs = keyframes.interpolated(passed, np.arange(n) / n, closed=closed)
    return CameraPath(poses, fovs, width, height, fps, passed, closed)


def write(path: Path, saved: CameraPath, datadir: Path | None = None) -> None:
    """Write a path, in nerfstudio's coordinates if its ``dataparser_transforms.json`` lies beside it.

    ``datadir`` is the scene, of which ``transforms.json`` counts then.

    Raises
    ------
    InputError
        If the file cannot be written, or those that say what its coordinates are not be read.
    """
    aspect = saved.width / saved.height
    from_world = np.linalg.inv(_to_world(path, datadir))
    poses = coordinates.transform_poses(from_world, saved.poses)
    passed = _moved(from_world, saved.keyframes)
    transitions = len(passed) if saved.closed else len(passed) - 1
    content = {
        "camera_type": "perspective",
        "render_width": saved.width,
        "render_height": saved.height,
        "fps": saved.fps,
        "seconds": len(saved.poses) / saved.fps,
        "is_cycle": saved.closed,
        "smoothness_value": 0.0,
        "default_fov": float(saved.fovs[0]),
        "default_transition_sec": len(saved.poses) / saved.fps / max(1, transitions),
        "keyframes": [
            {
                "matrix": _numbers(each.c2w),
                "fov": float(each.fov),
                "aspect": aspect,
                "override_transition_enabled": False,
                "override_transition_sec": None,
            }
            for each in passed
        ],
        "camera_path": [
            {"camera_to_world": _numbers(pose), "fov": float(fov), "aspect": aspect}
            for pose, fov in zip(poses, saved.fovs, strict=True)
        ],
    }
    io.write_json(path, content)


def read(path: Path, datadir: Path | None = None) -> CameraPath:
    """Read a path, with its poses in the coordinates of the scene's files.

    ``datadir`` is the scene, of which ``transforms.json`` counts for paths in nerfstudio's coordinates.

    Raises
    ------
    InputError
        If the file is not such a path.
    """
    content = io.read_object(path)
    if content.get("camera_type", "perspective") != "perspective":
        raise InputError(f"{path}: found camera_type {shown(content['camera_type'])}, expected perspective")
    frames, keys = (
        _cameras(path, content, *names) for names in (("camera_path", "camera_to_world"), ("keyframes", "matrix"))
    )
    width, height = (_whole(path, content, key) for key in ("render_width", "render_height"))
    if width * height > MOST_PIXELS:
        raise InputError(f"{path}: found render_width {width} and render_height {height}, expected at most 2^24 pixels")
    fps = _number(path, content, "fps", 24.0, 0.001, 1000.0)
    closed = content.get("is_cycle") is True
    if not frames and keys:
        seconds = _number(path, content, "seconds", 4.0, 0.001, 1e6)
        made = through(tuple(keys), seconds, fps, width, height, closed=closed)
        frames = [Keyframe(pose, fov) for pose, fov in zip(made.poses, made.fovs.tolist(), strict=True)]
    if not 0 < len(frames) <= MOST_FRAMES:
        raise InputError(f"{path}: found {len(frames)} cameras in camera_path, expected 1 to {MOST_FRAMES}")
    to_world = _to_world(path, datadir)
    poses = coordinates.transform_poses(to_world, np.stack([each.c2w for each in frames]))
    fovs = np.array([float(each.fov) for each in frames])
    return CameraPath(poses, fovs, width, height, fps, _moved(to_world, keys), closed)


def to_scene(world_to_scene: Float64[np.ndarray, "4 4"], path: CameraPath) -> Poses:
    """Poses of the frames in scene coordinates."""
    return coordinates.transform_poses(world_to_scene, path.poses)


def _moved(matrix: Float64[np.ndarray, "4 4"], passed: Sequence[Keyframe]) -> tuple[Keyframe, ...]:
    """Keyframes transformed by the matrix of a similarity."""
    poses = (coordinates.transform_poses(matrix, each.c2w[None])[0] for each in passed)
    return tuple(Keyframe(pose, each.fov) for pose, each in zip(poses, passed, strict=True))


def _to_world(path: Path, datadir: Path | None) -> Float64[np.ndarray, "4 4"]:
    """Matrix of the similarity that maps coordinates in a camera path's file to those of the scene's own files.

    The identity, unless nerfstudio's file lies beside it. That program centers and turns the poses of
    ``transforms.json`` and scales them then, by ``scale`` without ``applied_scale``, whatever its file says of other
    coordinates. Source: its ``data/dataparsers/nerfstudio_dataparser.py``.
    """
    file = path.with_name(TRANSFORMS)
    if not file.is_file():
        return np.eye(4)
    content = io.read_object(file)
    scale = _number(file, content, "scale", 1.0, 1e-9, 1e9)
    transform = _affine(file, "transform", content.get("transform"))
    applied, applied_scale = (np.eye(4), 1.0) if datadir is None else _applied(datadir)
    scale = scale / applied_scale
    return applied @ np.linalg.inv(np.diag([scale, scale, scale, 1.0]) @ transform)


def _applied(datadir: Path) -> tuple[Float64[np.ndarray, "4 4"], float]:
    """Nerfstudio's ``applied_transform`` and ``applied_scale`` of a scene; the identity and 1 if there are none."""
    file = datadir / "transforms.json" if datadir.is_dir() else datadir
    if file.suffix != ".json" or not file.is_file():
        return np.eye(4), 1.0
    content = io.read_object(file)
    absent = BEFORE_APPLIED if (file.parent / "colmap" / "sparse" / "0").exists() else np.eye(4)[:3]
    return (
        _affine(file, "applied_transform", content.get("applied_transform", absent)),
        _number(file, content, "applied_scale", 1.0, 1e-9, 1e9),
    )


def _affine(file: Path, key: str, value: Any) -> Float64[np.ndarray, "4 4"]:
    """A 3×4 matrix as a homogeneous one."""
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all() or not np.linalg.det(matrix[:, :3]) > 1e-9:
        raise InputError(f"{file}: {key}: found {shown(value)}, expected a 3×4 matrix that does not mirror")
    return np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])


def _cameras(path: Path, content: dict[str, Any], name: str, matrix: str) -> list[Keyframe]:
    """Cameras of a list in the file."""
    found = content.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InputError(f"{path}: {name}: found {shown(found)}, expected a list of cameras")
    cameras = []
    for i, each in enumerate(found):
        where = f"{path}: camera {i} of {name}"
        try:
            values = _flat(each.get(matrix))
            pose = values.reshape(-1, 4)[:3]
            wrong = len(values) not in (12, 16) or not (np.abs(pose) < FARTHEST).all()
            wrong = wrong or np.abs(pose[:, :3] @ pose[:, :3].T - np.eye(3)).max() > TOLERANCE
        except (TypeError, ValueError, RecursionError):
            wrong = True
        if wrong:
            raise InputError(
                f"{where}: found {shown(each.get(matrix))}, expected {matrix}: 16 numbers of a rigid motion"
            )
        cameras.append(Keyframe(pose, _number(Path(where), each, "fov", 50.0, 0.1, 179.0)))
    return cameras


def _flat(matrix: Any) -> Float64[np.ndarray, " n"]:
    """Numbers of a matrix row by row; texts have them column by column."""
    if isinstance(matrix, str):
        matrix = np.asarray(json.loads(matrix), dtype=np.float64).reshape(4, 4).T
    return np.asarray(matrix, dtype=np.float64).reshape(-1)


def _number(path: Path, content: dict[str, Any], key: str, absent: float, low: float, high: float) -> float:
    value = content.get(key, absent)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InputError(f"{path}: {key}: found {shown(value)}, expected a number from {low:g} to {high:g}")
    return float(value)


def _whole(path: Path, content: dict[str, Any], key: str) -> int:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= LARGEST_SIDE:
        raise InputError(f"{path}: {key}: found {shown(value)}, expected a whole number from 2 to {LARGEST_SIDE}")
    return value


def _numbers(pose: Float64[np.ndarray, "3 4"]) -> list[float]:
    return [float(value) for value in np.concatenate([pose, [[0.0, 0.0, 0.0, 1.0]]]).ravel()]
