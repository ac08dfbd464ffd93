"""One gradient of the photometric loss, in as many parts as the caches or the memory ask for.

Splitting rays is exact: the loss is a mean over rays, so the gradients of the parts, each weighted by its share, add up
to the gradient of the whole. Conditioned weights are computed once, not once a part.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.conditioning.once import computed_once
from enerf.fields.build import RadianceFields
from enerf.fields.networked import held
from enerf.rendering import render
from enerf.rendering.render import Passes
from enerf.training import losses
from enerf.types import Proposal, Rays


@dataclass(frozen=True)
class StepReport:
    """What one step saw, over its rays: losses, mean opacity, and how much colours vary between rays."""

    loss: float
    mse: float
    opacity: float
    rgb_std: float
    target_std: float

    @classmethod
    def averaged(cls, reports: Sequence["StepReport"]) -> dict[str, float]:
        """Mean loss and opacity of some steps, and the PSNR of their mean squared error."""
        n = max(1, len(reports))
        mse = sum(r.mse for r in reports) / n
        return {
            "loss": sum(r.loss for r in reports) / n,
            "psnr": -10 * math.log10(max(mse, 1e-12)),
            "opacity": sum(r.opacity for r in reports) / n,
        }


def accumulate_gradient(
    fields: RadianceFields, rays: Rays, target: Float[Tensor, "b 3"], *more: Any, **options: Any
) -> StepReport:
    """What was seen of a batch, whose loss's gradient is added to the parameters; arguments as of ``gradient``."""
    return StepReport(*gradient(fields, rays, target, *more, **options).tolist())  # one look at the device, not five


def gradient(
    fields: RadianceFields,
    rays: Rays,
    target: Float[Tensor, "b 3"],
    passes: Passes,
    generator: torch.Generator,
    *,
    noise_std: float | int = 0.0,
    jitter: bool = True,
    rays_at_once: int = 1 << 30,
    interlevel: float | int = 1.0,
    distortion: float | int = 0.0,
) -> Float[Tensor, " 5"]:
    """What was seen of a batch, in the order of ``StepReport``; the gradient of its loss is added to the parameters.

    Nothing is read back from the device, so that the work can be recorded (``capture.py``).

    Parameters
    ----------
    fields
        The coarse field and the fine one, if there is one; conditioned or not.
    rays, target
        The batch, and the photographed colours of its rays.
    passes
        How rays are sampled.
    generator
        All randomness of the step: jitter, and noise on the raw density.
    noise_std
        Standard deviation of that noise; 0 draws none.
    jitter
        Whether samples are jittered within their bins.
    rays_at_once
        Most rays of one part. The result is the same for every value, up to rounding and, with jitter or noise, to
        the order in which the random numbers are drawn.
    interlevel, distortion
        Weights of those losses, with ``passes.proposal``.
    """
    noisy = {"noise_std": noise_std, "generator": generator}
    coarse = partial(fields.coarse, **noisy)
    fine = partial(fields.fine, **noisy) if fields.fine is not None else None
    n = len(rays)
    loss_sum, opacity_sum = target.new_zeros(()), target.new_zeros(())
    colours = []
    with computed_once(fields), held(fields):
        for start in range(0, n, rays_at_once):
            part = slice(start, min(start + rays_at_once, n))
            first, final = render.render_rays(coarse, fine, rays[part], passes, generator if jitter else None)
            if isinstance(first, Proposal):
                loss = losses.proposed(first, final, target[part], interlevel, distortion)
            else:
                loss = losses.photometric(first, final, target[part])
            loss = loss * ((part.stop - part.start) / n)
            loss.backward()
            loss_sum += loss.detach()
            opacity_sum += final.opacity.detach().sum()
            colours.append(final.rgb.detach())
            del first, final, loss  # frees this part's activations before the next part makes its own
    rgb = torch.cat(colours)
    spread = (colour.std(0, correction=0).mean() for colour in (rgb, target))
    return torch.stack([loss_sum, losses.mse(rgb, target), opacity_sum / n, *spread])
