"""Small ray-traced scenes with any cameras, written as transforms.json or as a COLMAP model, for tests."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from enerf.core import images
from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, colmap, poses, synthetic, transforms_writer
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.posed_images import Points, PosedImages
from enerf.geometry import colored_points

PLAIN = Camera(24, 18, 21.0, 20.0, 12.0, 9.0)
OFF_CENTER = Camera(24, 18, 21.0, 20.0, 14.5, 7.25)
OPENCV = Camera(24, 18, 21.0, 20.0, 13.0, 8.5, "OPENCV", (-0.15, 0.03, 0.004, -0.003))
FISHEYE = Camera(22, 20, 10.0, 10.5, 11.5, 9.5, "OPENCV_FISHEYE", (0.05, -0.01, 0.003, -0.0005))
TARGET = np.array([-0.35, -0.6, -5.7])  # within the large sphere


def around(n: int, distance: float = 2.5) -> np.ndarray:
    """Poses (OpenGL axes) on a circle above the floor that look at the large sphere."""
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    offsets = np.stack([np.cos(angles), np.full(n, 0.35), np.sin(angles)], axis=1) * distance
    return np.stack([synthetic.look_at(TARGET + offset, TARGET, 0.0) for offset in offsets])


@lru_cache
def _in_camera(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    local, found = Cameras([camera]).image(0, 0.5, torch.float64)
    return local.numpy(), found.numpy()


def world_rays(camera: Camera, c2w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origins and directions in the world of all pixels, row by row, and which pixels have a ray."""
    local, found = _in_camera(camera)
    return np.broadcast_to(c2w[:, 3], (len(local), 3)), local @ c2w[:, :3].T, found


def photograph(camera: Camera, c2w: np.ndarray) -> np.ndarray:
    """The picture (bytes) that a camera takes, one ray a pixel; gray where it has none."""
    origins, directions, found = world_rays(camera, c2w)
    colors = np.where(found[:, None], synthetic.trace(origins, directions)[0], 0.5)
    return images.to_uint8(colors.reshape(camera.height, camera.width, 3))


def hits(camera: Camera, c2w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels with a ray that hits something nearer than 30 units, as row-major indices, and the points hit."""
    origins, directions, found = world_rays(camera, c2w)
    t = synthetic.trace(origins, directions)[1]
    at = np.flatnonzero(found & (t * np.linalg.norm(directions, axis=1) < 30))
    return at, origins[at] + t[at, None] * directions[at]


def described(
    folder: Path, cameras: Sequence[Camera], c2w: np.ndarray, n_points: int = 40, seed: int = 0
) -> PosedImages:
    """A scene with points on its surfaces, ``n_points`` of each view; nothing is written."""
    rng, xyz, view = np.random.default_rng(seed), [], []
    for i, (camera, pose) in enumerate(zip(cameras, c2w, strict=True)):
        seen = hits(camera, pose)[1]
        chosen = rng.choice(len(seen), min(n_points, len(seen)), replace=False)
        xyz.append(seen[chosen])
        view.append(np.full(len(chosen), i))
    where, which = np.concatenate(xyz), np.concatenate(view)
    names = tuple(f"{i:02d}.png" for i in range(len(c2w)))
    return PosedImages(
        source=folder,
        names=names,
        files=tuple(folder / "images" / name for name in names),
        cameras=tuple(cameras),
        c2w=np.asarray(c2w, dtype=np.float64),
        points=Points(where, rng.integers(0, 256, where.shape).astype(np.uint8), np.arange(len(where)), which),
    )


def write(posed: PosedImages, kind: str) -> Path:
    """Write photographs, and a file of cameras: ``transforms`` or ``colmap``; returns the scene's folder."""
    for file, camera, pose in zip(posed.files, posed.cameras, posed.c2w, strict=True):
        images.write_png(file, photograph(camera, pose))
    write_cameras(posed, kind)
    return posed.source


def write_cameras(posed: PosedImages, kind: str) -> None:
    """Write the file of cameras and points only."""
    if kind == "colmap":
        colmap.write(posed.source / "sparse" / "0", posed)
        return
    transforms_writer.write(posed.source / "transforms.json", posed, lossy=True, write_points=_write_points)


def _write_points(path: Path, points: Points) -> None:
    colored_points.write(path, points.xyz, points.rgb)


def of_sizes(camera: Camera, n: int) -> tuple[Camera, ...]:
    """The camera at n sizes, of which some repeat."""
    return tuple(
        camera_models.of_size(camera, camera.width + 4 * (i % 3), camera.height + 3 * (i % 3)) for i in range(n)
    )


def forward(n: int) -> np.ndarray:
    """Poses of a hand-held, forward-facing capture."""
    return synthetic.poses(n)


TURN = poses.rotation(np.array([0.1, 0.7, -0.5, 0.5]))


def in_other_world(points: np.ndarray, scale: float) -> np.ndarray:
    """Points in a world that is scaled, rotated and translated."""
    return (points @ TURN.T + np.array([3.0, -8.0, 5.0])) * scale


def moved(posed: PosedImages, scale: float) -> PosedImages:
    """The same scene ``in_other_world``."""
    centers = in_other_world(posed.c2w[:, :, 3], scale)
    c2w = np.concatenate([TURN @ posed.c2w[:, :, :3], centers[:, :, None]], axis=-1)
    points = None if posed.points is None else replace(posed.points, xyz=in_other_world(posed.points.xyz, scale))
    return replace(posed, c2w=c2w, points=points)
