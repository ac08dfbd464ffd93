"""Contraction of unbounded space into a ball, so that distant regions take up little volume."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.core.types import Space


def contract(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Map space into the ball of radius 2: identity in the unit ball, (2 − 1/‖x‖) x/‖x‖ outside it.

    Continuously differentiable; values and derivatives are finite for every finite point.

    Source: Barron et al., mip-NeRF 360, CVPR 2022, equation 10.

    >>> contract(torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, -4.0]])).tolist()
    [[0.0, 0.5, 0.0], [0.0, 0.0, -1.75]]
    """
    scale = points.detach().abs().amax(-1, keepdim=True).clamp(min=1.0)  # so that no square overflows
    scaled = points / scale
    norm = scaled.norm(dim=-1, keepdim=True).clamp(min=1.0)
    return scaled * ((2.0 - 1.0 / norm / scale) / norm)


class ContractedSpace(nn.Module):
    """Contraction of scene coordinates outside of the ball inscribed in a box, which becomes the unit ball."""

    low: Tensor
    size: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        low, high = torch.tensor(space.low), torch.tensor(space.high)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("size", high - low, persistent=False)

    def forward(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
        """Points in the ball of radius 2."""
        return contract(2.0 * ((points - self.low) / self.size) - 1.0)


def uncontract(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """The inverse of ``contract``; points on the sphere of radius 2 are mapped to very large, finite ones.

    >>> uncontract(torch.tensor([0.0, 0.0, -1.75])).tolist()
    [0.0, 0.0, -4.0]
    """
    norm = points.norm(dim=-1, keepdim=True).clamp(min=1.0)
    return points / (norm * (2.0 - norm).clamp(min=torch.finfo(points.dtype).eps))
