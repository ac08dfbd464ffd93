"""Ruiz equilibration: rows and columns scaled alternately until convergence. Vocabulary as in ``maps``."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from enerf.conditioning import norms
from enerf.conditioning.norms import FLOOR

TOLERANCE, SWEEPS = 1e-4, 30  # largest relative error of a norm, and maximum number of sweeps


def ruiz(
    weight: Float[Tensor, "*batch n_out n_in"],
    gradient: str = "through",
    p: float | int = 2.0,
    *,
    tolerance: float = TOLERANCE,
    sweeps: int = SWEEPS,
) -> Float[Tensor, "*batch n_out n_in"]:
    """Scale rows and columns together: each input gets norm 1, and each output norm (n_in / n_out)^(1/p).

    The limit of repeated row-column equilibration, at the scale of ``row``: for p = 2 its Frobenius norm is √n_in.
    Idempotent up to the tolerance and invariant to positive scaling of any row and any column. For p = 1 and 2 the
    limit is unique where it exists, and is reached by alternating sweeps (Sinkhorn, Knopp), which converge faster than
    Ruiz' simultaneous square roots; for p = ∞ it is not unique, and Ruiz' own steps are used. It does not exist for
    some patterns of zeros (e.g. a triangle): then the inputs have norm 1 and the outputs are as close as ``sweeps``
    allow. So it is, with a limit, where convergence is slow: the error falls by σ₂² per sweep, σ₂ being the second
    singular value of the limit of the matrix of p-th powers. It is near 1 for matrices that are nearly triangular or
    fall nearly into blocks: σ₂² is 0.96 for [[1, 0.01], [0.9, 1]], whose error after 30 sweeps is 7e-3. ``balance``
    returns the error and whether it is within the tolerance. Rows and columns with norms below the floor are not
    iterated on.

    Parameters
    ----------
    weight, gradient, p
        As for ``row``. ``"through"`` differentiates all the sweeps.
    tolerance
        Largest relative error of a norm at which the sweeps of a matrix end.
    sweeps
        Maximum number of sweeps. Where convergence cannot be tested without a synchronization (on a GPU, under
        ``torch.compile`` or ``vmap``) all of them are done; a matrix that has converged no longer changes.

    Raises
    ------
    ValueError
        As for ``row``.

    References
    ----------
    Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices, RAL-TR-2001-034; Sinkhorn, Knopp,
    Pacific J. Math. 21, 1967; Knopp, Ruiz, Uçar, SIAM J. Matrix Anal. Appl. 35, 2014.

    Examples
    --------
    >>> balanced = ruiz(torch.tensor([[1.0, 100.0], [0.5, 3.0]]))
    >>> balanced.norm(dim=0).round(decimals=3), balanced.norm(dim=1).round(decimals=3)
    (tensor([1., 1.]), tensor([1., 1.]))
    """
    return norms.divided(weight, *ruiz_divisors(weight, p, tolerance, sweeps), gradient, p)


def ruiz_divisors(
    weight: Float[Tensor, "*batch n_out n_in"],
    p: float | int = 2.0,
    tolerance: float = TOLERANCE,
    sweeps: int = SWEEPS,
) -> tuple[Float[Tensor, "*batch 1 n_in"], Float[Tensor, "*batch n_out 1"]]:
    """Divisors of inputs and outputs used by ``ruiz``, which are the only values that the sweeps update."""
    norms.check("through", p)
    of_inputs = norms.floored(weight, -2, p)
    scaled = weight / of_inputs
    of_outputs = norms.floored(scaled, -1, p)
    magnitudes = (scaled / of_outputs).abs()
    # divisors at the floor stay there
    active_in, active_out = (of_inputs > FLOOR).detach(), (of_outputs > FLOOR).detach()
    powers = magnitudes if p == math.inf else magnitudes**p
    target = _target(active_in, active_out, weight.dtype)
    x, y = torch.ones_like(of_inputs), torch.ones_like(of_outputs)  # factors of inputs and outputs, to the power p
    done = torch.zeros_like(x[..., :1], dtype=torch.bool)
    step = _simultaneous if p == math.inf else _alternating
    for _ in range(sweeps):
        new_x, new_y = step(powers, x, y, active_in, active_out, target)
        error = torch.maximum(
            (new_x / x - 1).abs().amax(-1, keepdim=True), (new_y / y - 1).abs().amax(-2, keepdim=True)
        )
        x, y = torch.where(done, x, new_x), torch.where(done, y, new_y)
        done = done | (error.detach() <= tolerance)
        if _all_done(done):
            break
    root = 1.0 if p == math.inf else 1 / p
    return of_inputs / x**root, of_outputs / y**root


class Balance(NamedTuple):
    """Result of ``balance``.

    Attributes
    ----------
    of_inputs, of_outputs
        The divisors; see ``ruiz_divisors``.
    error
        Largest relative error of a norm of each matrix; NaN where the matrix is not finite.
    converged
        Whether the error is at most the tolerance.
    """

    of_inputs: Float[Tensor, "*batch 1 n_in"]
    of_outputs: Float[Tensor, "*batch n_out 1"]
    error: Float[Tensor, "*batch"]
    converged: Bool[Tensor, "*batch"]


def balance(
    weight: Float[Tensor, "*batch n_out n_in"],
    p: float | int = 2.0,
    tolerance: float = TOLERANCE,
    sweeps: int = SWEEPS,
) -> Balance:
    """Divisors used by ``ruiz`` with the same arguments, and how well they balance each matrix.

    Raises
    ------
    ValueError
        As for ``ruiz``.

    Examples
    --------
    >>> slow = torch.tensor([[1.0, 0.01], [0.9, 1.0]])
    >>> balance(slow).converged, balance(slow, sweeps=500).converged
    (tensor(False), tensor(True))
    """
    of_inputs, of_outputs = ruiz_divisors(weight, p, tolerance, sweeps)
    scaled = weight / of_inputs / of_outputs
    first = norms.floored(weight, -2, p)
    active_in, active_out = first > FLOOR, norms.floored(weight / first, -1, p) > FLOOR
    target = 1.0 if p == math.inf else _target(active_in, active_out, weight.dtype) ** (1 / p)
    errors = []
    for dim, wanted, active in ((-2, 1.0, active_in), (-1, target, active_out)):
        wrong = (torch.linalg.vector_norm(scaled, ord=p, dim=dim, keepdim=True) / wanted - 1).abs()
        errors.append(torch.where(active | wrong.isnan(), wrong, 0.0).flatten(-2).amax(-1))
    error = torch.maximum(*errors)
    return Balance(of_inputs, of_outputs, error, error <= tolerance)


def _target(active_in: Tensor, active_out: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum of p-th powers of an output if that of an input is 1: number of active inputs over active outputs.

    All count where none is active, so that the sum stays above 0.
    """
    exact = torch.promote_types(dtype, torch.float32)
    inputs, outputs = active_in.sum(-1, keepdim=True), active_out.sum(-2, keepdim=True)
    inputs = torch.where(inputs > 0, inputs, active_in.shape[-1])
    outputs = torch.where(outputs > 0, outputs, active_out.shape[-2])
    return (inputs.to(exact) / outputs.to(exact)).to(dtype)


