"""Memory that training a NeRF needs at least, from its options."""

import torch

from enerf.core import memory
from enerf.tasks.nerf import build
from enerf.tasks.nerf.config import NerfConfig

_RAY = 100  # bytes of a ray of the batch: its pixel's indices, origin, directions, range, color and target


def training_bytes(config: NerfConfig, rays_at_once: int) -> dict[str, int]:
    """Return the bytes of networks, batch and activations by the options that decide them; a lower bound.

    Activations are those of the hidden layers at all samples of the rays that are rendered at once, and with deferred
    shading of the color network on these rays, kept for the backward pass.

    Parameters
    ----------
    config
        Options of the run.
    rays_at_once
        Largest number of rays whose activations are in memory together.
    """
    m, r, t = config.model, config.render, config.train
    is_proposal = r.sampler == "proposal"
    with torch.device("meta"):
        fields = build.plain_fields(m, r.N_importance > 0, is_proposal)
    coarse = build.PROPOSAL_WIDTH if is_proposal else m.netdepth * m.netwidth
    fine_samples = (r.N_importance if is_proposal else r.N_samples + r.N_importance) if r.N_importance else 0
    deferred = m.shading == "ray"
    features = m.ray_features * (fine_samples + (0 if is_proposal else r.N_samples)) if deferred else 0
    color = m.netdepth_color * m.netwidth_color * (1 if is_proposal else 2) if deferred else 0
    values = r.N_samples * coarse + fine_samples * m.netdepth_fine * m.netwidth_fine
    value_bytes, at_once = (4 if t.precision == "fp32" else 2), min(rays_at_once, t.N_rand)
    colors = ", or --netdepth_color and --netwidth_color" if deferred else ""
    return {
        f"options --netwidth, --netdepth, --multires, --hash_log2_entries and --hash_levels{colors}": (
            memory.trained_bytes(fields)
        ),
        "option --N_rand": _RAY * t.N_rand,
        "options --N_samples and --N_importance": at_once * values * value_bytes,
        "options --ray_features, --netdepth_color and --netwidth_color": at_once * (features + color) * value_bytes,
    }
