"""What a coordinate network sees of a point: modules from points in 2 or 3 dimensions to features.

Each has two ways to the same values: ``forward``, by whatever backend is in use, and ``twin``, by torch alone, which
can be differentiated twice in the points.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.core.types import Space
from enerf.fields.backends.hashgrid import Grid
from enerf.fields.hash_space import HashedSpace


def positional(x: Float[Tensor, "*b d"], bands: int) -> Float[Tensor, "*b e"]:
    """x, sin(x), cos(x), sin(2x), cos(2x), …, sin(2^(bands−1) x), cos(2^(bands−1) x), on the last axis.

    Source: NeRF, equation 4, without its factor π and with the input itself, as in its authors' code.

    >>> positional(torch.zeros(1, 2), 1).tolist()
    [[0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]
    """
    frequencies = 2.0 ** torch.arange(bands, dtype=x.dtype, device=x.device)
    scaled = x[..., None, :] * frequencies[:, None]
    waves = torch.stack([scaled.sin(), scaled.cos()], dim=-2)
    return torch.cat([x, waves.flatten(-3)], dim=-1)


def positional_width(d: int, bands: int) -> int:
    """How many values ``positional`` makes of ``d`` coordinates.

    >>> positional_width(3, 10)
    63
    """
    return d * (1 + 2 * bands)


KINDS = ("none", "positional", "fourier", "hash")


class Encoder(nn.Module):
    """Points as they are; the class from which the other encoders come.

    Attributes
    ----------
    d
        Coordinates of a point.
    width
        Values of an encoded point.
    """

    def __init__(self, d: int, width: int | None = None) -> None:
        super().__init__()
        self.d, self.width = d, d if width is None else width

    def forward(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Features of points."""
        return points

    def twin(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """The same by torch alone, differentiable twice in the points."""
        return self(points)


class Positional(Encoder):
    """Points, and waves of doubling frequency along each axis (``encoding.positional``)."""

    def __init__(self, d: int, bands: int) -> None:
        super().__init__(d, positional_width(d, bands))
        self.bands = bands

    def forward(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Features of points."""
        return positional(points, self.bands)


class Fourier(Encoder):
    """Waves along random directions: cos(2π B x), sin(2π B x), with B fixed and drawn from a normal distribution.

    B has a row for each of ``count`` waves and standard deviation ``scale``, in cycles a unit of length: what is 12 in
    a cube of side 1 is 6 in a cube of side 2. It is drawn from torch's own random numbers, and is no parameter.

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


class Hashed(Encoder):
    """Features of a multiresolution hash grid over a box; points of a plane lie on its lowest face.

    Within a cell the features are trilinear, so that their second derivatives are those of a product of three hats.
    Outside the box they are those of the nearest face, and do not change along its normal.
    """

    def __init__(self, grid: Grid, space: Space, d: int = 3) -> None:
        super().__init__(d, grid.width)
        if space.contracted:
            raise ValueError("a shape fills a box; contracted spaces are for scenes without bounds")
        self.hashed = HashedSpace(grid, space)

    def forward(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Features of points, by the grid's backend."""
        features: Tensor = self.hashed(self._in_space(points))
        return features

    def twin(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """The same by torch alone: some backends of grids cannot be differentiated twice."""
        return self.hashed.twin(self._in_space(points))

    def _in_space(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n 3"]:
        """The points; those of a plane with the lowest z."""
        if self.d == 3:
            return points
        return torch.cat([points, self.hashed.low[2].expand(len(points), 1)], -1)


class AndPoints(Encoder):
    """The points themselves, followed by the features of another encoder."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner.d, inner.d + inner.width)
        self.inner = inner

    def forward(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """Points and features."""
        return torch.cat([points, self.inner(points)], -1)

    def twin(self, points: Float[Tensor, "n d"]) -> Float[Tensor, "n w"]:
        """The same by torch alone."""
        return torch.cat([points, self.inner.twin(points)], -1)


def begins_with_points(encoder: Encoder) -> bool:
    """Whether the first features of a point are its coordinates."""
    return isinstance(encoder, Positional | AndPoints) or type(encoder) is Encoder
