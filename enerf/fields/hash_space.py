"""Hash encoding in scene coordinates, and the proposal density field of importance sampling.

The box of a bounded scene (NDC, an object) is scaled to the unit cube of the grid. An unbounded scene is contracted
first (``contraction.contract``): its result, a ball of radius 2, lies in a box of side 4, which is scaled to the cube.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.core.types import FieldOutput, Space
from enerf.fields.backends import hashgrid
from enerf.fields.backends.dense import Layer, Network
from enerf.fields.backends.hashgrid import Grid, HashEncoding
from enerf.fields.backends.module import NetworkModule
from enerf.fields.contraction import contract

DENSITIES = ("relu", "softplus", "exp")


class HashedSpace(nn.Module):
    """Hash encoding of points in scene coordinates."""

    low: Tensor
    size: Tensor
    window: Tensor | None  # by which features are multiplied; None: 1

    def __init__(self, grid: Grid, space: Space) -> None:
        super().__init__()
        self.register_buffer("window", None, persistent=False)
        self.encoding = HashEncoding(grid)
        self.contracted = space.contracted
        self.register_buffer("low", torch.tensor(space.low))
        # not a difference of tensors: on the device meta, which memory is estimated on, it imports torch's compiler
        self.register_buffer(
            "size", torch.tensor([high - low for low, high in zip(space.low, space.high, strict=True)])
        )

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n w"]:
        """Features of points; points outside the box are clamped to its nearest face."""
        return self._windowed(self.encoding(self.unit(points)))

    def reference(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n w"]:
        """The same features by torch; some grid backends are not twice differentiable."""
        return self._windowed(hashgrid.encode(self.unit(points), self.encoding.table, self.encoding.grid))

    def _windowed(self, features: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
        return features if self.window is None else features * self.window

    def unit(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Points in the coordinates of the unit cube that the grid covers."""
        inside = (points - self.low) / self.size
        return contract(2.0 * inside - 1.0) / 4.0 + 0.5 if self.contracted else inside


def to_density(raw: Float[Tensor, "*b"], kind: str) -> Float[Tensor, "*b"]:
    """Density from a network's output x: ReLU(x) as in NeRF, softplus(x − 1), or exp(x − 1).

    The exponential continues linearly above 15, so that neither its value nor its gradient overflows.
    """
    if kind == "relu":
        return torch.relu(raw)
    if kind == "softplus":
        return torch.nn.functional.softplus(raw - 1.0)
    shifted = raw - 1.0
    return torch.exp(shifted.clamp(max=15.0)) + math.exp(15.0) * torch.relu(shifted - 15.0)


class DensityModule(NetworkModule):
    """A network module whose output becomes a density.

    Attributes
    ----------
    density
        One of ``DENSITIES``.
    activate
        The backend of ``to_density``; by default the reference implementation.
    """

    density: str

    def __init__(self) -> None:
        super().__init__()
        self.activate: Callable[[Tensor, str], Tensor] = to_density


class ProposalField(DensityModule):
    """Density field for proposal sampling: a small hash encoding and an MLP with one hidden layer.

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
        """Density at points, and black as color; view directions and noise are not used."""
        (raw,) = self.bound()([self.hashed(points.reshape(-1, 3))])
        density = self.activate(raw.reshape(points.shape[:-1]), self.density)
        return FieldOutput(density, density.new_zeros(()).expand(points.shape))

    def linears(self) -> list[nn.Linear]:
        """The hidden layer and the density head."""
        return [*self.trunk, self.density_head]
