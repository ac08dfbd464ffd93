"""A small exact ray tracer: painted shapes lit by one point light.

Vocabulary
----------
- A *shape* is a closed surface or a plane with three methods: ``hit`` (the first intersection with a ray), ``normal``
  (the outward normal at a point) and ``local`` (the point in the coordinates of its paint).
- A *paint* is an albedo as a function of local coordinates. A *scene object* is a shape with a paint and a gloss.
- ``diffuse`` is the view-independent color from ambient and Lambertian light; ``specular`` is the strength of the
  view-dependent Blinn-Phong highlight.
- ``t`` is measured in units of ``direction``; infinity if the ray hits nothing.

Colors are display values (sRGB), to which lighting is applied directly. All arrays are float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64

Vector = tuple[float, float, float]
Numbers = Float64[np.ndarray, "n"]
Vectors = Float64[np.ndarray, "n 3"]
Paint = Callable[[Vectors], Vectors]

_NEAREST = 1e-9  # hits at a smaller t are the surface that the ray starts on
_LIFT = 1e-7  # shadow rays start this far above their surface


def dot(a: Float64[np.ndarray, "*b 3"], b: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b"]:
    """Inner products over the last axis.

    >>> float(dot(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])))
    32.0
    """
    return np.asarray(a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2])


def unit(a: Float64[np.ndarray, "*b 3"]) -> Float64[np.ndarray, "*b 3"]:
    """Vectors normalized to unit length.

    >>> unit(np.array([0.0, 3.0, 4.0])).tolist()
    [0.0, 0.6, 0.8]
    """
    return a / np.sqrt(dot(a, a))[..., None]


@runtime_checkable
class Shape(Protocol):
    """Interface of shapes; ``n`` is the number of rays or points."""

    def hit(self, origins: Vectors, directions: Vectors) -> Numbers:
        """Smallest t > 0 at which each ray meets the shape, infinity where it does not."""

    def normal(self, points: Vectors) -> Vectors:
        """Outward unit normals at points of the surface."""

    def local(self, points: Vectors) -> Vectors:
        """Points in the coordinates of the paint."""


@dataclass(frozen=True)
class Plane:
    """All points p with normal · (p − point) = 0; its paint is in world coordinates."""

    point: Vector
    upwards: Vector

    def hit(self, origins: Vectors, directions: Vectors) -> Numbers:
        """Smallest t > 0 at which each ray meets the plane, infinity where it does not."""
        normal = np.array(self.upwards)
        height, slope = (origins - np.array(self.point)) @ normal, directions @ normal
        t = np.full(len(origins), np.inf)
        np.divide(-height, slope, out=t, where=slope != 0)
        return np.where(t > _NEAREST, t, np.inf)

    def normal(self, points: Vectors) -> Vectors:
        """The plane's unit normal, repeated for each point."""
        return np.broadcast_to(np.array(self.upwards), points.shape)

    def local(self, points: Vectors) -> Vectors:
        """The points, unchanged."""
        return points


@dataclass(frozen=True)
class Sphere:
    """All points at ``radius`` from ``center``; its paint is on the unit sphere."""

    center: Vector
    radius: float

    def hit(self, origins: Vectors, directions: Vectors) -> Numbers:
        """Smallest t > 0 at which each ray meets the sphere, infinity where it does not."""
        offsets = origins - np.array(self.center)
        a, b, c = (
            dot(directions, directions),
            dot(offsets, directions),
            dot(offsets, offsets) - self.radius**2,
        )
        discriminant = b * b - a * c
        t = np.full(len(origins), np.inf)
        hits = discriminant >= 0
        a, b, root = a[hits], b[hits], np.sqrt(discriminant[hits])
        enters, leaves = (-b - root) / a, (-b + root) / a
        t[hits] = np.where(enters > _NEAREST, enters, np.where(leaves > _NEAREST, leaves, np.inf))
        return t

    def normal(self, points: Vectors) -> Vectors:
        """Outward unit normals: away from the center."""
        return unit(self.local(points))

    def local(self, points: Vectors) -> Vectors:
        """Points in the frame with the center at 0 and radius 1."""
        return (points - np.array(self.center)) / self.radius


