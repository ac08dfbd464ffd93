"""Muon, which orthogonalizes the update of a matrix, with steps of Adam's size.

The momentum of each matrix is replaced by an approximation of its polar factor U Vᵀ, by five iterations of
Newton–Schulz (Jordan et al., Muon, 2024, kellerjordan.github.io/posts/muon), so that all singular values of the update
are about equal, whatever those of the gradient are. Meant for the hidden matrices of a network; inputs, outputs, biases
and gains are left to Adam.

Parameters that are matrices are updated by ``torch.optim.Muon``, which multiplies in bf16. ``Muon`` here has the same
formula and state for what that does not do: several matrices in one parameter (kernels of convolutions, packed
projections of attention), fp32 on processors without bf16 instructions, where torch's is forty times slower, and torch
before 2.9.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM, ITERATIONS = 0.95, 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of one iteration: a X + b (X Xᵀ) X + c (X Xᵀ)² X
RMS = 0.2  # of an update at learning rate 1, as is typical of Adam
BF16_CPUS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # functions of torch.cpu, absent in some versions
OPTIONS: dict[str, Any] = {
    **{"momentum": MOMENTUM, "nesterov": True, "ns_coefficients": COEFFICIENTS, "eps": 1e-7, "ns_steps": ITERATIONS},
    "adjust_lr_fn": "match_rms_adamw",
}  # of torch.optim.Muon


@runtime_checkable
class MatrixView(Protocol):
    """How a parameter is read as matrices; ``conditioning.matrix_views`` has those of a model."""

    def to_matrices(self, weight: Tensor) -> Tensor:
        """The parameter as matrices (*batch, n_out, n_in)."""

    def from_matrices(self, matrices: Tensor) -> Tensor:
        """Undo ``to_matrices``."""


def muon(
    matrices: Sequence[nn.Parameter],
    lr: float | int,
    weight_decay: float | int = 0.0,
    views: Mapping[nn.Parameter, MatrixView] | None = None,
) -> torch.optim.Optimizer:
    """Muon with Nesterov momentum 0.95 and decoupled weight decay.

    The update of an n_out × n_in matrix is multiplied by 0.2·√max(n_out, n_in), so that its root mean square is 0.2, as
    is typical of Adam, and ``lr`` is a rate for Adam (Liu et al., Muon is scalable for LLM training, arXiv 2502.16982,
    section 2.2).

    Parameters
    ----------
    matrices
        Parameters: with two axes, if they have no view.
    lr
        Learning rate.
    weight_decay
        The parameters are multiplied by 1 - ``lr``·``weight_decay`` at each step.
    views
        How parameters are read as several matrices, or as one in another layout.

    Raises
    ------
    ValueError
        If a parameter has another number of axes, or a viewed one is distributed over processes.
    """
    is_plain = not views and hasattr(torch.optim, "Muon")
    if is_plain and all(product_dtype(each.device) == torch.bfloat16 or is_sharded(each) for each in matrices):
        found: torch.optim.Optimizer = torch.optim.Muon([*matrices], lr=lr, weight_decay=weight_decay, **OPTIONS)
        return found
    of = [(views or {}).get(each) for each in matrices]
    return Muon([{"params": [*matrices], "views": of}], lr=lr, weight_decay=weight_decay)


def product_dtype(device: torch.device) -> torch.dtype:
    """The type of factors in which ``Muon`` multiplies: bf16, but fp32 on a processor that emulates bf16."""
    has_bf16 = device.type != "cpu" or any(getattr(torch.cpu, name, bool)() for name in BF16_CPUS)
    return torch.bfloat16 if has_bf16 else torch.float32


def is_sharded(parameter: Tensor) -> bool:
    """Whether a parameter is distributed over processes (DTensor, as of FSDP2)."""
    return hasattr(parameter, "device_mesh")


class Muon(torch.optim.Optimizer):
    """Muon of parameters that are read as matrices; each matrix is orthogonalized by itself.

    Groups and states have the entries of ``torch.optim.Muon``, so that each loads the state of the other.

    Parameters
    ----------
    groups
        Parameter groups; their key ``views`` lists one view for each parameter, None for a matrix. State dicts do not
        contain the views.
    lr, weight_decay
        As for ``muon``.

    Raises
    ------
    ValueError
        If a parameter without a view has not two axes, or one is distributed over processes (FSDP2).
    """

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float | int, weight_decay: float | int = 0.0) -> None:
        self.views: list[MatrixView | None] = []
        super().__init__([*groups], {"lr": lr, "weight_decay": weight_decay, **OPTIONS})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which may have ``views``.

        Raises
        ------
        ValueError
            As for the class.
        """
        group = {**param_group}
        views = group.pop("views", None)
        super().add_param_group(group)
        parameters = self.param_groups[-1]["params"]
        for parameter, view in zip(parameters, views or [None] * len(parameters), strict=True):
            if view is None and parameter.dim() != 2:
                raise ValueError(f"a parameter has shape {tuple(parameter.shape)} and no view; expected two axes")
            if is_sharded(parameter):
                raise ValueError("a parameter is distributed over processes; expected whole ones")
            self.views.append(view)

    def __getstate__(self) -> dict[str, Any]:
        """State for copies and pickles."""
        return {**super().__getstate__(), "views": self.views}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters that have gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        views = iter(self.views)
        for group in self.param_groups:
            for parameter in group["params"]:
                view = next(views)
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, view, group)
        return loss

    def _update(self, parameter: nn.Parameter, grad: Tensor, view: MatrixView | None, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        momentum = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        direction = grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        matrices = direction if view is None else view.to_matrices(direction)
        polar = orthogonalized(matrices, group["ns_steps"], group["ns_coefficients"], group["eps"])
        rate = group["lr"] * _size(polar.shape[-2], polar.shape[-1], group["adjust_lr_fn"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(polar if view is None else view.from_matrices(polar), alpha=-rate)


def orthogonalized(
    matrices: Float[Tensor, "*batch n m"],
    iterations: int = ITERATIONS,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    smallest: float = OPTIONS["eps"],
) -> Float[Tensor, "*batch n m"]:
    """Approximate polar factors by Newton–Schulz iterations (Jordan et al. 2024), in the type of ``product_dtype``.

    Their singular values lie between about 0.7 and 1.2, but for those below a thousandth of the norm of the matrix.
    """
    a, b, c = coefficients
    x = matrices.to(product_dtype(matrices.device))
    x = x.flatten(0, -3) if x.dim() > 2 else x[None]
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=smallest)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).reshape(matrices.shape)


def _size(n_out: int, n_in: int, rule: str | None) -> float:
    """Factor of an orthogonalized update at learning rate 1, by the rules of ``torch.optim.Muon``."""
    return RMS * math.sqrt(max(n_out, n_in)) if rule == "match_rms_adamw" else math.sqrt(max(1.0, n_out / n_in))
