"""A synthetic, ray-traced scene in LLFF's folder format: a painted wall, spheres, a box and a fence.

``trace`` computes exact colors and hits of rays; ``poses`` and ``camera`` imitate a hand-held, forward-facing capture;
``write_scene`` writes images and poses. World frame: x right, y up, the wall at z = −9 behind all objects, the cameras
near the origin looking down −z; the unit is about a meter.

    enerf generate scene --out data/demo --views 20 --width 160 --height 120
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from enerf.core import images, io
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.core.types import Camera
from enerf.datasets.scenes import raytrace
from enerf.datasets.scenes.raytrace import Box, Capsule, Paint, Plane, PointLight, SceneObject, Sphere, Vector, mix

FLOOR, WALL = -1.6, -9.0
UP = (0.0, 1.0, 0.0)
_CHUNK = 16384  # rays traced at once; they fit the CPU's cache
_SLACK = 1.05  # factor between the bounds and the extreme depths at pixel centers
GENERATED = "generated"  # key of the settings, in files that hold more
_VERSION = 1  # of the scene; increase it when the images change
Pose = Float64[np.ndarray, "3 4"]


def _crate(points: np.ndarray) -> np.ndarray:
    """Paint of the box: yellow faces in a blue frame, with rings that get finer outwards."""
    edge = np.sort(np.abs(points), axis=-1)[:, :2]  # position on the face, without its own axis
    radius2 = (edge**2).sum(axis=-1)
    rings = mix((1.0, 0.80, 0.10), (0.93, 0.36, 0.08), (np.cos(11 * radius2) < 0) * 1.0)
    return mix(rings, (0.12, 0.25, 0.62), (edge[:, 1] > 0.82) * 1.0)


def _tiles(points: np.ndarray) -> np.ndarray:
    """Paint of the floor: two kinds of tile, a small diamond in each, dark joints."""
    x, z = points[:, 0] / 0.62, points[:, 2] / 0.62
    u, v = x % 1 - 0.5, z % 1 - 0.5
    kind = (np.floor(x) + np.floor(z)) % 2
    tiles = mix((0.98, 0.93, 0.82), (0.30, 0.60, 0.62), kind)
    diamond = (np.abs(u) + np.abs(v) < 0.22) * 1.0
    tiles = mix(tiles, mix((0.78, 0.33, 0.22), (0.95, 0.80, 0.45), kind), diamond)
    return mix(tiles, (0.26, 0.22, 0.24), (np.maximum(np.abs(u), np.abs(v)) > 0.46) * 1.0)


def _sky(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colors of the wall's upper part: dusk, stars on a jittered grid, a sun whose rings get finer outwards."""
    dusk = mix((0.98, 0.52, 0.40), (0.36, 0.20, 0.52), np.clip((y + 0.3) / 2.2, 0, 1))
    dusk = mix(dusk, (0.09, 0.11, 0.36), np.clip((y - 1.5) / 2.2, 0, 1))
    cell = np.floor(np.stack([x, y]) / 0.45)
    dice = np.sin(np.array([[12.99, 78.23], [39.35, 11.14], [73.16, 52.24]]) @ cell) * 43758.5453 % 1
    distance = np.hypot(*(np.stack([x, y]) / 0.45 - cell - 0.3 - 0.4 * dice[:2]))
    dusk = mix(dusk, (1.0, 0.96, 0.78), ((distance < 0.16 * dice[2]) & (dice[2] > 0.35) & (y > 0.9)) * 1.0)
    radius2 = (x - 1.1) ** 2 + (y - 1.35) ** 2
    sun = mix((1.0, 0.90, 0.42), (0.97, 0.42, 0.24), 0.5 - 0.5 * np.cos(9.2 * radius2))
    return np.where((radius2 < 1.45**2)[:, None], sun, dusk)


def _mural(points: np.ndarray) -> np.ndarray:
    """Paint of the wall: the sky, mountain ridges with hatching of several widths, stripes from wide to narrow."""
    x, y = points[:, 0], points[:, 1]
    color = _sky(x, y)
    ridges = (
        ((0.47, 0.30, 0.60), 0.55, 0.62, 1.1, 0.70),
        ((0.20, 0.42, 0.66), 0.15, 0.45, 1.9, 0.42),
        ((0.10, 0.55, 0.55), -0.30, 0.32, 2.9, 0.28),
        ((0.07, 0.34, 0.36), -0.72, 0.22, 4.7, 0.19),
    )
    for shade, level, swing, pitch, hatch in ridges:
        crest = level + swing * (0.6 * np.sin(pitch * x + 5 * level) + 0.4 * np.sin(2.3 * pitch * x) ** 2)
        lines = (np.floor((crest - y) / hatch * 2) % 2) * 0.30
        color = np.where((y < crest)[:, None], mix(shade, (1.0, 0.95, 0.80), lines), color)
    chirp = (np.sin(1.1 * (x + 7.5) ** 2) > 0) * 1.0
    return np.where((y < -1.12)[:, None], mix((0.96, 0.93, 0.84), (0.72, 0.13, 0.25), chirp), color)


