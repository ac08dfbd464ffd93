"""Inversion of lens distortion: Newton's method from a tabulated start, and where there is no inverse.

A distortion is invertible near the center of the image plane only: with barrel distortion, for example, the distorted
radius r (1 + k r²) with k < 0 stops growing at r = 1 / √(−3 k), where the image is folded. Points beyond have a second,
meaningless projection inside of the image, and points of the image plane beyond the fold's image have no ray.

The domain of a distortion here is the largest disc of the undistorted plane in which the determinant of its derivative
is positive: for distortions of the radius alone, exactly up to the fold; for others, up to its nearest point. A ray is
found if it lies in that disc and is projected to the point again with an error below ``TOLERANCE``; other points are
marked as without a ray.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
_STEPS = (3, 4, 5, 6, 8, 12, 20)  # of Newton's method, to choose from
_DAMPED_STEPS, _HALVINGS = 40, 6  # of Newton's method with damped steps, for distortions that none of these inverts
_NEAR_LIMIT = 0.998  # part of the domain's radius up to which all points are to be found
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
    steps
        Number of Newton's steps: one more than the least that finds sample points of all images up to near the fold.
    halvings
        How often a step is halved at most, for distortions on which whole steps jump to and fro.
    """

    family: str
    coefficients: Float64[Tensor, "c n"]
    limit: Float64[Tensor, " n"]
    top: Float64[Tensor, " n"]
    ratios: Float64[Tensor, "n m"]
    steps: int
    halvings: int = 0

    def to(self, device: torch.device | str) -> "Inverse":
        """The same tables on a device."""
        coefficients, limit = self.coefficients.to(device), self.limit.to(device)
        tables = (coefficients, limit, self.top.to(device), self.ratios.to(device))
        return Inverse(self.family, *tables, self.steps, self.halvings)


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
    tables = (columns, limit, top, ratios.T.contiguous())
    for steps in _STEPS:
        if _finds_samples(Inverse(family, *tables, steps), torch.minimum(end, _NEAR_LIMIT * limit)):
            return Inverse(family, *tables, steps + 1)  # one more, for points that are harder than the samples
    return Inverse(family, *tables, _DAMPED_STEPS, _HALVINGS)


