"""How a loss on one batch bends: its Hessian, its Gauss–Newton matrix.

Vocabulary
----------
- the **objective** is loss(model(inputs), targets) as a function of parameters: those that an optimiser sees, so of a
  conditioned model the raw ones and the learned gains;
- the **Hessian** H is its second derivative. It has eigenvalues of both signs;
- the **Gauss–Newton matrix** G = Jᵀ Λ J leaves out the bending of the model: J is the Jacobian of all outputs, Λ the
  second derivative of the loss with respect to them. If Λ has no negative eigenvalue (squared errors, cross-entropy),
  G has none either, and at most as many that are not 0 as there are outputs.

What can be compared
--------------------
λ_max mostly measures the scale of the weights: doubling raw weights under a map that undoes it divides their block of H
by four. So compare ratios, and at matched scale. The paper's κ(H), the largest over the smallest |λ|, is known only
where all eigenvalues are (``eigenvalues.dense`` and ``condition``): H of a network with ReLUs is singular up to
rounding, and iterations that work from outside never reach the middle of a spectrum. For large models there are λ_max
and the most negative λ (``eigenvalues.extremes``), and the condition number of G on its range
(``gauss_newton_spectrum``).

Operators come from curvlinops, of the extra ``diagnostics``; the rest needs torch alone. Models are asked in the mode
they are in; with batch norm that has to be evaluation mode.
"""

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
from enerf.conditioning.diagnostics.eigenvalues import extra
from enerf.conditioning.parametrization import Equilibrated

COLUMNS = 1 << 16  # of a Jacobian, multiplied at once in float64
BACKPROPAGATED = 10.0  # roundings of a gradient that has gone through a network, in units of its dtype's


@dataclass(frozen=True)
class Objective:
    """A loss on one batch, to be differentiated.

    Attributes
    ----------
    model
        inputs -> outputs, one row each for every row of the inputs.
    loss
        outputs, targets -> one number.
    inputs, targets
        The batch.
    parameters
        Parameters of the model, in this order; empty: all that require a gradient.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: Shaped[Tensor, "b ..."]
    targets: Shaped[Tensor, "b ..."]
    parameters: tuple[nn.Parameter, ...] = ()

    def free(self) -> list[nn.Parameter]:
        """The parameters that are meant."""
        return list(self.parameters) or [p for p in self.model.parameters() if p.requires_grad]

    def value(self) -> float:
        """The loss."""
        with torch.no_grad():
            return float(self.loss(self.model(self.inputs), self.targets))


def hessian(objective: Objective) -> Any:
    """The Hessian as an operator: each product is a derivative of the gradient, in forward mode.

    ``see_through_`` the model first if it may hold detached maps, weight norm or preconditioned gradients.

    Raises
    ------
    ImportError
        If the extra is missing.
    """
    return _operator("HessianLinearOperator", objective)


def gauss_newton(objective: Objective) -> Any:
    """The Gauss–Newton matrix as an operator. As for ``hessian``, see through the model first.

    Raises
    ------
    ImportError
        If the extra is missing.

    References
    ----------
    Schraudolph, Fast curvature matrix-vector products, Neural Computation 14, 2002.
    """
    return _operator("GGNLinearOperator", objective)


def gauss_newton_spectrum(objective: Objective) -> Float[Tensor, " k"]:
    """All eigenvalues of the Gauss–Newton matrix that need not be 0, largest first, exactly, in float64.

    Those of Λ½ J Jᵀ Λ½, which is as large as there are outputs, are the same. Needs J, whose size is outputs times
    parameters; what an output does not depend on takes no room. Outputs of different rows must not depend on one
    another's inputs. Values below ``rounding`` are noise.

    Raises
    ------
    ValueError
        If the loss bends downwards in its outputs (Λ has a negative eigenvalue).
    """
    parameters = objective.free()
    outputs, jacobian = _jacobian(objective, parameters)
    gram = torch.zeros(len(jacobian), len(jacobian), dtype=torch.float64, device=outputs.device)
    for i in range(len(parameters)):
        found = {r: gradient for r, gradients in enumerate(jacobian) if (gradient := gradients[i]) is not None}
        if found:
            index = torch.tensor(list(found), device=gram.device)
            block = torch.stack([gradient.flatten() for gradient in found.values()])
            products = sum(part @ part.T for part in (chunk.double() for chunk in block.split(COLUMNS, 1)))
            gram[index[:, None], index] += products
    root = _root(_second_derivative(objective, outputs))
    values = torch.linalg.eigvalsh(root @ gram @ root).flip(0).clamp(min=0.0)
    return values[: min(len(values), sum(p.numel() for p in parameters))]


def rounding(spectrum: Float[Tensor, " k"], dtype: torch.dtype) -> float:
    """Below this, eigenvalues of ``gauss_newton_spectrum`` are noise, if the gradients were of that dtype.

    J is known up to a few roundings of its entries, which move its singular values by no more than that share of its
    Frobenius norm; eigenvalues are their squares.
    """
    of_gradients = (BACKPROPAGATED * torch.finfo(dtype).eps) ** 2 * float(spectrum.sum())
    of_products = len(spectrum) * torch.finfo(torch.float64).eps * float(spectrum.max())
    return max(of_gradients, of_products)


def see_through_(model: nn.Module) -> None:
    """Let the loss be differentiated as a function of the raw weights from now on, whatever training makes of it.

    Maps with detached divisors are seen through: the loss is the same function of the raw weights, but only so does
    autograd take its derivatives. Divisors that are held for several steps stay constants. torch's weight norm and its
    group normalisation, which forward mode does not know, are written out. Preconditioners of gradients are taken away,
    with their statistics. So do it to a copy that is not trained, after its weights are loaded.
    """
    for module in list(model.modules()):
        if type(module) is nn.GroupNorm:
            module.__class__ = _WrittenOutGroupNorm
        if isinstance(module, Equilibrated):
            module.gradient = "through"
        if batch_norm.is_preconditioned(module):
            batch_norm.restore_(module)
        if isinstance(module, parametrize.ParametrizationList):
            for i, step in enumerate(module):
                if isinstance(step, parametrizations._WeightNorm):
                    module[i] = _WeightNorm(step.dim)


class _WeightNorm(nn.Module):
    """Weight normalisation as a formula."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, length: Tensor, direction: Tensor) -> Tensor:
        others = [axis for axis in range(direction.dim()) if axis != self.dim]
        return length * direction / torch.linalg.vector_norm(direction, dim=others, keepdim=True)


