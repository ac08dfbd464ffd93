"""A hand-held capture by a phone, ray-traced.

It shows the objects of ``synthetic_around`` with speckled paint, through a lens with distortion, in two exposures; one
photograph is blurred by motion, and a person walks through three.

World frame and objects are those of ``synthetic_around``. The speckles give key points that differ from place to
place, as real surfaces have them: checkers and stripes alone look the same from all sides. ``synthetic_photographs``
writes the files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64

from enerf.core.types import Camera
from enerf.datasets.scenes import raytrace, synthetic, synthetic_around
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.raytrace import Capsule, Paint, SceneObject, Sphere, Vectors
from enerf.datasets.scenes.synthetic import Pose

WIDTH, HEIGHT = 1008, 756  # of photographs, held level: a quarter of a 12-megapixel sensor's sides
VIDEO_WIDTH, VIDEO_HEIGHT = 960, 540
FOCAL_35MM = 26  # millimeters by the EXIF data; the lens's own is 1 % shorter
DARKER = (0.64, 0.60, 0.55)  # linear gain of each channel in the second exposure: 1/100 s, not 1/60 s, a warmer white
_FOCAL, _CENTER = 749.0, (1.5, -1.0)  # pixels at WIDTH; principal point from the middle of the image
_DISTORTION = (0.0578, -0.0805, -0.0010, 0.0002)  # k1, k2, p1, p2 of the size that phones' main cameras have
_UP = (0.0, 1.0, 0.0)
_OFFSETS = ((1 / 2, 1 / 2), (1 / 6, 1 / 6), (5 / 6, 1 / 6), (1 / 6, 5 / 6), (5 / 6, 5 / 6))  # of rays in their pixel
_CONTRAST = 0.02  # between neighboring pixels, above which all rays of a pixel are traced
_BLUR_STEPS = 13
_PRIMES = (73856093, 19349663, 83492791)  # of Teschner et al., Optimized Spatial Hashing (2003)
_TABLE = np.random.default_rng(20).random((4096, 8))


def _speckles(color: Vectors, cells: Float64[np.ndarray, "n d"]) -> Vectors:
    """Colors with a disc, or ball, of another color in each cell of a grid: places, sizes and colors are random."""
    corner = np.floor(cells)
    mixed = np.zeros(len(cells), dtype=np.int64)
    for axis, prime in zip(corner.T, _PRIMES, strict=False):
        mixed ^= axis.astype(np.int64) * prime
    dice = _TABLE[(mixed ^ (mixed >> 12)) % len(_TABLE)]
    offset = cells - corner - 0.3 - 0.4 * dice[:, : cells.shape[1]]
    inside = np.einsum("nd,nd->n", offset, offset) < (0.10 + 0.20 * dice[:, 3]) ** 2
    return np.where(inside[:, None], 0.5 * color + 0.5 * (0.08 + 0.87 * dice[:, 4:7]), color)


def _speckled(paint: Paint, *cells: Callable[[Vectors], np.ndarray]) -> Paint:
    """The paint with speckles in the cells of each of some grids."""

    def painted(points: Vectors) -> Vectors:
        color = paint(points)
        for of_points in cells:
            color = _speckles(color, of_points(points))
        return color

    return painted


def _blocks(per_unit: float) -> Callable[[Vectors], np.ndarray]:
    """Cells of a grid in space; faces of boxes are not between two of them."""
    return lambda points: points * per_unit + 0.37


def _on_floor(around: int) -> Callable[[Vectors], np.ndarray]:
    """Cells of the floor that grow with the distance from its middle, ``around`` in each ring."""

    def cells(points: Vectors) -> np.ndarray:
        radius, angle = np.hypot(points[:, 0], points[:, 2]), np.arctan2(points[:, 2], points[:, 0])
        return np.stack([np.log(np.maximum(radius, 1e-3)), angle], axis=1) * (around / (2 * np.pi))

    return cells


def _on_horizon(around: int) -> Callable[[Vectors], np.ndarray]:
    """Cells of the mountains, up to the height of the lower clouds; the sky above is one cell without an inside."""

    def cells(points: Vectors) -> np.ndarray:
        angle = np.arctan2(points[:, 2], points[:, 0])
        found = np.stack([points[:, 1], angle], axis=1) * (around / (2 * np.pi))
        return np.where(points[:, 1:2] < 0.25, found, 0.0)

    return cells


def _textured(item: SceneObject) -> SceneObject:
    """An object of ``synthetic_around`` with speckles of two sizes, some 10 and 20 pixels apart."""
    if isinstance(item.shape, Sphere):
        far = item.shape.radius == synthetic_around.HORIZON
        grids = (_on_horizon(90), _on_horizon(230)) if far else (_blocks(6.0), _blocks(14.0))
    elif isinstance(item.shape, raytrace.Plane):
        grids = (_on_floor(40), _on_floor(110))
    else:
        grids = (_blocks(16.0), _blocks(28.0)) if isinstance(item.shape, Capsule) else (_blocks(3.5), _blocks(8.0))
    return replace(item, paint=_speckled(item.paint, *grids))


OBJECTS: tuple[SceneObject, ...] = tuple(_textured(item) for item in synthetic_around.OBJECTS)
LIGHT = synthetic_around.LIGHT


@dataclass(frozen=True)
class Shot:
    """A photograph of the capture.

    Attributes
    ----------
    c2w
        Pose of the upright image.
    orientation
        EXIF orientation: 1 (the phone is held level), 3 (level, upside down) or 6 (upright).
    is_dark
        Whether it has the second exposure.
    is_blurred
        Whether the camera moved while it was taken.
    person
        Position on the floor (x, z) of the person who walks through it; None: nobody.
    """

    c2w: Pose
    orientation: int = 1
    is_dark: bool = False
    is_blurred: bool = False
    person: tuple[float, float] | None = None


def shots(views: int = 50, seed: int = 0) -> tuple[Shot, ...]:
    """The photographs of a capture: of 50, a third is darker, 5 are upside down, 6 upright, 1 blurred, 3 have a person.

    >>> sum(shot.is_dark for shot in shots())
    16
    """
    rng = np.random.default_rng([seed, 50])
    c2w = synthetic_around.poses(views, seed)
    turned, dark, (blurred, *crossed) = rng.permutation(views), rng.permutation(views), rng.permutation(views)[:4]
    orientations = dict.fromkeys(turned[: views // 10].tolist(), 3)
    orientations |= dict.fromkeys(turned[views // 10 : views // 10 + views // 8].tolist(), 6)
    people = {int(i): _opposite(c2w[i], float(rng.uniform(-0.4, 0.4))) for i in crossed}
    is_dark = set(dark[: views // 3].tolist())
    return tuple(
        Shot(pose, orientations.get(i, 1), i in is_dark, i == int(blurred), people.get(i)) for i, pose in enumerate(c2w)
    )


def _opposite(c2w: Pose, turn: float) -> tuple[float, float]:
    """A place on the floor behind the objects, ``turn`` radians beside the line of sight."""
    angle = float(np.arctan2(c2w[2, 3], c2w[0, 3])) + np.pi + turn
    return 1.7 * float(np.cos(angle)), 1.7 * float(np.sin(angle))


def walk(frames: int = 300, seed: int = 0) -> Float64[np.ndarray, "n 3 4"]:
    """Poses of a video's frames: a walk once around the objects, and a bit more, that rises and falls, with hand shake.

    >>> walk(3).shape
    (3, 3, 4)
    """
    rng = np.random.default_rng([seed, 300])
    part = np.linspace(0, 1, frames)
    waves, starts = np.array([1.0, 3.1, 7.3]), rng.uniform(0, 2 * np.pi, (3, 8))
    shake = (
        np.sin(2 * np.pi * waves[:, None, None] * part[:, None] + starts[:, None]) / waves[:, None, None] ** 0.5
    ).sum(0)
    turn, rise = 2 * np.pi * 1.1 * part, np.deg2rad(26 - 11 * np.cos(4 * np.pi * part))
    radius = 3.1 + 0.1 * shake[:, 6]
    centers = np.stack([np.cos(turn) * np.cos(rise), np.sin(rise), np.sin(turn) * np.cos(rise)], 1) * radius[:, None]
    centers, targets = centers + 0.012 * shake[:, :3], np.array([0.0, 0.5, 0.0]) + 0.03 * shake[:, 3:6]
    rolls = np.deg2rad(0.8 * shake[:, 7])
    return np.stack([synthetic.look_at(*pose) for pose in zip(centers, targets, rolls.tolist(), strict=True)])


def lens(width: int = WIDTH, height: int = HEIGHT, orientation: int = 1) -> Camera:
    """OPENCV camera of an upright image; ``width`` and ``height`` are those of the sensor's pixels, before rotation.

    A sensor that is rotated within the image has its principal point and tangential distortion rotated.

    >>> lens(orientation=6).width
    756
    """
    k1, k2, p1, p2 = _DISTORTION
    focal, right, down = (number * width / WIDTH for number in (_FOCAL, *_CENTER))
    if orientation == 6:  # a quarter turn clockwise: right becomes down, down becomes left
        x, y, size, tangential = height / 2 - down, width / 2 + right, (height, width), (p2, -p1)
    else:
        sign = -1 if orientation == 3 else 1
        x, y, size = width / 2 + sign * right, height / 2 + sign * down, (width, height)
        tangential = (sign * p1, sign * p2)
    return Camera(*size, focal, focal, x, y, "OPENCV", (k1, k2, *tangential))


@lru_cache(maxsize=3)
def _rays(camera: Camera) -> Float32[np.ndarray, "n s 2"]:
    """Directions (x, y, −1) of the rays of each pixel, row by row; the first one is at the pixel's center."""
    index = torch.arange(camera.width * camera.height)
    table = Cameras([camera])
    found = [
        table.directions(torch.zeros_like(index), index % camera.width + dx, index // camera.width + dy, 0)[:, :2]
        for dx, dy in _OFFSETS
    ]
    return torch.stack(found, dim=1).numpy()


def _colors(rays: np.ndarray, c2w: Pose, objects: Sequence[SceneObject]) -> Float64[np.ndarray, "*b 3"]:
    """Colors of rays given by x and y in the camera's frame."""
    local = np.concatenate([rays.astype(np.float64), np.full((*rays.shape[:-1], 1), -1.0)], axis=-1)
    return synthetic.trace(np.broadcast_to(c2w[:, 3], local.shape), local @ c2w[:, :3].T, objects, LIGHT)[0]


def _changes(image: Float64[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where a pixel differs from one of its eight neighbors."""
    import cv2

    rectangle = np.ones((3, 3), np.uint8)
    return np.asarray((cv2.dilate(image, rectangle) - cv2.erode(image, rectangle)).max(axis=-1) > _CONTRAST)


def render(
    camera: Camera, c2w: Pose, objects: Sequence[SceneObject] = OBJECTS, *, smooth: bool = True
) -> Float64[np.ndarray, "h w 3"]:
    """Image in [0, 1] through a camera with distortion; with ``smooth``, five rays a pixel where colors change."""
    rays = _rays(camera)
    flat = _colors(rays[:, 0], c2w, objects)
    if smooth:
        (fine,) = np.nonzero(_changes(flat.reshape(camera.height, camera.width, 3)).ravel())
        others = _colors(rays[fine, 1:], c2w, objects)
        flat[fine] = (flat[fine] + others.sum(axis=1)) / len(_OFFSETS)
    return flat.reshape(camera.height, camera.width, 3)


def _blurred(camera: Camera, c2w: Pose) -> Float64[np.ndarray, "h w 3"]:
    """Image of a camera that turns by 0.9° and moves sideways by 1.5 cm while it is taken: about 12 pixels."""
    steps = []
    for part in np.linspace(-0.5, 0.5, _BLUR_STEPS):
        angle = np.deg2rad(0.9) * part
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        center = c2w[:, 3] - 0.015 * part * c2w[:, 0]
        steps.append(render(camera, np.concatenate([c2w[:, :3] @ turn, center[:, None]], axis=1), smooth=False))
    return np.asarray(np.mean(steps, axis=0))


def _person(place: tuple[float, float]) -> tuple[SceneObject, ...]:
    """A person of 1.5 m in a striped shirt."""
    x, z = place
    shirt = raytrace.stripes((0.90, 0.25, 0.20), (0.95, 0.92, 0.85), _UP, 9.0)
    trousers, skin = raytrace.plain((0.15, 0.18, 0.30)), raytrace.plain((0.85, 0.62, 0.50))
    return (
        SceneObject(Capsule((x, 0.75, z), (x, 1.15, z), 0.18), shirt),
        SceneObject(Capsule((x - 0.08, 0.05, z + 0.12), (x - 0.07, 0.7, z), 0.08), trousers),
        SceneObject(Capsule((x + 0.08, 0.05, z - 0.12), (x + 0.07, 0.7, z), 0.08), trousers),
        SceneObject(Sphere((x, 1.45, z), 0.13), skin),
    )


def photograph(camera: Camera, shot: Shot) -> tuple[Float64[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None]:
    """The upright image, and where it shows the scene as it is, if a person stands before or shades the rest."""
    image = _blurred(camera, shot.c2w) if shot.is_blurred else render(camera, shot.c2w)
    kept = None
    if shot.person is not None:
        without, image = image, render(camera, shot.c2w, (*OBJECTS, *_person(shot.person)))
        kept = np.abs(image - without).max(axis=-1) < 1e-6
    return (exposed(image, DARKER) if shot.is_dark else image), kept


def exposed(image: Float64[np.ndarray, "h w 3"], gains: Sequence[float]) -> Float64[np.ndarray, "h w 3"]:
    """An sRGB image as taken with other linear gains of its channels (IEC 61966-2-1)."""
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4) * np.array(gains)
    curved = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.clip(curved, 0, 1)