def _fence(left: float, right: float, z: float, posts: int) -> tuple[SceneObject, ...]:
    """White posts with red bands on the floor, and two thin rails across them."""
    banded, steel = raytrace.stripes((0.96, 0.96, 0.94), (0.85, 0.10, 0.16), UP, 5.0), (0.20, 0.22, 0.28)
    spots: list[float] = np.linspace(left, right, posts).tolist()
    upright = [Capsule((x, FLOOR, z), (x, FLOOR + 1.15, z), 0.035) for x in spots]
    rails = [Capsule((left - 0.15, FLOOR + h, z), (right + 0.15, FLOOR + h, z), 0.02) for h in (0.35, 0.9)]
    painted = [SceneObject(rod, banded, 0.3, 30.0) for rod in upright]
    return (*painted, *(SceneObject(rod, raytrace.plain(steel), 0.5, 30.0) for rod in rails))


def _lantern(center: Vector, radius: float, a: Vector, b: Vector) -> tuple[SceneObject, SceneObject]:
    """Striped sphere, and the thread on which it hangs from above the image."""
    thread = SceneObject(Capsule(center, (center[0], 6.0, center[2]), 0.014), raytrace.plain((0.95, 0.88, 0.70)))
    return SceneObject(Sphere(center, radius), raytrace.stripes(a, b, UP, 3.5), 0.35, 40.0), thread


def _ball(x: float, z: float, radius: float, paint: Paint, *gloss: float) -> SceneObject:
    """Sphere on the floor; ``gloss`` is strength and exponent of its highlight."""
    return SceneObject(Sphere((x, FLOOR + radius, z), radius), paint, *gloss)


LIGHT = PointLight((-3.2, 5.2, 0.6))
_CHECKER = raytrace.checker((0.95, 0.95, 0.90), (0.08, 0.28, 0.72), 10)
_SWIRL = raytrace.stripes((0.98, 0.74, 0.10), (0.36, 0.10, 0.50), (2.0, 3.2, 1.2), 1.0)
OBJECTS: tuple[SceneObject, ...] = (
    SceneObject(Plane((0.0, 0.0, WALL), (0.0, 0.0, 1.0)), _mural),
    SceneObject(Plane((0.0, FLOOR, 0.0), UP), _tiles, 0.12, 60.0),
    _ball(-0.35, -5.7, 0.95, raytrace.plain((0.82, 0.05, 0.12)), 1.0, 70.0),
    _ball(-2.0, -4.7, 0.62, _CHECKER, 0.25, 30.0),
    _ball(0.55, -4.2, 0.38, _SWIRL),
    SceneObject(Box((2.0, FLOOR + 0.62, -6.2), (0.62, 0.62, 0.62), 0.5), _crate),
    SceneObject(Sphere((2.0, FLOOR + 1.66, -6.2), 0.42), raytrace.plain((0.10, 0.66, 0.28)), 0.9, 25.0),
    *_fence(1.05, 2.35, -3.9, 6),
    *_lantern((-2.45, 1.05, -6.4), 0.34, (0.99, 0.55, 0.12), (0.99, 0.90, 0.55)),
    *_lantern((-1.55, 1.55, -5.6), 0.26, (0.10, 0.62, 0.68), (0.92, 0.97, 0.90)),
    *_lantern((-0.75, 0.95, -7.0), 0.30, (0.90, 0.22, 0.50), (0.99, 0.86, 0.80)),
)


