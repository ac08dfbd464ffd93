"""Deferred shading: a field of density and features, and a color network that is evaluated once per ray.

A NeRF evaluates its color network at every sample. Here the samples of a ray have a few features, which are averaged
with the rendering weights, and the color network maps the average and the viewing direction to the color of the ray.
Where a ray meets one opaque surface both are the same; the cost of the color network no longer depends on the number of
samples.

Source: Hedman et al., Baking Neural Radiance Fields (SNeRG), ICCV 2021, section 4.1, where a diffuse color is added;
here the color network gives the whole color.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.core.types import FeatureOutput
from enerf.fields.backends.dense import Layer, Network
from enerf.fields.backends.module import NetworkModule
from enerf.fields.hash_space import HashedSpace
from enerf.fields.nerf import PointField, encoded, encoded_width
from enerf.fields.shape import SKIP_AT, trunk_layers


class ColorNetwork(NetworkModule):
    """Colors in [0, 1] from features and unit viewing directions: ``layers`` with ReLU, and ``rgb_head``.

    ``multires_views`` is the number of frequency bands of viewing directions (negative: no encoding).
    """

    def __init__(self, features: int, depth: int, width: int, multires_views: int, use_viewdirs: bool) -> None:
        super().__init__()
        self.multires_views, self.use_viewdirs = multires_views, use_viewdirs
        inputs = (features, encoded_width(multires_views)) if use_viewdirs else (features,)
        self.layers = nn.ModuleList(nn.Linear(n, width) for n in (sum(inputs), *[width] * (depth - 1)))
        self.rgb_head = nn.Linear(width, 3)
        self.network = color_network(inputs, depth, width)

    def forward(self, features: Float[Tensor, "n f"], viewdirs: Float[Tensor, "m 3"]) -> Float[Tensor, "n 3"]:
        """Colors; n is a multiple of m, and consecutive features share a viewing direction."""
        inputs = [features]
        if self.use_viewdirs:
            inputs.append(encoded(viewdirs, self.multires_views))
        (raw,) = self.bound()(inputs)
        return torch.sigmoid(raw)

    def linears(self) -> list[nn.Linear]:
        """The layers, then the head."""
        return [*self.layers, self.rgb_head]


class DeferredNeRF(PointField):
    """A radiance field with deferred shading: ``trunk``, ``density_head`` and ``feature`` at points, ``color`` on rays.

    Arguments as for ``NeRF``; ``features``: how many a point has; ``color_depth``, ``color_width``: hidden layers of
    the color network.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        multires: int,
        multires_views: int,
        use_viewdirs: bool,
        *,
        features: int,
        color_depth: int,
        color_width: int,
        hashed: HashedSpace | None = None,
        density: str = "relu",
        skip_at: int = SKIP_AT,
    ) -> None:
        super().__init__(depth, width, multires, hashed, density, skip_at)
        self.feature = nn.Linear(width, features)
        self.color = ColorNetwork(features, color_depth, color_width, multires_views, use_viewdirs)
        trunk = trunk_layers(depth, width, skip_at)
        heads = (Layer((depth,), 1, False), Layer((depth,), features, False))
        self.network = Network((self.n_features,), (*trunk, *heads), (depth + 1, depth + 2))

    def forward(
        self,
        points: Float[Tensor, "*b s 3"],
        viewdirs: Float[Tensor, "*b 3"],
        noise_std: float | int = 0.0,
        generator: torch.Generator | None = None,
    ) -> FeatureOutput:
        """Density and features at points, and the function that decodes features; noise as for ``NeRF.forward``."""
        raw_density, features = self.bound()([self._encoded(points.reshape(-1, 3))])
        density = self._to_density(raw_density.reshape(points.shape[:-1]), noise_std, generator)
        return FeatureOutput(density, features.reshape(*points.shape[:-1], -1), self.color)

    def linears(self) -> list[nn.Linear]:
        """The linear layers that are evaluated at points, in the order of ``network``."""
        return [*self.trunk, self.density_head, self.feature]


def color_network(inputs: tuple[int, ...], depth: int, width: int) -> Network:
    """The network of a ``ColorNetwork``: concatenated inputs, ``depth`` ReLU layers, three outputs.

    >>> color_network((16, 3), 2, 64).outputs
    (4,)
    """
    k = len(inputs)
    sources = [tuple(range(k)), *((k + i,) for i in range(depth - 1))]
    hidden = tuple(Layer(s, width, True) for s in sources)
    return Network(inputs, (*hidden, Layer((k + depth - 1,), 3, False)), (k + depth,))