@dataclass(frozen=True)
class Box:
    """A box rotated by ``turn`` radians about y, for rays from outside; its paint is on the cube [−1, 1]³."""

    center: Vector
    half: Vector
    turn: float

    def _axes(self) -> Float64[np.ndarray, "3 3"]:
        """Rows: the box's own axes in world coordinates."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        return np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])

    def hit(self, origins: Vectors, directions: Vectors) -> Numbers:
        """Return the distance t > 0 to the box, infinity for rays that miss it; the origins must be outside."""
        starts = self.local(origins)
        steps = directions @ self._axes().T / np.array(self.half)
        steps = np.where(np.abs(steps) < 1e-200, 1e-200, steps)
        low, high = (-1 - starts) / steps, (1 - starts) / steps
        (x0, y0, z0), (x1, y1, z1) = np.minimum(low, high).T, np.maximum(low, high).T  # faster than along the last axis
        enters, leaves = np.maximum(np.maximum(x0, y0), z0), np.minimum(np.minimum(x1, y1), z1)
        return np.where((enters > _NEAREST) & (enters <= leaves), enters, np.inf)

    def normal(self, points: Vectors) -> Vectors:
        """Outward unit normals of the faces the points lie on."""
        cube = self.local(points)
        face = np.abs(cube).argmax(axis=-1)
        sign = np.sign(np.take_along_axis(cube, face[:, None], axis=-1))
        return sign * self._axes()[face]

    def local(self, points: Vectors) -> Vectors:
        """Points in the frame in which the box is the cube [−1, 1]³."""
        return (points - np.array(self.center)) @ self._axes().T / np.array(self.half)


@dataclass(frozen=True)
class Capsule:
    """All points at ``radius`` from the segment start–end, for rays from outside; painted relative to ``start``."""

    start: Vector
    end: Vector
    radius: float

    def hit(self, origins: Vectors, directions: Vectors) -> Numbers:
        """Smallest t > 0 at which each ray from outside meets the capsule, infinity where it does not."""
        axis, offsets = np.array(self.end) - np.array(self.start), origins - np.array(self.start)
        length2, along, beside = axis @ axis, directions @ axis, offsets @ axis
        a = length2 * dot(directions, directions) - along * along
        b = length2 * dot(directions, offsets) - beside * along
        c = length2 * (dot(offsets, offsets) - self.radius**2) - beside * beside
        discriminant = b * b - a * c
        t = np.full(len(origins), np.inf)
        (some,) = np.nonzero(discriminant >= 0)  # the others miss the infinite cylinder
        side = (-b[some] - np.sqrt(discriminant[some])) / np.maximum(a[some], 1e-200)
        height = beside[some] + side * along[some]
        t[some] = np.where(side > _NEAREST, side, np.inf)
        for beyond, cap in ((height < 0, self.start), (height > length2, self.end)):
            t[some[beyond]] = Sphere(cap, self.radius).hit(origins[some[beyond]], directions[some[beyond]])
        return t

    def normal(self, points: Vectors) -> Vectors:
        """Outward unit normals, away from the nearest point of the segment."""
        axis, offsets = np.array(self.end) - np.array(self.start), self.local(points)
        share = np.clip(offsets @ axis / (axis @ axis), 0, 1)
        return unit(offsets - share[:, None] * axis)

    def local(self, points: Vectors) -> Vectors:
        """Points relative to ``start``."""
        return points - np.array(self.start)


def mix(a: Vector | np.ndarray, b: Vector | np.ndarray, share: Numbers) -> Vectors:
    """Linear interpolation between the colors ``a`` (share 0) and ``b`` (share 1)."""
    return np.array(a) + share[:, None] * (np.array(b) - np.array(a))


def plain(color: Vector) -> Paint:
    """Paint of one color."""
    return lambda points: np.broadcast_to(np.array(color), points.shape)


def checker(a: Vector, b: Vector, squares: int) -> Paint:
    """Checkerboard paint of a sphere: ``squares`` squares from pole to pole, twice as many around."""

    def paint(points: Vectors) -> Vectors:
        across = np.arctan2(points[:, 0], points[:, 2]) / np.pi * squares
        down = np.arccos(np.clip(points[:, 1], -1, 1)) / np.pi * squares
        return mix(a, b, (np.floor(across) + np.floor(down)) % 2)

    return paint


def stripes(a: Vector, b: Vector, across: Vector, bands: float) -> Paint:
    """Striped paint of a sphere or capsule: ``bands`` stripes per unit length, along the direction ``across``."""
    return lambda points: mix(a, b, np.floor(points @ np.array(across) * bands) % 2)


@dataclass(frozen=True)
class SceneObject:
    """A painted shape; ``gloss`` in [0, 1] is the strength of its highlight, ``sharpness`` the Blinn-Phong exponent."""

    shape: Shape
    paint: Paint
    gloss: float = 0.0
    sharpness: float = 1.0


@dataclass(frozen=True)
class PointLight:
    """One point light, and the ambient light of surfaces that face upwards (``above``) and downwards (``below``)."""

    position: Vector
    above: float = 0.5
    below: float = 0.3


@dataclass(frozen=True)
class RayHits:
    """First hits of rays: t, index of the object (−1 for none), diffuse color, specular strength in [0, 1]."""

    t: Numbers
    index: Int64[np.ndarray, " n"]
    diffuse: Vectors
    specular: Numbers

    def rgb(self) -> Vectors:
        """Colors in [0, 1]: the diffuse color blended with white by the specular strength."""
        return self.diffuse + self.specular[:, None] * (1 - self.diffuse)


def is_lit(
    objects: Sequence[SceneObject], light: PointLight, points: Vectors, normals: Vectors
) -> Bool[np.ndarray, " n"]:
    """Whether each surface point faces the light and no object casts a shadow on it."""
    starts = points + _LIFT * normals
    beams = np.array(light.position) - starts
    lit = dot(beams, normals) > 0
    (facing,) = np.nonzero(lit)
    starts, beams = starts[facing], beams[facing]
    for item in objects:
        lit[facing] &= item.shape.hit(starts, beams) >= 1
    return lit


def trace_rays(objects: Sequence[SceneObject], light: PointLight, origins: Vectors, directions: Vectors) -> RayHits:
    """Shaded first hits of rays; black, with t infinite, for rays that hit nothing."""
    t = np.full(len(origins), np.inf)
    index = np.full(len(origins), -1)
    for i, item in enumerate(objects):
        nearer = item.shape.hit(origins, directions)
        index[nearer < t] = i
        t = np.minimum(t, nearer)
    points = origins + np.where(index >= 0, t, 0.0)[:, None] * directions
    normals, diffuse, specular = np.zeros_like(points), np.zeros_like(points), np.zeros_like(t)
    for i, item in enumerate(objects):
        (here,) = np.nonzero(index == i)
        normals[here] = item.shape.normal(points[here])
        diffuse[here] = item.paint(item.shape.local(points[here]))
        specular[here] = item.gloss
    normals *= -np.sign(dot(normals, directions))[:, None]  # a plane is visible from both sides

    (hits,) = np.nonzero(index >= 0)
    normal, to_light = normals[hits], unit(np.array(light.position) - points[hits])
    direct = is_lit(objects, light, points[hits], normal) * np.maximum(dot(normal, to_light), 0)
    ambient = light.below + (light.above - light.below) * (normal[:, 1] + 1) / 2
    diffuse[hits] *= (ambient + (1 - ambient) * direct)[:, None]
    sharpness = np.array([item.sharpness for item in objects])[index[hits]]
    halfway = unit(to_light - unit(directions[hits]))
    specular[hits] *= (direct > 0) * np.maximum(dot(normal, halfway), 0) ** sharpness
    return RayHits(t, index, diffuse, specular)
