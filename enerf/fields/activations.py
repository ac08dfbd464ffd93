"""Activations of coordinate networks, and the twin of networks that have another one than ReLU.

- ``relu``: max(x, 0);
- ``softplus``: log(1 + exp(β x)) / β, a ReLU whose corner is rounded over a width of 1/β, so that a surface has normals
  everywhere (Gropp et al., IGR, ICML 2020, take β = 100);
- ``sine``: sin(ω₀ x) (Sitzmann et al., SIREN, NeurIPS 2020, section 3.2: ω₀ = 30);
- ``gaussian``: exp(−x² / 2σ²) (Ramasinghe, Lucey, Beyond Periodicity, ECCV 2022, table 1; σ = 0.1 is the value of
  Chng et al., GARF, ECCV 2022).

All but ReLU can be differentiated as often as one likes. The fused backends know ReLU alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from enerf.fields.backends.dense import Bound, Network, spread

KINDS = ("relu", "softplus", "sine", "gaussian")
LINEAR_FROM = 40.0  # β x beyond which softplus is x: the difference, e⁻⁴⁰, is below float64's rounding


@dataclass(frozen=True)
class Activation:
    """A function of each value by itself: one of ``KINDS``, with the number that its kind takes.

    >>> Activation("gaussian", sigma=0.5)(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.6065])
    """

    kind: str = "relu"
    beta: float | int = 100.0
    omega: float | int = 30.0
    sigma: float | int = 0.1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"activation is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if min(self.beta, self.omega, self.sigma) <= 0:
            raise ValueError(f"β, ω₀ and σ must be above 0; they are {self.beta}, {self.omega} and {self.sigma}")

    def __call__(self, x: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Its values."""
        if self.kind == "relu":
            return torch.relu(x)
        if self.kind == "softplus":
            return functional.softplus(x, beta=float(self.beta), threshold=LINEAR_FROM)
        if self.kind == "sine":
            return torch.sin(self.omega * x)
        return torch.exp(-0.5 * (x / self.sigma).square())


def bind(
    network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], activation: Activation | None = None
) -> Bound:
    """The network with its weights, by torch, in any dtype; what stands for its ReLUs is ``activation``.

    With ReLU it is ``dense.bind``. Differentiable in weights, biases and inputs, as often as the activation is.
    """
    activation = activation or Activation()

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        slots = spread(inputs)
        for layer, weight, bias in zip(network.layers, weights, biases, strict=True):
            seen = [slots[s] for s in layer.sources]
            out = functional.linear(seen[0] if len(seen) == 1 else torch.cat(seen, -1), weight, bias)
            slots.append(activation(out) if layer.relu else out)
        return tuple(slots[s] for s in network.outputs)

    return run
