"""Labelled samples of a solid: points in the box with occupancy, signed distance and normals.

All randomness comes from the generator passed in; ``rng.generator_for(seed, index)`` makes one for each pool of
samples, so that pool k of seed s is the same on every run. Points are rounded to float32 before they are labelled, so
that the label belongs to exactly the point at which the field is evaluated.

Samples near the surface at several scales follow common practice: Park et al., DeepSDF (2019), section 4; Müller et
al., Instant neural graphics primitives (2022), section 5.2.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from enerf.core import rng
from enerf.geometry.mesh import Mesh, PointCloud
from enerf.geometry.solid import Solid

Rows = Float64[np.ndarray, "n 3"]


@dataclass(frozen=True)
class ShapeSamples:
    """Points in the box and their labels.

    Attributes
    ----------
    points
        Box coordinates.
    labels
        Occupancy: 1 inside, 0 outside, 1/2 on the surface.
    distances
        Signed distances, negative inside, if requested.
    normals
        Unit gradients of the signed distance (on the surface its normals), if requested.
    """

    points: Float[Tensor, "n 3"]
    labels: Float[Tensor, " n"]
    distances: Float[Tensor, " n"] | None = None
    normals: Float[Tensor, "n 3"] | None = None

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: slice | Tensor) -> "ShapeSamples":
        """The selected samples."""
        return ShapeSamples(
            points=self.points[index],
            labels=self.labels[index],
            distances=None if self.distances is None else self.distances[index],
            normals=None if self.normals is None else self.normals[index],
        )

    def to(self, device: torch.device | str) -> "ShapeSamples":
        """The same samples on a device."""
        return ShapeSamples(
            points=self.points.to(device),
            labels=self.labels.to(device),
            distances=None if self.distances is None else self.distances.to(device),
            normals=None if self.normals is None else self.normals.to(device),
        )


@dataclass(frozen=True)
class Mixture:
    """Distribution of samples, in shares that need not add up to 1.

    Attributes
    ----------
    uniform
        Share drawn uniformly in the box.
    near
        Pairs of a scale and a share: surface points displaced by Gaussian noise of that standard deviation.
    surface
        Share drawn on the surface.
    """

    uniform: float | int = 1.0
    near: tuple[tuple[float | int, float | int], ...] = ((0.1, 0.5), (0.03, 1.0), (0.01, 1.5))
    surface: float | int = 0.0

    def __post_init__(self) -> None:
        shares = [self.uniform, self.surface, *(share for _, share in self.near)]
        if min(shares) < 0 or sum(shares) <= 0 or any(scale <= 0 for scale, _ in self.near):
            raise ValueError(f"shares must not be negative nor all 0, and scales must be above 0: {self}")

    def counts(self, n: int) -> list[int]:
        """Number of samples on the surface, uniform, and near it at each scale: rounded, summing to ``n``.

        >>> Mixture(uniform=1, near=((0.1, 1), (0.01, 2))).counts(20)
        [0, 5, 5, 10]
        """
        ends = np.cumsum([self.surface, self.uniform, *(share for _, share in self.near)])
        return np.diff(np.round(ends / ends[-1] * n).astype(int), prepend=0).tolist()


def uniform(n: int, generator: torch.Generator) -> Rows:
    """Points drawn uniformly in the box."""
    return torch.rand(n, 3, generator=generator, dtype=torch.float64).numpy() * 2 - 1


def on_surface(mesh: Mesh, n: int, generator: torch.Generator) -> tuple[Rows, Int64[np.ndarray, " n"]]:
    """Points drawn uniformly by area on the surface, and their faces.

    Source: Osada, Funkhouser, Chazelle, Dobkin, Shape distributions (2002), section 4.2, for points in a triangle.
    """
    first, second, third = torch.rand(3, n, generator=generator, dtype=torch.float64).numpy()
    ends = np.cumsum(mesh.areas)
    # faces without area have the cumulative sum of the face before: side "right" never selects them
    faces = np.minimum(np.searchsorted(ends, first * ends[-1], side="right"), np.flatnonzero(mesh.areas)[-1])
    a, b, c = mesh.triangles[faces].transpose(1, 0, 2)
    root = np.sqrt(second)[:, None]
    return a * (1 - root) + b * root * (1 - third[:, None]) + c * root * third[:, None], faces


def near_surface(mesh: Mesh, n: int, scale: float | int, generator: torch.Generator) -> Rows:
    """Surface points displaced by Gaussian noise; points outside the box are reflected back at its sides."""
    noise = torch.randn(n, 3, generator=generator, dtype=torch.float64).numpy()
    return reflected(on_surface(mesh, n, generator)[0] + scale * noise)


def reflected(points: Rows) -> Rows:
    """Points reflected at the sides of the box until they lie in it.

    >>> reflected(np.array([[0.5, 1.25, -3.5]]))
    array([[0.5 , 0.75, 0.5 ]])
    """
    return 1 - np.abs((points + 1) % 4 - 2)


def draw(
    solid: Solid,
    mixture: Mixture,
    n: int,
    generator: torch.Generator,
    *,
    distances: bool = False,
    normals: bool = False,
) -> ShapeSamples:
    """Draw ``n`` labelled samples in random order; labels without distances and normals are much cheaper."""
    surface, spread, *near = mixture.counts(n)
    surface_points, faces = on_surface(solid.mesh, surface, generator)
    others = [uniform(spread, generator)]
    others += [near_surface(solid.mesh, k, scale, generator) for (scale, _), k in zip(mixture.near, near, strict=True)]
    points = torch.from_numpy(np.concatenate([surface_points, *others])).float()
    order = torch.randperm(n, generator=generator)
    signed, gradients = torch.zeros(n), torch.zeros(n, 3)
    if distances or normals:
        signed[surface:], gradients[surface:] = solid.signed_distance_and_gradient(points[surface:])
        gradients[:surface] = torch.from_numpy(solid.mesh.normals[faces]).float()
        labels = (signed < 0).float()
    else:
        labels = torch.zeros(n)
        labels[surface:] = solid.occupancy(points[surface:]).float()
    labels[:surface] = 0.5
    return ShapeSamples(points, labels, signed if distances else None, gradients if normals else None)[order]


def pool(
    solid: Solid, mixture: Mixture, n: int, seed: int, index: int, *, distances: bool = False, normals: bool = False
) -> ShapeSamples:
    """Pool ``index`` of a seed; its content depends on the arguments only."""
    return draw(solid, mixture, n, rng.generator_for(seed, index), distances=distances, normals=normals)


def from_cloud(cloud: PointCloud, n: int, generator: torch.Generator) -> ShapeSamples:
    """``n`` points of an oriented cloud, drawn with replacement: on the surface (distance 0), with normals."""
    chosen = torch.randint(len(cloud.points), (n,), generator=generator).numpy()
    return ShapeSamples(
        points=torch.from_numpy(cloud.points[chosen]).float(),
        labels=torch.full((n,), 0.5),
        distances=torch.zeros(n),
        normals=torch.from_numpy(cloud.normals[chosen]).float(),
    )
