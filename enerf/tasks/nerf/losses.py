"""Training losses: photometric error, and the losses of proposal sampling."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.core.types import Proposal, Rays, Rendering
from enerf.rendering import proposal, sampling
from enerf.rendering.ray_functions import ray_functions
from enerf.tasks.nerf.exposure import Exposure

DEPTH_ROUND = 0.01  # of the range of samples


def mse(rgb: Float[Tensor, "*b 3"], target: Float[Tensor, "*b 3"]) -> Float[Tensor, ""]:
    """Return the mean squared error over rays and channels."""
    return (rgb - target).square().mean()


def over(rendering: Rendering, background: Float[Tensor, "*b 3"]) -> Rendering:
    """Return a rendering over black with its colors over another background: rgb + background · (1 − opacity)."""
    return replace(rendering, rgb=rendering.rgb + background * (1 - rendering.opacity)[..., None])


def exposed(rendering: Rendering, exposure: Exposure, view: Int[Tensor, " b"], behind: float | None) -> Rendering:
    """Return a rendering with its colors as the photographs of the views show them.

    Parameters
    ----------
    rendering, exposure
        The rendering, and the color maps.
    view
        View of each ray.
    behind
        Gray value over which the rendering lies, if that is no part of the photographs, for they are transparent there;
        None if they are opaque.
    """
    if behind is None:
        return replace(rendering, rgb=exposure(rendering.rgb, view))
    below = behind * (1 - rendering.opacity)[..., None]
    return replace(rendering, rgb=exposure(rendering.rgb - below, view, rendering.opacity) + below)


def depth(
    rendering: Rendering, rays: Rays, t: Float[Tensor, " b"], lindisp: bool = False, knee: float | int = 0.0
) -> Float[Tensor, ""]:
    """Return the expected robust distance of where rays end from known depths, averaged over rays.

    A ray ends at sample k with the probability of its weight, or at far with what remains. The distance is measured in
    the spacing of the samples, from 0 at near to 1 at far, and is √(d² + ``DEPTH_ROUND``²) − ``DEPTH_ROUND``: squared
    where it is small, and linear for depths that are wrong. It is least for a single opaque sample at the known depth.

    Source: Deng et al., Depth-supervised NeRF, CVPR 2022, section 3.3, for a loss on the weights.

    Parameters
    ----------
    rendering, rays
        The rendering of the rays.
    t
        Known depths as values of t, which are clamped to near and far.
    lindisp, knee
        Spacing of the samples.
    """
    known = t.clamp(rays.near, rays.far)[:, None]
    target = sampling.position(known, rays.near, rays.far, lindisp, knee)
    found = sampling.position(rendering.t_vals, rays.near, rays.far, lindisp, knee)
    distance = (torch.cat([found, torch.ones_like(target)], -1) - target).square() + DEPTH_ROUND**2
    weights = torch.cat([rendering.weights, (1 - rendering.opacity).clamp(min=0)[:, None]], -1)
    return (weights * (distance.sqrt() - DEPTH_ROUND)).sum(-1).mean()


def photometric(first: Rendering, final: Rendering, target: Float[Tensor, "*b 3"]) -> Float[Tensor, ""]:
    """Return the sum of the mean squared errors of the coarse and the fine rendering (NeRF, equation 6).

    Without a fine network both are the same rendering, and it counts once.
    """
    loss = mse(final.rgb, target)
    return loss if first is final else loss + mse(first.rgb, target)


def photometric_with_proposal(
    first: Proposal,
    final: Rendering,
    target: Float[Tensor, "*b 3"],
    interlevel: float | int = 1.0,
    distortion: float | int = 0.0,
    knee: float | int = 0.0,
    compiled: bool = False,
) -> Float[Tensor, ""]:
    """Return the mean squared error of the final rendering plus the weighted interlevel and distortion losses.

    The interlevel loss trains the proposal only. The distortion is measured in the spacing of the samples, which
    ``knee`` decides (``rendering.sampling``); ``compiled`` is as in ``SamplingConfig``.

    Source: Barron et al., mip-NeRF 360, CVPR 2022, equations 13 and 15.
    """
    loss = mse(final.rgb, target)
    if interlevel > 0:
        interlevel_loss, fine = ray_functions(compiled).interlevel_loss, final.weights.detach()
        proposal_loss = interlevel_loss(first.sample_edges, fine, first.edges, first.weights)
        loss = loss + interlevel * proposal_loss
    if distortion > 0:
        edges = -sampling.complement(first.sample_edges, knee) if knee > 0 else first.sample_edges
        first_edge, last_edge = edges[..., :1], edges[..., -1:]
        s_edges = (edges - first_edge) / (last_edge - first_edge)  # 0 at near, 1 at far
        loss = loss + distortion * proposal.distortion_loss(s_edges, final.weights)
    return loss
