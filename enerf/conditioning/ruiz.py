"""Matrices balanced both ways: row-column equilibration repeated until it stands still. Words as in ``equilibrate``."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.conditioning import norms
from enerf.conditioning.norms import FLOOR

TOLERANCE, SWEEPS = 1e-4, 30  # the largest relative error of a norm, and the most sweeps


def ruiz(
    weight: Float[Tensor, "*batch n_out n_in"],
    gradient: str = "through",
    p: float | int = 2.0,
    *,
    tolerance: float = TOLERANCE,
    sweeps: int = SWEEPS,
) -> Float[Tensor, "*batch n_out n_in"]:
    """Weights balanced both ways: inputs of norm 1, and outputs of norm (n_in / n_out)^(1/p), all at once.

    The limit of row-column equilibration repeated, with the scale of ``row``: for p = 2 its Frobenius norm is √n_in.
    Idempotent up to the tolerance and blind to a positive scaling of any row and any column. For p = 1 and 2 the
    limit is unique wherever it exists, and it is reached by alternating sweeps (Sinkhorn, Knopp), which need fewer of
    them than Ruiz' simultaneous square roots; for p = ∞ it is not, and Ruiz' own steps are taken. It does not exist
    for some patterns of zeros (a triangle, say): then the inputs have their norms and the outputs come as near as
    ``sweeps`` allow. Rows and columns below the floor take no part.

    Parameters
    ----------
    weight, gradient, p
        As for ``row``. ``"through"`` differentiates all the sweeps.
    tolerance
        Largest relative error of a norm, matrix by matrix.
    sweeps
        Most sweeps. Where the values cannot be looked at (a GPU's, while compiling or mapping over a batch) all of
        them are made; a matrix that has converged no longer changes.

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
    """What ``ruiz`` divides inputs and outputs by; all that is repeated works on vectors."""
    norms.check("through", p)
    of_inputs = norms.floored(weight, -2, p)
    once = weight / of_inputs
    of_outputs = norms.floored(once, -1, p)
    magnitudes = (once / of_outputs).abs()
    # below the floor a divisor is the floor, and stays it
    live_in, live_out = (of_inputs > FLOOR).detach(), (of_outputs > FLOOR).detach()
    powers = magnitudes if p == math.inf else magnitudes**p
    target = 1.0 if p == math.inf else weight.shape[-1] / weight.shape[-2]
    x, y = torch.ones_like(of_inputs), torch.ones_like(of_outputs)  # factors of inputs and outputs, to the power p
    done = torch.zeros_like(x[..., :1], dtype=torch.bool)
    step = _simultaneous if p == math.inf else _alternating
    for _ in range(sweeps):
        new_x, new_y = step(powers, x, y, live_in, live_out, target)
        error = torch.maximum(
            (new_x / x - 1).abs().amax(-1, keepdim=True), (new_y / y - 1).abs().amax(-2, keepdim=True)
        )
        x, y = torch.where(done, x, new_x), torch.where(done, y, new_y)
        done = done | (error.detach() <= tolerance)
        if _all_seen(done):
            break
    root = 1.0 if p == math.inf else 1 / p
    return of_inputs / x**root, of_outputs / y**root


def _alternating(
    powers: Tensor, x: Tensor, y: Tensor, live_in: Tensor, live_out: Tensor, target: float
) -> tuple[Tensor, Tensor]:
    """One sweep of Sinkhorn and Knopp: outputs, then inputs."""
    sums = (powers * x).sum(-1, keepdim=True)
    y = torch.where(live_out, target / _ones_unless(live_out, sums), y)
    sums = (powers * y).sum(-2, keepdim=True)
    return torch.where(live_in, 1 / _ones_unless(live_in, sums), x), y


def _simultaneous(
    powers: Tensor, x: Tensor, y: Tensor, live_in: Tensor, live_out: Tensor, target: float
) -> tuple[Tensor, Tensor]:
    """One step of Ruiz: inputs and outputs at once, by the square roots of their largest entries."""
    scaled = powers * x * y
    of_inputs = _ones_unless(live_in, scaled.amax(-2, keepdim=True))
    of_outputs = _ones_unless(live_out, scaled.amax(-1, keepdim=True))
    return x / of_inputs.sqrt(), y / of_outputs.sqrt()


def _ones_unless(live: Tensor, sums: Tensor) -> Tensor:
    """Sums of what takes part; 1 in place of the others and of zeros, so that neither values nor gradients break."""
    return torch.where(live & (sums > 0), sums, 1.0)


def _all_seen(done: Tensor) -> bool:
    """Whether all is done, where that can be seen without waiting for a device or breaking a transformation."""
    if done.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    try:
        return bool(done.all())
    except RuntimeError:  # inside vmap no value can be looked at
        return False
