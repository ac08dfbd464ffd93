"""Densities of network outputs on a CPU by the C++ kernel of ``cpu_rays``; reference: ``hash_space.to_density``."""

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.fields import hash_space
from enerf.rendering import cpu_rays


def to_density(raw: Float[Tensor, "*b"], kind: str) -> Float[Tensor, "*b"]:
    """Density of a network's output, as of ``hash_space.to_density`` up to rounding; once differentiable.

    The kernel supports exponential densities in float32 on a CPU; for others the reference implementation is called.
    """
    if kind == "exp" and raw.dtype == torch.float32 and raw.device.type == "cpu" and cpu_rays.available():
        return cpu_rays.exponential_density(raw)
    return hash_space.to_density(raw, kind)