def _alternating(
    powers: Tensor, x: Tensor, y: Tensor, active_in: Tensor, active_out: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """One sweep of Sinkhorn and Knopp: outputs, then inputs; returns the updated ``x`` and ``y``."""
    sums = (powers * x).sum(-1, keepdim=True)
    y = torch.where(active_out, target / _ones_unless(active_out, sums), y)
    sums = (powers * y).sum(-2, keepdim=True)
    return torch.where(active_in, 1 / _ones_unless(active_in, sums), x), y


def _simultaneous(
    powers: Tensor, x: Tensor, y: Tensor, active_in: Tensor, active_out: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of Ruiz: inputs and outputs together, by the square roots of their largest entries."""
    scaled = powers * x * y
    of_inputs = _ones_unless(active_in, scaled.amax(-2, keepdim=True))
    of_outputs = _ones_unless(active_out, scaled.amax(-1, keepdim=True))
    return x / of_inputs.sqrt(), y / of_outputs.sqrt()


def _ones_unless(active: Tensor, sums: Tensor) -> Tensor:
    """Sums where active and positive, else 1, so that values and gradients stay finite."""
    return torch.where(active & (sums > 0), sums, 1.0)


def _all_done(done: Tensor) -> bool:
    """Whether all matrices have converged; False where testing it would synchronize or break a transformation."""
    if done.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    try:
        return bool(done.all())
    except RuntimeError:  # values cannot be read inside vmap
        return False
