"""Intervals along a ray that are proposed by one field and rendered by another, and the losses that tie the two.

Vocabulary
----------
- **edges**: n + 1 increasing positions that bound n **intervals** of a ray;
- **weights** of intervals: a histogram over the ray, whose sum is the opacity;
- the **proposal** is the coarse histogram, learned only to bound the **fine** one, which is rendered.

Positions carry no gradient; ``generator=None`` is deterministic.

Source: Barron, Mildenhall, Verbin, Srinivasan, Hedman, mip-NeRF 360, CVPR 2022.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.rendering import sampling

PADDING = 1e-3  # of an interval's weight: an opaque ray of 32 intervals spends 3 % of its samples elsewhere
EPSILON = 1.2e-7  # in the denominator of the bound's loss, as in the authors' code: what a float32 resolves


def uniform_edges(
    near: Float[Tensor, "*b"],
    far: Float[Tensor, "*b"],
    n: int,
    lindisp: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*b n1"]:
    """Edges of ``n`` intervals from near to far, even in t or, with ``lindisp``, in 1/t, which needs ``near`` above 0.

    A generator moves each edge by at most half an interval, within near and far.

    >>> uniform_edges(torch.tensor(2.0), torch.tensor(6.0), 2).tolist()
    [2.0, 4.0, 6.0]
    """
    return sampling.stratified(near, far, n + 1, lindisp, generator)


@torch.no_grad()
def resample(
    edges: Float[Tensor, "*b m1"],
    weights: Float[Tensor, "*b m"],
    n: int,
    generator: torch.Generator | None = None,
    padding: float = PADDING,
) -> Float[Tensor, "*b n1"]:
    """Edges of ``n`` intervals from the first edge to the last, each with the same share of the histogram.

    A generator moves the inner edges of a ray, all by one part of at most half a share. ``padding`` is added to every
    weight, so that an empty ray is sampled evenly and no interval is forgotten. Carries no gradient.

    Source: section 3 and the authors' code, where too the samples of a ray share one jitter; here the ends stay, so
    that nothing on the ray is left out of the rendering.

    >>> resample(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 0.0]), 4).tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    mass = weights + padding
    mass = mass / mass.sum(-1, keepdim=True) * n  # counted in shares
    cdf = torch.nn.functional.pad(mass.cumsum(-1), (1, 0))
    first = torch.ones_like(cdf[..., :1])
    if generator is not None:
        first = 0.5 + torch.rand(first.shape, generator=generator, dtype=cdf.dtype, device=cdf.device)
    steps = first + torch.arange(n - 1, dtype=cdf.dtype, device=cdf.device)
    held = _interval_of_steps(cdf, first, n - 1)
    part = ((steps - cdf.gather(-1, held)) / mass.gather(-1, held)).clamp(0, 1)
    inner = edges.gather(-1, held) + part * edges.diff(dim=-1).gather(-1, held)
    return torch.cat([edges[..., :1], inner, edges[..., -1:]], -1)


def _interval_of_steps(
    cdf: Float[Tensor, "*b m1"], first: Float[Tensor, "*b 1"], count: int
) -> Int[Tensor, "*b {count}"]:
    """In which interval each of the steps first, first + 1, ... falls: a merge of two sorted lists, without a search.

    The steps below an edge of the histogram are counted by arithmetic; an edge then moves all later steps up by one.
    """
    before = (cdf[..., 1:-1] - first).ceil().clamp(0, count).long()
    moves = torch.zeros((*cdf.shape[:-1], count + 1), dtype=torch.long, device=cdf.device)
    moves.scatter_add_(-1, before, torch.ones_like(before))
    return moves[..., :-1].cumsum(-1)


def bound(
    edges_fine: Float[Tensor, "*b n1"], edges_prop: Float[Tensor, "*b m1"], weights_prop: Float[Tensor, "*b m"]
) -> Float[Tensor, "*b n"]:
    """The most weight that the proposal allows each fine interval: the sum over all proposed ones that overlap it.

    To touch is not to overlap. Differentiable in the proposal's weights only.

    Source: equation 12.

    >>> edges = torch.tensor([0.0, 1.0, 2.0])
    >>> bound(torch.tensor([0.0, 1.0, 1.5]), edges, torch.tensor([0.25, 0.5])).tolist()
    [0.25, 0.5]
    >>> bound(torch.tensor([0.5, 1.5]), edges, torch.tensor([0.25, 0.5])).tolist()
    [0.75]
    """
    with torch.no_grad():
        most = edges_prop.shape[-1] - 1
        upper = torch.searchsorted(edges_prop.contiguous(), edges_fine.contiguous()).clamp(max=most)
        on_edge = edges_prop.gather(-1, upper) <= edges_fine
        lower = torch.where(on_edge, upper, upper - 1).clamp(min=0)
    cumulated = torch.nn.functional.pad(weights_prop.cumsum(-1), (1, 0))
    return cumulated.gather(-1, upper[..., 1:]) - cumulated.gather(-1, lower[..., :-1])


def interlevel(
    edges_fine: Float[Tensor, "*b n1"],
    weights_fine: Float[Tensor, "*b n"],
    edges_prop: Float[Tensor, "*b m1"],
    weights_prop: Float[Tensor, "*b m"],
) -> Float[Tensor, ""]:
    """How far the fine weights exceed what the proposal allows: Σ max(0, w − bound)² / w a ray, mean over rays.

    Zero where some fine histogram and the proposal could be the same; differentiable in the proposal's weights only.

    Source: equation 13.
    """
    fine = weights_fine.detach()
    excess = (fine - bound(edges_fine, edges_prop, weights_prop)).clamp(min=0)
    return (excess.square() / (fine + EPSILON)).sum(-1).mean()


def distortion(edges: Float[Tensor, "*b n1"], weights: Float[Tensor, "*b n"]) -> Float[Tensor, ""]:
    """How spread out weight is along rays: ∫∫ w(u) w(v) |u − v| du dv of the histogram, mean over rays.

    Positions are meant to be normalised to [0, 1] from near to far. Linear in the number of intervals: a gap between
    middles is crossed by the product of the weights on its two sides.

    Source: equation 15.

    >>> distortion(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, 0.5])).item()  # 2 · ¼ · 1 + ⅓ · ½
    0.66666...
    """
    middles = sampling.midpoints(edges)
    so_far = weights.cumsum(-1)
    crossed = so_far[..., :-1] * (so_far[..., -1:] - so_far[..., :-1])
    apart = 2.0 * (crossed * middles.diff(dim=-1)).sum(-1)
    return (apart + (weights.square() * edges.diff(dim=-1)).sum(-1) / 3.0).mean()
