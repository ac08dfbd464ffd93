"""Data classes shared by all packages: cameras, rays, field outputs, renderings. No logic.

Vocabulary (the same words in code, options, logs and documentation):

- ``origins``, ``directions``: a ray is ``origin + t · direction``; directions are *not* unit (NDC needs
  that).
- ``viewdirs``: unit viewing directions, taken before NDC.
- ``t_vals``: positions along a ray, in units of ``direction``.
- ``density``: σ ≥ 0, per unit length of scene space.
- ``opacity`` = Σ weights; ``depth`` = Σ weights · t.
- ``c2w``: camera-to-world, OpenGL axes: x right, y up, looking down −z.
- Batch axes first, samples next to last, channels last, no trailing singleton axis.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """Intrinsics of a camera, by default a pinhole without distortion; lengths in pixels.

    Attributes
    ----------
    width, height
        Size of the image.
    fx, fy
        Focal lengths.
    cx, cy
        Principal point, measured from the outer corner of the top-left pixel, so the center of that pixel lies at
        (0.5, 0.5).
    model
        Name of the projection and its distortion: one of COLMAP's, see ``datasets.scenes.camera_models``.
    coefficients
        Distortion coefficients in COLMAP's order, without focal lengths and principal point; as many as the model has.
    """

    width: int
    height: int
    fx: float | int
    fy: float | int
    cx: float | int
    cy: float | int
    model: str = "PINHOLE"
    coefficients: tuple[float, ...] = ()


@dataclass(frozen=True)
class Space:
    """The region of scene space that a field's grid covers.

    A box from ``low`` to ``high`` or, if ``contracted``, all of space: points in the box's inscribed ball stay in
    place, and all others are contracted into a shell around it.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    contracted: bool = False


@dataclass(frozen=True)
class Rays:
    """A batch of rays; ``near`` and ``far`` are the values of t where each begins and ends."""

    origins: Float[Tensor, "*b 3"]
    directions: Float[Tensor, "*b 3"]
    viewdirs: Float[Tensor, "*b 3"]
    near: Float[Tensor, "*b"]
    far: Float[Tensor, "*b"]

    def at(self, t_vals: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s 3"]:
        """Points ``origin + t · direction``."""
        return self.origins[..., None, :] + self.directions[..., None, :] * t_vals[..., None]

    def __getitem__(self, index: slice | Tensor) -> "Rays":
        """Rays of a slice or selection along the first batch axis."""
        return Rays(
            origins=self.origins[index],
            directions=self.directions[index],
            viewdirs=self.viewdirs[index],
            near=self.near[index],
            far=self.far[index],
        )

    def detached(self) -> "Rays":
        """The same rays without gradient."""
        return Rays(**{name: value.detach() for name, value in vars(self).items()})

    def __len__(self) -> int:
        return len(self.origins)


@dataclass(frozen=True)
class FieldOutput:
    """Values of a radiance field at points: density σ ≥ 0, per unit length, and rgb in [0, 1]."""

    density: Float[Tensor, "*b s"]
    rgb: Float[Tensor, "*b s 3"]


@dataclass(frozen=True)
class FeatureOutput:
    """Values of a radiance field with deferred shading at points: density σ ≥ 0, per unit length, and features.

    Attributes
    ----------
    density, features
        Values at the points.
    decode
        Function from features (n, f) and unit viewing directions (m, 3), n a multiple of m, to colors (n, 3) in [0, 1];
        consecutive features share a direction.
    """

    density: Float[Tensor, "*b s"]
    features: Float[Tensor, "*b s f"]
    decode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def at_points(self, viewdirs: Float[Tensor, "*b 3"]) -> FieldOutput:
        """Density and color of each point by itself, as if a ray ended there."""
        flat = self.decode(self.features.flatten(0, -2), viewdirs.reshape(-1, 3))
        return FieldOutput(self.density, flat.reshape(*self.density.shape, 3))


@dataclass(frozen=True)
class Rendering:
    """Volume rendering of rays: pixel color, depth, opacity, and the weights and t values of the samples."""

    rgb: Float[Tensor, "*b 3"]
    depth: Float[Tensor, "*b"]
    opacity: Float[Tensor, "*b"]
    weights: Float[Tensor, "*b s"]
    t_vals: Float[Tensor, "*b s"]


@dataclass(frozen=True)
class Proposal:
    """Histogram of a proposal network along rays, and the intervals resampled from it for the final rendering.

    ``edges`` bound the intervals that ``weights`` belong to, ``sample_edges`` the resampled ones, whose midpoints are
    where the final field is evaluated. Both are increasing values of t, one more than there are intervals.
    """

    edges: Float[Tensor, "*b m"]
    weights: Float[Tensor, "*b s"]
    sample_edges: Float[Tensor, "*b n"]


# points (*b, s, 3) and unit viewing directions (*b, 3) -> FieldOutput
RadianceField = Callable[[torch.Tensor, torch.Tensor], FieldOutput]
# the same, of fields of which some have deferred shading
ShadedField = Callable[[torch.Tensor, torch.Tensor], FieldOutput | FeatureOutput]
# points (*b, d) -> values (*b): a signed distance, occupancy logits, a density
ScalarField = Callable[[torch.Tensor], torch.Tensor]
