"""NeRF's network: points and viewing directions to density and colour (NeRF, section 3 and appendix A)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.fields import encoding
from enerf.fields.mlp import SkipMLP
from enerf.types import FieldOutput

HEADS = frozenset({"density_head", "rgb_head"})  # the layers whose outputs are the field's values


class NeRF(nn.Module):
    """A radiance field: ``trunk`` of ReLU layers, ``density_head``, ``feature``, ``view`` and ``rgb_head``.

    Without viewing directions ``rgb_head`` stands on the trunk. ``multires`` and ``multires_views`` are the
    frequency bands of points and of viewing directions; a negative number leaves its input unencoded.
    """

    def __init__(self, depth: int, width: int, multires: int, multires_views: int, use_viewdirs: bool) -> None:
        super().__init__()
        self.multires, self.multires_views, self.use_viewdirs = multires, multires_views, use_viewdirs
        self.trunk = SkipMLP(encoded_width(multires), width, depth)
        self.density_head = nn.Linear(width, 1)
        if use_viewdirs:
            self.feature = nn.Linear(width, width)
            self.view = nn.Linear(width + encoded_width(multires_views), width // 2)
            self.rgb_head = nn.Linear(width // 2, 3)
        else:
            self.rgb_head = nn.Linear(width, 3)

    def forward(
        self,
        points: Float[Tensor, "*b s 3"],
        viewdirs: Float[Tensor, "*b 3"],
        noise_std: float | int = 0.0,
        generator: torch.Generator | None = None,
    ) -> FieldOutput:
        """Density and colour at points seen along unit directions.

        Normal noise of standard deviation ``noise_std``, drawn from ``generator`` (None: torch's own), is
        added to the density before its ReLU (NeRF, appendix A).
        """
        hidden = self.trunk(encoded(points, self.multires))
        raw_density = self.density_head(hidden)[..., 0]
        if noise_std > 0:
            like = {"dtype": raw_density.dtype, "device": raw_density.device}
            raw_density = raw_density + noise_std * torch.randn(raw_density.shape, generator=generator, **like)
        if self.use_viewdirs:
            towards = encoded(viewdirs, self.multires_views)[..., None, :]
            towards = towards.expand(*points.shape[:-1], towards.shape[-1])
            hidden = torch.relu(self.view(torch.cat([self.feature(hidden), towards], dim=-1)))
        return FieldOutput(torch.relu(raw_density), torch.sigmoid(self.rgb_head(hidden)))


def encoded(x: Float[Tensor, "*b 3"], bands: int) -> Float[Tensor, "*b e"]:
    """Positional encoding of coordinates, or the coordinates themselves if ``bands`` is negative."""
    return encoding.positional(x, bands) if bands >= 0 else x


def encoded_width(bands: int) -> int:
    """How many values ``encoded`` makes of a point."""
    return encoding.positional_width(3, bands) if bands >= 0 else 3


def from_nerf_pytorch(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of a ``NeRF`` from the state dict of one of nerf-pytorch's networks.

    Without viewing directions nerf-pytorch keeps colour, density and a value it never uses in one
    ``output_linear``; its other layers that are not used then are left out.

    Raises
    ------
    ValueError
        If a weight has a name that nerf-pytorch does not use.
    """
    flat = "output_linear.weight" in weights
    names = {
        "pts_linears.": "trunk.",
        "views_linears.0.": None if flat else "view.",
        "feature_linear.": None if flat else "feature.",
        "alpha_linear.": "density_head.",
        "rgb_linear.": "rgb_head.",
    }
    ours: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key in ("output_linear.weight", "output_linear.bias"):
            kind = key.removeprefix("output_linear.")
            ours[f"rgb_head.{kind}"], ours[f"density_head.{kind}"] = value[:3], value[3:4]
            continue
        old = next((old for old in names if key.startswith(old)), None)
        if old is None:
            raise ValueError(f"weight {key!r} is not one of nerf-pytorch's")
        new = names[old]
        if new is not None:
            ours[new + key.removeprefix(old)] = value
    return ours
