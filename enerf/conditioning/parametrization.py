"""The module that stands between a raw weight and the weight that a layer applies.

Scales
------
A map fixes the size of a matrix as well as its shape. ``scale`` says what becomes of the size:

- ``fixed``: what the map makes, as in the paper: rows of unit norm, whatever the start was;
- ``kept``: each matrix keeps the Frobenius norm of its raw weights, at every step, so that they learn it;
- ``constant``: each matrix keeps the Frobenius norm that its raw weights had when it was conditioned;
- ``learned``: as ``constant``, but that gain is a parameter, one for each matrix.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.conditioning import baselines, maps, norms
from enerf.conditioning.weight_views import Slot

SCALES = ("fixed", "kept", "constant", "learned")
MAPS: dict[str, Callable[..., Tensor]] = {
    **maps.METHODS,
    "weight_standardisation": baselines.standardised,
}


class Equilibrated(nn.Module):
    """The parametrization raw weight -> weight that is applied.

    Parameters
    ----------
    method
        A key of ``MAPS``.
    gradient
        ``"through"`` or ``"detached"``; see ``equilibrate``.
    p
        The norm: 1, 2 or inf.
    scale
        One of ``SCALES``.
    every
        The divisors are computed at every so many accesses in training mode with gradients, and held as constants in
        between and in evaluation; 1 computes them at each access, with ``gradient``.
    slot
        How the tensor is read as matrices; None: it is a matrix, or a batch of them.
    """

    gain: Tensor | None
    of_inputs: Tensor
    of_outputs: Tensor
    accesses: Tensor

    def __init__(
        self,
        method: str,
        gradient: str = "through",
        *,
        p: float = 2.0,
        scale: str = "fixed",
        every: int = 1,
        slot: Slot | None = None,
    ) -> None:
        super().__init__()
        self.method, self.gradient, self.p, self.scale, self.every, self.slot = method, gradient, p, scale, every, slot
        self.register_parameter("gain", None)

    def forward(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Compute the weight that the layer applies."""
        return self.applied(weight, self.gain)

    def applied(self, weight: Float[Tensor, "..."], gain: Float[Tensor, "..."] | None) -> Float[Tensor, "..."]:
        """The same for any raw weight and gain; axes before the tensor's own are those of a stack of layers."""
        raw = weight if self.slot is None else self.slot.to_matrices(weight)
        made = self._mapped(raw)
        if self.scale == "kept":
            made = maps.keep_scale(made, raw, self.gradient)
        elif gain is not None:
            made = made * gain[..., None, None]
        return made if self.slot is None else self.slot.from_matrices(made)

    def right_inverse(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The raw weight for a weight that is assigned: itself; the gain, if there is one, takes over its size.

        What is applied then equals what was assigned if the map leaves that unchanged, up to its size: which holds
        for weights baked from the same map.
        """
        with torch.no_grad():
            raw = weight if self.slot is None else self.slot.to_matrices(weight)
            if self.every > 1:
                self._hold(raw)
            if self.scale in ("constant", "learned"):
                self._start_gain((norms.frobenius(raw) / norms.frobenius(self._mapped(raw)))[..., 0, 0])
        return weight

    def forget_accesses(self) -> None:
        """Count anew, as torch's registration has made an access of its own."""
        if self.every > 1:
            self.accesses.zero_()

    def kind(self) -> tuple[object, ...] | None:
        """What layers have in common that can be computed in one stack; None if this one cannot."""
        if self.every > 1:
            return None
        return (self.method, self.gradient, self.p, self.scale, self.slot)

    def extra_repr(self) -> str:
        """Show the options in ``print(model)``."""
        more = [f"p={self.p}"] * (self.p != 2) + [f"scale={self.scale}"] * (self.scale != "fixed")
        more += [f"every={self.every}"] * (self.every > 1)
        return ", ".join([f"method={self.method}, gradient={self.gradient}", *more])

    def _mapped(self, raw: Tensor) -> Tensor:
        if self.every == 1:
            return MAPS[self.method](raw, self.gradient, self.p)
        if self.training and torch.is_grad_enabled():
            self._count(raw)
        return raw / self.of_inputs / self.of_outputs

    @torch.compiler.disable
    def _count(self, raw: Tensor) -> None:
        """Compute the divisors anew if it is time."""
        if int(self.accesses) % self.every == 0:
            self._hold(raw.detach())
        self.accesses += 1

    def _hold(self, raw: Tensor) -> None:
        of_inputs, of_outputs = maps.divisors(raw, self.method, self.p)
        if not hasattr(self, "of_inputs"):
            self.register_buffer("of_inputs", of_inputs.clone())
            self.register_buffer("of_outputs", of_outputs.clone())
            self.register_buffer("accesses", torch.zeros((), dtype=torch.int64, device=raw.device))
        self.of_inputs.copy_(of_inputs)
        self.of_outputs.copy_(of_outputs)

    def _start_gain(self, gain: Tensor) -> None:
        if self.gain is not None:
            self.gain.copy_(gain)
        elif self.scale == "learned":
            self.gain = nn.Parameter(gain.clone())
        else:
            del self.gain
            self.register_buffer("gain", gain.clone())
