"""The operations of proposal sampling on rays, as a value that renderers and losses are given.

``ray_functions(compiled=False)`` are those of ``sampling``, ``proposal`` and ``volume``, differentiable any number of
times; ``compiled=True`` those of ``cpu_rays``, equal up to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from enerf.core.types import Rays, Rendering
from enerf.rendering import cpu_rays, proposal, sampling, volume


@dataclass(frozen=True)
class RayFunctions:
    """Operations on rays.

    Attributes
    ----------
    uniform_edges, resample, interlevel_loss
        As in ``proposal``.
    at_middles
        The t of ``sampling.middles`` between edges, and the points there.
    weights
        ``volume.weights`` of densities in the intervals between edges.
    composite_intervals
        As in ``volume``.
    """

    uniform_edges: Callable[..., Tensor]
    at_middles: Callable[..., tuple[Tensor, Tensor]]
    weights: Callable[[Tensor, Tensor, Tensor], Tensor]
    resample: Callable[..., Tensor]
    composite_intervals: Callable[..., Rendering]
    interlevel_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _at_middles(
    rays: Rays, edges: Float[Tensor, "*b m"], knee: float | int = 0.0
) -> tuple[Float[Tensor, "*b s"], Float[Tensor, "*b s 3"]]:
    t_vals = sampling.middles(edges, knee)
    return t_vals, rays.at(t_vals)


def _weights(
    density: Float[Tensor, "*b s"], edges: Float[Tensor, "*b m"], directions: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b s"]:
    return volume.weights(density, volume.widths(edges, directions))


REFERENCE = RayFunctions(
    uniform_edges=proposal.uniform_edges,
    at_middles=_at_middles,
    weights=_weights,
    resample=proposal.resample,
    composite_intervals=volume.composite_intervals,
    interlevel_loss=proposal.interlevel_loss,
)
COMPILED = RayFunctions(
    uniform_edges=cpu_rays.uniform_edges,
    at_middles=cpu_rays.at_middles,
    weights=cpu_rays.weights,
    resample=cpu_rays.resample,
    composite_intervals=cpu_rays.composite_intervals,
    interlevel_loss=cpu_rays.interlevel_loss,
)


def ray_functions(compiled: bool) -> RayFunctions:
    """The compiled operations, or those of torch."""
    return COMPILED if compiled else REFERENCE
