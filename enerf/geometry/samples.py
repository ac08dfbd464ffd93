"""Labelled samples of a solid: points of the box, inside or outside, how far, and which way is out.

All randomness comes from a generator that is passed in; ``seeds.generator_for(seed, index)`` makes one for each pool of
samples, so that pool k of seed s is the same on every run. Points are rounded to float32 before they are labelled: the
label is that of the very point the field is asked about.

Shares near the surface at several scales follow common practice: Park et al., DeepSDF (2019), section 4; Müller et
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
    """Points of the box and what is known about them.

    Attributes
    ----------
    points
        Places in the box.
    labels
        Occupancy: 1 inside, 0 outside, 1/2 on the surface.
    distances
        Signed distances, negative inside, where asked for.
    normals
        Unit vectors in which the signed distance grows, on the surface its normals, where asked for.
    """

    points: Float[Tensor, "n 3"]
    labels: Float[Tensor, " n"]
    distances: Float[Tensor, " n"] | None = None
    normals: Float[Tensor, "n 3"] | None = None

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: slice | Tensor) -> "ShapeSamples":
        """Samples of a slice or selection."""
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
    """Where samples are drawn, in shares that need not add up to 1.

    Attributes
    ----------
    uniform
        Share drawn uniformly from the box.
    near
        Pairs of a scale and a share: points of the surface moved by Gaussian noise of that standard deviation.
    surface
        Share drawn on the surface itself.
    """

    uniform: float | int = 1.0
    near: tuple[tuple[float | int, float | int], ...] = ((0.1, 0.5), (0.03, 1.0), (0.01, 1.5))
    surface: float | int = 0.0

    def __post_init__(self) -> None:
        shares = [self.uniform, self.surface, *(share for _, share in self.near)]
        if min(shares) < 0 or sum(shares) <= 0 or any(scale <= 0 for scale, _ in self.near):
            raise ValueError(f"shares must not be negative nor all 0, and scales must be above 0: {self}")

    def counts(self, n: int) -> list[int]:
        """How many of ``n`` samples are on the surface, uniform, and near it at each scale: rounded, in all ``n``.

        >>> Mixture(uniform=1, near=((0.1, 1), (0.01, 2))).counts(20)
        [0, 5, 5, 10]
        """
        ends = np.cumsum([self.surface, self.uniform, *(share for _, share in self.near)])
        return np.diff(np.round(ends / ends[-1] * n).astype(int), prepend=0).tolist()


def uniform(n: int, generator: torch.Generator) -> Rows:
    """Points drawn uniformly from the box."""
    return torch.rand(n, 3, generator=generator, dtype=torch.float64).numpy() * 2 - 1


def on_surface(mesh: Mesh, n: int, generator: torch.Generator) -> tuple[Rows, Int64[np.ndarray, " n"]]:
    """Points drawn uniformly by area from the surface, and their faces.

    Source: Osada, Funkhouser, Chazelle, Dobkin, Shape distributions (2002), section 4.2, for points of a triangle.
    """
    first, second, third = torch.rand(3, n, generator=generator, dtype=torch.float64).numpy()
    ends = np.cumsum(mesh.areas)
    # faces without area end where the one before them does: side "right" never names them
    faces = np.minimum(np.searchsorted(ends, first * ends[-1], side="right"), np.flatnonzero(mesh.areas)[-1])
    a, b, c = mesh.triangles[faces].transpose(1, 0, 2)
    root = np.sqrt(second)[:, None]
    return a * (1 - root) + b * root * (1 - third[:, None]) + c * root * third[:, None], faces


def near_surface(mesh: Mesh, n: int, scale: float | int, generator: torch.Generator) -> Rows:
    """Points of the surface moved by Gaussian noise; what leaves the box is mirrored back at its walls."""
    noise = torch.randn(n, 3, generator=generator, dtype=torch.float64).numpy()
    return mirrored(on_surface(mesh, n, generator)[0] + scale * noise)


def mirrored(points: Rows) -> Rows:
    """Points in the box: those outside mirrored at its walls, as often as it takes.

    >>> mirrored(np.array([[0.5, 1.25, -3.5]]))
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
    """``n`` labelled samples in random order; without distances and normals, labels alone cost much less."""
    surface, spread, *near = mixture.counts(n)
    touching, faces = on_surface(solid.mesh, surface, generator)
    free = [uniform(spread, generator)]
    free += [near_surface(solid.mesh, k, scale, generator) for (scale, _), k in zip(mixture.near, near, strict=True)]
    points = torch.from_numpy(np.concatenate([touching, *free])).float()
    order = torch.randperm(n, generator=generator)
    away, ways = torch.zeros(n), torch.zeros(n, 3)
    if distances or normals:
        away[surface:], ways[surface:] = solid.signed_distance_and_gradient(points[surface:])
        ways[:surface] = torch.from_numpy(solid.mesh.normals[faces]).float()
        labels = (away < 0).float()
    else:
        labels = torch.zeros(n)
        labels[surface:] = solid.occupancy(points[surface:]).float()
    labels[:surface] = 0.5
    return ShapeSamples(points, labels, away if distances else None, ways if normals else None)[order]


def pool(
    solid: Solid, mixture: Mixture, n: int, seed: int, index: int, *, distances: bool = False, normals: bool = False
) -> ShapeSamples:
    """Pool ``index`` of a seed: its content depends on the arguments and on nothing else."""
    return draw(solid, mixture, n, rng.generator_for(seed, index), distances=distances, normals=normals)


def from_cloud(cloud: PointCloud, n: int, generator: torch.Generator) -> ShapeSamples:
    """``n`` points of an oriented cloud, drawn with replacement: on the surface, at distance 0, with normals."""
    chosen = torch.randint(len(cloud.points), (n,), generator=generator).numpy()
    return ShapeSamples(
        points=torch.from_numpy(cloud.points[chosen]).float(),
        labels=torch.full((n,), 0.5),
        distances=torch.zeros(n),
        normals=torch.from_numpy(cloud.normals[chosen]).float(),
    )
