"""Where along a ray the field is asked. ``generator=None`` is deterministic and unbiased."""

import torch
from jaxtyping import Float
from torch import Tensor


def stratified(
    near: Float[Tensor, "*b"],
    far: Float[Tensor, "*b"],
    n: int,
    lindisp: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*b n"]:
    """``n`` increasing t values from near to far, evenly spaced in t (or in 1/t), jittered within their bins.

    Source: NeRF, equation 2, with the bins of its authors' code: the ends of a bin lie half way to the neighbours.
    """
    fraction = torch.linspace(0.0, 1.0, n, dtype=near.dtype, device=near.device)
    near, far = near[..., None], far[..., None]
    if lindisp:
        t_vals = 1.0 / ((1.0 - fraction) / near + fraction / far)
    else:
        t_vals = near * (1.0 - fraction) + far * fraction
    if generator is None:
        return t_vals
    middles = midpoints(t_vals)
    lower = torch.cat([t_vals[..., :1], middles], -1)
    upper = torch.cat([middles, t_vals[..., -1:]], -1)
    u = torch.rand(t_vals.shape, generator=generator, dtype=t_vals.dtype, device=t_vals.device)
    return lower + (upper - lower) * u


def importance(
    t_vals: Float[Tensor, "*b s"],
    weights: Float[Tensor, "*b s"],
    n: int,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*b n"]:
    """``n`` t values distributed as the weights, piecewise constant between the middles of ``t_vals``; no gradient.

    Source: NeRF, section 5.2, as in its authors' code: the first and last weight have no bin, and 1e-5 is added to the
    others so that an empty ray is sampled evenly.
    """
    bins, mass = midpoints(t_vals.detach()), weights.detach()[..., 1:-1] + 1e-5
    cdf = torch.cumsum(mass / mass.sum(-1, keepdim=True), -1)
    cdf = torch.cat([torch.zeros_like(cdf[..., :1]), cdf], -1)
    shape = (*cdf.shape[:-1], n)
    if generator is None:
        u = torch.linspace(0.0, 1.0, n, dtype=cdf.dtype, device=cdf.device).expand(shape).contiguous()
    else:
        u = torch.rand(shape, generator=generator, dtype=cdf.dtype, device=cdf.device)
    found = torch.searchsorted(cdf, u, right=True)
    above = found.clamp(max=cdf.shape[-1] - 1)
    below = (found - 1).clamp(min=0)
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    step = cdf_above - cdf_below
    fraction = (u - cdf_below) / torch.where(step < 1e-5, torch.ones_like(step), step)
    low, high = bins.gather(-1, below), bins.gather(-1, above)
    return low + fraction * (high - low)


def union(a: Float[Tensor, "*b s"], b: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
    """Both sets of t values, in increasing order."""
    return torch.cat([a, b], -1).sort(-1).values


def midpoints(t_vals: Float[Tensor, "*b s"]) -> Float[Tensor, "*b m"]:
    """The middles between neighbours: one fewer.

    >>> midpoints(torch.tensor([0.0, 1.0, 3.0])).tolist()
    [0.5, 2.0]
    """
    return 0.5 * (t_vals[..., 1:] + t_vals[..., :-1])
