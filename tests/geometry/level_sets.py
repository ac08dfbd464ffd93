"""Scalar fields with known level sets, and properties of meshes, for the tests of extraction and ray tracing.

Each field takes points ``*b 3`` to numbers ``*b`` in their dtype. ``Ball``, ``Torus``, ``Box`` and ``Union`` are signed
distances, negative inside; ``Ellipsoid`` is 0 on its surface and no steeper than one, as a distance is.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from enerf.geometry.isosurface import extract
from enerf.geometry.isosurface.extract import ExtractionSettings, Surface

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """Off-center and with unequal axes, so that swapped axes are noticed."""

    center: Triple = (0.1, -0.2, 0.05)
    axes: Triple = (0.7, 0.5, 0.3)

    def __call__(self, points: Tensor) -> Tensor:
        scaled = (points - points.new_tensor(self.center)) / points.new_tensor(self.axes)
        return (scaled.norm(dim=-1) - 1) * min(self.axes)

    @property
    def volume(self) -> float:
        return 4 / 3 * math.pi * math.prod(self.axes)


@dataclass(frozen=True)
class Ball:
    center: Triple = (0.0, 0.0, 0.0)
    radius: float = 0.6

    def __call__(self, points: Tensor) -> Tensor:
        return (points - points.new_tensor(self.center)).norm(dim=-1) - self.radius


@dataclass(frozen=True)
class Torus:
    """About the z axis."""

    large: float = 0.55
    small: float = 0.2

    def __call__(self, points: Tensor) -> Tensor:
        x, y, z = points.unbind(-1)
        return (((x**2 + y**2).sqrt() - self.large) ** 2 + z**2).sqrt() - self.small


@dataclass(frozen=True)
class Box:
    low: Triple
    high: Triple

    def __call__(self, points: Tensor) -> Tensor:
        low, high = points.new_tensor(self.low), points.new_tensor(self.high)
        beyond = (points - (low + high) / 2).abs() - (high - low) / 2
        return beyond.clamp(min=0).norm(dim=-1) + beyond.max(-1).values.clamp(max=0)


@dataclass(frozen=True)
class Union:
    parts: tuple

    def __call__(self, points: Tensor) -> Tensor:
        return torch.stack([part(points) for part in self.parts]).min(0).values


@dataclass(frozen=True)
class Waves:
    """A smooth field of many directions; its level set is a foam."""

    number: int = 12
    seed: int = 0
    frequency: float = 5.0

    def __call__(self, points: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(points)  # noqa: E731
        phases = points @ (self.frequency * draw(3, self.number)) + 3 * draw(self.number)
        return (draw(self.number) * phases.sin()).sum(-1)


@dataclass(frozen=True)
class Steep:
    """Occupancy logits of a signed distance: a jump within ``width`` on either side, flat beyond."""

    distance: object
    width: float = 0.02
    height: float = 10.0

    def __call__(self, points: Tensor) -> Tensor:
        return self.height * (-self.distance(points) / self.width).clamp(-1, 1)


def extracted(field, box, resolution, iso_value=0.0, announce=None, **settings) -> Surface:
    """The surface of a field; the settings are keywords."""
    return extract.extract(field, box, ExtractionSettings(resolution, iso_value, **settings), announce=announce)


class Counting:
    """Counts the points at which a field is evaluated, and the most in one call."""

    def __init__(self, field) -> None:
        self.field, self.points, self.most = field, 0, 0

    def __call__(self, points: Tensor) -> Tensor:
        self.points, self.most = self.points + len(points), max(self.most, len(points))
        return self.field(points)


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Signed: positive if the faces look outwards."""
    a, b, c = vertices[faces.T]
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def area(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = vertices[faces.T]
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def euler_number(vertices: np.ndarray, faces: np.ndarray) -> int:
    """Of a closed mesh: 2 for a ball, 0 for a torus, and their sum for several parts."""
    return len(vertices) - len(faces) // 2


def is_closed(faces: np.ndarray) -> bool:
    """Whether every edge has one face on either side, turning the same way."""
    there = _half_edges(faces)
    one_way = np.unique(there)
    return len(one_way) == len(there) and np.array_equal(one_way, np.unique(_half_edges(faces[:, ::-1])))


def _half_edges(faces: np.ndarray) -> np.ndarray:
    """The half-edges of faces, one number each."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    return ends[:, 0] << 32 | ends[:, 1]


def parts(vertices: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    """The vertices of each connected part, in their order."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    edges = coo_matrix((np.ones(len(ends)), ends.T), shape=(len(vertices),) * 2)
    count, label = connected_components(edges, directed=False)
    return [vertices[label == part] for part in range(count)]


def triangles(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces as coordinates, each from its least corner on, sorted: a set to be compared."""
    order = np.lexsort(vertices.T[::-1])
    rank = np.empty(len(vertices), dtype=np.int64)
    rank[order] = np.arange(len(vertices))
    named = rank[faces]
    turned = np.take_along_axis(named, (named.argmin(1)[:, None] + np.arange(3)) % 3, 1)
    return vertices[order][turned[np.lexsort(turned.T[::-1])]].reshape(-1, 9)
