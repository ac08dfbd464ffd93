"""Pictures of a field's isosurface without a mesh: ray marching, normals at the hits, shading.

With a known slope the step is the largest safe one (sphere tracing: Hart 1996), a few dozen evaluations per ray for a
signed distance; otherwise steps are even, which can miss parts thinner than a step. The crossing is then refined by
``BISECTIONS`` bisections. Terms as in ``isosurface.sample_grid``; directions are unit vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from enerf.core.types import ScalarField
from enerf.geometry.isosurface.sample_grid import Inside
from enerf.geometry.preview import shading
from enerf.geometry.preview.cameras import View

BISECTIONS = 16
TOLERANCE = 1e-5  # distance at which sphere tracing stops, relative to the box's diagonal


@dataclass(frozen=True)
class Hits:
    """First hits of rays: distance along the ray (infinite if none) and unit normal (0 if none)."""

    t: Float[Tensor, " n"]
    normals: Float[Tensor, "n 3"]

    @property
    def hit(self) -> Bool[Tensor, " n"]:
        """Which rays hit the surface."""
        return self.t.isfinite()


def trace(
    field: ScalarField,
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    box: Float[Tensor, "2 3"],
    iso_value: float | int = 0.0,
    *,
    inside: Inside = "above",
    slope: float | int | None = None,
    steps: int = 256,
    difference_step: float | int | None = None,
    rays_at_once: int = 1 << 16,
) -> Hits:
    """First hits of rays with a field's isosurface within a box.

    A ray that enters the box inside the shape hits it there, with a normal facing the ray. Other rays come from
    outside, so normals facing away (of details finer than ``difference_step``) are flipped.

    Parameters
    ----------
    field, box, iso_value, inside, slope
        As in ``isosurface.extract``.
    origins, directions
        In the dtype and on the device of the box.
    steps
        Largest number of steps; without a slope, the number of even steps through the box.
    difference_step
        Compute normals by central differences over this distance instead of autograd.
    rays_at_once
        Largest number of rays, and of points in one call of the field.
    """

    def value(points: Tensor) -> Tensor:
        return (field(points) - iso_value) * (1 if inside == "above" else -1)

    parts = []
    for o, d in zip(origins.split(rays_at_once), directions.split(rays_at_once), strict=True):
        near, far = intersect_box(o, d, box)
        with torch.no_grad():
            before, t = _first_inside(value, o, d, near, far, slope, steps, float((box[1] - box[0]).norm()))
            t = _bisected(value, o, d, before, t)
        normals = torch.zeros_like(o)
        met = t.isfinite()
        at = o[met] + t[met, None] * d[met]
        found = outward_normals(value, at, difference_step)
        found = torch.where((found * d[met]).sum(-1, keepdim=True) > 0, -found, found)
        normals[met] = torch.where((t > near)[met, None], found, -d[met])
        parts.append((t, normals))
    return Hits(torch.cat([t for t, _ in parts]), torch.cat([normals for _, normals in parts]))


def intersect_box(
    origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"], box: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Distances at which rays enter a box (0 if inside) and leave it; near > far for rays that miss it.

    >>> box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    >>> near, far = intersect_box(torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]]), box)
    >>> float(near), float(far)
    (2.0, 4.0)
    """
    safe = torch.where(directions == 0, torch.full_like(directions, 1e-30), directions)
    a, b = (box[0] - origins) / safe, (box[1] - origins) / safe
    return torch.minimum(a, b).max(-1).values.clamp(min=0), torch.maximum(a, b).min(-1).values


def _first_inside(
    value: Callable[[Tensor], Tensor],
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    near: Float[Tensor, " n"],
    far: Float[Tensor, " n"],
    slope: float | int | None,
    steps: int,
    diagonal: float,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Distances of the last point outside and the first point inside of each ray; the latter is infinite if none."""
    t, before = near.clone(), near.clone()
    found = torch.full_like(near, torch.inf)
    alive = (near <= far).nonzero()[:, 0]
    for step in range(steps + 1):
        if not len(alive):
            break
        at = t[alive]
        values = value(origins[alive] + at[:, None] * directions[alive])
        tolerance = 0.0 if slope is None else TOLERANCE * diagonal * slope
        arrived = values >= -tolerance
        found[alive[arrived]] = at[arrived]
        before[alive[arrived & (values < 0)]] = at[arrived & (values < 0)]
        alive, at, values = alive[~arrived], at[~arrived], values[~arrived]
        before[alive] = at
        if slope is None:
            t[alive] = near[alive] + (far - near)[alive] * ((step + 1) / steps)
            alive = alive[:0] if step == steps else alive
        else:
            t[alive] = at - values / slope
            alive = alive[t[alive] <= far[alive]]
    return before, found


def _bisected(
    value: Callable[[Tensor], Tensor],
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    outside: Float[Tensor, " n"],
    inside: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """The crossing between a point outside and one inside on each ray that has both."""
    open_ = (inside.isfinite() & (inside > outside)).nonzero()[:, 0]
    a, b, o, d = outside[open_], inside[open_], origins[open_], directions[open_]
    for _ in range(BISECTIONS if len(open_) else 0):
        middle = (a + b) / 2
        within = value(o + middle[:, None] * d) >= 0
        a, b = torch.where(within, a, middle), torch.where(within, middle, b)
    t = inside.clone()
    t[open_] = (a + b) / 2
    return t


def outward_normals(
    value: Callable[[Tensor], Tensor], points: Float[Tensor, "n 3"], difference_step: float | int | None = None
) -> Float[Tensor, "n 3"]:
    """Outward unit normals of a shape whose values are positive inside, by autograd or central differences."""
    if difference_step is None:
        with torch.enable_grad():
            at = points.detach().requires_grad_()
            (rise,) = torch.autograd.grad(value(at).sum(), at)
    else:
        steps = difference_step / 2 * torch.eye(3, dtype=points.dtype, device=points.device)
        with torch.no_grad():
            rise = torch.stack([value(points + step) - value(points - step) for step in steps], -1)
    length = rise.norm(dim=-1, keepdim=True)
    return -rise / torch.where(length > 0, length, torch.ones_like(length))


def picture(
    field: ScalarField,
    view: View,
    box: Float[Tensor, "2 3"],
    iso_value: float | int = 0.0,
    *,
    supersample: int = 1,
    **options: Any,
) -> Float[np.ndarray, "h w 3"]:
    """A picture in [0, 1] with ``supersample``² rays per pixel; ``options`` are those of ``trace``."""
    origins, directions = (rays.reshape(-1, 3).to(box) for rays in view.rays(supersample))
    hits = trace(field, origins, directions, box, iso_value, **options)
    normals, along, hit = (x.cpu().numpy() for x in (hits.normals.double(), directions.double(), hits.hit))
    pixels = shading.shade(normals, along, hit, view)
    height, width = view.height * supersample, view.width * supersample
    return shading.downsampled(pixels.reshape(height, width, 3), supersample)
