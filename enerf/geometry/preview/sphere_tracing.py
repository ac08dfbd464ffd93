"""Pictures of a field's surface without a mesh: rays that walk to it, the shape's normals there, shaded.

With a known slope rays walk as far as the field allows (sphere tracing: Hart 1996), so a signed distance takes a few
dozen evaluations a ray; otherwise in even steps, which can jump over what is thinner than a step. Either way a crossing
is then halved down to ``HALVINGS`` binary digits of its step. Words as in ``lattice``; directions are unit.
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

HALVINGS = 16
NEAR_ENOUGH = 1e-5  # of the box's diagonal: where sphere tracing stops


@dataclass(frozen=True)
class Hits:
    """Where rays meet the surface: the distance along them (infinite: nowhere) and the unit normal there (or 0)."""

    t: Float[Tensor, " n"]
    normals: Float[Tensor, "n 3"]

    @property
    def hit(self) -> Bool[Tensor, " n"]:
        """Which rays meet it."""
        return self.t.isfinite()


def trace(
    field: ScalarField,
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    box: Float[Tensor, "2 3"],
    level: float | int = 0.0,
    *,
    inside: Inside = "above",
    slope: float | int | None = None,
    steps: int = 256,
    differences: float | int | None = None,
    rays_at_once: int = 1 << 16,
) -> Hits:
    """Where rays first meet a field's level set within a box.

    A ray that enters the box inside the shape hits it there, with a normal that faces the ray. Elsewhere rays come from
    outside: a normal that looks away, as of what is rough or thinner than ``differences``, is turned around.

    Parameters
    ----------
    field, box, level, inside, slope
        As in ``marching.extract``.
    origins, directions
        In dtype and device of the box.
    steps
        Steps at the most; without a slope, all of them are made and the thickness of the box divided by them.
    differences
        Take normals from differences over this distance, not from gradients.
    rays_at_once
        Most rays, and so points, in one call of the field.
    """

    def value(points: Tensor) -> Tensor:
        return (field(points) - level) * (1 if inside == "above" else -1)

    parts = []
    for o, d in zip(origins.split(rays_at_once), directions.split(rays_at_once), strict=True):
        near, far = through(o, d, box)
        with torch.no_grad():
            before, t = _first_inside(value, o, d, near, far, slope, steps, float((box[1] - box[0]).norm()))
            t = _halved(value, o, d, before, t)
        normals = torch.zeros_like(o)
        met = t.isfinite()
        at = o[met] + t[met, None] * d[met]
        found = outwards(value, at, differences)
        found = torch.where((found * d[met]).sum(-1, keepdim=True) > 0, -found, found)
        normals[met] = torch.where((t > near)[met, None], found, -d[met])
        parts.append((t, normals))
    return Hits(torch.cat([t for t, _ in parts]), torch.cat([normals for _, normals in parts]))


def through(
    origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"], box: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The distances at which rays enter a box, 0 within it, and leave it; a ray that misses leaves before it enters.

    >>> box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    >>> near, far = through(torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]]), box)
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
    """The last place outside and the first inside, or as good as, of each ray; infinite if there is none."""
    t, before = near.clone(), near.clone()
    found = torch.full_like(near, torch.inf)
    alive = (near <= far).nonzero()[:, 0]
    for step in range(steps + 1):
        if not len(alive):
            break
        at = t[alive]
        values = value(origins[alive] + at[:, None] * directions[alive])
        near_enough = 0.0 if slope is None else NEAR_ENOUGH * diagonal * slope
        arrived = values >= -near_enough
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


def _halved(
    value: Callable[[Tensor], Tensor],
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    outside: Float[Tensor, " n"],
    inside: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """The crossing between a place outside and one inside of each ray that has them."""
    open_ = (inside.isfinite() & (inside > outside)).nonzero()[:, 0]
    a, b, o, d = outside[open_], inside[open_], origins[open_], directions[open_]
    for _ in range(HALVINGS if len(open_) else 0):
        middle = (a + b) / 2
        within = value(o + middle[:, None] * d) >= 0
        a, b = torch.where(within, a, middle), torch.where(within, middle, b)
    t = inside.clone()
    t[open_] = (a + b) / 2
    return t


def outwards(
    value: Callable[[Tensor], Tensor], points: Float[Tensor, "n 3"], differences: float | int | None = None
) -> Float[Tensor, "n 3"]:
    """Unit normals of a shape whose values are positive inside: gradients, or central differences over a distance."""
    if differences is None:
        with torch.enable_grad():
            at = points.detach().requires_grad_()
            (rise,) = torch.autograd.grad(value(at).sum(), at)
    else:
        steps = differences / 2 * torch.eye(3, dtype=points.dtype, device=points.device)
        with torch.no_grad():
            rise = torch.stack([value(points + step) - value(points - step) for step in steps], -1)
    length = rise.norm(dim=-1, keepdim=True)
    return -rise / torch.where(length > 0, length, torch.ones_like(length))


def picture(
    field: ScalarField,
    view: View,
    box: Float[Tensor, "2 3"],
    level: float | int = 0.0,
    *,
    finer: int = 1,
    **how: Any,
) -> Float[np.ndarray, "h w 3"]:
    """What the shape looks like, in [0, 1], with ``finer``² rays a pixel; all else goes to ``trace``."""
    origins, directions = (rays.reshape(-1, 3).to(box) for rays in view.rays(finer))
    hits = trace(field, origins, directions, box, level, **how)
    normals, seen_along, hit = (x.cpu().numpy() for x in (hits.normals.double(), directions.double(), hits.hit))
    pixels = shading.shade(normals, seen_along, hit, view)
    return shading.smaller(pixels.reshape(view.height * finer, view.width * finer, 3), finer)
