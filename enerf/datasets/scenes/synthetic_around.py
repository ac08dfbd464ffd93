"""A synthetic, ray-traced capture of objects from all around, before a distant background, as ``transforms.json``.

World frame: y up, objects on a floor at y = 0 within 1.3 of the origin, cameras at distances of about 3.2 that look
near (0, 0.5, 0); the floor extends to the inside of a sphere of radius 40 with mountains and sky. Each image has a
depth map in millimeters.

    enerf generate scene --layout around --out data/around --views 30
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float64
from PIL import Image

from enerf.core import images
from enerf.core.types import Camera
from enerf.datasets.scenes import raytrace, synthetic, transforms_writer
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.raytrace import Box, Capsule, Plane, PointLight, SceneObject, Sphere, mix

HORIZON = 40.0  # radius of the background
_UP = (0.0, 1.0, 0.0)
_VERSION = 1  # of the scene; increase it when the images change


def _floor(points: np.ndarray) -> np.ndarray:
    """Paint of the floor: sectors of rings whose widths grow with the distance, so that none is too fine to see."""
    radius = np.hypot(points[:, 0], points[:, 2])
    ring = np.floor(np.log(np.maximum(radius, 1e-6) / 0.25) / np.log(1.6))
    sector = np.floor(np.arctan2(points[:, 2], points[:, 0]) / (np.pi / 8))
    return mix((0.85, 0.80, 0.66), (0.35, 0.48, 0.32), (ring + sector) % 2)


def _landscape(points: np.ndarray) -> np.ndarray:
    """Paint of the background, on the unit sphere: a sky with bands of cloud, and two ridges of mountains."""
    angle, height = np.arctan2(points[:, 2], points[:, 0]), points[:, 1]
    sky = mix((0.95, 0.80, 0.62), (0.22, 0.42, 0.78), np.clip(height / 0.7, 0, 1))
    cloud = (np.sin(9 * height + 1.5 * np.sin(3 * angle)) > 0.75) * 0.7
    color = mix(sky, (0.97, 0.97, 0.97), cloud)
    for shade, level, swing, pitch in (((0.45, 0.42, 0.62), 0.18, 0.10, 5), ((0.16, 0.36, 0.30), 0.07, 0.06, 9)):
        crest = level + swing * (0.6 * np.sin(pitch * angle) + 0.4 * np.sin(3 * pitch * angle + 1))
        stripes = (np.floor(angle / (np.pi / 40)) % 2) * 0.25
        color = np.where((height < crest)[:, None], mix(shade, (0.9, 0.88, 0.8), stripes), color)
    return color


def _boards(points: np.ndarray) -> np.ndarray:
    """Paint of the box: orange and blue squares."""
    cells = np.floor(np.clip(points, -0.999, 0.999) + 1).sum(axis=-1)
    return mix((0.95, 0.55, 0.12), (0.12, 0.25, 0.62), cells % 2)


LIGHT = PointLight((-3.0, 9.0, 4.0))
OBJECTS: tuple[SceneObject, ...] = (
    SceneObject(Sphere((0.0, 0.0, 0.0), HORIZON), _landscape),
    SceneObject(Plane((0.0, 0.0, 0.0), _UP), _floor),
    SceneObject(Sphere((0.0, 0.55, 0.0), 0.55), raytrace.checker((0.95, 0.95, 0.90), (0.80, 0.10, 0.15), 8), 0.2, 30.0),
    SceneObject(Box((0.95, 0.3, 0.45), (0.3, 0.3, 0.3), 0.6), _boards),
    SceneObject(
        Sphere((-0.75, 0.28, 0.7), 0.28), raytrace.stripes((0.98, 0.8, 0.2), (0.3, 0.1, 0.5), _UP, 3.0), 0.4, 40.0
    ),
    *(
        SceneObject(
            Capsule((x, 0.0, z), (x, 0.9, z), 0.06), raytrace.stripes((0.96, 0.96, 0.94), (0.1, 0.5, 0.5), _UP, 5.0)
        )
        for x, z in ((-0.9, -0.6), (0.1, -1.1), (0.9, -0.7))
    ),
)


def poses(views: int = 30, seed: int = 0) -> Float64[np.ndarray, "n 3 4"]:
    """Camera-to-world poses (OpenGL axes) of a hand-held capture in three rounds at several heights.

    >>> poses(4).shape
    (4, 3, 4)
    """
    rng = np.random.default_rng(seed)
    turn = 2 * np.pi * (3 * np.arange(views) + rng.uniform(-0.3, 0.3, views)) / views
    rise = np.deg2rad(12 + 33 * (np.arange(views) + 0.5) / views)
    radius = 3.2 * rng.uniform(0.93, 1.07, views)
    centers = np.stack([np.cos(turn) * np.cos(rise), np.sin(rise), np.sin(turn) * np.cos(rise)], 1) * radius[:, None]
    targets = np.array([0.0, 0.5, 0.0]) + rng.uniform(-0.12, 0.12, (views, 3))
    rolls = np.deg2rad(rng.uniform(-3, 3, views))
    return np.stack([synthetic.look_at(*pose) for pose in zip(centers, targets, rolls.tolist(), strict=True)])


def write_scene(
    folder: str | Path,
    views: int = 30,
    *,
    width: int = 160,
    height: int = 120,
    supersample: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the capture: ``images/``, ``depths/`` (16 bits, millimeters) and ``transforms.json``; returns the folder.

    Depths are those of the rays through the pixels' centers, along the optical axis. Otherwise as
    ``synthetic.write_scene``.

    Raises
    ------
    InputError
        If a number is too small, or the folder contains anything else (nothing is overwritten) or cannot be written.
    """
    settings = {"around": _VERSION, "views": views, "width": width, "height": height}
    settings |= {"supersample": supersample, "seed": seed}
    names = ["transforms.json", *(f"{kind}/{i:03d}.png" for i in range(views) for kind in ("images", "depths"))]
    return synthetic.create(Path(folder), settings, names, lambda path: _write(path, settings, progress))


def _write(folder: Path, settings: dict[str, int], progress: bool) -> None:
    """Render all views to a new folder."""
    for kind in ("images", "depths"):
        (folder / kind).mkdir(parents=True)
    lens, c2w = synthetic.camera(settings["width"], settings["height"]), poses(settings["views"], settings["seed"])
    views = synthetic.rendered(lens, c2w, settings["supersample"], OBJECTS, LIGHT, progress=progress)
    for i, (image, depth) in enumerate(views):
        images.write_png(folder / f"images/{i:03d}.png", image)
        Image.fromarray(np.round(1000 * depth).astype(np.uint16)).save(folder / f"depths/{i:03d}.png")
    transforms_writer.write(folder / "transforms.json", _posed(folder, lens, c2w))
    synthetic.write_settings(folder, settings)


def _posed(folder: Path, lens: Camera, c2w: Float64[np.ndarray, "n 3 4"]) -> PosedImages:
    names = tuple(f"images/{i:03d}.png" for i in range(len(c2w)))
    return PosedImages(
        source=folder / "transforms.json",
        names=names,
        files=tuple(folder / name for name in names),
        cameras=(lens,) * len(c2w),
        c2w=c2w,
        depths=tuple(folder / f"depths/{i:03d}.png" for i in range(len(c2w))),
        depth_unit=1e-3,
    )
