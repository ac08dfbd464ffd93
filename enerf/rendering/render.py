"""Rays and fields to pixels: coarse pass, fine pass, whole pictures in chunks."""

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
class Passes:
    """How rays are sampled: so many coarse samples, so many more fine ones, and what lies behind them.

    With ``proposal`` the coarse field only proposes: ``n_samples`` intervals, of which ``n_importance`` new ones are
    made, and the fine field is asked in those alone.
    """

    n_samples: int
    n_importance: int = 0
    lindisp: bool = False
    white_bkgd: bool = False
    proposal: bool = False

    @property
    def points(self) -> int:
        """Field evaluations a ray, both passes together.

        >>> Passes(64).points, Passes(64, 128).points
        (64, 256)
        """
        if self.proposal:
            return self.n_samples + self.n_importance
        return self.n_samples + (self.n_samples + self.n_importance if self.n_importance else 0)


def render_rays(
    coarse: RadianceField,
    fine: RadianceField | None,
    rays: Rays,
    passes: Passes,
    generator: torch.Generator | None = None,
) -> tuple[Rendering | Proposal, Rendering]:
    """Coarse and final rendering of rays; one and the same without a fine field or importance samples.

    With ``passes.proposal`` the first is what the coarse field proposed.

    ``generator`` jitters the samples; None is deterministic. The fine field is asked at the coarse samples
    and at more of them where the coarse weights lie.

    Source: NeRF, sections 4 and 5.2; for proposals Barron et al., mip-NeRF 360, section 3.
    """
    if passes.proposal and fine is not None:
        return _render_proposed(coarse, fine, rays, passes, generator)
    t_vals = sampling.stratified(rays.near, rays.far, passes.n_samples, passes.lindisp, generator)
    seen = coarse(rays.at(t_vals), rays.viewdirs)
    first = volume.composite(seen, t_vals, rays.directions, passes.white_bkgd)
    if fine is None or passes.n_importance == 0:
        return first, first
    more = sampling.importance(t_vals, first.weights, passes.n_importance, generator)
    t_vals = sampling.union(t_vals, more)
    seen = fine(rays.at(t_vals), rays.viewdirs)
    return first, volume.composite(seen, t_vals, rays.directions, passes.white_bkgd)


def _render_proposed(
    coarse: RadianceField, fine: RadianceField, rays: Rays, passes: Passes, generator: torch.Generator | None
) -> tuple[Proposal, Rendering]:
    """What the coarse field proposed, and the fine field's rendering of the intervals that were taken."""
    edges = proposal.uniform_edges(rays.near, rays.far, passes.n_samples, passes.lindisp, generator)
    density = coarse(rays.at(sampling.midpoints(edges)), rays.viewdirs).density
    weights = volume.weights(density, volume.widths(edges, rays.directions))
    taken = proposal.resample(edges, weights.detach(), passes.n_importance, generator)
    seen = fine(rays.at(sampling.midpoints(taken)), rays.viewdirs)
    rendering = volume.composite_intervals(seen, taken, rays.directions, passes.white_bkgd)
    return Proposal(edges, weights, taken), rendering


@dataclass(frozen=True)
class Picture:
    """What is kept of a rendering when many rays are rendered."""

    rgb: Float[Tensor, "*b 3"]
    depth: Float[Tensor, "*b"]
    opacity: Float[Tensor, "*b"]


def in_chunks(render: Callable[[Rays], Rendering], rays: Rays, chunk: int) -> Picture:
    """Rays, one or more, rendered ``chunk`` at a time without gradients; fewer at a time if memory runs out.

    Raises
    ------
    RuntimeError, MemoryError
        As ``halved``; other errors of ``render`` pass through.
    """
    parts: list[Picture] = []  # not the renderings: their weights would take 2 · samples floats a ray
    start = 0
    with torch.no_grad():
        while start < len(rays):
            part = rays[start : start + chunk]
            try:
                seen = render(part)
            except (RuntimeError, MemoryError) as error:
                chunk = halved(len(part), error)
                continue
            parts.append(Picture(seen.rgb, seen.depth, seen.opacity))
            start += chunk
    return Picture(*(torch.cat([getattr(p, name) for p in parts]) for name in ("rgb", "depth", "opacity")))


def halved(chunk: int, error: BaseException) -> int:
    """Half the chunk, if the error says that memory ran out; lets go of what the failed try held.

    Raises
    ------
    BaseException
        The error itself, if it says something else or if one ray is too many.
    """
    if chunk == 1 or not is_out_of_memory(error):
        raise error
    traceback.clear_frames(error.__traceback__)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    log.warning("memory ran out with %d rays at once: going on with %d", chunk, chunk // 2)
    return chunk // 2