def limits(family: str, coefficients: Float64[Tensor, "n c"]) -> Float64[Tensor, " n"]:
    """Radius of the domain of each distortion, in the undistorted plane; at most tan(89.5°), or π for fisheye families.

    >>> limits("RADIAL", torch.tensor([[-1 / 3, 0.0]], dtype=torch.float64)).round(decimals=9)  # 1 / √(−3 k)
    tensor([1.], dtype=torch.float64)
    """
    rows = max(1, _CHUNK // (_RADII * _ANGLES))
    return torch.cat([_limits(family, part) for part in coefficients.split(rows)])


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
    if inverse.family == "RAD_TAN_THIN_PRISM_FISHEYE":  # in two stages
        u, v, undone = _newton(lambda a, b: projections.decenter(a, b, c), (u, v), (u, v), inverse, None)
        a, b, found = _radially(inverse, row, c, limit, (u, v), top)
        return a, b, found & undone
    if inverse.family in projections.RADIAL:
        return _radially(inverse, row, c, limit, (u, v), top)
    ratio = _start(inverse.ratios, row, torch.hypot(u, v) / top)
    distort = partial(projections.distort, inverse.family, c=c)
    return _newton(distort, (u, v), (u * ratio, v * ratio), inverse, limit)


def _newton(
    distort: Callable[[Tensor, Tensor], projections.Distorted],
    goal: tuple[Tensor, Tensor],
    start: tuple[Tensor, Tensor],
    inverse: Inverse,
    limit: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The point that is distorted to ``goal``, inside of the radius ``limit`` if given, and whether it was found.

    Of a step and its halves, ``inverse.halvings`` times, the one with the smallest error is taken.
    """
    (u, v), (a, b) = goal, start

    def moved(across: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        x, y = a - across, b - down
        if limit is None:
            return x, y
        shrink = (limit * torch.rsqrt(torch.addcmul(x * x, y, y))).clamp(max=1)  # stay in the domain
        return x * shrink, y * shrink

    def error(x: Tensor, y: Tensor) -> Tensor:
        there = distort(x, y)
        return ((there.u - u).square() + (there.v - v).square()).nan_to_num(torch.inf)

    for _ in range(inverse.steps):
        at = distort(a, b)
        du, dv = at.u - u, at.v - v
        determinant = at.du_da * at.dv_db - at.du_db * at.dv_da
        across = (at.dv_db * du - at.du_db * dv) / determinant
        down = (at.du_da * dv - at.dv_da * du) / determinant
        taken = moved(across, down)
        for power in range(1, inverse.halvings + 1):
            other = moved(across / 2**power, down / 2**power)
            is_better = error(*other) < error(*taken)
            taken = torch.where(is_better, other[0], taken[0]), torch.where(is_better, other[1], taken[1])
        a, b = taken
    at = distort(a, b)
    found = (torch.maximum((at.u - u).abs(), (at.v - v).abs()) < TOLERANCE) & at.is_regular
    return a, b, found if limit is None else found & (a * a + b * b < limit * limit)


def _finds_samples(inverse: Inverse, radius: Float64[Tensor, " n"]) -> bool:
    """Whether 136 points of each disc in the undistorted plane are found again after their distortion."""
    turns = torch.arange(8, dtype=torch.float64) * (2 * math.pi / 8) + 0.1
    shares = torch.linspace(0.0, 1.0, 18, dtype=torch.float64)[1:].sqrt()
    radii = (radius[:, None, None] * shares[:, None]).expand(len(radius), 17, 8)
    a, b = (radii * turns.cos()).reshape(-1), (radii * turns.sin()).reshape(-1)
    row = torch.arange(len(radius)).repeat_interleave(17 * 8)
    at = projections.distort(inverse.family, a, b, tuple(inverse.coefficients[:, row]))
    return bool(undistort(inverse, row, at.u, at.v)[2].all())


def _radially(
    inverse: Inverse,
    row: Tensor | None,
    c: Sequence[Tensor],
    limit: Tensor,
    point: tuple[Tensor, Tensor],
    top: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """``undistort`` for the radial factor alone: the ratio q of the radii solves q g(q² t²) = 1."""
    u, v = point
    square = u * u + v * v
    radius = square.sqrt()
    ratio = _start(inverse.ratios, row, radius / top)
    for _ in range(inverse.steps):
        s = ratio * ratio * square
        g, slope = projections.radial_factor(inverse.family, s, c)
        ratio = ratio - (ratio * g - 1) / torch.addcmul(g, 2 * s, slope)
    s = ratio * ratio * square
    g, slope = projections.radial_factor(inverse.family, s, c)
    error = radius * (ratio * g - 1).abs()
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


def _limits(family: str, coefficients: Float64[Tensor, "n c"]) -> Float64[Tensor, " n"]:
    """The smallest radius, over several directions from the center, at which the derivative is not regular."""
    c = tuple(coefficients.T[:, :, None, None])
    radial = _radial_limits(family, coefficients)
    if family in projections.RADIAL:
        return radial
    turns = torch.arange(_ANGLES, dtype=torch.float64) * (2 * math.pi / _ANGLES)
    across, down = turns.cos()[:, None], turns.sin()[:, None]

    def is_folded(radius: Tensor) -> Tensor:
        return ~projections.distort(family, across * radius, down * radius, c).is_regular

    radii = _radii(family)
    folded = is_folded(radii.expand(len(coefficients), _ANGLES, len(radii)))
    first = torch.where(folded.any(-1), folded.to(torch.uint8).argmax(-1), len(radii) - 1)
    low = torch.cat([radii.new_zeros(1), radii])[first][..., None]
    limit = _bisected(is_folded, low, radii[first][..., None])
    return torch.minimum(limit[..., 0].amin(1), radial)


def _radial_limits(family: str, coefficients: Float64[Tensor, "n c"]) -> Float64[Tensor, " n"]:
    """The smallest radius at which r g(r²) stops growing or has a pole, from the roots of polynomials in s = r²."""
    above, below = projections.radial_polynomials(family, coefficients)
    degrees = torch.arange(above.shape[1], dtype=torch.float64)
    derivative = torch.zeros(len(above), above.shape[1] + below.shape[1] - 1, dtype=torch.float64)
    # (r above / below)' below² = above below + 2 s (above' below − above below'), where the latter primes are d/ds
    for power in range(below.shape[1]):
        terms = below[:, power, None] * above * (1 + 2 * degrees - 2 * power)
        derivative[:, power : power + above.shape[1]] += terms
    square = torch.minimum(_least_root(derivative), _least_root(below))
    return square.sqrt().clamp(max=float(_radii(family)[-1]))


def _least_root(polynomials: Float64[Tensor, "n m"]) -> Float64[Tensor, " n"]:
    """The least positive root of each polynomial 1 + p[1] s + p[2] s² + ..., or infinity.

    1 / s is the greatest positive eigenvalue of a companion matrix. A pair of complex roots that is almost a double
    real root counts as one.
    """
    n, m = polynomials.shape
    if m < 2:
        return torch.full((n,), math.inf, dtype=torch.float64)
    companion = torch.zeros(n, m - 1, m - 1, dtype=torch.float64)
    companion[:, 0] = -polynomials[:, 1:]
    companion[:, 1:, :-1] = torch.eye(m - 2, dtype=torch.float64)
    found = torch.linalg.eigvals(companion)
    inverse = torch.where((found.real > 0) & (found.imag.abs() < 1e-6 * found.abs()), found.real, 0.0)
    return 1 / inverse.amax(1)


def _bisected(is_beyond: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """The least value between ``low`` and ``high`` that is beyond, or ``high``."""
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        beyond = is_beyond(middle)
        low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
    return high
