"""Ruiz equilibration: rows and columns scaled alternately until convergence. Vocabulary as in ``maps``."""

import math

import torch
from jaxtyping import Float
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
    allow. Rows and columns with norms below the floor are not iterated on.

    Parameters
    ----------
    weight, gradient, p
        As for ``row``. ``"through"`` differentiates all the sweeps.
    tolerance
        Largest relative error of a norm, matrix by matrix.
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
    target = 1.0 if p == math.inf else weight.shape[-1] / weight.shape[-2]
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


def _alternating(
    powers: Tensor, x: Tensor, y: Tensor, active_in: Tensor, active_out: Tensor, target: float
) -> tuple[Tensor, Tensor]:
    """One sweep of Sinkhorn and Knopp: outputs, then inputs; returns the updated ``x`` and ``y``."""
    sums = (powers * x).sum(-1, keepdim=True)
    y = torch.where(active_out, target / _ones_unless(active_out, sums), y)
    sums = (powers * y).sum(-2, keepdim=True)
    return torch.where(active_in, 1 / _ones_unless(active_in, sums), x), y


def _simultaneous(
    powers: Tensor, x: Tensor, y: Tensor, active_in: Tensor, active_out: Tensor, target: float
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
