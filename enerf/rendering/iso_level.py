"""At which density a surface is cut out of a radiance field, told by the rays that the field was trained on.

The rule: a ray's **stop** is where half of its light is stopped, and a level's **crossing** is where the density first
reaches it along the ray. The level is the one whose crossings lie nearest to the stops, on average over the rays; a
crossing more than ``FAR_OFF`` of the ray's length away, or none at all, counts as that much. So the mesh lies where the
pictures have their depth, whatever the unit of the density is (in NDC it is per unit of NDC length), and fog that stops
little light does not count. Rays that let more than half of their light through say nothing.

Of a density that jumps, every level below the jump does equally well: the geometric middle of the levels that are as
good as the best is taken.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.rendering import volume

LEVELS = 96  # that are compared, evenly spread in their logarithm
LOWEST = 1e-3  # of them, as a share of the highest: the density that half of the rays reach
FAR_OFF = 0.1
AS_GOOD = 0.02  # how much worse than the best a level may be, relative, to be as good


@dataclass(frozen=True)
class Level:
    """A density, and what can be said for it.

    Attributes
    ----------
    density
        The level.
    rays
        How many rays were asked, and
    stopped
        the share of them that lose more than half of their light.
    met
        The share of those that reach the level.
    off
        How far, in the median, crossings lie from the stops, as a share of a ray's length.
    """

    density: float
    rays: int
    stopped: float
    met: float
    off: float

    def __str__(self) -> str:
        """One line to print.

        >>> print(Level(12.5, 2048, 0.9, 0.95, 0.004))
        level 12.5: along 2,048 training rays, of which 90 % stop half of their light, it is first reached by 95 % of
        these, 0.4 % of the ray's length from there in the median
        """
        return (
            f"level {self.density:.4g}: along {self.rays:,} training rays, of which {self.stopped:.0%} stop half of "
            f"their light, it is first reached by {self.met:.0%} of these, {self.off:.1%} of the ray's length from "
            "there in the median"
        ).replace("%", " %")


def of_rays(
    density: Float[Tensor, "n s"], t_vals: Float[Tensor, "n s"], directions: Float[Tensor, "n 3"]
) -> Level | None:
    """The level of rays with these densities at evenly spaced positions; None if no ray stops half of its light.

    >>> t = torch.linspace(0, 1, 101).expand(1, 101)
    >>> found = of_rays(100.0 * (t > 0.5), t, torch.tensor([[0.0, 0.0, 1.0]]))
    >>> 0 < found.density <= 100, found.met
    (True, 1.0)
    """
    steps = volume.deltas(t_vals, directions)
    steps[:, -1] = steps[:, -2]
    thickness = (density * steps).cumsum(-1)
    reach = math.log(2)
    stopped = thickness[:, -1] >= reach
    if not bool(stopped.any()):
        return None
    density, thickness, length = density[stopped], thickness[stopped], (t_vals[:, -1] - t_vals[:, 0])[stopped]
    stop = _first(thickness >= reach, t_vals[stopped])
    levels = density.amax(-1).median() * torch.logspace(math.log10(LOWEST), 0, LEVELS).to(density)
    offs = [(_first(density >= x, t_vals[stopped]) - stop).abs() / length for x in levels]
    error = torch.stack([off.clamp(max=FAR_OFF).mean() for off in offs])
    good = error <= (1 + AS_GOOD) * error.min() + 1e-6
    level = levels[good].log().mean().exp()
    off = (_first(density >= level, t_vals[stopped]) - stop).abs() / length
    met = off.isfinite()
    return Level(
        density=float(level),
        rays=len(stopped),
        stopped=float(stopped.double().mean()),
        met=float(met.double().mean()),
        off=float(off.median()),
    )


def _first(reached: Tensor, t_vals: Float[Tensor, "n s"]) -> Float[Tensor, " n"]:
    """The first position of each row that is marked; infinite if there is none."""
    first = reached.int().argmax(-1, keepdim=True)
    return torch.where(reached.any(-1), t_vals.gather(-1, first)[:, 0], torch.inf)
