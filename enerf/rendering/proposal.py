"""Proposal sampling of mip-NeRF 360: resampled intervals along rays, and the losses of proposal and final network.

Vocabulary
----------
- **edges**: n + 1 increasing positions that bound n **intervals** of a ray;
- **weights** of intervals: a histogram along the ray, whose sum is the opacity;
- the **proposal** is the coarse histogram, trained only to bound the **fine** one, which is rendered.

Positions carry no gradient; ``generator=None`` is deterministic.

Source: Barron, Mildenhall, Verbin, Srinivasan, Hedman, mip-NeRF 360, CVPR 2022.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.core import shares
from enerf.rendering import sampling

PADDING = 1e-3  # added to each weight: an opaque ray of 32 intervals places 3 % of its samples outside its surface
EPSILON = 1.2e-7  # in the denominator of the interlevel loss, as in the authors' code: float32's machine epsilon


def uniform_edges(
    near: Float[Tensor, "*b"],
    far: Float[Tensor, "*b"],
    n: int,
    lindisp: bool = False,
    generator: torch.Generator | None = None,
    knee: float | int = 0.0,
) -> Float[Tensor, "*b n1"]:
    """Edges of ``n`` intervals from near to far, even in t or, with ``lindisp``, in 1/t, which needs ``near`` above 0.

    With a ``knee``, even in both, see ``sampling``.

    A generator jitters each edge by at most half an interval, within near and far.

    >>> uniform_edges(torch.tensor(2.0), torch.tensor(6.0), 2).tolist()
    [2.0, 4.0, 6.0]
    """
    return sampling.stratified(near, far, n + 1, lindisp, generator, knee)


@torch.no_grad()
def resample(
    edges: Float[Tensor, "*b m1"],
    weights: Float[Tensor, "*b m"],
    n: int,
    generator: torch.Generator | None = None,
    padding: float = PADDING,
    knee: float | int = 0.0,
) -> Float[Tensor, "*b n1"]:
    """Edges of ``n`` intervals from the first edge to the last, each with the same mass of the histogram.

    A generator jitters the inner edges of a ray, all by one offset of at most half that mass. ``padding`` is added to
    every weight, so that an empty ray is sampled uniformly and every interval gets samples. With a ``knee`` the mass is
    spread evenly within an interval in the spacing of ``sampling``, else in t. Carries no gradient.

    Source: section 3 and the authors' code, which also uses one jitter per ray; here the end points stay fixed, so that
    the intervals cover the whole ray.

    >>> resample(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.0]), 4).tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    if knee > 0:
        spaced = resample(sampling.complement(edges, knee), weights, n, generator, padding)
        inner = sampling.from_complement(spaced[..., 1:-1], knee).clamp(edges[..., :1], edges[..., -1:])
        return torch.cat([edges[..., :1], inner, edges[..., -1:]], -1)
    mass = weights + padding
    mass = mass / mass.sum(-1, keepdim=True) * n  # in units of one new interval's mass
    cdf = torch.nn.functional.pad(mass.cumsum(-1), (1, 0))
    first = torch.ones_like(cdf[..., :1])
    if generator is not None:
        first = 0.5 + shares.rand(first.shape, generator, cdf.dtype, cdf.device)
    steps = first + torch.arange(n - 1, dtype=cdf.dtype, device=cdf.device)
    index = _interval_of_steps(cdf, first, n - 1)
    fraction = ((steps - cdf.gather(-1, index)) / mass.gather(-1, index)).clamp(0, 1)
    inner = edges.gather(-1, index) + fraction * edges.diff(dim=-1).gather(-1, index)
    return torch.cat([edges[..., :1], inner, edges[..., -1:]], -1)


def _interval_of_steps(
    cdf: Float[Tensor, "*b m1"], first: Float[Tensor, "*b 1"], count: int
) -> Int[Tensor, "*b {count}"]:
    """Indices of the histogram intervals that the values first, first + 1, ... of the cdf fall in, without a search.

    The number of values below an edge follows by arithmetic; each edge raises the index of all later values by one.
    """
    before = (cdf[..., 1:-1] - first).ceil().nan_to_num(0.0).clamp(0, count).long()  # NaN is reported by its loss
    increments = torch.zeros((*cdf.shape[:-1], count + 1), dtype=torch.long, device=cdf.device)
    increments.scatter_add_(-1, before, torch.ones_like(before))
    return increments[..., :-1].cumsum(-1)


def weight_bound(
    edges_fine: Float[Tensor, "*b n1"], edges_prop: Float[Tensor, "*b m1"], weights_prop: Float[Tensor, "*b m"]
) -> Float[Tensor, "*b n"]:
    """Upper bound on each fine interval's weight: the sum of the proposal's weights over the intervals that overlap it.

    Intervals that share only an edge do not overlap. Differentiable in the proposal's weights only.

    Source: equation 12.

    >>> edges = torch.tensor([0.0, 1.0, 2.0])
    >>> weight_bound(torch.tensor([0.0, 1.0, 1.5]), edges, torch.tensor([0.25, 0.5])).tolist()
    [0.25, 0.5]
    >>> weight_bound(torch.tensor([0.5, 1.5]), edges, torch.tensor([0.25, 0.5])).tolist()
    [0.75]
    """
    with torch.no_grad():
        last = edges_prop.shape[-1] - 1
        upper = torch.searchsorted(edges_prop.contiguous(), edges_fine.contiguous()).clamp(max=last)
        on_edge = edges_prop.gather(-1, upper) <= edges_fine
        lower = torch.where(on_edge, upper, upper - 1).clamp(min=0)
    cumulated = torch.nn.functional.pad(weights_prop.cumsum(-1), (1, 0))
    return cumulated.gather(-1, upper[..., 1:]) - cumulated.gather(-1, lower[..., :-1])


def interlevel_loss(
    edges_fine: Float[Tensor, "*b n1"],
    weights_fine: Float[Tensor, "*b n"],
    edges_prop: Float[Tensor, "*b m1"],
    weights_prop: Float[Tensor, "*b m"],
) -> Float[Tensor, ""]:
    """Loss of the proposal: Σ max(0, w − bound)² / w over the fine intervals of a ray, mean over rays.

    Zero where both histograms can be of the same density; differentiable in the proposal's weights only.

    Source: equation 13.
    """
    fine = weights_fine.detach()
    excess = (fine - weight_bound(edges_fine, edges_prop, weights_prop)).clamp(min=0)
    return (excess.square() / (fine + EPSILON)).sum(-1).mean()


def distortion_loss(edges: Float[Tensor, "*b n1"], weights: Float[Tensor, "*b n"]) -> Float[Tensor, ""]:
    """Distortion loss ∫∫ w(u) w(v) |u − v| du dv of the histogram, mean over rays: penalizes spread-out weights.

    Edges are expected normalized to [0, 1] from near to far. Computed in linear time: each gap between adjacent
    midpoints is multiplied by the product of the total weights on its two sides.

    Source: equation 15.

    >>> distortion_loss(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 0.5])).item()  # 2 · ¼ · 1 + ⅓ · ½
    0.66666...
    """
    middles = sampling.midpoints(edges)
    cumulated = weights.cumsum(-1)
    products = cumulated[..., :-1] * (cumulated[..., -1:] - cumulated[..., :-1])
    between = 2.0 * (products * middles.diff(dim=-1)).sum(-1)
    return (between + (weights.square() * edges.diff(dim=-1)).sum(-1) / 3.0).mean()
