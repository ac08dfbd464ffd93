"""Eigenvalues of symmetric linear operators: extremes, spectral density, condition number.

Vocabulary
----------
- an **operator** is a symmetric matrix given by its products: anything with ``shape``, ``dtype``, ``device`` and ``@``,
  such as a tensor or an operator of curvlinops. Products may be float32; vectors and sums are float64 in any case;
- a **density** approximates the spectrum by a few points λ with weights.

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
DENSE_UP_TO = 64  # operators up to that size are converted to a matrix


@dataclass(frozen=True)
class Extremes:
    """Smallest and largest eigenvalues.

    Attributes
    ----------
    smallest, largest
        Outermost first: the most negative first, the largest first.
    converged
        Whether the tolerance was reached; if not, the values are estimates that lie inside the spectrum.
    products
        Number of matrix-vector products.
    """

    smallest: tuple[float, ...]
    largest: tuple[float, ...]
    converged: bool
    products: int


@dataclass(frozen=True)
class Density:
    """A spectral density as points and weights.

    Attributes
    ----------
    values, weights
        The points, and the fraction of all eigenvalues that each represents; fractions add up to 1.
    size
        Number of all eigenvalues.
    """

    values: Float[Tensor, " m"]
    weights: Float[Tensor, " m"]
    size: int

    def moment(self, power: int) -> float:
        """Mean of λ^power; times ``size`` it estimates the trace of that power of the matrix."""
        return float((self.weights * self.values**power).sum())

    def smoothed(self, at: Float[Tensor, " n"], width: float) -> Float[Tensor, " n"]:
        """Density at the given λ, each point smoothed to a Gaussian of that standard deviation; integrates to 1."""
        bells = torch.exp(-0.5 * ((at[:, None] - self.values) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        return (bells * self.weights).sum(-1)


def condition_number_above(values: Float[Tensor, " n"], floor: float | int) -> tuple[float, int]:
    """Largest over smallest of the magnitudes above ``floor``, and their number; (inf, 0) if there is none.

    (NaN, 0) if a value is NaN.

    >>> condition_number_above(torch.tensor([8.0, -2.0, 1e-20]), 1e-9)
    (4.0, 2)
    """
    if values.isnan().any():
        return math.nan, 0
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
        Number of eigenvalues at each end.
    tolerance
        Relative accuracy of each.
    restarts
        Maximum number of restarts, of about 15 products each. If the iteration does not converge, the estimates of one
        long Lanczos iteration without restarts are returned instead.
    seed
        Seed of the initial vector; equal seeds give equal results.

    Raises
    ------
    ImportError
        If SciPy is not installed.

    References
    ----------
    Lehoucq, Sorensen, Yang, ARPACK users' guide, SIAM 1998.
    """
    n = operator.shape[0]
    if n <= max(DENSE_UP_TO, 4 * k):
        values = symmetric_eigenvalues(dense(operator)).tolist()
        return Extremes(tuple(values[:k]), tuple(values[::-1][:k]), True, n)
    sparse = import_extra("scipy.sparse.linalg")
    start, products = _signs(n, seed).double(), 0

    def product(vector: Any) -> Any:
        nonlocal products
        products += 1
        return _times(operator, torch.tensor(vector).flatten().to(operator.device)).cpu().numpy()

    first = product(start.numpy())
    if not math.isfinite(first.sum()):  # of weights that are not finite; ARPACK would return numbers
        return Extremes((math.nan,) * k, (math.nan,) * k, False, products)
    if not first.any():  # a random vector is mapped to 0 only if the operator is 0
        return Extremes((0.0,) * k, (0.0,) * k, True, products)
    basis_size = min(n, max(4 * k + 1, 20))
    matrix = sparse.LinearOperator((n, n), matvec=product, dtype="float64")
    more = {"ncv": basis_size, "maxiter": restarts, "tol": tolerance, "v0": start.numpy(), "return_eigenvectors": False}
    try:
        found = sorted(map(float, sparse.eigsh(matrix, k=2 * k, which="BE", **more)))
        return Extremes(tuple(found[:k]), tuple(found[: k - 1 : -1]), True, products)
    except sparse.ArpackError:
        steps = min(n, 3 * basis_size)
        best = lanczos(operator, start, steps)[0].tolist()
        return Extremes(tuple(best[:k]), tuple(best[::-1][:k]), False, products + steps)


