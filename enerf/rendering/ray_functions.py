"""The operations of proposal sampling on rays, as a value that renderers and losses are given.

``ray_functions(compiled=False)`` are those of ``sampling``, ``proposal`` and ``volume``, differentiable any number of
times; ``compiled=True`` those of ``cpu_rays``, equal up to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from enerf.core.types import Rendering
from enerf.rendering import cpu_rays, proposal, sampling, volume


@dataclass(frozen=True)
class RayFunctions:
    """Operations on rays.

    Attributes
    ----------
    uniform_edges, resample, interlevel_loss
        As in ``proposal``.
    at_middles
        As in ``sampling``.
    weights
        ``volume.interval_weights``.
    composite_intervals
        As in ``volume``.
    """

    uniform_edges: Callable[..., Tensor]
    at_middles: Callable[..., tuple[Tensor, Tensor]]
    weights: Callable[[Tensor, Tensor, Tensor], Tensor]
    resample: Callable[..., Tensor]
    composite_intervals: Callable[..., Rendering]
    interlevel_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


REFERENCE = RayFunctions(
    uniform_edges=proposal.uniform_edges,
    at_middles=sampling.at_middles,
    weights=volume.interval_weights,
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
