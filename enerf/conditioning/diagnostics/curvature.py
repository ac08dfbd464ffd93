"""Curvature of the mini-batch loss: Hessian and Gauss–Newton matrix.

Vocabulary
----------
- the **objective** is loss(model(inputs), targets) as a function of the parameters that an optimizer updates: for a
  conditioned model the raw weights and the learned gains;
- the **Hessian** H is its second derivative. It has eigenvalues of both signs;
- the **Gauss–Newton matrix** G = Jᵀ Λ J omits the second derivative of the model: J is the Jacobian of all outputs, Λ
  the second derivative of the loss with respect to them. If Λ has no negative eigenvalue (squared errors,
  cross-entropy), neither has G, and its rank is at most the number of outputs.

What can be compared
--------------------
λ_max mostly measures the scale of the weights: doubling raw weights under a scale-invariant map divides their block of
H by four. So compare ratios, and at matched scale. The paper's κ(H), the largest over the smallest |λ|, requires all
eigenvalues (``eigenvalues.dense`` and ``condition_number_above``): H of a network with ReLUs is singular up to
rounding, and Krylov iterations do not converge to the middle of a spectrum. For large models use λ_max and the most
negative λ (``eigenvalues.extremes``), and the condition number of G on its range (``gauss_newton_spectrum``).

Operators come from curvlinops, of the extra ``diagnostics``; the rest needs torch alone. The model is evaluated in its
current mode; with batch norm that must be evaluation mode.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from enerf.conditioning import batch_norm
from enerf.conditioning.diagnostics.eigenvalues import import_extra, symmetric_eigenvalues
from enerf.conditioning.interface import Parametrization, require_module
from enerf.conditioning.parametrization import Equilibrated

COLUMNS = 1 << 16  # columns of a Jacobian that are multiplied at a time in float64
BACKPROPAGATED = 10.0  # relative rounding error of a backpropagated gradient, in units of its dtype's epsilon


@dataclass(frozen=True)
class Objective:
    """A loss on one batch as a function of parameters.

    Attributes
    ----------
    model
        inputs -> outputs, one output row per input row.
    loss
        outputs, targets -> scalar.
    inputs, targets
        The batch.
    parameters
        Parameters to differentiate by, in this order; if empty, all that require a gradient.

    Raises
    ------
    TypeError
        If the model is no module, or a parameter is none.
    ValueError
        If a parameter is not one of the model or is frozen, or if there is none.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: Shaped[Tensor, "b ..."]
    targets: Shaped[Tensor, "b ..."]
    parameters: tuple[nn.Parameter, ...] = ()

    def __post_init__(self) -> None:
        require_module(self.model)
        known = {id(parameter) for parameter in self.model.parameters()}
        for parameter in self.parameters:
            if not isinstance(parameter, nn.Parameter):
                raise TypeError(f"parameters holds {parameter!r}; expected parameters of the model")
            if id(parameter) not in known or not parameter.requires_grad:
                problem = "is frozen" if id(parameter) in known else "is not one of the model"
                raise ValueError(f"a parameter of shape {tuple(parameter.shape)} {problem}; expected trained ones")
        if not self.free_parameters():
            raise ValueError("the model has no trained parameters, expected at least one with requires_grad")

    def scalar(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of outputs.

        Raises
        ------
        ValueError
            If it is not a scalar.
        """
        found = self.loss(outputs, targets)
        if found.dim():
            raise ValueError(f"the loss has shape {tuple(found.shape)}, expected a scalar: is a reduction missing?")
        return found

    def free_parameters(self) -> list[nn.Parameter]:
        """The parameters to differentiate by."""
        return list(self.parameters) or [p for p in self.model.parameters() if p.requires_grad]

    def value(self) -> float:
        """The loss."""
        with torch.no_grad():
            return float(self.scalar(self.model(self.inputs), self.targets))


def hessian(objective: Objective) -> Any:
    """The Hessian as a linear operator: a product is the forward-mode derivative of the gradient.

    Apply ``make_differentiable_`` to the model first if it may contain detached maps, weight norm, group norm or
    preconditioners.

    Raises
    ------
    ImportError
        If the extra ``diagnostics`` is not installed.
    ValueError
        If the model has a layer that ``make_differentiable_`` would change, or spectral norm in training mode.
    """
    _require_differentiable(objective.model)
    return _operator("HessianLinearOperator", objective)


def gauss_newton(objective: Objective) -> Any:
    """The Gauss–Newton matrix as a linear operator; apply ``make_differentiable_`` first, as for ``hessian``.

    Raises
    ------
    ImportError
        If the extra ``diagnostics`` is not installed.
    ValueError
        As for ``hessian``.

    References
    ----------
    Schraudolph, Fast curvature matrix-vector products, Neural Computation 14, 2002.
    """
    _require_differentiable(objective.model)
    return _operator("GGNLinearOperator", objective)


def gauss_newton_spectrum(objective: Objective) -> Float[Tensor, " k"]:
    """Eigenvalues of the Gauss–Newton matrix, largest first, in float64; at most as many as there are outputs.

    Computed as those of Λ½ J Jᵀ Λ½, which has one row per output; all other eigenvalues are 0. Stores J (outputs ×
    parameters) except for parameters that an output does not depend on. Outputs of different rows must not depend on
    one another's inputs. Values below ``rounding`` are noise. NaN if the outputs are not finite.

    Raises
    ------
    ValueError
        If the loss is not convex in the outputs (Λ has a negative eigenvalue), or the model has detached maps,
        preconditioners, or spectral norm in training mode.
    """
    _require_differentiable(objective.model, forward_mode=False)
    parameters = objective.free_parameters()
    outputs, jacobian = _jacobian(objective, parameters)
    n = min(len(jacobian), sum(p.numel() for p in parameters))
    if not outputs.isfinite().all():
        return torch.full((n,), torch.nan, dtype=torch.float64, device=outputs.device)
    gram = torch.zeros(len(jacobian), len(jacobian), dtype=torch.float64, device=outputs.device)
    for i in range(len(parameters)):
        found = {r: gradient for r, gradients in enumerate(jacobian) if (gradient := gradients[i]) is not None}
        if found:
            index = torch.tensor(list(found), device=gram.device)
            block = torch.stack([gradient.flatten() for gradient in found.values()])
            products = sum(part @ part.T for part in (chunk.double() for chunk in block.split(COLUMNS, 1)))
            gram[index[:, None], index] += products
    root = _root(_second_derivative(objective, outputs))
    return symmetric_eigenvalues(root @ gram @ root).flip(0).clamp(min=0.0)[:n]


def rounding(spectrum: Float[Tensor, " k"], dtype: torch.dtype) -> float:
    """Noise level of ``gauss_newton_spectrum`` for gradients of that dtype: smaller eigenvalues are rounding errors.

    Relative rounding errors of the entries of J change its singular values by at most the same fraction of its
    Frobenius norm; eigenvalues are their squares.
    """
    of_gradients = (BACKPROPAGATED * torch.finfo(dtype).eps) ** 2 * float(spectrum.sum())
    of_products = len(spectrum) * torch.finfo(torch.float64).eps * float(spectrum.max())
    return max(of_gradients, of_products)


def make_differentiable_(model: nn.Module) -> None:
    """Make the loss twice differentiable as a function of the raw weights, in place, without changing its value.

    Detached divisors are differentiated; divisors that are cached for several steps stay constants. torch's weight norm
    and group normalization, which do not support forward mode, are replaced by explicit formulas; the latter by
    changing its class to a subclass, so that the module, its hooks and its parameters remain. Preconditioners of
    gradients are removed, with their statistics. Meant for a copy that is not trained, after its weights are loaded.
    """
    require_module(model)
    for module in list(model.modules()):
        if type(module) is nn.GroupNorm:
            module.__class__ = _ExplicitGroupNorm
        if isinstance(module, Equilibrated):
            module.gradient = "through"
        if batch_norm.is_preconditioned(module):
            batch_norm.restore_(module)
        if isinstance(module, parametrize.ParametrizationList):
            for i, step in enumerate(module):
                if _is_fused_weight_norm(step):
                    is_ours, dim = isinstance(step, Parametrization), vars(step)["dim"]
                    module[i] = _ConditionedWeightNorm(dim) if is_ours else _ExplicitWeightNorm(dim)


def _require_differentiable(model: nn.Module, forward_mode: bool = True) -> None:
    """Raise a ValueError for layers whose derivatives are not those of the function, or fail in forward mode."""
    for name, module in model.named_modules():
        problem = None
        if isinstance(module, Equilibrated) and module.gradient == "detached":
            problem = "a map with gradient='detached'"
        elif batch_norm.is_preconditioned(module):
            problem = "a preconditioner of gradients"
        elif forward_mode and type(module) is nn.GroupNorm:
            problem = "group normalization, which has no derivatives in forward mode"
        elif forward_mode and _is_fused_weight_norm(module):
            problem = "torch's weight norm, which has no derivatives in forward mode"
        elif isinstance(module, parametrizations._SpectralNorm) and module.training:
            raise ValueError(f"{name} is spectral norm in training mode, where each call changes it: use model.eval()")
        if problem is not None:
            path = name.partition("parametrizations")[0].rstrip(".")
            raise ValueError(f"{path or 'the model'} has {problem}: apply make_differentiable_ to a copy of the model")


class _ExplicitWeightNorm(parametrizations._WeightNorm):
    """Weight normalization as an explicit formula."""

    def forward(self, length: Tensor, direction: Tensor) -> Tensor:
        others = [axis for axis in range(direction.dim()) if axis != self.dim]
        return length * direction / torch.linalg.vector_norm(direction, dim=others, keepdim=True)


class _ConditionedWeightNorm(_ExplicitWeightNorm, Parametrization):
    """The same in the place of a weight normalization that ``condition`` has applied."""

    method = "weight_norm"


def _is_fused_weight_norm(step: nn.Module) -> bool:
    """Whether it is torch's weight normalization with its fused operation, which has no forward mode."""
    return isinstance(step, parametrizations._WeightNorm) and not isinstance(step, _ExplicitWeightNorm)


class _Loss(nn.Module):
    """A loss as curvlinops requires it: a module with a ``reduction``, which has no effect with a single batch."""

    reduction = "sum"

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets)


