"""Empty-space skipping and early ray termination, without gradients; ``render.render_rays`` is the reference.

Samples are evaluated from front to back in ``SEGMENTS`` parts. A network is not evaluated

- behind an opaque surface: where the network's own transmittance has fallen below ``threshold``;
- for the fine network only, in empty space: where no coarse sample within ``MARGIN`` of the ray has an alpha above
  ``threshold``. Samples at which the coarse network was not evaluated count as occupied.

Renderings with a proposal network are not accelerated, since nearly all of their fine samples matter. Nor are those
with deferred shading.

A pixel changes only where the fine network has density that the coarse one lacks; ``benchmarks/render.py`` measures the
difference.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from enerf.core.types import FieldOutput, RadianceField, Rays, Rendering
from enerf.rendering import sampling, volume
from enerf.rendering.render import SamplingConfig

SEGMENTS = 4
MARGIN = 0.1  # share of a ray's samples, on each side: half-trained coarse and fine surfaces differ by about this


@torch.no_grad()
def render_rays(
    coarse: RadianceField, fine: RadianceField, rays: Rays, config: SamplingConfig, threshold: float
) -> Rendering:
    """Approximate the final rendering of ``render.render_rays`` by skipping empty space; rays have one batch axis."""
    t_vals = sampling.stratified(rays.near, rays.far, config.n_samples, config.lindisp, knee=config.knee)
    everywhere = torch.ones_like(t_vals, dtype=torch.bool)
    output, evaluated = front_to_back(coarse, rays, t_vals, everywhere, threshold)
    delta = volume.deltas(t_vals, rays.directions)
    alpha = -torch.expm1(-output.density * delta)
    more = sampling.importance(t_vals, volume.weights(output.density, delta), config.n_importance, knee=config.knee)
    both = sampling.union(t_vals, more)
    where = near_marked(t_vals, (alpha > threshold) | ~evaluated, both)
    where[:, -1] = True  # its interval stands for infinity: any density makes it opaque
    output, _ = front_to_back(fine, rays, both, where, threshold)
    return volume.composite(output, both, rays.directions, config.white_bkgd)


def front_to_back(
    field: RadianceField, rays: Rays, t_vals: Float[Tensor, "n s"], where: Bool[Tensor, "n s"], threshold: float
) -> tuple[FieldOutput, Bool[Tensor, "n s"]]:
    """Field values at the visible samples marked by ``where``, 0 at all others; and which samples were evaluated.

    Visible: the transmittance at the beginning of the sample's segment is above the threshold.
    """
    delta = volume.deltas(t_vals, rays.directions)
    density, rgb = torch.zeros_like(t_vals), t_vals.new_zeros((*t_vals.shape, 3))
    thickness, evaluated = torch.zeros_like(t_vals[:, 0]), torch.zeros_like(where)
    for part in torch.arange(t_vals.shape[1], device=t_vals.device).chunk(SEGMENTS):
        visible = torch.exp(-thickness) > threshold
        evaluated[:, part] = where[:, part] & visible[:, None]
        ray, sample = evaluated[:, part].nonzero(as_tuple=True)
        if len(ray):
            sample = part[sample]
            chosen = rays[ray]
            out = field(chosen.at(t_vals[ray, sample][:, None]), chosen.viewdirs)
            density[ray, sample], rgb[ray, sample] = out.density[:, 0], out.rgb[:, 0]
        thickness = thickness + (density[:, part] * delta[:, part]).sum(-1)
    return FieldOutput(density, rgb), evaluated


def near_marked(
    t_vals: Float[Tensor, "n s"], marked: Bool[Tensor, "n s"], positions: Float[Tensor, "n m"]
) -> Bool[Tensor, "n m"]:
    """Whether a sample within ``MARGIN`` of the two samples around each position is marked.

    >>> marked = torch.tensor([[False, False, False, False, False, True, False]])
    >>> near_marked(torch.arange(7.0)[None], marked, torch.tensor([[2.5, 3.5, 5.5]])).tolist()
    [[False, True, True]]
    """
    margin = max(1, round(MARGIN * t_vals.shape[1]))
    wide = torch.nn.functional.max_pool1d(marked[:, None].float(), 2 * margin + 1, stride=1, padding=margin)[:, 0] > 0
    after = torch.searchsorted(t_vals, positions).clamp(max=t_vals.shape[1] - 1)
    return wide.gather(1, after) | wide.gather(1, (after - 1).clamp(min=0))
