"""Muon, which orthogonalizes the update of a matrix, with steps of Adam's size.

The momentum of each matrix is replaced by an approximation of its polar factor U Vᵀ, by five iterations of
Newton–Schulz (Jordan et al., Muon, 2024, kellerjordan.github.io/posts/muon), so that all singular values of the update
are about equal, whatever those of the gradient are. Meant for the hidden matrices of a network; inputs, outputs, biases
and gains are left to Adam.

Parameters that are matrices are updated by ``torch.optim.Muon``; those that hold matrices in another layout, such as
kernels of convolutions and packed projections of attention, by ``ViewedMuon``, with the same formula for each matrix.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor, nn

MOMENTUM, ITERATIONS = 0.95, 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of one iteration: a X + b (X Xᵀ) X + c (X Xᵀ)² X
SMALLEST_NORM = 1e-7  # of a matrix that is divided by its norm
RMS = 0.2  # of an update at learning rate 1, as is typical of Adam


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
    ImportError
        If this torch has no Muon.
    ValueError
        If a parameter has another number of axes, or a viewed one is distributed over processes.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(f"Muon needs torch 2.9 or later, and this is torch {torch.__version__}")
    if views:
        groups = [{"params": [*matrices], "views": [views.get(each) for each in matrices]}]
        return ViewedMuon(groups, lr=lr, weight_decay=weight_decay)
    found: torch.optim.Optimizer = torch.optim.Muon(
        [*matrices],
        lr=lr,
        weight_decay=weight_decay,
        momentum=MOMENTUM,
        nesterov=True,
        ns_steps=ITERATIONS,
        adjust_lr_fn="match_rms_adamw",
    )
    return found


class ViewedMuon(torch.optim.Optimizer):
    """Muon of parameters that are read as matrices; each matrix is orthogonalized by itself.

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
        super().__init__(
            [*groups], {"lr": lr, "weight_decay": weight_decay, "momentum": MOMENTUM, "ns_steps": ITERATIONS}
        )

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
            if hasattr(parameter, "device_mesh"):
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
        state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        direction = grad.lerp(state["momentum_buffer"], group["momentum"])  # Nesterov's
        polar = orthogonalized(direction if view is None else view.to_matrices(direction), group["ns_steps"])
        rate = group["lr"] * RMS * math.sqrt(max(polar.shape[-2:]))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(polar if view is None else view.from_matrices(polar), alpha=-rate)


def orthogonalized(
    matrices: Float[Tensor, "*batch n m"], iterations: int = ITERATIONS
) -> BFloat16[Tensor, "*batch n m"]:
    """Approximate polar factors by Newton–Schulz iterations in bf16 (Jordan et al. 2024), as ``torch.optim.Muon`` does.

    Their singular values lie between about 0.7 and 1.2, but for those below a thousandth of the matrix' norm.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16().flatten(0, -3) if matrices.dim() > 2 else matrices.bfloat16()[None]
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).reshape(matrices.shape)
