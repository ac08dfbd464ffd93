"""Sampling along rays: values of t, in units of the ray's direction, that carry no gradient.

``generator=None`` is deterministic; a generator is the only source of randomness.

**Spacing.** For scenes without bounds a ``knee`` above 0 spaces samples evenly in t up to the knee, and evenly in 1/t
beyond it: half of the range (0, ∞) lies on each side. All positions are then computed in the **complement**
c = 1 − t / 2 knee for t < knee, knee / 2 t beyond, which falls from 1 at t = 0 to 0 at infinity. Near 0, where the
distances are largest, its relative precision is that of t.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core import shares
from enerf.core.types import Rays


def stratified(
    near: Float[Tensor, "*b"],
    far: Float[Tensor, "*b"],
    n: int,
    lindisp: bool = False,
    generator: torch.Generator | None = None,
    knee: float | int = 0.0,
) -> Float[Tensor, "*b n"]:
    """``n`` increasing t values from near to far, jittered within their bins by a generator.

    They are evenly spaced in t or, with ``lindisp``, in 1/t, which needs ``near`` above 0; with a ``knee`` evenly in
    both, see above.

    Source: NeRF, equation 2, with the bins of its authors' code, which are bounded by the midpoints between samples.

    >>> stratified(torch.tensor(2.0), torch.tensor(6.0), 3).tolist()
    [2.0, 4.0, 6.0]
    >>> stratified(torch.tensor(2.0), torch.tensor(6.0), 3, lindisp=True).tolist()
    [2.0, 3.0, 6.0]
    >>> [round(t, 3) for t in stratified(torch.tensor(0.0), torch.tensor(4.0), 4, knee=1.0).tolist()]
    [0.0, 0.583, 1.2, 4.0]
    """
    if knee > 0:
        ends = (complement(near, knee), complement(far, knee))
        return from_complement(stratified(*ends, n, generator=generator), knee)
    fraction = torch.linspace(0.0, 1.0, n, dtype=near.dtype, device=near.device)
    near, far = near[..., None], far[..., None]
    t_vals = 1.0 / ((1.0 - fraction) / near + fraction / far) if lindisp else near * (1.0 - fraction) + far * fraction
    if generator is None:
        return t_vals
    middles = midpoints(t_vals)
    lower = torch.cat([t_vals[..., :1], middles], -1)
    upper = torch.cat([middles, t_vals[..., -1:]], -1)
    u = shares.rand(t_vals.shape, generator, t_vals.dtype, t_vals.device)
    return lower + (upper - lower) * u


def importance(
    t_vals: Float[Tensor, "*b s"],
    weights: Float[Tensor, "*b s"],
    n: int,
    generator: torch.Generator | None = None,
    knee: float | int = 0.0,
) -> Float[Tensor, "*b n"]:
    """``n`` t values drawn from the weights as a piecewise constant density, with the midpoints of ``t_vals`` as bins.

    With a ``knee`` the density is constant in the spacing of the bins. Needs at least two t values. Random draws are
    not sorted; deterministic ones are evenly spaced quantiles, from the first midpoint to the last.

    Source: NeRF, section 5.2, as in its authors' code: the first and last weight are ignored, and 1e-5 is added to the
    others so that an empty ray is sampled uniformly.
    """
    if knee > 0:
        spaced = -complement(t_vals.detach(), knee)  # increasing
        return from_complement(-importance(spaced, weights, n, generator), knee)
    bins, mass = midpoints(t_vals.detach()), weights.detach()[..., 1:-1] + 1e-5
    cdf = torch.cumsum(mass / mass.sum(-1, keepdim=True), -1)
    cdf = torch.cat([torch.zeros_like(bins[..., :1]), cdf], -1)
    shape = (*cdf.shape[:-1], n)
    if generator is None:
        u = torch.linspace(0.0, 1.0, n, dtype=cdf.dtype, device=cdf.device).expand(shape).contiguous()
    else:
        u = shares.rand(shape, generator, cdf.dtype, cdf.device)
    return _inverse(bins, cdf, u)


def _inverse(
    bins: Float[Tensor, "*b m"], cdf: Float[Tensor, "*b m"], u: Float[Tensor, "*b n"]
) -> Float[Tensor, "*b n"]:
    """Inverse at ``u`` of the piecewise linear ``cdf`` over ``bins``; the lower end of a bin with almost no mass."""
    found = torch.searchsorted(cdf, u, right=True)
    above = found.clamp(max=cdf.shape[-1] - 1)
    below = (found - 1).clamp(min=0)
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    step = cdf_above - cdf_below
    fraction = (u - cdf_below) / torch.where(step < 1e-5, torch.ones_like(step), step)
    low, high = bins.gather(-1, below), bins.gather(-1, above)
    return low + fraction * (high - low)


def union(a: Float[Tensor, "*b s"], b: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
    """Both sets of t values, sorted.

    >>> union(torch.tensor([0.0, 2.0]), torch.tensor([3.0, 1.0])).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    return torch.cat([a, b], -1).sort(-1).values


