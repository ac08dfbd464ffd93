"""The iso value of the density at which to extract a mesh from a radiance field, chosen from training rays.

A ray's **median depth** is the t at which its transmittance falls to one half; its **crossing** of an iso value is the
first t at which the density reaches it. The chosen iso value minimizes the distance between crossing and median depth,
as a share of the ray's length, limited to ``MAX_OFFSET`` (also where there is no crossing), and averaged over the rays.
So the mesh lies at the depth that the images show, whatever the unit of density (in NDC it is per unit of NDC length),
and thin fog is ignored. Rays whose transmittance stays above one half are not used.

Where the density jumps, all iso values below the jump are equally good: the geometric mean of the candidates within
``TOLERANCE`` of the best is returned.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.rendering import volume

CANDIDATES = 96  # iso values to compare, evenly spaced in their logarithm
LOWEST = 1e-3  # the lowest, as a share of the highest, which is the density that half of the rays reach
MAX_OFFSET = 0.1
TOLERANCE = 0.02  # relative


@dataclass(frozen=True)
class IsoValue:
    """An iso value of the density, and how well it agrees with the rays.

    Attributes
    ----------
    density
        The iso value.
    n_rays
        Number of rays.
    opaque_share
        Share of them whose transmittance falls to one half.
    reached_share
        Share of those along which the density reaches the iso value.
    median_offset
        Median distance between crossing and median depth, as a share of the ray's length.
    """

    density: float
    n_rays: int
    opaque_share: float
    reached_share: float
    median_offset: float

    def __str__(self) -> str:
        """One line to print.

        >>> print(IsoValue(12.5, 2048, 0.9, 0.95, 0.004))
        iso value 12.5, from 2,048 training rays: 90 % absorb half of their light; 95 % of these reach the iso value,
        0.4 % of the ray's length from the median depth (median)
        """
        return (
            f"iso value {self.density:.4g}, from {self.n_rays:,} training rays: {self.opaque_share:.0%} absorb half of "
            f"their light; {self.reached_share:.0%} of these reach the iso value, {self.median_offset:.1%} of the "
            "ray's length from the median depth (median)"
        ).replace("%", " %")


def iso_value_from_rays(
    density: Float[Tensor, "n s"], t_vals: Float[Tensor, "n s"], directions: Float[Tensor, "n 3"]
) -> IsoValue | None:
    """The iso value of rays with these densities at evenly spaced t; None if no transmittance falls to one half.

    >>> t = torch.linspace(0, 1, 101).expand(1, 101)
    >>> found = iso_value_from_rays(100.0 * (t > 0.5), t, torch.tensor([[0.0, 0.0, 1.0]]))
    >>> 0 < found.density <= 100, found.reached_share
    (True, 1.0)
    """
    steps = volume.deltas(t_vals, directions)
    steps[:, -1] = steps[:, -2]
    thickness = (density * steps).cumsum(-1)
    half = math.log(2)  # the optical thickness at which the transmittance is one half
    opaque = thickness[:, -1] >= half
    if not bool(opaque.any()):
        return None
    density, thickness, length = density[opaque], thickness[opaque], (t_vals[:, -1] - t_vals[:, 0])[opaque]
    median_depth = _first(thickness >= half, t_vals[opaque])
    candidates = density.amax(-1).median() * torch.logspace(math.log10(LOWEST), 0, CANDIDATES).to(density)
    offsets = [(_first(density >= x, t_vals[opaque]) - median_depth).abs() / length for x in candidates]
    error = torch.stack([offset.clamp(max=MAX_OFFSET).mean() for offset in offsets])
    good = error <= (1 + TOLERANCE) * error.min() + 1e-6
    iso_value = candidates[good].log().mean().exp()
    offset = (_first(density >= iso_value, t_vals[opaque]) - median_depth).abs() / length
    reached = offset.isfinite()
    return IsoValue(
        density=float(iso_value),
        n_rays=len(opaque),
        opaque_share=float(opaque.double().mean()),
        reached_share=float(reached.double().mean()),
        median_offset=float(offset.median()),
    )


def _first(reached: Tensor, t_vals: Float[Tensor, "n s"]) -> Float[Tensor, " n"]:
    """The first t of each row at which ``reached`` is true; infinite if there is none."""
    first = reached.int().argmax(-1, keepdim=True)
    return torch.where(reached.any(-1), t_vals.gather(-1, first)[:, 0], torch.inf)
