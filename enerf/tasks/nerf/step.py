"""One gradient of the photometric loss, in as many parts as the caches or the memory ask for.

Splitting rays is exact: the loss is a mean over rays, so the gradients of the parts, each weighted by its share, add up
to the gradient of the whole. Conditioned weights are computed once, not once a part.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.conditioning.weight_cache import computed_once
from enerf.core.types import Proposal, Rays
from enerf.engine.checkpoint import State
from enerf.fields.backends.module import held
from enerf.rendering import render
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import losses
from enerf.tasks.nerf.build import RadianceFields


@dataclass(frozen=True)
class StepReport:
    """What one step saw, over its rays: losses, mean opacity, and how much colors vary between rays."""

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
    passes: SamplingConfig,
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
        The batch, and the photographed colors of its rays.
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
    colors = []
    with computed_once(fields), held(fields):
        for start in range(0, n, rays_at_once):
            part = slice(start, min(start + rays_at_once, n))
            first, final = render.render_rays(coarse, fine, rays[part], passes, generator if jitter else None)
            if isinstance(first, Proposal):
                loss = losses.photometric_with_proposal(first, final, target[part], interlevel, distortion)
            else:
                loss = losses.photometric(first, final, target[part])
            loss = loss * ((part.stop - part.start) / n)
            loss.backward()
            loss_sum += loss.detach()
            opacity_sum += final.opacity.detach().sum()
            colors.append(final.rgb.detach())
            del first, final, loss  # frees this part's activations before the next part makes its own
    rgb = torch.cat(colors)
    spread = (color.std(0, correction=0).mean() for color in (rgb, target))
    return torch.stack([loss_sum, losses.mse(rgb, target), opacity_sum / n, *spread])


log = logging.getLogger("enerf")

BLANK_STEPS = 500  # consecutive steps of a blank image that count as a collapse
BLANK_OPACITY, BLANK_VARIATION = 0.01, 0.02


def is_blank(report: StepReport) -> bool:
    """Whether a step saw a blank image."""
    return report.opacity < BLANK_OPACITY or report.rgb_std < BLANK_VARIATION * report.target_std


def update_collapsed(state: State, report: StepReport) -> None:
    """Count the steps of a blank image; say once that the run has collapsed, and once that it no longer is."""
    state.blank_for = state.blank_for + 1 if is_blank(report) else 0
    collapsed = state.blank_for >= BLANK_STEPS
    if collapsed and not state.collapsed:
        log.warning(
            "step %d: the rendered image has been blank for %d steps: this run has collapsed; another --seed, a lower "
            "--lrate or --raw_noise_std 0 may help",
            state.step,
            BLANK_STEPS,
        )
    if state.collapsed and not collapsed:
        log.info("step %d: the image is no longer blank", state.step)
    state.collapsed = collapsed
