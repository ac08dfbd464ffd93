"""Rigid motions by six numbers: a rotation vector, in radians, and a translation, exp(ω, u) of SE(3).

Source: Sola et al., A micro Lie theory for state estimation in robotics (2018), equations 143 to 145 and 172.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def rotated(axis: Float[Tensor, "b 3"], x: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
    """Vectors rotated about axes by the axes' lengths, in radians: Rodrigues' formula; smooth at 0.

    >>> rotated(torch.tensor([[0.0, 0.0, torch.pi / 2]]), torch.tensor([[1.0, 0.0, 0.0]])).round(decimals=3).tolist()
    [[0.0, 1.0, 0.0]]
    """
    first = torch.linalg.cross(axis, x)
    sine, cosine, _ = _coefficients(axis)
    return x + sine * first + cosine * torch.linalg.cross(axis, first)


def shifted(axis: Float[Tensor, "b 3"], along: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
    """Translations of the rigid motions exp(axis, along): the left Jacobian of the rotations times ``along``."""
    first = torch.linalg.cross(axis, along)
    _, cosine, cubic = _coefficients(axis)
    return along + cosine * first + cubic * torch.linalg.cross(axis, first)


def applied(motions: Float[Tensor, "n 6"], c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3 4"]:
    """Poses c2w · exp(ξ) of cameras that are moved in their own frames."""
    axis, along = (torch.einsum("nij,nj->ni", c2w[:, :, :3], part) for part in motions.split(3, 1))
    columns = [rotated(axis, c2w[:, :, k]) for k in range(3)]
    return torch.stack([*columns, c2w[:, :, 3] + shifted(axis, along)], -1)


def _coefficients(axis: Float[Tensor, "b 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """Values of sin θ / θ, (1 − cos θ) / θ² and (θ − sin θ) / θ³ for lengths θ; series where quotients would cancel."""
    square = axis.square().sum(-1, keepdim=True)
    small = square < 0.25
    inside, angle = torch.where(small, square, 0.0), torch.where(small, 1.0, square).sqrt()
    series = [
        sum((-inside) ** k / math.factorial(2 * k + first) for k in range(6)) for first in (1, 2, 3)
    ]  # the remainder is below 1e-12
    quotients = [angle.sin() / angle, (1 - angle.cos()) / angle**2, (angle - angle.sin()) / angle**3]
    sine, cosine, cubic = (torch.where(small, s, q) for s, q in zip(series, quotients, strict=True))
    return sine, cosine, cubic
