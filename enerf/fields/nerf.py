"""NeRF's network: points and viewing directions to density and color (NeRF, section 3 and appendix A)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.core import shares
from enerf.core.types import FieldOutput, ScalarField
from enerf.fields import encoders
from enerf.fields.backends.dense import Layer, Network
from enerf.fields.contraction import ContractedSpace
from enerf.fields.hash_space import DensityModule, HashedSpace, to_density
from enerf.fields.shape import SKIP_AT, SkipMLP, shape_network, trunk_layers

HEADS = frozenset({"density_head", "rgb_head"})  # the layers whose outputs are the field's values


class PointField(DensityModule):
    """What radiance fields share: encoded points, a ``trunk`` of ReLU layers, and a ``density_head``.

    ``multires`` is the number of frequency bands of the positional encoding of points (negative: no encoding). If
    given, ``hashed`` encodes the points instead. ``density`` is one of ``hash_space.DENSITIES``. The encoded points are
    concatenated to the input of trunk layer ``skip_at`` (0: of none).
    """

    window: Tensor | None  # by which features of positional encodings are multiplied; None: 1

    def __init__(
        self, depth: int, width: int, multires: int, hashed: HashedSpace | None, density: str, skip_at: int
    ) -> None:
        super().__init__()
        self.multires, self.hashed, self.density = multires, hashed, density
        self.register_buffer("window", None, persistent=False)
        self.contracted: ContractedSpace | None = None  # set for scenes without bounds: before positional encoding
        self.n_features = encoded_width(multires) if hashed is None else hashed.encoding.grid.width
        self.trunk = SkipMLP(self.n_features, width, depth, skip_at)
        self.density_head = nn.Linear(width, 1)

    def densities(self) -> ScalarField:
        """A function from points ``n 3`` to their densities ``n`` with the current weights, without the color layers.

        The weights are read now: later changes may have no effect. With a backend in reduced precision, values equal
        those of ``forward`` up to rounding.
        """
        layers = [*self.trunk, self.density_head]
        width = self.density_head.in_features
        trunk = shape_network(self.network.inputs[0], len(self.trunk), width, 1, self.trunk.skip_at)
        bound = self.bind_layers(trunk, layers, folds=True)

        def density(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
            (raw,) = bound([self._encoded(points)])
            return to_density(raw[:, 0], self.density)

        return density

    def _encoded(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n e"]:
        """The input features of the trunk."""
        if self.hashed is not None:
            features: Tensor = self.hashed(points)
            return features
        waves = encoded(points if self.contracted is None else self.contracted(points), self.multires)
        return waves if self.window is None else waves * self.window

    def _to_density(
        self, raw: Float[Tensor, "*b"], noise_std: float | int, generator: torch.Generator | None
    ) -> Float[Tensor, "*b"]:
        """Density of the raw output, to which noise is added before its activation."""
        if noise_std > 0:
            raw = raw + noise_std * shares.randn_like(raw, generator)
        return self.activate(raw, self.density)


class NeRF(PointField):
    """A radiance field: ``trunk`` of ReLU layers, ``density_head``, ``feature``, ``view`` and ``rgb_head``.

    Without viewing directions the input of ``rgb_head`` is the trunk's output. ``multires_views`` is the number of
    frequency bands of viewing directions (negative: no encoding); other arguments as for ``PointField``.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        multires: int,
        multires_views: int,
        use_viewdirs: bool,
        *,
        hashed: HashedSpace | None = None,
        density: str = "relu",
        skip_at: int = SKIP_AT,
    ) -> None:
        super().__init__(depth, width, multires, hashed, density, skip_at)
        self.multires_views, self.use_viewdirs = multires_views, use_viewdirs
        if use_viewdirs:
            self.feature = nn.Linear(width, width)
            self.view = nn.Linear(width + encoded_width(multires_views), width // 2)
            self.rgb_head = nn.Linear(width // 2, 3)
        else:
            self.rgb_head = nn.Linear(width, 3)
        n_views = encoded_width(multires_views) if use_viewdirs else 0
        self.network = nerf_network(self.n_features, n_views, width, depth, skip_at)

    def forward(
        self,
        points: Float[Tensor, "*b s 3"],
        viewdirs: Float[Tensor, "*b 3"],
        noise_std: float | int = 0.0,
        generator: torch.Generator | None = None,
    ) -> FieldOutput:
        """Density and color at points, for unit viewing directions.

        Normal noise of standard deviation ``noise_std``, drawn from ``generator`` (None: torch's global one), is
        added to the raw density, before its activation (NeRF, appendix A).
        """
        inputs = [self._encoded(points.reshape(-1, 3))]
        if self.use_viewdirs:
            inputs.append(encoded(viewdirs.reshape(-1, 3), self.multires_views))
        raw_density, raw_rgb = self.bound()(inputs)
        density = self._to_density(raw_density.reshape(points.shape[:-1]), noise_std, generator)
        return FieldOutput(density, torch.sigmoid(raw_rgb).reshape(points.shape))

    def linears(self) -> list[nn.Linear]:
        """The linear layers, in the order of ``nerf_network``."""
        heads = [self.density_head, self.feature, self.view] if self.use_viewdirs else [self.density_head]
        return [*self.trunk, *heads, self.rgb_head]


def nerf_network(n_points: int, n_views: int, width: int, depth: int, skip_at: int = SKIP_AT) -> Network:
    """NeRF's network for ``n_points`` features of points and ``n_views`` of viewing directions (0: it has none).

    Source: NeRF, figure 7.
    """
    inputs = (n_points, n_views) if n_views else (n_points,)
    layers = list(trunk_layers(depth, width, skip_at, n_inputs=len(inputs)))

    def add(sources: tuple[int, ...], outputs: int, relu: bool) -> int:
        layers.append(Layer(sources, outputs, relu))
        return len(inputs) + len(layers) - 1

    hidden = len(inputs) + depth - 1
    density = add((hidden,), 1, False)
    if n_views:
        feature = add((hidden,), width, False)
        hidden = add((feature, 1), width // 2, True)
    rgb = add((hidden,), 3, False)
    return Network(inputs, tuple(layers), (density, rgb))


def encoded(x: Float[Tensor, "*b 3"], bands: int) -> Float[Tensor, "*b e"]:
    """Positional encoding of coordinates, or the coordinates themselves if ``bands`` is negative."""
    return encoders.positional(x, bands) if bands >= 0 else x


def encoded_width(bands: int) -> int:
    """Number of values that ``encoded`` returns for a point."""
    return encoders.positional_width(3, bands) if bands >= 0 else 3


def from_nerf_pytorch(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of a network of nerf-pytorch to that of a ``NeRF``.

    Without viewing directions nerf-pytorch has color, density and an unused value in one ``output_linear``; its layers
    for viewing directions, unused then, are dropped.

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
