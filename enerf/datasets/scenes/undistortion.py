"""Inversion of lens distortion: Newton's method from a tabulated start, and where there is no inverse.

A distortion is invertible near the center of the image plane only: with barrel distortion, for example, the distorted
radius r (1 + k r²) with k < 0 stops growing at r = 1 / √(−3 k), where the image is folded. Points beyond have a second,
meaningless projection inside of the image, and points of the image plane beyond the fold's image have no ray.

The domain of a distortion here is the largest disc of the undistorted plane in which the determinant of its derivative
is positive (for distortions of the radius alone, exactly up to the fold; for others, up to its nearest point). A ray is
found if it lies in that disc and is projected to the point again with an error below ``TOLERANCE``; other points are
marked as without a ray.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from enerf.datasets.scenes import projections

TOLERANCE = 1e-11  # of (u, v): below 1e-6 pixels up to a focal length of 100,000 pixels
WIDEST = math.radians(89.5)  # angle to the optical axis up to which perspective rays are searched
_KNOTS = 129  # of the table of starts
_RADII, _ANGLES = 256, 32  # of the grid on which the fold is searched
_CHUNK = 1 << 19  # points of such grids that are processed at a time
_BISECTIONS = 55
_STEPS = {"RADIAL": 3, "OPENCV_FISHEYE": 3}  # of Newton's method; 5 in two dimensions
Values = Float64[Tensor, "*b"]


@dataclass(frozen=True)
class Inverse:
    """Coefficients of distortions of one family, and the tables with which they are inverted; one row per camera.

    Attributes
    ----------
    family
        One of ``projections.DISTORTED``.
    coefficients
        Distortion coefficients, a row for each.
    limit
        Radius of the domain in the undistorted plane.
    top
        Distorted radius at which the table ends.
    ratios
        Undistorted divided by distorted radius, at the distorted radii ``top`` (1 − (1 − k / (m − 1))²) for k = 0 ...
        m − 1: closer to each other near ``top``, where the ratio has a vertical tangent if that is the fold.
    """

    family: str
    coefficients: Float64[Tensor, "c n"]
    limit: Float64[Tensor, " n"]
    top: Float64[Tensor, " n"]
    ratios: Float64[Tensor, "n m"]

    def to(self, device: torch.device | str) -> "Inverse":
        """The same tables on a device."""
        moved = (part.to(device) for part in (self.coefficients, self.limit, self.top, self.ratios))
        return Inverse(self.family, *moved)


def inverse_of(family: str, coefficients: Float64[Tensor, "n c"], reach: Float64[Tensor, " n"]) -> Inverse:
    """Tables for the inversion of distortions; ``reach`` is the largest distorted radius in each image.

    Points beyond ``reach`` can be inverted too, with a worse start.
    """
    columns = coefficients.T.contiguous()
    limit = limits(family, coefficients)
    grid = _radii(family)[:, None] * torch.ones_like(limit)
    inside = torch.minimum(grid, limit)
    distorted = inside * projections.radial_factor(family, inside**2, tuple(columns))[0]
    enough = distorted >= 1.05 * reach
    first = torch.where(enough.any(0), enough.to(torch.uint8).argmax(0), len(grid) - 1)
    end = inside.gather(0, first[None])[0]
    top = distorted.gather(0, first[None])[0]
    knots = torch.linspace(0, 1, _KNOTS, dtype=torch.float64, device=limit.device)[:, None]
    goals = top * (1 - (1 - knots) ** 2)
    radii = _bisected(
        lambda r: r * projections.radial_factor(family, r * r, tuple(columns))[0] >= goals,
        torch.zeros_like(goals),
        end.expand_as(goals),
    )
    ratios = torch.where(goals > 0, radii / torch.where(goals > 0, goals, 1.0), 1.0)
    return Inverse(family, columns, limit, top, ratios.T.contiguous())


def limits(family: str, coefficients: Float64[Tensor, "n c"]) -> Float64[Tensor, " n"]:
    """Radius of the domain of each distortion, in the undistorted plane; at most tan(89.5°), or π for fisheye families.

    >>> limits("RADIAL", torch.tensor([[-1 / 3, 0.0]], dtype=torch.float64)).round(decimals=9)  # 1 / √(−3 k)
    tensor([1.], dtype=torch.float64)
    """
    angles = 1 if family in projections.RADIAL else _ANGLES
    rows = max(1, _CHUNK // (_RADII * angles))
    return torch.cat([_limits(family, part, angles) for part in coefficients.split(rows)])


def undistort(
    inverse: Inverse, row: Int64[Tensor, " b"] | None, u: Float64[Tensor, " b"], v: Float64[Tensor, " b"]
) -> tuple[Float64[Tensor, " b"], Float64[Tensor, " b"], Bool[Tensor, " b"]]:
    """Points of the undistorted plane that are distorted to (u, v), and whether they were found.

    ``row`` is the row of each point; None is row 0 for all.
    """
    if row is None:
        c, limit, top = tuple(inverse.coefficients[:, 0]), inverse.limit[0], inverse.top[0]
    else:
        c = tuple(part.index_select(0, row) for part in inverse.coefficients)
        limit, top = inverse.limit.index_select(0, row), inverse.top.index_select(0, row)
    square = u * u + v * v
    ratio = _start(inverse.ratios, row, (square.sqrt() / top))
    steps = _STEPS.get(inverse.family, 5)
    if inverse.family in projections.RADIAL:
        return _radially(inverse.family, c, limit, (u, v), ratio, steps)
    a, b = u * ratio, v * ratio
    for _ in range(steps):
        at = projections.distort(inverse.family, a, b, c)
        du, dv = at.u - u, at.v - v
        determinant = at.du_da * at.dv_db - at.du_db * at.dv_da
        a = a - (at.dv_db * du - at.du_db * dv) / determinant
        b = b - (at.du_da * dv - at.dv_da * du) / determinant
    at = projections.distort(inverse.family, a, b, c)
    error = torch.maximum((at.u - u).abs(), (at.v - v).abs())
    return a, b, (error < TOLERANCE) & (a * a + b * b < limit * limit) & at.is_regular


def _radially(
    family: str,
    c: Sequence[Tensor],
    limit: Tensor,
    point: tuple[Tensor, Tensor],
    ratio: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """``undistort`` where directions from the center are kept: the ratio q of the radii solves q g(q² t²) = 1."""
    u, v = point
    square = u * u + v * v
    for _ in range(steps):
        s = ratio * ratio * square
        g, slope = projections.radial_factor(family, s, c)
        ratio = ratio - (ratio * g - 1) / torch.addcmul(g, 2 * s, slope)
    s = ratio * ratio * square
    g, slope = projections.radial_factor(family, s, c)
    error = square.sqrt() * (ratio * g - 1).abs()
    regular = (g > 0) & (torch.addcmul(g, 2 * s, slope) > 0)
    return u * ratio, v * ratio, (error < TOLERANCE) & (ratio > 0) & (s < limit * limit) & regular


def _start(ratios: Float64[Tensor, "n m"], row: Tensor | None, share: Float64[Tensor, " b"]) -> Float64[Tensor, " b"]:
    """The tabulated ratio of radii at a share of the distorted radius at which the table ends, interpolated."""
    position = (_KNOTS - 1) * (1 - (1 - share).clamp(min=0).sqrt())
    index = position.long().clamp(0, _KNOTS - 2)
    flat, at = ratios.reshape(-1), index if row is None else index + row * _KNOTS
    low, high = flat.index_select(0, at), flat.index_select(0, at + 1)
    return torch.lerp(low, high, position - index)


def _radii(family: str) -> Float64[Tensor, " r"]:
    """Undistorted radii at which folds are searched, without 0: equal steps of the angle to the optical axis."""
    steps = torch.arange(1, _RADII + 1, dtype=torch.float64) / _RADII
    return (steps * WIDEST).tan() if family in projections.PERSPECTIVE else steps * math.pi


def _limits(family: str, coefficients: Float64[Tensor, "n c"], angles: int) -> Float64[Tensor, " n"]:
    """The smallest radius, over several directions from the center, at which the derivative is not regular."""
    c = tuple(coefficients.T[:, :, None, None])
    turns = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
    across, down = turns.cos()[:, None], turns.sin()[:, None]

    def is_folded(radius: Tensor) -> Tensor:
        return ~projections.distort(family, across * radius, down * radius, c).is_regular

    radii = _radii(family)
    folded = is_folded(radii.expand(len(coefficients), angles, len(radii)))
    first = torch.where(folded.any(-1), folded.to(torch.uint8).argmax(-1), len(radii) - 1)
    low = torch.cat([radii.new_zeros(1), radii])[first][..., None]
    limit = _bisected(is_folded, low, radii[first][..., None])
    return limit[..., 0].amin(1)


def _bisected(is_beyond, low: Tensor, high: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """The least value between ``low`` and ``high`` that is beyond, or ``high``."""
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        beyond = is_beyond(middle)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return high