class _Loss(nn.Module):
    """A loss as curvlinops wants it: a module with a ``reduction``. There is one batch, so nothing is rescaled."""

    reduction = "sum"

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(outputs, targets)


def _operator(kind: str, objective: Objective) -> Any:
    batch = [(objective.inputs, objective.targets)]
    made = getattr(extra("curvlinops"), kind)
    _wake_forward_mode()
    return made(
        objective.model,
        _Loss(objective.loss),
        objective.free(),
        batch,
        check_deterministic=False,  # it would draw from torch's global random numbers
        num_data=len(objective.inputs),
    )


def _jacobian(objective: Objective, parameters: list[nn.Parameter]) -> tuple[Tensor, list[Sequence[Tensor | None]]]:
    """The outputs, and for each of their numbers its gradient by parameters, None where it depends on none."""
    outputs: list[Tensor] = []
    jacobian: list[Sequence[Tensor | None]] = []
    for row in objective.inputs.split(1):
        made = objective.model(row)
        outputs.append(made.detach())
        for number in made.flatten():
            jacobian.append(torch.autograd.grad(number, parameters, retain_graph=True, allow_unused=True))
    return torch.cat(outputs), jacobian


def _second_derivative(objective: Objective, outputs: Tensor) -> Tensor:
    """Λ: of the loss with respect to all numbers of the outputs."""

    def loss(flat: Tensor) -> Tensor:
        return objective.loss(flat.reshape(outputs.shape), objective.targets)

    _wake_forward_mode()
    return torch.func.hessian(loss)(outputs.flatten()).double()


@cache
def _wake_forward_mode() -> None:
    """Let torch load what it needs for forward mode, without the warnings that this raises within torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


def _root(matrix: Tensor) -> Tensor:
    """Square root of a matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    if float(values.min()) < -1e-5 * float(values.abs().max()):
        raise ValueError("the loss bends downwards in the model's outputs: its Gauss–Newton matrix has no square root")
    return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T


class _WrittenOutGroupNorm(nn.GroupNorm):
    """Group normalisation of products and sums, which forward mode knows the second derivatives of."""

    def forward(self, input: Tensor) -> Tensor:
        """What ``nn.GroupNorm`` computes."""
        grouped = input.reshape(len(input), self.num_groups, -1)
        variance, mean = torch.var_mean(grouped, 2, correction=0, keepdim=True)
        normal = ((grouped - mean) * (variance + self.eps).rsqrt()).reshape(input.shape)
        if not self.affine:
            return normal
        shape = (-1, *[1] * (input.ndim - 2))
        return normal * self.weight.reshape(shape) + self.bias.reshape(shape)
