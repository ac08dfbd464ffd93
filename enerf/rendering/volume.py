"""Volume rendering: pixels from density and color along rays, as pure functions.

Vocabulary
----------
- **delta** δ: length of a sample's interval, in scene units; **thickness** σδ, the optical thickness;
- **alpha** = 1 − exp(−σδ): opacity of a sample;
- **transmittance** = exp(−Σ earlier σδ): share of light that passes all samples before it;
- **weights** = alpha · transmittance; **opacity** = Σ weights; **depth** = Σ weights · t.

Outputs have the dtype of the inputs, which should be fp32 or better. Outputs and gradients are finite for every finite
density.

Source: Mildenhall et al., NeRF (2020), equation 3; the last delta is that of its authors' code.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.types import FeatureOutput, FieldOutput, Rendering

LAST_DELTA = 1e10  # stands for infinity, since 0 · inf is NaN
LEAST_OPACITY = 1e-6  # divides sums of features in the place of a smaller opacity


def deltas(t_vals: Float[Tensor, "*b s"], directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b s"]:
    """Distances from each sample to the next, in scene units; the last is 1e10 times the direction's length.

    >>> deltas(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0, 2.0])).tolist()
    [2.0, 20000000000.0]
    """
    steps = t_vals[..., 1:] - t_vals[..., :-1]
    last = torch.full_like(t_vals[..., :1], LAST_DELTA)
    return torch.cat([steps, last], -1) * directions.norm(dim=-1, keepdim=True)


def weights(density: Float[Tensor, "*b s"], delta: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s"]:
    """Weight of each sample in its pixel: alpha times transmittance.

    The sum over a ray is 1 − exp(−Σ σδ).

    >>> weights(torch.tensor([0.0, 1e9, 5.0]), torch.ones(3)).tolist()
    [0.0, 1.0, 0.0]
    """
    thickness = density * delta
    alpha = -torch.expm1(-thickness)
    before = torch.cumsum(thickness[..., :-1], -1)
    transmittance = torch.exp(-torch.cat([torch.zeros_like(thickness[..., :1]), before], -1))
    return alpha * transmittance


def composite(
    field: FieldOutput | FeatureOutput,
    t_vals: Float[Tensor, "*b s"],
    directions: Float[Tensor, "*b 3"],
    white_bkgd: bool = False,
    viewdirs: Float[Tensor, "*b 3"] | None = None,
) -> Rendering:
    """Pixels from the field's values at the samples, over a black background or, with ``white_bkgd``, a white one.

    The depth is Σ weights · t, not divided by the opacity: it is 0 on an empty ray. Features are averaged with the
    weights, and their mean is decoded for the ray's unit viewing direction, which is needed for them only.
    """
    w = weights(field.density, deltas(t_vals, directions))
    return pixels(field, w, t_vals, sums(field, w, t_vals), white_bkgd, viewdirs)


def composite_intervals(
    field: FieldOutput | FeatureOutput,
    edges: Float[Tensor, "*b m"],
    directions: Float[Tensor, "*b 3"],
    white_bkgd: bool = False,
    t_vals: Float[Tensor, "*b s"] | None = None,
    viewdirs: Float[Tensor, "*b 3"] | None = None,
) -> Rendering:
    """``composite`` for values at ``t_vals`` within the intervals between edges, by default at their midpoints."""
    t_vals = 0.5 * (edges[..., 1:] + edges[..., :-1]) if t_vals is None else t_vals
    w = interval_weights(field.density, edges, directions)
    return pixels(field, w, t_vals, sums(field, w, t_vals), white_bkgd, viewdirs)


def interval_weights(
    density: Float[Tensor, "*b s"], edges: Float[Tensor, "*b m"], directions: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b s"]:
    """``weights`` of densities in the intervals between edges."""
    return weights(density, widths(edges, directions))


def widths(edges: Float[Tensor, "*b m"], directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b s"]:
    """Lengths of the intervals between edges, in scene units; the last is replaced by that of ``deltas``.

    >>> widths(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 0.0, 2.0])).tolist()
    [2.0, 20000000000.0]
    """
    return deltas(edges[..., :-1], directions)


def sums(
    field: FieldOutput | FeatureOutput, w: Float[Tensor, "*b s"], t_vals: Float[Tensor, "*b s"]
) -> tuple[Float[Tensor, "*b c"], Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Weighted sums of colors or features, of t values and of 1: the last two are depth and opacity."""
    if isinstance(field, FeatureOutput):
        values = (w[..., None, :] @ field.features)[..., 0, :]
    else:
        values = (w[..., None] * field.rgb).sum(-2)
    return values, (w * t_vals).sum(-1), w.sum(-1)


def pixels(
    field: FieldOutput | FeatureOutput,
    w: Float[Tensor, "*b s"],
    t_vals: Float[Tensor, "*b s"],
    summed: tuple[Float[Tensor, "*b c"], Float[Tensor, "*b"], Float[Tensor, "*b"]],
    white_bkgd: bool,
    viewdirs: Float[Tensor, "*b 3"] | None,
) -> Rendering:
    """Rendering from weights w, t values and their ``sums``; features are decoded."""
    rgb, depth, opacity = summed
    if isinstance(field, FeatureOutput):
        assert viewdirs is not None, "features are decoded for viewing directions"
        rgb = decoded(field, rgb, opacity, viewdirs)
    if white_bkgd:
        rgb = rgb + (1.0 - opacity)[..., None]
    return Rendering(rgb, depth, opacity, w, t_vals)


def decoded(
    field: FeatureOutput, sums: Float[Tensor, "*b f"], opacity: Float[Tensor, "*b"], viewdirs: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b 3"]:
    """Colors of rays over black, from their weighted sums of features: the color of the mean, times the opacity."""
    mean = sums / opacity.clamp(min=LEAST_OPACITY)[..., None]
    rgb = field.decode(mean.reshape(-1, mean.shape[-1]), viewdirs.reshape(-1, 3))
    return opacity[..., None] * rgb.reshape(*opacity.shape, 3)