def density(operator: Any, steps: int = 40, probes: int = 1, seed: int = 0) -> Density:
    """Spectral density by stochastic Lanczos quadrature, with ``steps`` points for each of ``probes`` random vectors.

    Moments up to 2 · steps − 1 are exact for each vector, and their mean over vectors is unbiased for the matrix.
    Unlike curvlinops' function it reorthogonalizes the Lanczos vectors, so that no eigenvalue appears twice, is seeded,
    and its weights add up to 1. Stores ``steps`` vectors in float64.

    References
    ----------
    Golub, Meurant, Matrices, moments and quadrature, 2010; Ghorbani, Krishnan, Xiao, ICML 2019.
    """
    n = operator.shape[0]
    found = [lanczos(operator, _signs(n, seed + probe), steps) for probe in range(probes)]
    values, weights = (torch.cat([part[i] for part in found]) for i in (0, 1))
    return Density(values, weights / probes, n)


def lanczos(operator: Any, start: Shaped[Tensor, " n"], steps: int) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Ritz values of the Krylov space of ``start``, ascending, and their weights, which add up to 1.

    Stops early where the Krylov space is invariant. Vectors are fully reorthogonalized. A single NaN if a product is
    not finite.
    """
    n = operator.shape[0]
    v = start.to(operator.device).double()
    basis = torch.empty(min(steps, n), n, dtype=torch.float64, device=operator.device)
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    v = v / v.norm()
    for j in range(len(basis)):
        basis[j] = v
        w = _times(operator, v)
        diagonal.append(float(w @ v))
        for _ in range(2):  # a single pass leaves rounding errors that grow
            w = w - basis[: j + 1].T @ (basis[: j + 1] @ w)
        off_diagonal.append(float(w.norm()))
        if off_diagonal[-1] <= 1e-12 * max(map(abs, diagonal + off_diagonal[:-1])):
            break
        v = w / off_diagonal[-1]
    a, b = (
        torch.tensor(diagonal, dtype=torch.float64),
        torch.tensor(off_diagonal[: len(diagonal) - 1], dtype=torch.float64),
    )
    if not (a.isfinite().all() and b.isfinite().all()):  # of weights that are not finite
        return torch.full((1,), math.nan, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(a.diag() + b.diag(1) + b.diag(-1))
    return values, vectors[0].square()


def symmetric_eigenvalues(matrix: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """Eigenvalues of a symmetric matrix, ascending; NaN if an entry is not finite, where LAPACK raises an error."""
    if not matrix.isfinite().all():
        return torch.full_like(matrix[0], math.nan)
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values


def dense(operator: Any) -> Float[Tensor, "n n"]:
    """The operator as a symmetrized matrix in float64 on the CPU."""
    matrix = (operator @ torch.eye(operator.shape[0], dtype=operator.dtype, device=operator.device)).double().cpu()
    return (matrix + matrix.T) / 2


def import_extra(name: str) -> Any:
    """Import a module of the extra ``diagnostics``.

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra and what works without it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from the modules it imports
            return importlib.import_module(name)
    except ImportError:
        raise ImportError(MISSING) from None


def _times(operator: Any, vector: Tensor) -> Tensor:
    """Matrix-vector product in the operator's dtype, returned in float64."""
    return (operator @ vector.to(operator.dtype)).double()


def _signs(n: int, seed: int) -> Tensor:
    """A random vector of ±1."""
    return torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed)) * 2 - 1
