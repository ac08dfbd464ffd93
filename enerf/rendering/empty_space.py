"""Rendering without gradients that leaves out what cannot be seen: the fast twin of ``render.render_rays``.

Samples go from front to back in ``SEGMENTS`` parts, and no network is asked

- behind what is opaque: where less than ``skip`` of a ray's light is left, by the same network's word;
- by the fine network, where space is empty by the coarse one's: where no coarse sample within ``MARGIN`` of the ray has
  an alpha of ``skip``. Where the coarse network was not asked, nothing is known to be empty.

With proposals nothing is left out: the fine network is asked only where light comes from anyway. On fern after two
minutes of training 97 % of those samples still had a hundredth of the light before them, 87 % a weight above 1e-3.

What is left out can change a pixel only where the fine network sees something that the coarse one does not:
``benchmarks/render.py`` measures it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from enerf.core.types import FieldOutput, RadianceField, Rays, Rendering
from enerf.rendering import sampling, volume
from enerf.rendering.render import Passes

SEGMENTS = 4
MARGIN = 0.1  # of a ray's samples, on each side: where two half-trained networks see one surface in two places


@torch.no_grad()
def render_rays(coarse: RadianceField, fine: RadianceField, rays: Rays, passes: Passes, skip: float) -> Rendering:
    """The final rendering of rays (one batch axis) by a coarse and a fine field, as ``render.render_rays`` gives it."""
    t_vals = sampling.stratified(rays.near, rays.far, passes.n_samples, passes.lindisp)
    everywhere = torch.ones_like(t_vals, dtype=torch.bool)
    seen, asked = front_to_back(coarse, rays, t_vals, everywhere, skip)
    delta = volume.deltas(t_vals, rays.directions)
    alpha = -torch.expm1(-seen.density * delta)
    more = sampling.importance(t_vals, volume.weights(seen.density, delta), passes.n_importance)
    both = sampling.union(t_vals, more)
    where = near_any(t_vals, (alpha > skip) | ~asked, both)
    where[:, -1] = True  # it reaches infinitely far: the least density makes it opaque
    seen, _ = front_to_back(fine, rays, both, where, skip)
    return volume.composite(seen, both, rays.directions, passes.white_bkgd)


def front_to_back(
    field: RadianceField, rays: Rays, t_vals: Float[Tensor, "n s"], where: Bool[Tensor, "n s"], skip: float
) -> tuple[FieldOutput, Bool[Tensor, "n s"]]:
    """The field's values where asked and not behind something opaque, nothing elsewhere; and where it was asked."""
    delta = volume.deltas(t_vals, rays.directions)
    density, rgb = torch.zeros_like(t_vals), t_vals.new_zeros((*t_vals.shape, 3))
    thickness, asked = torch.zeros_like(t_vals[:, 0]), torch.zeros_like(where)
    for part in torch.arange(t_vals.shape[1], device=t_vals.device).chunk(SEGMENTS):
        alive = torch.exp(-thickness) > skip
        asked[:, part] = where[:, part] & alive[:, None]
        ray, sample = asked[:, part].nonzero(as_tuple=True)
        if len(ray):
            sample = part[sample]
            chosen = rays[ray]
            out = field(chosen.at(t_vals[ray, sample][:, None]), chosen.viewdirs)
            density[ray, sample], rgb[ray, sample] = out.density[:, 0], out.rgb[:, 0]
        thickness = thickness + (density[:, part] * delta[:, part]).sum(-1)
    return FieldOutput(density, rgb), asked


def near_any(
    t_vals: Float[Tensor, "n s"], marked: Bool[Tensor, "n s"], asked: Float[Tensor, "n m"]
) -> Bool[Tensor, "n m"]:
    """Whether one of the two samples around each position, or one within ``MARGIN`` of them, is marked.

    >>> marked = torch.tensor([[False, False, False, False, False, True, False]])
    >>> near_any(torch.arange(7.0)[None], marked, torch.tensor([[2.5, 3.5, 5.5]])).tolist()
    [[False, True, True]]
    """
    margin = max(1, round(MARGIN * t_vals.shape[1]))
    wide = torch.nn.functional.max_pool1d(marked[:, None].float(), 2 * margin + 1, stride=1, padding=margin)[:, 0] > 0
    after = torch.searchsorted(t_vals, asked).clamp(max=t_vals.shape[1] - 1)
    return wide.gather(1, after) | wide.gather(1, (after - 1).clamp(min=0))
