"""Where hash-encoded fields live: scene coordinates to the unit cube, and the density that proposes samples.

A bounded scene (NDC, an object) fills a box. An unbounded one is contracted first: what lies within the radius stays,
everything beyond moves into a shell around it, and the box of side 4 around both is the cube.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.core.types import FieldOutput, Space
from enerf.fields.backends import hashgrid
from enerf.fields.backends.dense import Layer, Network
from enerf.fields.backends.hashgrid import Grid, HashEncoding
from enerf.fields.backends.module import Networked
from enerf.fields.contraction import contract

DENSITIES = ("relu", "softplus", "exp")


class HashedSpace(nn.Module):
    """A hash encoding of a scene's space: points in scene coordinates to features."""

    low: Tensor
    size: Tensor

    def __init__(self, grid: Grid, space: Space) -> None:
        super().__init__()
        self.encoding = HashEncoding(grid)
        self.contracted = space.contracted
        self.register_buffer("low", torch.tensor(space.low))
        self.register_buffer("size", torch.tensor(space.high) - torch.tensor(space.low))

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n w"]:
        """Features of points; those outside the box are taken at its nearest face."""
        return self.encoding(self.unit(points))

    def twin(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n w"]:
        """The same by torch alone: some backends of grids cannot be differentiated twice."""
        return hashgrid.encode(self.unit(points), self.encoding.table, self.encoding.grid)

    def unit(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Points in the unit cube that the grid covers."""
        inside = (points - self.low) / self.size
        return contract(2.0 * inside - 1.0) / 4.0 + 0.5 if self.contracted else inside


def to_density(raw: Float[Tensor, "*b"], kind: str) -> Float[Tensor, "*b"]:
    """Density from a network's value: its ReLU (the paper's), softplus of it less one, or its exponential.

    The exponential is that of the value less one; it goes on as a straight line above e¹⁵, so that neither it nor its
    gradient overflows.
    """
    if kind == "relu":
        return torch.relu(raw)
    if kind == "softplus":
        return torch.nn.functional.softplus(raw - 1.0)
    shifted = raw - 1.0
    return torch.exp(shifted.clamp(max=15.0)) + math.exp(15.0) * torch.relu(shifted - 15.0)


class ProposalField(Networked):
    """A density that says where samples are worth taking: a small hash encoding under one hidden layer.

    Source: Barron et al., mip-NeRF 360, CVPR 2022, section 3.
    """

    def __init__(self, grid: Grid, space: Space, width: int, density: str) -> None:
        super().__init__()
        self.hashed = HashedSpace(grid, space)
        self.density = density
        self.trunk = nn.ModuleList([nn.Linear(grid.width, width)])
        self.density_head = nn.Linear(width, 1)
        self.network = Network((grid.width,), (Layer((0,), width, True), Layer((1,), 1, False)), (2,))

    def forward(
        self,
        points: Float[Tensor, "*b s 3"],
        viewdirs: Float[Tensor, "*b 3"],
        noise_std: float | int = 0.0,
        generator: torch.Generator | None = None,
    ) -> FieldOutput:
        """Density at points, and no colour (black); directions and noise are not used."""
        (raw,) = self.bound()([self.hashed(points.reshape(-1, 3))])
        density = to_density(raw.reshape(points.shape[:-1]), self.density)
        return FieldOutput(density, density.new_zeros(()).expand(points.shape))

    def linears(self) -> list[nn.Linear]:
        """The hidden layer and the head."""
        return [*self.trunk, self.density_head]
