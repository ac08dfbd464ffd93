"""Density and colour along rays to pixels, as pure functions.

Vocabulary
----------
- **delta** δ: how far a sample reaches, in scene units; **thickness** σδ;
- **alpha** = 1 − exp(−σδ): how opaque a sample is;
- **transmittance** = exp(−Σ earlier σδ): how much of it is seen through those before it;
- **weights** = alpha · transmittance; **opacity** = Σ weights; **depth** = Σ weights · t.

Dtypes stay as they come in; fp32 or better is meant. Outputs and gradients are finite for every finite
density.

Source: Mildenhall et al., NeRF (2020), equation 3; the last delta is that of its authors' code.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.types import FieldOutput, Rendering

LAST_DELTA = 1e10  # the last sample reaches as good as infinitely far; not inf, because 0 · inf is NaN


def deltas(t_vals: Float[Tensor, "*b s"], directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b s"]:
    """Lengths from each sample to the next, in scene units; the last is 1e10 lengths of the direction.

    >>> deltas(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0, 2.0])).tolist()
    [2.0, 20000000000.0]
    """
    steps = t_vals[..., 1:] - t_vals[..., :-1]
    last = torch.full_like(t_vals[..., :1], LAST_DELTA)
    return torch.cat([steps, last], -1) * directions.norm(dim=-1, keepdim=True)


def weights(density: Float[Tensor, "*b s"], delta: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s"]:
    """How much each sample counts in its pixel: alpha times the transmittance of all before it.

    Their sum is 1 − exp(−Σ σδ).

    >>> weights(torch.tensor([0.0, 1e9, 5.0]), torch.ones(3)).tolist()
    [0.0, 1.0, 0.0]
    """
    thickness = density * delta
    alpha = -torch.expm1(-thickness)
    before = torch.cumsum(thickness[..., :-1], -1)
    transmittance = torch.exp(-torch.cat([torch.zeros_like(thickness[..., :1]), before], -1))
    return alpha * transmittance


def composite(
    field: FieldOutput,
    t_vals: Float[Tensor, "*b s"],
    directions: Float[Tensor, "*b 3"],
    white_bkgd: bool = False,
) -> Rendering:
    """Pixels from the field's values at the samples; what is not opaque shows black, or white on request.

    The depth is a value of t on an opaque ray and falls to 0 with the opacity.
    """
    return _pixels(field, weights(field.density, deltas(t_vals, directions)), t_vals, white_bkgd)


def composite_intervals(
    field: FieldOutput,
    edges: Float[Tensor, "*b m"],
    directions: Float[Tensor, "*b 3"],
    white_bkgd: bool = False,
) -> Rendering:
    """Pixels from the field's values in the middles of the intervals between edges; otherwise as ``composite``."""
    t_vals = 0.5 * (edges[..., 1:] + edges[..., :-1])
    w = weights(field.density, widths(edges, directions))
    return _pixels(field, w, t_vals, white_bkgd)


def widths(edges: Float[Tensor, "*b m"], directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b s"]:
    """Lengths of the intervals between edges, in scene units; the last reaches as far as that of ``deltas``.

    >>> widths(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 0.0, 2.0])).tolist()
    [2.0, 20000000000.0]
    """
    return deltas(edges[..., :-1], directions)


def _pixels(field: FieldOutput, w: Float[Tensor, "*b s"], t_vals: Float[Tensor, "*b s"], white_bkgd: bool) -> Rendering:
    """What weights make of colours and positions."""
    rgb = (w[..., None] * field.rgb).sum(-2)
    opacity = w.sum(-1)
    if white_bkgd:
        rgb = rgb + (1.0 - opacity)[..., None]
    return Rendering(rgb, (w * t_vals).sum(-1), opacity, w, t_vals)
