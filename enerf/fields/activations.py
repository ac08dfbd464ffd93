"""Activation functions of coordinate networks, and torch evaluation of networks with any of them.

- ``relu``: max(x, 0);
- ``softplus``: log(1 + exp(β x)) / β, a ReLU smoothed over a width of 1/β, so that level sets have normals
  everywhere (Gropp et al., IGR, ICML 2020, use β = 100);
- ``sine``: sin(ω₀ x) (Sitzmann et al., SIREN, NeurIPS 2020, section 3.2: ω₀ = 30);
- ``finer``: sin(ω₀ (|x| + 1) x), whose frequency grows with |x|, so that the range of biases sets the frequencies
  (Liu et al., FINER, CVPR 2024, equation 4); the factor |x| + 1 counts as a constant in the gradients of weights, as in
  the authors' code, but not in derivatives with respect to points;
- ``gaussian``: exp(−x² / 2σ²) (Ramasinghe, Lucey, Beyond Periodicity, ECCV 2022, table 1; σ = 0.1 is the value of
  Chng et al., GARF, ECCV 2022).

All except ReLU and FINER's are infinitely differentiable. The fused backends support only ReLU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from enerf.fields.backends.dense import Bound, Network, repeat_rows
from enerf.fields.normalization import Norms, normalized

KINDS = ("relu", "softplus", "sine", "finer", "gaussian")
LARGEST_PHASE = 1e30  # of FINER's sine, because squares overflow
LINEAR_FROM = 40.0  # softplus returns x where β x is larger: the difference, e⁻⁴⁰, is below float64's rounding


@dataclass(frozen=True)
class Activation:
    """An element-wise activation: one of ``KINDS``, with the parameter that it uses (β, ω₀ or σ).

    ``exact`` makes the gradient of ``finer`` the derivative of its values.

    >>> Activation("gaussian", sigma=0.5)(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.6065])
    """

    kind: str = "relu"
    beta: float | int = 100.0
    omega: float | int = 30.0
    sigma: float | int = 0.1
    exact: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"activation is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if min(self.beta, self.omega, self.sigma) <= 0:
            raise ValueError(f"β, ω₀ and σ must be above 0; they are {self.beta}, {self.omega} and {self.sigma}")

    def __call__(self, x: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Apply the activation to each element."""
        if self.kind == "relu":
            return torch.relu(x)
        if self.kind == "softplus":
            return functional.softplus(x, beta=float(self.beta), threshold=LINEAR_FROM)
        if self.kind == "sine":
            return torch.sin(self.omega * x)
        if self.kind == "finer":
            factor = (x if self.exact else x.detach()).abs() + 1
            return torch.sin((self.omega * factor * x).clamp(-LARGEST_PHASE, LARGEST_PHASE))
        return torch.exp(-0.5 * (x / self.sigma).square())


def bind(
    network: Network,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: Activation | None = None,
    norms: Norms | None = None,
    precision: str = "fp32",
) -> Bound:
    """Return the network as a function of its inputs, evaluated by torch, with ``activation`` for ReLU.

    With ReLU and without normalizations it equals ``dense.bind``. Differentiable in weights, biases and inputs, as
    often as the activation is.

    Parameters
    ----------
    network, weights, biases
        As for ``dense.bind``, of any dtype.
    activation
        That of the hidden layers; None is ReLU.
    norms
        Normalizations before it; see ``normalization``.
    precision
        ``bf16`` rounds the factors of matrix products; everything else is computed in fp32 then.
    """
    activation = activation or Activation()

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        buffers, low = repeat_rows(inputs), precision == "bf16"
        for i, (layer, *parameters) in enumerate(zip(network.layers, weights, biases, strict=True)):
            sources = [buffers[s] for s in layer.sources]
            factors = [sources[0] if len(sources) == 1 else torch.cat(sources, -1), *parameters]
            out = functional.linear(*(x.bfloat16() for x in factors)).float() if low else functional.linear(*factors)
            if layer.relu:
                out = activation(out if norms is None else normalized(out, norms[str(i)]))
            buffers.append(out)
        return tuple(buffers[s] for s in network.outputs)

    return run
