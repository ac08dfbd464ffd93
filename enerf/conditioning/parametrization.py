"""Parametrization of a conditioned layer: raw weight -> weight that the layer applies.

Scales
------
A map fixes the Frobenius norm of a matrix as well as its shape. ``scale`` selects the norm of the result:

- ``fixed``: the norm that the map produces, as in the paper: rows of unit norm, whatever the initialization was;
- ``kept``: the norm of the current raw weights, so that it is trained with them;
- ``constant``: the norm of the raw weights at the time they were conditioned;
- ``learned``: as ``constant`` at first, but the gain is a parameter, one per matrix.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from enerf.conditioning import baselines, maps, norms, recomputation
from enerf.conditioning.weight_views import WeightView

SCALES = ("fixed", "kept", "constant", "learned")
MAPS: dict[str, Callable[..., Tensor]] = {
    **maps.METHODS,
    "weight_standardisation": baselines.standardized,
}


class Equilibrated(nn.Module):
    """Parametrization that applies one of ``MAPS`` to a raw weight.

    Parameters
    ----------
    method
        A key of ``MAPS``.
    gradient
        ``"through"`` or ``"detached"``; see ``maps``.
    p
        Order of the norm: 1, 2 or inf.
    scale
        One of ``SCALES``.
    every
        The divisors are recomputed at every ``every``-th access in training mode with gradients enabled, and are
        cached constants otherwise; 1 recomputes them at each access, with ``gradient``. The second forward pass of
        activation checkpointing is not counted; reentrant checkpointing is refused if ``every`` is above 1.
    view
        How the tensor is read as matrices; None if it is a matrix or a batch of matrices.
    """

    # Names in state dicts; they do not change.
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
        view: WeightView | None = None,
    ) -> None:
        super().__init__()
        self.method, self.gradient, self.p, self.scale, self.every, self.view = method, gradient, p, scale, every, view
        self.register_parameter("gain", None)

    def forward(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Compute the weight that the layer applies, in the memory format of the raw one."""
        return _in_format_of(weight, self.compute(weight, self.gain))

    def compute(self, weight: Float[Tensor, "..."], gain: Float[Tensor, "..."] | None) -> Float[Tensor, "..."]:
        """Compute the applied weight of any raw weight and gain; additional leading axes are a stack of layers."""
        raw = weight if self.view is None else self.view.to_matrices(weight)
        mapped = self._map(raw)
        if self.scale == "kept":
            mapped = maps.keep_scale(mapped, raw, self.gradient)
        elif gain is not None:
            mapped = mapped * gain[..., None, None]
        return mapped if self.view is None else self.view.from_matrices(mapped)

    def right_inverse(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the raw weight that stands for an assigned weight: the same tensor; a gain is set to keep its norm.

        The applied weight then equals the assigned one if the map changes nothing but its scale, which holds for
        weights that were baked from the same map.
        """
        with torch.no_grad():
            raw = weight if self.view is None else self.view.to_matrices(weight)
            if self.every > 1:
                self._update_divisors(raw)
            if self.scale in ("constant", "learned"):
                self._set_gain((norms.frobenius(raw) / norms.frobenius(self._map(raw)))[..., 0, 0])
        return weight

    def reset_accesses(self) -> None:
        """Reset the access counter, after ``register_parametrization`` has accessed the weight itself."""
        if self.every > 1:
            self.accesses.zero_()

    def stacking_key(self) -> tuple[object, ...] | None:
        """Key shared by parametrizations that can be computed in one stacked call; None if this one cannot."""
        if self.every > 1:
            return None
        return (self.method, self.gradient, self.p, self.scale, self.view)

    def extra_repr(self) -> str:
        """Show the options in ``print(model)``."""
        more = [f"p={self.p}"] * (self.p != 2) + [f"scale={self.scale}"] * (self.scale != "fixed")
        more += [f"every={self.every}"] * (self.every > 1)
        return ", ".join([f"method={self.method}, gradient={self.gradient}", *more])

    def _map(self, raw: Tensor) -> Tensor:
        if self.every == 1:
            return MAPS[self.method](raw, self.gradient, self.p)
        if self.training and torch.is_grad_enabled():
            self._count_access(raw)
        return raw / self.of_inputs / self.of_outputs

    @_disable_dynamo  # torch.compiler.disable, but it imports the compiler, for a second, when it is called
    def _count_access(self, raw: Tensor) -> None:
        """Count an access, and recompute the divisors at every ``every``-th.

        Raises
        ------
        RuntimeError
            In the second forward pass of reentrant checkpointing: the first one was not counted.
        """
        if recomputation.is_reentrant():
            raise RuntimeError("checkpoint(..., use_reentrant=True) with every > 1: expected use_reentrant=False")
        if recomputation.is_recomputed():
            return
        if int(self.accesses) % self.every == 0:
            self._update_divisors(raw.detach())
        self.accesses += 1

    def _update_divisors(self, raw: Tensor) -> None:
        of_inputs, of_outputs = maps.divisors(raw, self.method, self.p)
        if not hasattr(self, "of_inputs"):
            self.register_buffer("of_inputs", of_inputs.clone())
            self.register_buffer("of_outputs", of_outputs.clone())
            self.register_buffer("accesses", torch.zeros((), dtype=torch.int64, device=raw.device))
        self.of_inputs.copy_(of_inputs)
        self.of_outputs.copy_(of_outputs)

    def _set_gain(self, gain: Tensor) -> None:
        if self.gain is not None:
            self.gain.copy_(gain)
        elif self.scale == "learned":
            self.gain = nn.Parameter(gain.clone())
        else:
            del self.gain
            self.register_buffer("gain", gain.clone())


def _in_format_of(raw: Tensor, mapped: Tensor) -> Tensor:
    """The applied weight, channels last if the raw one is: otherwise each convolution would convert it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if raw.dim() not in formats or raw.is_contiguous() or torch._C._functorch.is_batchedtensor(raw):
        return mapped
    wanted = formats[raw.dim()]
    return mapped.contiguous(memory_format=wanted) if raw.is_contiguous(memory_format=wanted) else mapped
