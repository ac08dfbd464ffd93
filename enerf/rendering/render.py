"""Volume rendering of rays: coarse and fine sampling, proposal sampling, rendering in chunks."""

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.device import is_out_of_memory
from enerf.core.types import Proposal, RadianceField, Rays, Rendering
from enerf.rendering import proposal, sampling, volume

log = logging.getLogger("enerf")


@dataclass(frozen=True)
class SamplingConfig:
    """How rays are sampled and composited.

    Attributes
    ----------
    n_samples
        Coarse samples per ray; with ``proposal``, intervals of the proposal.
    n_importance
        Additional samples of the fine field per ray; with ``proposal``, all of its samples.
    lindisp
        Whether samples are evenly spaced in 1/t rather than in t.
    white_bkgd
        Whether the background is white rather than black.
    proposal
        Whether the coarse field is only a proposal: the fine field is evaluated at resampled intervals alone.
    knee
        Value of t up to which samples are evenly spaced in t, and beyond it in 1/t (see ``sampling``); 0: ``lindisp``
        decides.
    """

    n_samples: int
    n_importance: int = 0
    lindisp: bool = False
    white_bkgd: bool = False
    proposal: bool = False
    knee: float = 0.0

    @property
    def points_per_ray(self) -> int:
        """Field evaluations per ray, of the coarse and the fine field together.

        >>> SamplingConfig(64).points_per_ray, SamplingConfig(64, 128).points_per_ray
        (64, 256)
        """
        if self.proposal:
            return self.n_samples + self.n_importance
        return self.n_samples + (self.n_samples + self.n_importance if self.n_importance else 0)


def render_rays(
    coarse: RadianceField,
    fine: RadianceField | None,
    rays: Rays,
    config: SamplingConfig,
    generator: torch.Generator | None = None,
) -> tuple[Rendering | Proposal, Rendering]:
    """Coarse and final rendering of rays; the same object twice without a fine field or importance samples.

    The fine field is evaluated at the coarse samples and at ``n_importance`` more, drawn from the coarse weights. With
    ``config.proposal`` the first result is the Proposal of the coarse field. ``generator`` jitters the samples; None is
    deterministic.

    Source: NeRF, sections 4 and 5.2; for proposals Barron et al., mip-NeRF 360, section 3.
    """
    if config.proposal and fine is not None:
        return _render_proposed(coarse, fine, rays, config, generator)
    t_vals = sampling.stratified(rays.near, rays.far, config.n_samples, config.lindisp, generator, config.knee)
    output = coarse(rays.at(t_vals), rays.viewdirs)
    first = volume.composite(output, t_vals, rays.directions, config.white_bkgd)
    if fine is None or config.n_importance == 0:
        return first, first
    more = sampling.importance(t_vals, first.weights, config.n_importance, generator, config.knee)
    t_vals = sampling.union(t_vals, more)
    output = fine(rays.at(t_vals), rays.viewdirs)
    return first, volume.composite(output, t_vals, rays.directions, config.white_bkgd)


def _render_proposed(
    coarse: RadianceField, fine: RadianceField, rays: Rays, config: SamplingConfig, generator: torch.Generator | None
) -> tuple[Proposal, Rendering]:
    """The coarse field's proposal, and the fine field's rendering of the intervals resampled from it.

    The proposal has no gradient with respect to the rays: losses of the proposal do not move refined cameras.
    """
    edges = proposal_edges(rays, config, generator)
    weights = proposal_weights(coarse, rays.detached(), edges, config.knee)
    sample_edges = proposal.resample(edges, weights.detach(), config.n_importance, generator, knee=config.knee)
    return Proposal(edges, weights, sample_edges), render_intervals(fine, rays, sample_edges, config)


def proposal_edges(
    rays: Rays, config: SamplingConfig, generator: torch.Generator | None = None
) -> Float[Tensor, "*b m1"]:
    """Edges of the intervals of the proposal."""
    return proposal.uniform_edges(rays.near, rays.far, config.n_samples, config.lindisp, generator, config.knee)


def proposal_weights(
    coarse: RadianceField, rays: Rays, edges: Float[Tensor, "*b m1"], knee: float | int
) -> Float[Tensor, "*b m"]:
    """Weights of the proposal's intervals, from the coarse field's density in their middles."""
    density = coarse(rays.at(sampling.middles(edges, knee)), rays.viewdirs).density
    return volume.weights(density, volume.widths(edges, rays.directions))


def render_intervals(
    fine: RadianceField, rays: Rays, edges: Float[Tensor, "*b m1"], config: SamplingConfig
) -> Rendering:
    """The fine field's rendering of intervals, from its values in their middles."""
    t_vals = sampling.middles(edges, config.knee)
    output = fine(rays.at(t_vals), rays.viewdirs)
    return volume.composite_intervals(output, edges, rays.directions, config.white_bkgd, t_vals)


def render_guided(
    coarse: RadianceField,
    fine: RadianceField,
    rays: Rays,
    config: SamplingConfig,
    weights: Float[Tensor, "n m"] | None = None,
) -> tuple[Rendering, Float[Tensor, "n m"]]:
    """Final rendering of ``render_rays`` with a proposal, deterministic, and the weights of the proposal.

    If ``weights`` are given the coarse field is not evaluated: they are taken for its own.
    """
    edges = proposal_edges(rays, config)
    weights = proposal_weights(coarse, rays, edges, config.knee) if weights is None else weights
    sample_edges = proposal.resample(edges, weights, config.n_importance, knee=config.knee)
    return render_intervals(fine, rays, sample_edges, config), weights


@dataclass(frozen=True)
class Picture:
    """Rendered colors in [0, 1], depths (values of t) and opacities, without the samples' weights."""

    rgb: Float[Tensor, "*b 3"]
    depth: Float[Tensor, "*b"]
    opacity: Float[Tensor, "*b"]


def in_chunks(render: Callable[[Rays], Rendering], rays: Rays, chunk: int) -> Picture:
    """Render one or more rays, ``chunk`` at a time, without gradients; the chunk is halved if memory runs out.

    Raises
    ------
    RuntimeError, MemoryError
        If memory does not suffice for one ray; other errors of ``render`` pass through.
    """
    parts: list[Picture] = []  # not Renderings, whose weights and t_vals would take 2 · samples floats per ray
    start = 0
    with torch.no_grad():
        while start < len(rays):
            part = rays[start : start + chunk]
            try:
                rendering = render(part)
            except (RuntimeError, MemoryError) as error:
                chunk = halve_chunk(len(part), error)
                continue
            parts.append(Picture(rendering.rgb, rendering.depth, rendering.opacity))
            start += chunk
    return Picture(*(torch.cat([getattr(p, name) for p in parts]) for name in ("rgb", "depth", "opacity")))


def halve_chunk(chunk: int, error: BaseException) -> int:
    """Half the chunk size, after an out-of-memory error; frees the memory of the failed attempt.

    Raises
    ------
    BaseException
        The error itself, if it is not an out-of-memory error or the chunk is already a single ray.
    """
    if chunk == 1 or not is_out_of_memory(error):
        raise error
    traceback.clear_frames(error.__traceback__)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    log.warning("out of memory with %d rays at once: continuing with %d", chunk, chunk // 2)
    return chunk // 2
