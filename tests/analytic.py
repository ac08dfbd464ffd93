"""Radiance fields with closed-form renderings, for tests of rendering.

Each is a ``RadianceField``: call it with points (*b, s, 3) and viewdirs (*b, 3). Its ``optical_depth`` is the
exact ∫σ‖direction‖dt over [near, far] along rays (*b, 3), so the exact opacity is 1 − exp(−optical_depth)
and, as every field has one color, the exact rgb is opacity · color. Directions need not be unit. Dtype and
device are those of the points.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from enerf.core.types import FieldOutput

Color = tuple[float, float, float]


def _output(density: Tensor, points: Tensor, color: Color) -> FieldOutput:
    return FieldOutput(density, torch.tensor(color, dtype=points.dtype, device=points.device).expand_as(points))


def opacity(optical_depth: Tensor) -> Tensor:
    """1 − exp(−optical depth), accurate near 0."""
    return -torch.expm1(-optical_depth)


@dataclass(frozen=True)
class Fog:
    """A homogeneous medium without end.

    >>> down = torch.tensor([0.0, 0.0, -2.0])
    >>> float(Fog(0.5).optical_depth(torch.zeros(3), down, 1.0, 4.0))
    3.0
    """

    density: float = 1.0
    color: Color = (0.2, 0.5, 0.8)

    def __call__(self, points: Tensor, viewdirs: Tensor) -> FieldOutput:
        return _output(torch.full_like(points[..., 0], self.density), points, self.color)

    def optical_depth(self, origins: Tensor, directions: Tensor, near: float, far: float) -> Tensor:
        return self.density * (far - near) * directions.norm(dim=-1).expand(origins.shape[:-1])


@dataclass(frozen=True)
class Wall:
    """An opaque half-space z ≤ z0, empty before; for rays that go down −z from before it.

    >>> down = torch.tensor([0.0, 0.0, -2.0])
    >>> float(Wall(-3.0).depth(torch.zeros(3), down))
    1.5
    >>> [float(Wall(-3.0, density=10.0).optical_depth(torch.zeros(3), down, 0.0, far)) for far in (1.4, 2.0)]
    [0.0, 10.0]
    """

    z0: float = -3.0
    density: float = 1e6
    color: Color = (0.9, 0.4, 0.1)

    def __call__(self, points: Tensor, viewdirs: Tensor) -> FieldOutput:
        return _output((points[..., 2] <= self.z0) * torch.full_like(points[..., 0], self.density), points, self.color)

    def depth(self, origins: Tensor, directions: Tensor) -> Tensor:
        """The t at which rays meet the wall."""
        return (self.z0 - origins[..., 2]) / directions[..., 2]

    def optical_depth(self, origins: Tensor, directions: Tensor, near: float, far: float) -> Tensor:
        inside = far - self.depth(origins, directions).clamp(near, far)
        return self.density * inside * directions.norm(dim=-1)


@dataclass(frozen=True)
class SoftBall:
    """A Gaussian cloud: density ``peak`` · exp(−r² / 2 ``radius``²) at distance r from ``center``.

    >>> origin, direction = torch.tensor([[0.1, -0.4, 1.0], [0.1, 0.2, -1.5]], dtype=torch.float64)
    >>> t = torch.linspace(0.5, 3.0, 4001, dtype=torch.float64)
    >>> sigma = SoftBall()(origin + t[:, None] * direction, direction).density
    >>> slow = torch.trapezoid(sigma, t) * direction.norm()
    >>> bool(torch.isclose(slow, SoftBall().optical_depth(origin, direction, 0.5, 3.0), rtol=1e-6))
    True
    """

    center: tuple[float, float, float] = (0.0, 0.0, -2.0)
    radius: float = 0.5
    peak: float = 3.0
    color: Color = (0.3, 0.8, 0.3)

    def __call__(self, points: Tensor, viewdirs: Tensor) -> FieldOutput:
        offsets = points - points.new_tensor(self.center)
        return _output(self.peak * (-(offsets**2).sum(-1) / (2 * self.radius**2)).exp(), points, self.color)

    def optical_depth(self, origins: Tensor, directions: Tensor, near: float, far: float) -> Tensor:
        speed = directions.norm(dim=-1)
        to_center = origins.new_tensor(self.center) - origins
        closest = (to_center * directions).sum(-1) / speed**2  # the t nearest to the center
        miss2 = ((to_center - closest[..., None] * directions) ** 2).sum(-1)
        scale = speed / (math.sqrt(2) * self.radius)
        share = (torch.erf(scale * (far - closest)) - torch.erf(scale * (near - closest))) / 2
        whole = self.peak * self.radius * math.sqrt(2 * math.pi) * (-miss2 / (2 * self.radius**2)).exp()
        return whole * share
