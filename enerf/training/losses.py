"""Residuals of rendered colours."""

from jaxtyping import Float
from torch import Tensor

from enerf.types import Rendering


def mse(rgb: Float[Tensor, "*b 3"], target: Float[Tensor, "*b 3"]) -> Float[Tensor, ""]:
    """The mean squared error over rays and channels."""
    return (rgb - target).square().mean()


def photometric(first: Rendering, final: Rendering, target: Float[Tensor, "*b 3"]) -> Float[Tensor, ""]:
    """The squared errors of the coarse and the final rendering together (NeRF, equation 6); once if they are one."""
    loss = mse(final.rgb, target)
    return loss if first is final else loss + mse(first.rgb, target)