def complement(t_vals: Float[Tensor, "*b"], knee: float | int) -> Float[Tensor, "*b"]:
    """The complement of t values of at least 0: 1 − t / 2 knee before the knee, knee / 2 t beyond it.

    Source: the parametrization of Barron et al., mip-NeRF 360, CVPR 2022, equation 11, with linear spacing nearby.

    >>> complement(torch.tensor([0.0, 1.0, 2.0, 8.0]), 2.0).tolist()
    [1.0, 0.75, 0.5, 0.125]
    """
    return torch.where(t_vals < knee, 1.0 - t_vals / (2.0 * knee), knee / (2.0 * t_vals.clamp(min=knee)))


def from_complement(c: Float[Tensor, "*b"], knee: float | int) -> Float[Tensor, "*b"]:
    """The t values of complements above 0; the inverse of ``complement``.

    >>> from_complement(torch.tensor([1.0, 0.75, 0.5, 0.125]), 2.0).tolist()
    [0.0, 1.0, 2.0, 8.0]
    """
    tiny = torch.finfo(c.dtype).tiny
    return torch.where(c > 0.5, 2.0 * knee * (1.0 - c), knee / (2.0 * c.clamp(min=tiny)))


def position(
    t_vals: Float[Tensor, "*b s"],
    near: Float[Tensor, "*b"],
    far: Float[Tensor, "*b"],
    lindisp: bool = False,
    knee: float | int = 0.0,
) -> Float[Tensor, "*b s"]:
    """Position of t values in the spacing of samples: 0 at near, 1 at far.

    >>> position(torch.tensor([2.0, 3.0, 6.0]), torch.tensor(2.0), torch.tensor(6.0), lindisp=True).abs().tolist()
    [0.0, 0.5, 1.0]
    """

    def spaced(t: Tensor) -> Tensor:
        return complement(t, knee) if knee > 0 else 1.0 / t if lindisp else t

    start, end = spaced(near)[..., None], spaced(far)[..., None]
    return (spaced(t_vals) - start) / (end - start)


def middles(edges: Float[Tensor, "*b s"], knee: float | int = 0.0) -> Float[Tensor, "*b m"]:
    """The t at which the interval between adjacent edges is evaluated: its middle in the spacing of the samples.

    >>> middles(torch.tensor([0.0, 1.0, 4.0])).tolist(), middles(torch.tensor([0.0, 1.0, 3.0]), 1.0)[0].item()
    ([0.5, 2.5], 0.5)
    """
    return from_complement(midpoints(complement(edges, knee)), knee) if knee > 0 else midpoints(edges)


def at_middles(
    rays: Rays, edges: Float[Tensor, "*b m"], knee: float | int = 0.0
) -> tuple[Float[Tensor, "*b s"], Float[Tensor, "*b s 3"]]:
    """The ``middles`` between edges, and the points of rays there."""
    t_vals = middles(edges, knee)
    return t_vals, rays.at(t_vals)


def midpoints(t_vals: Float[Tensor, "*b s"]) -> Float[Tensor, "*b m"]:
    """Midpoints of adjacent t values: one fewer.

    >>> midpoints(torch.tensor([0.0, 1.0, 3.0])).tolist()
    [0.5, 2.0]
    """
    return 0.5 * (t_vals[..., 1:] + t_vals[..., :-1])
