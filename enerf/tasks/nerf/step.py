"""Gradient of the training loss on a batch of rays, accumulated over chunks that fit the cache or the memory.

The loss is a mean over rays, so the gradients of the chunks, each weighted by its share of the rays, add up to the
gradient of the batch. Conditioned weights are computed once per batch, not once per chunk.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.conditioning.weight_cache import computed_once
from enerf.core.shares import WHOLE, Rows, Share
from enerf.core.types import Camera, FieldOutput, Proposal, RadianceField, Rays, Rendering
from enerf.engine.checkpoint import State
from enerf.fields.backends.module import frozen
from enerf.rendering import render
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import losses, refinement
from enerf.tasks.nerf.build import RadianceFields

log = logging.getLogger("enerf")

BLANK_STEPS = 500  # consecutive steps with a blank image that count as a collapse
BLANK_OPACITY, BLANK_VARIATION = 0.01, 0.02


@dataclass(frozen=True)
class StepReport:
    """Figures of one training step; the standard deviations are those of colors over rays, averaged over channels."""

    loss: float
    mse: float
    opacity: float
    rgb_std: float
    target_std: float

    @classmethod
    def of_sums(cls, sums: Sequence[float], n: int) -> "StepReport":
        """Return the figures of a batch of ``n`` rays from the sums of those of shares, see ``gradient``."""
        loss, mse, opacity, target_std, *moments = sums
        channels = zip(moments[:3], moments[3:], strict=True)
        variances = [max(0.0, square / n - (value / n) ** 2) for value, square in channels]
        return cls(loss, mse, opacity, sum(map(math.sqrt, variances)) / 3, target_std)

    @classmethod
    def averaged(cls, reports: Sequence["StepReport"]) -> dict[str, float]:
        """Return mean loss and opacity of several steps, and the PSNR of their mean squared error."""
        n = max(1, len(reports))
        mse = sum(r.mse for r in reports) / n
        return {
            "loss": sum(r.loss for r in reports) / n,
            "psnr": -10 * math.log10(max(mse, 1e-12)),
            "opacity": sum(r.opacity for r in reports) / n,
        }


@dataclass(frozen=True)
class ViewTerms:
    """What the loss of a batch needs if something is trained for each view (``RadianceFields``).

    Attributes
    ----------
    view
        View of each ray.
    behind
        As for ``losses.exposed``.
    exposure_weight
        Weight of the penalty of exposure maps.
    ndc
        Camera of the NDC in which the fields are defined, if poses are refined and the scene uses them: rays are in
        scene space then.
    """

    view: Int[Tensor, " b"]
    behind: float | None = None
    exposure_weight: float | int = 0.0
    ndc: Camera | None = None

    def field_rays(self, fields: "RadianceFields", rays: Rays, chunk: slice) -> Rays:
        """Rays of a chunk in field coordinates; those of refined poses, with their gradient, if there are any."""
        if fields.poses is None:
            return rays[chunk]
        return refinement.to_field(fields.poses(rays[chunk], self.view[chunk]), self.ndc)


@dataclass(frozen=True)
class DepthTerms:
    """Rays whose depths are known, the t of these depths, and the weight of their loss (``losses.depth``)."""

    rays: Rays
    t: Float[Tensor, " d"]
    weight: float | int


def accumulate_gradient(
    fields: RadianceFields, rays: Rays, target: Float[Tensor, "b 3"], *more: Any, **options: Any
) -> StepReport:
    """Add the gradient of a batch to the parameters and return its report; arguments as in ``gradient``."""
    return StepReport(*gradient(fields, rays, target, *more, **options).tolist())  # a single device synchronization


def gradient(
    fields: RadianceFields,
    rays: Rays,
    target: Float[Tensor, "b 3"],
    sampling: SamplingConfig,
    generator: torch.Generator,
    *,
    noise_std: float | int = 0.0,
    jitter: bool = True,
    rays_at_once: int = 1 << 30,
    interlevel: float | int = 1.0,
    distortion: float | int = 0.0,
    trains_proposal: bool = True,
    background: Float[Tensor, "b 3"] | None = None,
    views: ViewTerms | None = None,
    depths: DepthTerms | None = None,
    share: Share = WHOLE,
) -> Float[Tensor, " _"]:
    """Add the gradient of a batch to the parameters and return its figures, in the order of ``StepReport``.

    Of a share of the batch, the gradient and the figures are those whose sums over all shares are those of the batch;
    in the place of the standard deviations, that of the target and the sums of colors and of their squares are returned
    (``StepReport.of_sums``).

    The device is not synchronized, so that the function can be recorded as a CUDA graph (``engine.cuda_graph``).

    Parameters
    ----------
    fields
        The coarse field and the fine one, if there is one; conditioned or not.
    rays, target
        The batch of rays, and the colors of its pixels.
    sampling
        Sampling of the rays.
    generator
        Source of all random numbers: jitter, and noise on the raw density.
    noise_std
        Standard deviation of that noise; with 0 none is drawn.
    jitter
        Whether samples are jittered within their bins.
    rays_at_once
        Maximum number of rays per chunk. The result does not depend on it, up to rounding and, with jitter or noise, to
        the order in which random numbers are drawn.
    interlevel, distortion
        Weights of these losses, with ``sampling.proposal``.
    trains_proposal
        With ``sampling.proposal``: whether the proposal gets a gradient; else the interlevel loss is left out.
    background
        Colors behind each ray, to which the renderings over black are composited; ``target`` lies over them already.
    views
        View of each ray, if something is trained for each view.
    depths
        Further rays, whose depths are known. Their random numbers follow those of the batch.
    share
        The rays of each chunk that are rendered here; ``generator`` is one of ``shares.generator`` then.
    """
    noisy = {"noise_std": noise_std, "generator": generator}
    coarse = partial(fields.coarse, **noisy)
    if sampling.proposal and not trains_proposal:
        coarse, interlevel = partial(_without_gradient, coarse), 0.0
    fine = partial(fields.fine, **noisy) if fields.fine is not None else None
    n = len(rays)
    loss_sum, opacity_sum = target.new_zeros(()), target.new_zeros(())
    colors, targets = [], []
    with computed_once(fields), frozen(fields):
        for part in share.parts(n, rays_at_once, generator):
            chunk = part.rows
            chunk_rays = rays[chunk] if views is None else views.field_rays(fields, rays, chunk)
            first, final = render.render_rays(coarse, fine, chunk_rays, sampling, generator if jitter else None)
            if views is not None:
                first, final = _photographed(fields, views, chunk, first, final)
            if background is not None:
                first, final = _over(first, final, background[chunk])
            if isinstance(first, Proposal):
                loss = losses.photometric_with_proposal(
                    first, final, target[chunk], interlevel, distortion, sampling.knee, sampling.compiled
                )
            else:
                loss = losses.photometric(first, final, target[chunk])
            loss = loss * (part.count / n)
            loss.backward()
            loss_sum += loss.detach()
            opacity_sum += final.opacity.detach()[: part.count].sum()
            colors.append(final.rgb.detach()[: part.count])
            targets.append(target[chunk][: part.count])
            del first, final, loss  # frees the activations before the next chunk
        if depths is not None:
            render_depths = partial(render.render_rays, coarse, fine, config=sampling)
            parts = share.parts(len(depths.rays), rays_at_once, generator)
            loss_sum += _depth_gradient(render_depths, depths, sampling, generator if jitter else None, parts)
    if views is not None:
        loss_sum += _penalty(fields, views, share)
    rgb = torch.cat(colors)
    if not share.is_whole:
        return _figures_of_share(loss_sum, rgb, torch.cat(targets), opacity_sum, target, share)
    stds = (color.std(0, correction=0).mean() for color in (rgb, target))
    return torch.stack([loss_sum, losses.mse(rgb, target), opacity_sum / n, *stds])


def _figures_of_share(
    loss: Float[Tensor, ""],
    rgb: Float[Tensor, "s 3"],
    own: Float[Tensor, "s 3"],
    opacity: Float[Tensor, ""],
    target: Float[Tensor, "b 3"],
    share: Share,
) -> Float[Tensor, " 10"]:
    """Figures of a share of a batch, as of ``StepReport.of_sums``; ``own`` are the target colors of its rays."""
    n, color = len(target), rgb.double()
    error = (rgb - own).square().sum() / (3 * n)
    target_std = target.std(0, correction=0).mean() / share.size
    return torch.cat([torch.stack([loss, error, opacity / n, target_std]), color.sum(0), color.square().sum(0)])


@torch.no_grad()
def _without_gradient(field: RadianceField, *arguments: Any) -> FieldOutput:
    return field(*arguments)


def _depth_gradient(
    render_depths: Callable[..., tuple[Rendering | Proposal, Rendering]],
    depths: DepthTerms,
    sampling: SamplingConfig,
    generator: torch.Generator | None,
    parts: Iterable[Rows],
) -> Float[Tensor, ""]:
    """Weighted loss of known depths, summed over coarse and final rendering; its gradient is added to the weights'."""
    n, total = len(depths.rays), depths.t.new_zeros(())
    for part in parts:
        rays, t = depths.rays[part.rows], depths.t[part.rows]
        first, final = render_depths(rays, generator=generator)
        trained = [final] if first is final or isinstance(first, Proposal) else [first, final]
        loss = sum(losses.depth(each, rays, t, sampling.lindisp, sampling.knee) for each in trained)
        assert isinstance(loss, Tensor)
        loss = loss * (depths.weight * part.count / n)
        loss.backward()
        total += loss.detach()
        del first, final, trained, loss
    return total


