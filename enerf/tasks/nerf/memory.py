"""Memory that training a NeRF needs at least, from its options."""

import torch

from enerf.core import memory
from enerf.tasks.nerf import build
from enerf.tasks.nerf.config import NerfConfig

_RAY = 100  # bytes of a ray of the batch: its pixel's indices, origin, directions, range, color and target


def training_bytes(config: NerfConfig, rays_at_once: int) -> dict[str, int]:
    """Return the bytes of networks, batch and activations by the options that decide them; a lower bound.

    Activations are those of the hidden layers at all samples of the rays that are rendered at once, kept for the
    backward pass.

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
    per_sample = m.netdepth_fine * m.netwidth_fine + (m.ray_features if m.shading == "ray" else 0)
    values = r.N_samples * coarse + fine_samples * per_sample
    value_bytes = 4 if t.precision == "fp32" else 2
    return {
        "options --netwidth, --netdepth, --multires, --hash_log2_entries and --hash_levels": memory.trained_bytes(
            fields
        ),
        "option --N_rand": _RAY * t.N_rand,
        "options --N_samples and --N_importance": min(rays_at_once, t.N_rand) * values * value_bytes,
    }
