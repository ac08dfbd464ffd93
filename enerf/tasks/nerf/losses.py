"""Residuals of rendered colors, and of what proposals said."""

from jaxtyping import Float
from torch import Tensor

from enerf.core.types import Proposal, Rendering
from enerf.rendering import proposal


def mse(rgb: Float[Tensor, "*b 3"], target: Float[Tensor, "*b 3"]) -> Float[Tensor, ""]:
    """The mean squared error over rays and channels."""
    return (rgb - target).square().mean()


def photometric(first: Rendering, final: Rendering, target: Float[Tensor, "*b 3"]) -> Float[Tensor, ""]:
    """The squared errors of the coarse and the final rendering together (NeRF, equation 6); once if they are one."""
    loss = mse(final.rgb, target)
    return loss if first is final else loss + mse(first.rgb, target)


def photometric_with_proposal(
    first: Proposal,
    final: Rendering,
    target: Float[Tensor, "*b 3"],
    interlevel: float | int = 1.0,
    distortion: float | int = 0.0,
) -> Float[Tensor, ""]:
    """The squared error of the final rendering, and what fits the proposal to it and gathers its weights.

    Source: Barron et al., mip-NeRF 360, CVPR 2022, equations 13 and 15, with their weights.
    """
    loss = mse(final.rgb, target)
    fitted = proposal.interlevel_loss(first.sample_edges, final.weights.detach(), first.edges, first.weights)
    loss = loss + interlevel * fitted
    if distortion > 0:
        first_edge, last_edge = first.sample_edges[..., :1], first.sample_edges[..., -1:]
        along = (first.sample_edges - first_edge) / (last_edge - first_edge)  # from 0 at near to 1 at far
        loss = loss + distortion * proposal.distortion_loss(along, final.weights)
    return loss
