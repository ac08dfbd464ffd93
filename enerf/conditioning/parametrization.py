"""Parametrization of a conditioned layer: raw weight -> weight that the layer applies.

Scales
------
A map fixes the Frobenius norm of a matrix as well as its shape. ``scale`` selects the norm of the result:

- ``fixed``: the norm that the map produces, as in the paper: rows of unit norm, whatever the initialization was;
- ``kept``: the norm of the current raw weights, so that it is trained with them;
- ``constant``: the norm of the raw weights at the time they were conditioned;
- ``learned``: as ``constant`` at first, but the gain is a parameter, one per matrix;
- ``learned_rows``: one trained gain per row (per input), at first such that the norm of each row is that of the raw
  row. With ``row`` the layer therefore starts as the plain one, and can represent the same functions: what differs from
  the plain layer is the parametrization alone. It is weight normalization with the lengths of inputs instead of
  outputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from enerf.conditioning import attention, baselines, maps, norms, recomputation, table
from enerf.conditioning.interface import Parametrization
from enerf.conditioning.step_counter import StepDetector
from enerf.conditioning.weight_views import WeightView, in_format_of

SCALES = ("fixed", "kept", "constant", "learned", "learned_rows")
MAPS: dict[str, Callable[..., Tensor]] = {  # registry.register_map adds to it
    **maps.METHODS,
    "weight_standardisation": baselines.standardized,
    "spectral_shift": attention.shifted,
}


class Equilibrated(Parametrization):
    """Parametrization that applies one of ``MAPS`` to a raw weight.

    It keeps its map if another one is registered under the same name later.

    Parameters
    ----------
    method
        A key of ``MAPS``, or a map of ``table.MODULES``.
    gradient
        ``"through"`` or ``"detached"``; see ``maps``.
    p
        Order of the norm: 1, 2 or inf.
    scale
        One of ``SCALES``.
    every
        The divisors are recomputed once in ``every`` optimizer steps, at the first access in training mode after the
        step, and are constants between; 1 recomputes them at each access, with ``gradient``. Steps are detected as in
        ``step_counter``: accumulated gradients and activation checkpointing see the divisors of their step.
    view
        How the tensor is read as matrices; None if it is a matrix or a batch of matrices.
    shift
        λ of ``spectral_shift``.

    Raises
    ------
    ValueError
        If the method is unknown.
    """

    # Names in state dicts; they do not change.
    gain: Tensor | None
    of_inputs: Tensor
    of_outputs: Tensor
    accesses: Tensor  # number of steps that training has used this weight in

    def __init__(
        self,
        method: str,
        gradient: str = "through",
        *,
        p: float = 2.0,
        scale: str = "fixed",
        every: int = 1,
        view: WeightView | None = None,
        shift: float = attention.SHIFT,
    ) -> None:
        super().__init__()
        table.load(method)
        if method not in MAPS:
            raise ValueError(f"method is {method!r}; it must be one of {', '.join(MAPS)}")
        self.method, self.gradient, self.p, self.scale, self.every, self.view = method, gradient, p, scale, every, view
        self.shift, self.is_registered, self.is_of_parameter = shift, False, False
        self.register_parameter("gain", None)
        self.added = maps.ADDED.get(method)  # stays if the name is registered again
        self.steps = StepDetector() if every > 1 else None

    def forward(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Compute the weight that the layer applies, in the memory format of the raw one."""
        if self.every > 1 and self.training:
            self._count_step(weight)
        return in_format_of(weight, self.compute(weight, self.gain))

    def compute(self, weight: Float[Tensor, "..."], gain: Float[Tensor, "..."] | None) -> Float[Tensor, "..."]:
        """Compute the applied weight of any raw weight and gain; additional leading axes are a stack of layers."""
        raw = weight if self.view is None else self.view.to_matrices(weight)
        mapped = self._map(raw)
        if self.scale == "kept":
            mapped = maps.keep_scale(mapped, raw, self.gradient)
        elif gain is not None:
            by_row = self.scale == "learned_rows"
            mapped = mapped * (gain[..., None, :] if by_row else gain.reshape(*mapped.shape[:-2], 1, 1))
        return mapped if self.view is None else self.view.from_matrices(mapped)

    def right_inverse(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the raw weight that stands for an assigned weight: the same tensor; gains are set to keep its norms.

        The applied weight then equals the assigned one if the map changes nothing but its scale (or, with
        ``learned_rows``, the scale of its rows), which holds for weights that were baked from the same map. A fixed
        shift is subtracted, but not from the weight that the parametrization is registered for.
        """
        if not self.is_registered:
            self.is_of_parameter = isinstance(weight, nn.Parameter)
        with torch.no_grad():
            raw = weight if self.view is None else self.view.to_matrices(weight)
            if self.every > 1:
                self._update_divisors(raw)
            if self.scale in ("constant", "learned"):
                gain = (norms.frobenius(raw) / norms.frobenius(self._map(raw)))[..., 0, 0]
                is_single = self.scale == "learned" and gain.dim() == 0
                self._set_gain(gain.reshape(1) if is_single else gain, not _is_frozen(weight))
            elif self.scale == "learned_rows":
                self._set_gain(_row_gains(raw, self._map(raw)), not _is_frozen(weight))
            elif self._is_shift and self.scale == "fixed" and self.is_registered:
                unshifted = attention.shifted(raw, shift=-self.shift)
                return unshifted if self.view is None else self.view.from_matrices(unshifted)
        return weight

    def reset_accesses(self) -> None:
        """Reset the count of steps, after ``register_parametrization`` has accessed the weight itself."""
        self.is_registered = True
        if self.every > 1:
            self.accesses.zero_()
            self.steps = StepDetector()

    def stacking_key(self) -> tuple[object, ...] | None:
        """Key that is equal for parametrizations whose weights can be stacked for one call; None: never stacked."""
        if self.every > 1:
            return None
        return (self.method, id(self.added), self.gradient, self.p, self.scale, self.view, self.shift)

    def norm_axis(self) -> int | None:
        """Axis of the norms if the map is a division by differentiated 2-norms of rows or columns alone, else None."""
        is_plain = (self.gradient, self.p, self.scale, self.every) == ("through", 2, "fixed", 1)
        if not is_plain or not (self.view is None or self.view.is_matrix):
            return None
        return {"row": -2, "column": -1}.get(self.method)

    def extra_repr(self) -> str:
        """Show the options in ``print(model)``."""
        more = [f"p={self.p}"] * (self.p != 2) + [f"scale={self.scale}"] * (self.scale != "fixed")
        more += [f"every={self.every}"] * (self.every > 1) + [f"shift={self.shift:g}"] * self._is_shift
        return ", ".join([f"method={self.method}, gradient={self.gradient}", *more])

    @property
    def _is_shift(self) -> bool:
        return self.method == "spectral_shift"

    def _map(self, raw: Tensor) -> Tensor:
        if self.every > 1:
            return raw / self.of_inputs / self.of_outputs
        if self._is_shift:
            return attention.shifted(raw, self.gradient, self.p, shift=self.shift)
        if self.added is None or self.added.function is None:
            return MAPS[self.method](raw, self.gradient, self.p)
        if self.gradient == "detached" and self.added.divisors is not None:
            return norms.divided(raw, *self._divisors(raw.detach()), "detached", self.p)
        mapped = self.added.function(raw, self.gradient, self.p)
        if not self.is_registered:
            _check_like(f"the map {self.method}", mapped, raw, tuple(raw.shape))
        return mapped

    def _divisors(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """What the map divides matrices by: tensors (*batch, 1, n_in) for inputs and (*batch, n_out, 1) for outputs."""
        if self.added is None or self.added.divisors is None:
            return maps.divisors(raw, self.method, self.p)
        found = self.added.divisors(raw, self.p)
        if not self.is_registered:
            of = f"divisors of the map {self.method}"
            if not isinstance(found, tuple | list) or len(found) != 2:
                raise TypeError(f"{of} returned {_described(found)}; expected two tensors, for inputs and for outputs")
            *batch, n_out, n_in = raw.shape
            _check_like(f"{of}, for inputs,", found[0], raw, (*batch, 1, n_in))
            _check_like(f"{of}, for outputs,", found[1], raw, (*batch, n_out, 1))
        return found[0], found[1]

    @_disable_dynamo  # torch.compiler.disable, but it imports the compiler, for a second, when it is called
    def _count_step(self, weight: Tensor) -> None:
        """Recompute the divisors if this is the first access after a step, and its number is a multiple of ``every``.

        Without effect where values do not exist (on the meta device), are those of a functional transform, or are a
        tensor in the place of the parameter, as in ``torch.func.functional_call``. Parameters of another model in that
        place cannot be told from a new raw weight.
        """
        assert self.steps is not None
        if weight.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(weight) or recomputation.is_recomputed():
            return
        if self.is_of_parameter and not isinstance(weight, nn.Parameter):
            return
        if self.steps.has_stepped(weight):
            if int(self.accesses) % self.every == 0:
                raw = weight.detach()
                self._update_divisors(raw if self.view is None else self.view.to_matrices(raw))
            self.accesses += 1

    def _update_divisors(self, raw: Tensor) -> None:
        of_inputs, of_outputs = self._divisors(raw)
        if not hasattr(self, "of_inputs"):
            self.register_buffer("of_inputs", of_inputs.clone())
            self.register_buffer("of_outputs", of_outputs.clone())
            self.register_buffer("accesses", torch.zeros((), dtype=torch.int64, device=raw.device))
        self.of_inputs.copy_(of_inputs)
        self.of_outputs.copy_(of_outputs)

    def _set_gain(self, gain: Tensor, trained: bool) -> None:
        """Set the gain; a new learned one is trained unless the raw weight is a frozen parameter."""
        if self.gain is not None:
            self.gain.copy_(gain)
        elif self.scale == "constant":
            del self.gain
            self.register_buffer("gain", gain.clone())
        else:
            self.gain = nn.Parameter(gain.clone(), requires_grad=trained)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *more: Any) -> None:
        """Load the state; a learned gain of earlier versions, which had no axis, gets the one that it has now."""
        key = f"{prefix}gain"
        if key in state_dict and self.scale == "learned" and state_dict[key].dim() == 0:
            state_dict[key] = state_dict[key].reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *more)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Equilibrated":
        """Move or convert; ``to_empty`` of a model on the meta device starts with the count of a new one."""
        without_values = hasattr(self, "accesses") and self.accesses.is_meta
        super()._apply(fn, recurse)
        if without_values and not self.accesses.is_meta:
            self.of_inputs.fill_(1.0)
            self.of_outputs.fill_(1.0)
            self.reset_accesses()
        return self


def _check_like(what: str, found: object, weight: Tensor, shape: tuple[int, ...]) -> None:
    """Raise a TypeError unless what a function of others returned has that shape, and the dtype of the weight."""
    if not isinstance(found, Tensor) or tuple(found.shape) != shape or found.dtype != weight.dtype:
        expected = f"a tensor of shape {shape} and {weight.dtype}"
        raise TypeError(f"{what} returned {_described(found)} for a weight; expected {expected}")


def _described(found: object) -> str:
    if isinstance(found, Tensor):
        return f"a tensor of shape {tuple(found.shape)} and {found.dtype}"
    return repr(found) if found is None else f"a {type(found).__name__}"


def _is_frozen(weight: Tensor) -> bool:
    return isinstance(weight, nn.Parameter) and not weight.requires_grad


def _row_gains(raw: Tensor, mapped: Tensor) -> Tensor:
    """Gains by which mapped rows get the norms of the raw ones, of shape (*batch, n_in); 1 for rows of zeros."""
    sizes = []
    for matrix in (raw, mapped):
        bounded = norms.floored(matrix, -2)  # below the floor nothing overflows
        exact = torch.linalg.vector_norm(matrix, dim=-2, keepdim=True)
        sizes.append(torch.where(bounded > norms.FLOOR, bounded, exact))
    return torch.where(sizes[1] == 0, 1.0, sizes[0] / sizes[1])[..., 0, :]