def _operator(name: str, objective: Objective) -> Any:
    batch = [(objective.inputs, objective.targets)]
    operator_class = getattr(import_extra("curvlinops"), name)
    _initialize_forward_mode()
    return operator_class(
        objective.model,
        _Loss(objective.scalar),
        objective.free_parameters(),
        batch,
        check_deterministic=False,  # the check would draw from torch's global generator
        num_data=len(objective.inputs),
    )


def _jacobian(objective: Objective, parameters: list[nn.Parameter]) -> tuple[Tensor, list[Sequence[Tensor | None]]]:
    """The outputs, and the gradients of each of their entries; None for parameters that it does not depend on."""
    outputs: list[Tensor] = []
    jacobian: list[Sequence[Tensor | None]] = []
    for row in objective.inputs.split(1):
        output = objective.model(row)
        outputs.append(output.detach())
        for entry in output.flatten():
            jacobian.append(torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True))
    return torch.cat(outputs), jacobian


def _second_derivative(objective: Objective, outputs: Tensor) -> Tensor:
    """Λ, the second derivative of the loss with respect to all entries of the outputs."""

    def loss(flat: Tensor) -> Tensor:
        return objective.scalar(flat.reshape(outputs.shape), objective.targets)

    _initialize_forward_mode()
    return torch.func.hessian(loss)(outputs.flatten()).double()


@cache
def _initialize_forward_mode() -> None:
    """Load the torch modules of forward mode, without the warnings that torch raises while loading them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


def _root(matrix: Tensor) -> Tensor:
    """Square root of a positive semidefinite matrix; NaN throughout if an entry is not finite."""
    if not matrix.isfinite().all():
        return torch.full_like(matrix, math.nan)
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    if float(values.min()) < -1e-5 * float(values.abs().max()):
        raise ValueError("the loss is not convex in the model's outputs: its Gauss–Newton matrix has no square root")
    return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T


class _ExplicitGroupNorm(nn.GroupNorm):
    """Group normalization as an explicit formula, which supports second derivatives in forward mode."""

    def forward(self, input: Tensor) -> Tensor:
        """Compute the outputs of ``nn.GroupNorm``."""
        grouped = input.reshape(len(input), self.num_groups, -1)
        variance, mean = torch.var_mean(grouped, 2, correction=0, keepdim=True)
        normal = ((grouped - mean) * (variance + self.eps).rsqrt()).reshape(input.shape)
        if not self.affine:
            return normal
        shape = (-1, *[1] * (input.ndim - 2))
        return normal * self.weight.reshape(shape) + self.bias.reshape(shape)
