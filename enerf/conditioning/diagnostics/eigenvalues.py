"""Eigenvalues of symmetric matrices of which only products are known: extremes, density, condition number.

Vocabulary
----------
- an **operator** is such a matrix: anything with ``shape``, ``dtype``, ``device`` and ``@``; a tensor is one, and so is
  what curvlinops makes. Its products may be float32: vectors and sums are float64 in any case;
- a **density** is a few positions λ with weights, which stand for all eigenvalues.

``extremes`` needs SciPy; the rest needs torch alone.
"""

import importlib
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

MISSING = (
    'Hessians and their extremes need curvlinops and SciPy: pip install "enerf[diagnostics]"; singular values, κ and '
    "row norms of layers work without them"
)
DENSE_UP_TO = 64  # eigenvalues of operators of that size are computed from all their columns


@dataclass(frozen=True)
class Extremes:
    """Eigenvalues at both ends.

    Attributes
    ----------
    smallest, largest
        From the outside inwards: the most negative first, the largest first.
    converged
        Whether they are as exact as was asked for; if not, they are the best estimates, and lie too far inwards.
    products
        How many products with vectors that took.
    """

    smallest: tuple[float, ...]
    largest: tuple[float, ...]
    converged: bool
    products: int


@dataclass(frozen=True)
class Density:
    """A spectral density as points and weights: a sample of eigenvalues that stands for all of them.

    Attributes
    ----------
    values, weights
        Positions, and the share of eigenvalues that each stands for; the shares add up to 1.
    size
        Number of all eigenvalues.
    """

    values: Float[Tensor, " m"]
    weights: Float[Tensor, " m"]
    size: int

    def moment(self, power: int) -> float:
        """Mean of λ to a power; times ``size`` it estimates the trace of that power of the matrix."""
        return float((self.weights * self.values**power).sum())

    def smoothed(self, at: Float[Tensor, " n"], width: float) -> Float[Tensor, " n"]:
        """The density at some λ if each point is a Gaussian of that standard deviation; it integrates to 1."""
        bells = torch.exp(-0.5 * ((at[:, None] - self.values) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        return (bells * self.weights).sum(-1)


def condition(values: Float[Tensor, " n"], floor: float | int) -> tuple[float, int]:
    """Largest over smallest magnitude of the values above ``floor``, and how many they are; (inf, 0) if none is.

    >>> condition(torch.tensor([8.0, -2.0, 1e-20]), 1e-9)
    (4.0, 2)
    """
    magnitudes = values.abs()
    kept = magnitudes[magnitudes > floor]
    return (float(kept.max() / kept.min()), len(kept)) if len(kept) else (math.inf, 0)


def extremes(operator: Any, k: int = 1, *, tolerance: float = 1e-3, restarts: int = 10, seed: int = 0) -> Extremes:
    """The ``k`` smallest and the ``k`` largest eigenvalues, by ARPACK's restarted Lanczos iteration in float64.

    Parameters
    ----------
    operator
        Symmetric.
    k
        How many at each end.
    tolerance
        Relative accuracy of each.
    restarts
        Most restarts, of about 15 products each. If they are not enough, the values of one long iteration without
        restarts are given instead, which are the best that so many products can tell.
    seed
        Of the vector to start from: equal seeds, equal results.

    Raises
    ------
    ImportError
        If the extra is missing.

    References
    ----------
    Lehoucq, Sorensen, Yang, ARPACK users' guide, SIAM 1998.
    """
    n = operator.shape[0]
    if n <= max(DENSE_UP_TO, 4 * k):
        values = torch.linalg.eigvalsh(dense(operator)).tolist()
        return Extremes(tuple(values[:k]), tuple(values[::-1][:k]), True, n)
    sparse = extra("scipy.sparse.linalg")
    start, asked = _signs(n, seed).double(), 0

    def product(vector: Any) -> Any:
        nonlocal asked
        asked += 1
        return _times(operator, torch.tensor(vector).flatten().to(operator.device)).cpu().numpy()

    if not product(start.numpy()).any():  # a random vector: the operator is 0
        return Extremes((0.0,) * k, (0.0,) * k, True, asked)
    kept = min(n, max(4 * k + 1, 20))
    matrix = sparse.LinearOperator((n, n), matvec=product, dtype="float64")
    more = {"ncv": kept, "maxiter": restarts, "tol": tolerance, "v0": start.numpy(), "return_eigenvectors": False}
    try:
        found = sorted(map(float, sparse.eigsh(matrix, k=2 * k, which="BE", **more)))
        return Extremes(tuple(found[:k]), tuple(found[: k - 1 : -1]), True, asked)
    except sparse.ArpackError:
        steps = min(n, 3 * kept)
        best = lanczos(operator, start, steps)[0].tolist()
        return Extremes(tuple(best[:k]), tuple(best[::-1][:k]), False, asked + steps)


def density(operator: Any, steps: int = 40, probes: int = 1, seed: int = 0) -> Density:
    """Spectral density by stochastic Lanczos quadrature: ``steps`` points for each of some random vectors.

    Moments up to 2 · steps − 1 are exact for the vectors, whose mean is unbiased for the matrix. Unlike curvlinops'
    it keeps the Lanczos vectors orthogonal, so no eigenvalue appears twice, draws from a seed, and loses nothing of
    the total at the ends. Keeps ``steps`` vectors in float64.

    References
    ----------
    Golub, Meurant, Matrices, moments and quadrature, 2010; Ghorbani, Krishnan, Xiao, ICML 2019.
    """
    n = operator.shape[0]
    found = [lanczos(operator, _signs(n, seed + probe), steps) for probe in range(probes)]
    values, weights = (torch.cat([part[i] for part in found]) for i in (0, 1))
    return Density(values, weights / probes, n)


def lanczos(operator: Any, start: Shaped[Tensor, " n"], steps: int) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Eigenvalues of the operator as one Krylov space sees it, rising, and their weights in ``start``.

    Ends early where the space holds all that ``start`` is made of. The weights add up to 1.
    """
    n = operator.shape[0]
    v = start.to(operator.device).double()
    basis = torch.empty(min(steps, n), n, dtype=torch.float64, device=operator.device)
    diagonal: list[float] = []
    beside: list[float] = []
    v = v / v.norm()
    for j in range(len(basis)):
        basis[j] = v
        w = _times(operator, v)
        diagonal.append(float(w @ v))
        for _ in range(2):  # once leaves rounding errors that grow
            w = w - basis[: j + 1].T @ (basis[: j + 1] @ w)
        beside.append(float(w.norm()))
        if beside[-1] <= 1e-12 * max(map(abs, diagonal + beside[:-1])):
            break
        v = w / beside[-1]
    a, b = torch.tensor(diagonal, dtype=torch.float64), torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(a.diag() + b.diag(1) + b.diag(-1))
    return values, vectors[0].square()


def dense(operator: Any) -> Float[Tensor, "n n"]:
    """All of an operator, made symmetric, in float64, on the CPU."""
    whole = (operator @ torch.eye(operator.shape[0], dtype=operator.dtype, device=operator.device)).double().cpu()
    return (whole + whole.T) / 2


def extra(name: str) -> Any:
    """A module of the extra ``diagnostics``.

    Raises
    ------
    ImportError
        If it is missing; says what to install, and what works without it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports in its turn
            return importlib.import_module(name)
    except ImportError:
        raise ImportError(MISSING) from None


def _times(operator: Any, vector: Tensor) -> Tensor:
    """A product in the operator's dtype, returned in float64."""
    return (operator @ vector.to(operator.dtype)).double()


def _signs(n: int, seed: int) -> Tensor:
    """A random vector of ±1."""
    return torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed)) * 2 - 1
