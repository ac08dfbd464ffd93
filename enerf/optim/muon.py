"""Muon, which orthogonalizes the update of a matrix, with steps of Adam's size.

The momentum of each matrix is replaced by an approximation of its polar factor U Vᵀ, by five iterations of
Newton–Schulz (Jordan et al., Muon, 2024, kellerjordan.github.io/posts/muon), so that all singular values of the update
are about equal, whatever those of the gradient are. Meant for the hidden matrices of a network; inputs, outputs, biases
and gains are left to Adam.

``torch.optim.Muon`` updates parameters that are matrices, and multiplies in bf16. The class ``Muon`` has the same
formula, parameter groups and state, and is used where torch's cannot be, or should not be:

- several matrices in one parameter: kernels of convolutions, packed projections of attention;
- processors without bf16 instructions, where it multiplies in fp32 (``benchmarks/muon.py``);
- torch before 2.9.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.optim.sharded import is_sharded
from enerf.optim.table import check_number

MOMENTUM, ITERATIONS, EPS = 0.95, 5, 1e-7
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of one iteration: a X + b (X Xᵀ) X + c (X Xᵀ)² X
RMS = 0.2  # of an update at learning rate 1, as is typical of Adam
OPTIONS: dict[str, Any] = {
    **{"momentum": MOMENTUM, "nesterov": True, "ns_coefficients": COEFFICIENTS, "eps": EPS, "ns_steps": ITERATIONS},
    "adjust_lr_fn": "match_rms_adamw",
}  # of torch.optim.Muon
BF16_CPUS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # functions of torch.cpu
PRODUCTS = {"bf16": torch.bfloat16, "fp32": torch.float32}


@runtime_checkable
class MatrixView(Protocol):
    """How a parameter is read as matrices; ``conditioning.matrix_views`` has those of a model."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""

    @property
    def is_matrix(self) -> bool:
        """Whether the parameter is one matrix in torch's layout."""

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
    section 2.2). The entry ``products`` of the parameter groups is the type of factors in matrix products, ``bf16`` or
    ``fp32``.

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
    TypeError
        If ``lr`` or ``weight_decay`` is no number.
    ValueError
        If one of them is negative or not finite, or a parameter has another number of axes, holds complex numbers or
        integers, or, where ``torch.optim.Muon`` cannot be used, is distributed over processes.
    """
    has_torchs = hasattr(torch.optim, "Muon") and not views
    if has_torchs and any(is_sharded(each) or products_on(each.device) == "bf16" for each in matrices):
        check_number("lr", lr)
        check_number("weight_decay", weight_decay)
        for each in matrices:
            _check_dtype(each)
        found: torch.optim.Optimizer = torch.optim.Muon([*matrices], lr=lr, weight_decay=weight_decay, **OPTIONS)
        for group in found.param_groups:
            group["products"] = "bf16"
        return found
    return Muon(matrices, lr, weight_decay, views)


def products_on(device: torch.device) -> str:
    """The type of factors in which Muon multiplies: ``bf16``, but ``fp32`` on a processor that emulates bf16."""
    absent = bool  # for a function that this version of torch lacks: False
    has_bf16 = device.type != "cpu" or any(getattr(torch.cpu, name, absent)() for name in BF16_CPUS)
    return "bf16" if has_bf16 else "fp32"


class Muon(torch.optim.Optimizer):
    """Muon of parameters that are read as matrices; each matrix is orthogonalized by itself.

    Its state can be loaded into ``torch.optim.Muon``, and the other way round.

    Parameters
    ----------
    params
        Parameters, or parameter groups.
    lr, weight_decay, views
        As for ``muon``. Views of parameters of other groups are kept for ``add_param_group``.

    Raises
    ------
    TypeError, ValueError
        As for ``muon``; numbers of parameter groups too.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | int,
        weight_decay: float | int = 0.0,
        views: Mapping[nn.Parameter, MatrixView] | None = None,
    ) -> None:
        check_number("lr", lr)
        check_number("weight_decay", weight_decay)
        self.views = dict(views or {})
        super().__init__([*params], {"lr": lr, "weight_decay": weight_decay, **OPTIONS})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters.

        Raises
        ------
        TypeError, ValueError
            As for the class; nothing is added then.
        """
        for name in ("lr", "weight_decay"):
            if name in param_group:
                check_number(name, param_group[name])
        given = param_group["params"]
        parameters = [given] if isinstance(given, Tensor) else [*given]
        tensors = [item[1] if isinstance(item, tuple) else item for item in parameters]  # named parameters are pairs
        for each in tensors:
            self._check(each)
        products = products_on(tensors[0].device) if tensors else "bf16"
        super().add_param_group({"products": products, **param_group, "params": parameters})

    def _check(self, parameter: Tensor) -> None:
        shape, view = tuple(parameter.shape), self.views.get(parameter)  # type: ignore[call-overload]
        if view is None and len(shape) != 2:
            raise ValueError(f"a parameter has shape {shape} and no view; expected two axes")
        if view is not None and view.shape != shape:
            raise ValueError(f"a parameter has shape {shape}, and its view {view.shape}")
        if is_sharded(parameter):
            raise ValueError("a parameter is distributed over processes; expected whole ones")
        _check_dtype(parameter)

    def __getstate__(self) -> dict[str, Any]:
        """State for copies and pickles."""
        return {**super().__getstate__(), "views": self.views}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of ``torch.optim.Muon``; the type of products stays that of this device."""
        products = [group["products"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, own in zip(self.param_groups, products, strict=True):
            group["products"] = own

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters that have gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        if grad.is_sparse:
            raise RuntimeError("a gradient is sparse; Muon takes dense ones")
        state, view, lr = self.state[parameter], self.views.get(parameter), float(group["lr"])
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        momentum = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        direction = grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        polar = orthogonalized(
            direction if view is None else view.to_matrices(direction),
            group["ns_steps"],
            group["ns_coefficients"],
            group["eps"],
            PRODUCTS[group["products"]],
        )
        parameter.mul_(1 - lr * group["weight_decay"])
        scale = lr * _update_scale(polar.shape[-2], polar.shape[-1], group["adjust_lr_fn"])
        parameter.add_(polar if view is None else view.from_matrices(polar), alpha=-scale)


def _check_dtype(parameter: Tensor) -> None:
    """Raise a ValueError unless the parameter holds real floating-point numbers."""
    shape = tuple(parameter.shape)
    if parameter.is_complex():
        raise ValueError(f"a parameter of shape {shape} is complex; expected real numbers")
    if not parameter.is_floating_point():
        raise ValueError(f"a parameter of shape {shape} holds {parameter.dtype}; expected floating-point numbers")


def orthogonalized(
    matrices: Float[Tensor, "*batch n m"],
    ns_steps: int = ITERATIONS,
    ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: float = EPS,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*batch n m"]:
    """Approximate polar factors by Newton–Schulz iterations in a floating-point type (Jordan et al. 2024).

    With the default coefficients and five iterations, singular values above 0.0015 of the Frobenius norm become values
    between 0.68 and 1.2; norms below ``eps`` count as ``eps``.
    """
    a, b, c = ns_coefficients
    x = matrices.to(dtype)
    x = x.flatten(0, -3) if x.dim() > 2 else x[None]
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=eps)
    for _ in range(ns_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).reshape(matrices.shape)


def _update_scale(n_out: int, n_in: int, adjust_lr_fn: str | None) -> float:
    """Factor of an orthogonalized update at learning rate 1, by the rules of ``torch.optim.Muon``."""
    if adjust_lr_fn == "match_rms_adamw":
        return RMS * math.sqrt(max(n_out, n_in))
    return math.sqrt(max(1.0, n_out / n_in))