def _photographed(
    fields: RadianceFields, views: ViewTerms, chunk: slice, first: Rendering | Proposal, final: Rendering
) -> tuple[Rendering | Proposal, Rendering]:
    """Both renderings of a chunk in the colors of the photographs; one object if they are the same."""
    if fields.exposure is None:
        return first, final
    mapped = partial(losses.exposed, exposure=fields.exposure, view=views.view[chunk], behind=views.behind)
    last = mapped(final)
    return last if first is final else first if isinstance(first, Proposal) else mapped(first), last


def _penalty(fields: RadianceFields, views: ViewTerms, share: Share) -> Float[Tensor, ""]:
    """Penalty of the parameters of views, whose gradient is added to theirs; divided among the shares."""
    if fields.exposure is None or not views.exposure_weight:
        return views.view.new_zeros((), dtype=torch.float32)
    penalty = views.exposure_weight / share.size * fields.exposure.penalty()
    penalty.backward()
    return penalty.detach()


def _over(
    first: Rendering | Proposal, final: Rendering, background: Float[Tensor, "b 3"]
) -> tuple[Rendering | Proposal, Rendering]:
    """Both renderings over a background; one object if they are the same."""
    composited = losses.over(final, background)
    if first is final:
        return composited, composited
    return first if isinstance(first, Proposal) else losses.over(first, background), composited


def is_blank(report: StepReport) -> bool:
    """Return whether the rendered batch is nearly transparent, or of nearly one color."""
    return report.opacity < BLANK_OPACITY or report.rgb_std < BLANK_VARIATION * report.target_std


def update_collapsed(state: State, report: StepReport) -> None:
    """Count consecutive blank steps in ``state``; log when the run has collapsed, and when it has recovered."""
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
