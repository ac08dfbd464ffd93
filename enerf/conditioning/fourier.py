"""Fourier reparameterized weights: W = Λ B with fixed cosine bases B and trained coefficients Λ.

Shi, Zhou, Gu, Improved Implicit Neural Representation with Fourier Reparameterized Training, CVPR 2024, arXiv
2401.07402; bases, scale and initialization as in the authors' code (FR-INR, ``modules.py``). Meant for the layers
between hidden layers; the first layer and the head stay plain there.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning.interface import Parametrization
from enerf.conditioning.registry import register_parametrization
from enerf.conditioning.weight_views import WeightView

LOW, HIGH, PHASES, AMPLITUDE = 64, 64, 16, 0.05


def bases(n_in: int, low: int = LOW, high: int = HIGH, phases: int = PHASES, amplitude: float = AMPLITUDE) -> Tensor:
    """The fixed bases, of shape ((low + high)·phases, n_in), in float64.

    Row (ω, φ) holds amplitude · cos(ω z_j + φ) at n_in equidistant z_j in [−T/2, T/2], where T = 2π·low is the longest
    period. ω is 1/low, 2/low, ..., 1 and 1, 2, ..., high; φ is a multiple of 2π/phases. Both ends are included, as in
    the authors' code, and T is a period of every row: the first and the last input always have equal weights.

    Parameters
    ----------
    n_in
        Number of inputs of the layer.
    low, high
        Number of low and of high frequencies.
    phases
        Number of phases of each frequency.
    amplitude
        Amplitude of the bases. It has no effect on the initial weights, only on how far a step of Λ moves W.

    Examples
    --------
    >>> bases(3, low=1, high=1, phases=2, amplitude=1.0).round(decimals=3)[0]
    tensor([-1.,  1., -1.], dtype=torch.float64)
    """
    of_low = torch.arange(1, low + 1, dtype=torch.float64) / max(1, low)
    frequencies = torch.cat([of_low, torch.arange(1, high + 1, dtype=torch.float64)])
    shifts = torch.arange(phases, dtype=torch.float64) * (2 * math.pi / phases)
    half = math.pi * max(1, low)
    z = torch.linspace(-half, half, n_in, dtype=torch.float64)
    waves = torch.cos(frequencies[:, None, None] * z + shifts[:, None])
    return amplitude * waves.flatten(0, 1)


def coefficients(n_out: int, of_bases: Float[Tensor, "m n_in"]) -> Float[Tensor, "n_out m"]:
    """Initial Λ from torch's global generator: column m is uniform in ±√(6/M) / ‖B_m‖, so that Var(W) is 2/n_in.

    That is the variance of He's initialization.
    """
    bounds = math.sqrt(6 / len(of_bases)) / torch.linalg.vector_norm(of_bases, dim=1).clamp(min=1e-6)
    return (2 * torch.rand(n_out, len(of_bases), dtype=torch.float64) - 1) * bounds


class FourierWeight(Parametrization):
    """Parametrization of a weight as W = Λ B with fixed bases B (M × n_in); the trained parameter is Λ (n_out × M)."""

    method = "fourier"
    bases: Tensor

    def __init__(self, of_bases: Float[Tensor, "m n_in"], drawn: Float[Tensor, "n_out m"]) -> None:
        super().__init__()
        self.register_buffer("bases", of_bases)
        self.drawn: Tensor | None = drawn  # the initial Λ, until the parametrization is registered

    def forward(self, raw: Float[Tensor, "n_out m"]) -> Float[Tensor, "n_out n_in"]:
        """Compute the weight that the layer applies, with the precision of Λ also under autocast."""
        kind = raw.device.type
        if not torch.amp.autocast_mode.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
            return raw @ self.bases
        with torch.autocast(kind, enabled=False):
            return raw @ self.bases

    def right_inverse(self, weight: Float[Tensor, "n_out n_in"]) -> Float[Tensor, "n_out m"]:
        """Return the smallest Λ whose product with the bases is nearest to an assigned weight."""
        if self.drawn is not None:
            return self.drawn
        inverse = torch.linalg.pinv(self.bases.double())
        return (weight.double() @ inverse).to(weight.dtype)


def apply(module: nn.Module, view: WeightView) -> None:
    """Parametrize the weight of a layer as Λ B, with new Λ from ``coefficients``, and set a trained bias to zero."""
    weight = getattr(module, view.name).detach()
    rounded = bases(view.n_in).to(weight.dtype)
    drawn = coefficients(view.n_out, rounded.double())  # on the CPU: equal for all devices
    step = FourierWeight(rounded.to(weight.device), drawn.to(weight))
    parametrize.register_parametrization(module, view.name, step)
    step.drawn = None
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor) and bias.requires_grad:
        nn.init.zeros_(bias)


def divide_(model: nn.Module, factor: float) -> None:
    """Divide all Λ of a model in place; by ω₀ for networks of sines, whose initial weights are smaller by that."""
    with torch.no_grad():
        for module in model.modules():
            if parametrize.is_parametrized(module, "weight"):
                steps = module.get_submodule("parametrizations.weight")
                if any(isinstance(step, FourierWeight) for step in steps.children()):
                    module.get_parameter("parametrizations.weight.original").div_(factor)


def unsuitable(view: WeightView) -> str | None:
    """Why the weight cannot be reparameterized, or None."""
    if view.batch or view.transposed or len(view.shape) != 2:
        return "Fourier bases are defined for the matrices of linear layers"
    return None


register_parametrization("fourier", apply, unsuitable=unsuitable, redraws=True)
