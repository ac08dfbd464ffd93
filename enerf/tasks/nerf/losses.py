"""Training losses: photometric error, and the losses of proposal sampling."""

from dataclasses import replace

from jaxtyping import Float, Int
from torch import Tensor

from enerf.core.types import Proposal, Rendering
from enerf.rendering import proposal
from enerf.tasks.nerf.exposure import Exposure


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
) -> Float[Tensor, ""]:
    """Return the mean squared error of the final rendering plus the weighted interlevel and distortion losses.

    The interlevel loss trains the proposal only. Source: Barron et al., mip-NeRF 360, CVPR 2022, equations 13 and 15.
    """
    loss = mse(final.rgb, target)
    proposal_loss = proposal.interlevel_loss(first.sample_edges, final.weights.detach(), first.edges, first.weights)
    loss = loss + interlevel * proposal_loss
    if distortion > 0:
        first_edge, last_edge = first.sample_edges[..., :1], first.sample_edges[..., -1:]
        s_edges = (first.sample_edges - first_edge) / (last_edge - first_edge)  # 0 at near, 1 at far
        loss = loss + distortion * proposal.distortion_loss(s_edges, final.weights)
    return loss