def trace(
    origins: Float64[np.ndarray, "*b 3"],
    directions: Float64[np.ndarray, "*b 3"],
    objects: Sequence[SceneObject] = OBJECTS,
    light: PointLight = LIGHT,
) -> tuple[Float64[np.ndarray, "*b 3"], Float64[np.ndarray, "*b"]]:
    """Colors in [0, 1] of rays in world coordinates, and the exact t of their hits in units of ``direction``.

    Wall and floor of this scene are infinite, so every ray with a negative z direction hits; other rays may hit nothing
    and are then black, with infinite t.
    """
    batch = origins.shape[:-1]
    starts, steps = origins.reshape(-1, 3), directions.reshape(-1, 3)
    rgb, t = np.empty_like(starts), np.empty(len(starts))
    for begin in range(0, len(starts), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        columns = (np.asfortranarray(vectors[part]) for vectors in (starts, steps))
        hits = raytrace.trace_rays(objects, light, *columns)  # faster in column-major order
        rgb[part], t[part] = hits.rgb(), hits.t
    return rgb.reshape(*batch, 3), t.reshape(batch)


def camera(width: int = 160, height: int = 120) -> Camera:
    """Pinhole camera of the scene: 58° horizontal field of view, centered principal point.

    >>> camera(200, 100).fx
    180.0
    """
    return Camera(width, height, 0.9 * width, 0.9 * width, width / 2, height / 2)


def look_at(position: np.ndarray, target: np.ndarray, roll: float) -> Pose:
    """Pose (OpenGL axes) of a camera at ``position`` that looks at ``target``, with ``roll`` in radians."""
    back = raytrace.unit(position - target)
    right = raytrace.unit(np.cross([np.sin(roll), np.cos(roll), 0.0], back))
    return np.stack([right, np.cross(back, right), back, position], axis=1)


def poses(views: int = 20, seed: int = 0) -> Float64[np.ndarray, "n 3 4"]:
    """Camera-to-world poses (OpenGL axes, world units) of a hand-held, forward-facing capture.

    The centers are on a jittered sunflower spiral in an ellipse of half axes 0.6 and 0.4; each camera looks near the
    point (0, 0, −6), with up to 2° of roll.

    >>> poses(3).shape
    (3, 3, 4)
    """
    rng = np.random.default_rng(seed)
    spot = np.arange(views)
    radius, angle = np.sqrt((spot + 0.3) / views), spot * np.pi * (3 - np.sqrt(5))
    centers = np.stack([0.6 * radius * np.cos(angle), 0.4 * radius * np.sin(angle), np.zeros(views)], axis=1)
    centers += rng.uniform(-1, 1, (views, 3)) * (0.04, 0.04, 0.08)
    targets = (0.0, 0.0, -6.0) + rng.uniform(-1, 1, (views, 3)) * (0.25, 0.15, 0.0)
    rolls = np.deg2rad(rng.uniform(-2, 2, views))
    return np.stack([look_at(*pose) for pose in zip(centers, targets, rolls.tolist(), strict=True)])


def _trace_image(
    camera: Camera, c2w: Pose, x: np.ndarray, y: np.ndarray, objects: Sequence[SceneObject], light: PointLight
) -> tuple[Float64[np.ndarray, "h w 3"], Float64[np.ndarray, "h w"]]:
    """Color and z-depth at a grid of image points: x of each column, y of each row, in pixels from the top left."""
    u, v = np.meshgrid((x - camera.cx) / camera.fx, (camera.cy - y) / camera.fy)
    directions = np.stack([u, v, np.full_like(u, -1.0)], axis=-1) @ c2w[:, :3].T  # so t is z-depth
    return trace(np.broadcast_to(c2w[:, 3], directions.shape), directions, objects, light)


def render(
    camera: Camera,
    c2w: Pose,
    supersample: int = 3,
    objects: Sequence[SceneObject] = OBJECTS,
    light: PointLight = LIGHT,
) -> tuple[Float64[np.ndarray, "h w 3"], Float64[np.ndarray, "h w"]]:
    """Image in [0, 1], each pixel the mean of ``supersample``² rays, and the depth at the pixel centers.

    Depth is the exact z-depth (distance along the optical axis, in world units) of the ray through the pixel's center
    at +0.5, not averaged.
    """
    h, w, s = camera.height, camera.width, supersample
    fine, _ = _trace_image(camera, c2w, (np.arange(w * s) + 0.5) / s, (np.arange(h * s) + 0.5) / s, objects, light)
    _, depth = _trace_image(camera, c2w, np.arange(w) + 0.5, np.arange(h) + 0.5, objects, light)
    return fine.reshape(h, s, w, s, 3).mean(axis=(1, 3)), depth


def rendered(
    camera: Camera,
    c2w: Float64[np.ndarray, "n 3 4"],
    supersample: int,
    objects: Sequence[SceneObject] = OBJECTS,
    light: PointLight = LIGHT,
    *,
    progress: bool,
) -> Iterator[tuple[Float64[np.ndarray, "h w 3"], Float64[np.ndarray, "h w"]]]:
    """Image and depth of each pose, as ``render`` returns them, with a progress bar."""
    for pose in progress_bar(None, "rendering", "view", iterable=c2w, enabled=progress):
        yield render(camera, pose, supersample, objects, light)


def write_settings(folder: Path, settings: dict[str, int]) -> None:
    """Write what a scene is made from to ``scene.json``."""
    (folder / "scene.json").write_text(json.dumps(settings, indent=1) + "\n")


def llff_row(camera: Camera, c2w: Pose, near: float, far: float) -> Float64[np.ndarray, "17"]:
    """Row of ``poses_bounds.npy``: [R | t | h w f] in LLFF's axes (down, right, backwards), near, far."""
    right, up, back, center = c2w.T
    intrinsics = np.array([camera.height, camera.width, camera.fx])
    return np.append(np.stack([-up, right, back, center, intrinsics], axis=1).ravel(), [near, far])


def is_written(folder: Path, settings: dict[str, int], names: Sequence[str], record: Path | None = None) -> bool:
    """Whether the folder contains a complete scene with these settings, by the file ``record`` (``scene.json``)."""
    try:
        written = json.loads((record or folder / "scene.json").read_text())
    except (OSError, ValueError):
        return False
    if isinstance(written, dict):
        written = written.get(GENERATED, written)
    return bool(written == settings) and all((folder / name).is_file() for name in names)


def _write(folder: Path, settings: dict[str, int], progress: bool) -> None:
    """Render all views to a new folder."""
    lens, rows = camera(settings["width"], settings["height"]), []
    (folder / "images").mkdir(parents=True)
    views = poses(settings["views"], settings["seed"])
    for i, (image, depth) in enumerate(rendered(lens, views, settings["supersample"], progress=progress)):
        images.write_png(folder / f"images/image{i:03d}.png", image)
        rows.append(llff_row(lens, views[i], float(depth.min()) / _SLACK, float(depth.max()) * _SLACK))
    np.save(folder / "poses_bounds.npy", np.stack(rows))
    write_settings(folder, settings)


def write_scene(
    folder: str | Path,
    views: int = 20,
    *,
    width: int = 160,
    height: int = 120,
    supersample: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the scene in LLFF's format: ``images/image000.png`` … and ``poses_bounds.npy``; returns the folder.

    A view's bounds are the least and greatest z-depth at its pixel centers, 5 % wider on either side. The same settings
    give the same bytes. A folder that already contains this scene is left unchanged. The folder is created atomically.

    Raises
    ------
    InputError
        If a number is too small, or the folder contains anything else (nothing is overwritten) or cannot be written.
    """
    settings = {"version": _VERSION, "views": views, "width": width, "height": height}
    settings |= {"supersample": supersample, "seed": seed}
    names = ["poses_bounds.npy", *(f"images/image{i:03d}.png" for i in range(views))]
    return create(Path(folder), settings, names, lambda path: _write(path, settings, progress))


def create(
    folder: Path,
    settings: dict[str, int],
    names: Sequence[str],
    write: Callable[[Path], None],
    record: Path | None = None,
) -> Path:
    """Create the folder of a scene atomically, unless it is there with the same settings; returns the folder.

    Parameters
    ----------
    folder
        The folder.
    settings
        What the scene is made from; ``write`` writes them to ``record``.
    names
        Files that a complete scene contains.
    write
        Writes the scene to a folder that does not exist.
    record
        File of the settings; None: ``scene.json`` in the folder.

    Raises
    ------
    InputError
        If a number is too small, or the folder contains anything else or cannot be written.
    """
    check_settings(settings)
    if is_written(folder, settings, names, record):
        return folder
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} exists and does not contain this scene; choose another folder or remove it")
    with io.temporary_path(folder.absolute()) as temporary:
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
            write(temporary)
            if folder.is_dir():
                folder.rmdir()
            temporary.rename(folder)
        except OSError as error:
            if not is_written(folder, settings, names, record):  # by a faster process
                raise InputError(f"{folder} cannot be written ({error.strerror})") from None
    return folder


def check_settings(settings: dict[str, int]) -> None:
    """Check the numbers that a scene is made from.

    Raises
    ------
    InputError
        If one is too small.
    """
    for name, value in settings.items():
        if value < (least := 0 if name == "seed" else 1):
            raise InputError(f"{name} is {value}, expected {least} or more")
