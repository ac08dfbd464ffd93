"""Analytic shapes and their meshes, with known volume, area, signed distance and Euler number.

An off-center ellipsoid with three different axes, a torus, two boxes that share part of a side, a plate with a
thickness of 1/160 of its length, and a ``demo`` of several: the ellipsoid through a torus, above a plate, next to a
box. Vertices lie on the surface, so the volume of curved meshes is up to 0.3 % below the formula. Coordinates are those
of a file: neither centered nor scaled.

    enerf generate shape --out data/shapes
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import trimesh
from jaxtyping import Float64, Int64

from enerf.core import io
from enerf.core.errors import InputError
from enerf.geometry import write

Triple = tuple[float | int, float | int, float | int]
Rows = Float64[np.ndarray, "n 3"]
_SUBDIVISIONS, _MAJOR, _MINOR = 5, 160, 64  # of curved meshes
_BISECTIONS = 110  # enough to exhaust double precision


@runtime_checkable
class Shape(Protocol):
    """A shape with known properties; distances are to the nearest face of ``mesh``, negative inside."""

    @property
    def volume(self) -> float:
        """Enclosed volume."""

    @property
    def area(self) -> float:
        """Surface area."""

    @property
    def euler_number(self) -> int:
        """Euler number of the surface: 2 for each sphere or box, 0 for each torus."""

    def distance(self, points: Rows) -> Float64[np.ndarray, " n"]:
        """Signed distances of points, negative inside."""

    def mesh(self) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
        """Vertices and outward-oriented faces."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with semi-axes ``axes`` along x, y and z.

    Its area is Carlson's symmetric integral (Digital library of mathematical functions, 19.33.1). Its distance is
    computed by bisection: Eberly, Distance from a point to an ellipse, an ellipsoid, or a hyperellipsoid (2013).
    """

    center: Triple
    axes: Triple

    @property
    def volume(self) -> float:
        """4/3 π a b c."""
        return 4 / 3 * math.pi * math.prod(self.axes)

    @property
    def area(self) -> float:
        """4π R_G(a²b², a²c², b²c²)."""
        from scipy.special import elliprg

        a, b, c = (axis**2 for axis in self.axes)
        return 4 * math.pi * float(elliprg(a * b, a * c, b * c))

    @property
    def euler_number(self) -> int:
        """2, as for a sphere."""
        return 2

    def distance(self, points: Rows) -> Float64[np.ndarray, " n"]:
        """Signed distances of points, negative inside."""
        axes, smallest = np.array(self.axes, float), float(min(self.axes))
        at = np.maximum(np.abs(points - np.array(self.center)), 1e-15 * smallest)  # first octant, off its sides
        ratios, scaled = (axes / smallest) ** 2, at / axes
        # the nearest point is ratios · at / (s + ratios − 1), with s such that its scaled length, falling in s, is 1
        low = scaled[:, axes.argmin()]
        high = np.linalg.norm(ratios * scaled, axis=1)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            beyond = ((ratios * scaled / (middle[:, None] + (ratios - 1))) ** 2).sum(axis=1) > 1
            low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
        nearest = ratios * at / (high[:, None] + (ratios - 1))
        away = np.linalg.norm(at - nearest, axis=1)
        return np.where((scaled**2).sum(axis=1) < 1, -away, away)

    def mesh(self) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
        """A subdivided icosahedron, scaled along the axes."""
        ball = trimesh.creation.icosphere(subdivisions=_SUBDIVISIONS)
        return np.array(ball.vertices) * np.array(self.axes) + np.array(self.center), _faces(ball)


@dataclass(frozen=True)
class Torus:
    """A torus about axis 0, 1 or 2, with major radius ``ring`` and minor radius ``tube``."""

    center: Triple
    ring: float | int
    tube: float | int
    axis: int = 2

    @property
    def volume(self) -> float:
        """2π² R r²."""
        return 2 * math.pi**2 * self.ring * self.tube**2

    @property
    def area(self) -> float:
        """4π² R r."""
        return 4 * math.pi**2 * self.ring * self.tube

    @property
    def euler_number(self) -> int:
        """0."""
        return 0

    def distance(self, points: Rows) -> Float64[np.ndarray, " n"]:
        """Signed distances of points, negative inside."""
        at = points - np.array(self.center)
        across = np.linalg.norm(np.delete(at, self.axis, axis=1), axis=1) - self.ring
        return np.hypot(across, at[:, self.axis]) - self.tube

    def mesh(self) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
        """A grid of quadrilaterals, each split into two triangles."""
        made = trimesh.creation.torus(self.ring, self.tube, major_sections=_MAJOR, minor_sections=_MINOR)
        return np.roll(made.vertices, self.axis - 2, axis=1) + np.array(self.center), _faces(made)


@dataclass(frozen=True)
class Box:
    """An axis-aligned box between two corners."""

    low: Triple
    high: Triple

    @property
    def sides(self) -> Float64[np.ndarray, " 3"]:
        """Side lengths along x, y and z."""
        return np.array(self.high, float) - np.array(self.low, float)

    @property
    def volume(self) -> float:
        """Product of the side lengths."""
        return float(self.sides.prod())

    @property
    def area(self) -> float:
        """Area of the six sides."""
        return 2 * float((self.sides * np.roll(self.sides, 1)).sum())

    @property
    def euler_number(self) -> int:
        """2, as for a sphere."""
        return 2

    def distance(self, points: Rows) -> Float64[np.ndarray, " n"]:
        """Signed distances of points, negative inside."""
        beyond = np.abs(points - (np.array(self.low, float) + self.sides / 2)) - self.sides / 2
        return np.linalg.norm(beyond.clip(0), axis=1) + beyond.max(axis=1).clip(max=0)

    def mesh(self) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
        """Two triangles per side."""
        made = trimesh.creation.box(bounds=[self.low, self.high])
        return np.array(made.vertices), _faces(made)


@dataclass(frozen=True)
class Composite:
    """Shapes with disjoint interiors; each is a separate component of the mesh.

    Where two touch, both surfaces count: for the area, the Euler number and the distance.
    """

    shapes: tuple[Shape, ...]

    @property
    def volume(self) -> float:
        """Sum over the shapes."""
        return sum(shape.volume for shape in self.shapes)

    @property
    def area(self) -> float:
        """Sum over the shapes."""
        return sum(shape.area for shape in self.shapes)

    @property
    def euler_number(self) -> int:
        """Sum over the shapes."""
        return sum(shape.euler_number for shape in self.shapes)

    def distance(self, points: Rows) -> Float64[np.ndarray, " n"]:
        """Minimum over the shapes; inside one of them its own surface is the nearest."""
        return np.min([shape.distance(points) for shape in self.shapes], axis=0)

    def mesh(self) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
        """Concatenated meshes of the shapes."""
        meshes = [shape.mesh() for shape in self.shapes]
        starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes[:-1])])
        faces = [faces + start for (_, faces), start in zip(meshes, starts, strict=True)]
        return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces)


ELLIPSOID = Ellipsoid((0.9, 0.1, 1.2), (0.75, 0.3, 0.42))
RING = Torus((0.9, 0.1, 1.2), 0.62, 0.14, axis=0)  # around the ellipsoid
PLATE = Box((-0.9, -0.9, 0.0), (2.0, 0.9, 0.03))
BRICK = Box((-0.75, -0.35, 0.25), (-0.15, 0.45, 1.15))
SHAPES: dict[str, Shape] = {
    "ellipsoid": ELLIPSOID,
    "torus": Torus((0.4, -0.3, 0.2), 0.6, 0.22),
    "touching_boxes": Composite((Box((0, 0, 0), (1, 0.8, 0.6)), Box((1, 0.3, 0.2), (1.7, 1.1, 1)))),
    "plate": Box((-0.9, -0.5, 0.1), (2.3, 0.6, 0.12)),
    "demo": Composite((ELLIPSOID, RING, PLATE, BRICK)),
}


def write_shapes(folder: str | Path) -> list[Path]:
    """Write ``ellipsoid.ply``, ``torus.ply``, ``touching_boxes.ply``, ``plate.ply``, ``demo.ply``; returns the paths.

    The bytes are always the same; a file with the same content is not written again.

    Raises
    ------
    InputError
        If a file of such a name has other content (nothing is overwritten) or the folder cannot be written.
    """
    paths = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, shape in SHAPES.items():
            path, made = Path(folder) / f"{name}.ply", Path(scratch) / f"{name}.ply"
            write.write(made, *shape.mesh())
            with io.os_errors_as_input_errors(path):
                there = path.exists()
                if there and path.read_bytes() != made.read_bytes():
                    raise InputError(f"{path} exists and is another shape; name another folder or remove it")
            if not there:
                with io.atomic_path(path) as temporary, io.os_errors_as_input_errors(path):
                    temporary.write_bytes(made.read_bytes())
            paths.append(path)
    return paths


def _faces(made: trimesh.Trimesh) -> Int64[np.ndarray, "f 3"]:
    return np.array(made.faces, dtype=np.int64)
