"""Positional encoding: coordinates to waves of doubling frequency."""

import torch
from jaxtyping import Float
from torch import Tensor


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
