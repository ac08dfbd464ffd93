"""Encoders: modules from points in 2 or 3 dimensions to the input features of a coordinate network.

Each computes the same values in two ways: ``forward`` uses the backend that is set, ``reference`` only torch, and is
twice differentiable with respect to the points.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.core.types import Space
from enerf.fields.backends.hashgrid import Grid
from enerf.fields.hash_space import HashedSpace


def positional(x: Float[Tensor, "*b d"], bands: int, first: float | int = 1.0) -> Float[Tensor, "*b e"]:
    """x, sin(x), cos(x), sin(2x), cos(2x), …, sin(2^(bands−1) x), cos(2^(bands−1) x), on the last axis.

    All frequencies are multiplied by ``first``.

    Source: NeRF, equation 4, where ``first`` is π; here it is 1 and the input is included, as in its authors' code.

    >>> positional(torch.zeros(1, 2), 1).tolist()
    [[0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]
    """
    frequencies = first * 2.0 ** torch.arange(bands, dtype=x.dtype, device=x.device)
    scaled = x[..., None, :] * frequencies[:, None]
    waves = torch.stack([scaled.sin(), scaled.cos()], dim=-2)
    return torch.cat([x, waves.flatten(-3)], dim=-1)


def positional_width(d: int, bands: int) -> int:
    """Number of features that ``positional`` returns for ``d`` coordinates.

    >>> positional_width(3, 10)
    63
    """
    return d * (1 + 2 * bands)


KINDS = ("none", "positional", "fourier", "hash")


class Encoder(nn.Module):
    """The identity, and the base class of the other encoders.

    Attributes
    ----------
    d
        Number of coordinates of a point.
    width
        Number of features of a point.
    """

    def __init__(self, d: int, width: int | None = None) -> None:
        super().__init__()
        self.d, self.width = d, d if width is None else width

    def forward(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Features of points."""
        return points

    def reference(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """The same features by torch, twice differentiable with respect to the points."""
        return self(points)


class Positional(Encoder):
    """Positional encoding: the points, and sines and cosines of doubling frequency (see ``positional``)."""

    def __init__(self, d: int, bands: int, first: float | int = 1.0) -> None:
        super().__init__(d, positional_width(d, bands))
        self.bands, self.first = bands, first

    def forward(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Features of points."""
        return positional(points, self.bands, self.first)


class Fourier(Encoder):
    """Random Fourier features cos(2π B x), sin(2π B x), with a fixed matrix B of normally distributed entries.

    B has ``count`` rows; its entries have standard deviation ``scale``, in cycles per unit of length (12 in a cube of
    side 1 corresponds to 6 in a cube of side 2). It is drawn from torch's global generator and stored as a buffer.

    Source: Tancik et al., Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains,
    NeurIPS 2020, equation 5 with all a_j = 1, and section 6.1.
    """

    frequencies: Tensor

    def __init__(self, d: int, count: int, scale: float | int) -> None:
        super().__init__(d, 2 * count)
        self.register_buffer("frequencies", scale * torch.randn(count, d))

    def forward(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Features of points: all cosines, then all sines."""
        phases = 2 * math.pi * points @ self.frequencies.T
        return torch.cat([phases.cos(), phases.sin()], -1)


class HashEncoder(Encoder):
    """Features of a multiresolution hash grid over a box; points with 2 coordinates lie on its lowest face in z.

    The features are trilinear in each cell: pure second derivatives vanish there, mixed ones do not. Points outside
    the box are clamped to its nearest face, so derivatives along that face's normal are zero.
    """

    def __init__(self, grid: Grid, space: Space, d: int = 3) -> None:
        super().__init__(d, grid.width)
        if space.contracted:
            raise ValueError("a shape fills a box; contracted spaces are for scenes without bounds")
        self.hashed = HashedSpace(grid, space)

    def forward(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Features of points, computed by the backend of the grid."""
        features: Tensor = self.hashed(self._to_3d(points))
        return features

    def reference(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """The same features by torch; some grid backends are not twice differentiable."""
        return self.hashed.reference(self._to_3d(points))

    def _to_3d(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n 3"]:
        """The points, with the lowest z appended if they have 2 coordinates."""
        if self.d == 3:
            return points
        return torch.cat([points, self.hashed.low[2].expand(len(points), 1)], -1)


class WithPoints(Encoder):
    """The coordinates of the points, followed by the features of another encoder."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner.d, inner.d + inner.width)
        self.inner = inner

    def forward(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Coordinates and features."""
        return torch.cat([points, self.inner(points)], -1)

    def reference(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """The same features by torch."""
        return torch.cat([points, self.inner.reference(points)], -1)


def begins_with_points(encoder: Encoder) -> bool:
    """Whether the first ``d`` features of a point are its coordinates."""
    return isinstance(encoder, Positional | WithPoints) or type(encoder) is Encoder
