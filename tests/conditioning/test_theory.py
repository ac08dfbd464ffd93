"""The theorems this project stands on, as statements that run: what each says, whether it is true, what was observed.

[WC] is Saratchandran, Wang, Lucey, *Weight Conditioning for Smooth Optimization of Neural Networks* (arXiv
2409.03424); [P] is Q. Ye, *Preconditioning for Accelerated Gradient Descent Optimization and Regularization* (arXiv
2410.00232). Both are quoted as we read them. W is the paper's weight, n_in × n_out, the transpose of torch's; E
divides each of its n = n_in rows by its norm; κ is the largest over the smallest singular value. The tests assert the
figures given here, counts with some room.

a. **van der Sluis; [WC] Theorem 5.1, [P] Theorem 2.** Printed in [WC]: κ(E W) ≤ κ(P W) for every diagonal P. *False.*
   W = [[1, 0], [1, 0], [1, 0], [1, 0], [0, 1]] has unit rows, so κ(E W) = κ(W) = 2; P = diag(1, 1, 1, 1, 2) makes it 1.
   *True* (van der Sluis 1969): κ(E W) ≤ √n κ(P W), for every full-rank W. The matrices of that pattern reach √(n − 1),
   so √n is nearly sharp. On 20 random matrices E was at worst 1.34 times the best diagonal found. With two
   inputs E is the best diagonal.

b. **[WC] Proposition 1.** κ(E W) ≤ κ(W). *False as it stands*: W = [[1, 1, 0], [1, 0, 1], [1, 1, 1]] has κ = 3 + 2√2 =
   5.828, and 5.956 under E. Of 3,000 Gaussian W of each shape (n_in × n_out), κ rose in

       3 × 3: 139, by up to 12 %    8 × 8: 207, 16 %    16 × 16: 219, 9 %
       4 × 8: 119, 7 %              8 × 4: 364, 28 %    6 × 2: 727, 81 %    2 × 6: never

   and fell by 9 to 20 % in the median: with more inputs than outputs it fails most. On rows scaled from 1 to 1000 it
   fell in all 3,000, to 0.4 % in the median.

c. **[WC] Theorem 5.2.** At a point, the Hessian of the loss with respect to the raw weights has the smaller κ under E.
   *Not true in general.* Full Hessians of 50 networks of two layers (3-6-2, softplus) and of three (4-6-5-2, tanh),
   mean squared error on 64 points, all layers under E. They are indefinite, so κ is the largest over the smallest
   |eigenvalue|. κ fell in

       PyTorch's start, E as it is:                 20 of 50 (two layers), 42 of 50 (three)
       He's start, E with the norm of W kept:       16 and 25 of 50: no better than a coin
       the same, rows of the start from 0.1 to 10:   0 and 27 of 50

   Exact instead: (1) with E held constant, the Hessian is that of the plain network at the conditioned weights,
   scaled from both sides by the entries of E (and 1 for biases); so κ is larger than there by the squared ratio of
   their extremes at most. (2) Under E, moving along a row changes nothing: the Gauss-Newton matrix has exactly one
   null direction for each input of each layer, and the Hessian takes a row to minus the gradient with respect to it.
   Across a row, second derivatives go as 1/‖row‖²: rows of uneven raw length are uneven coordinates, whatever E does
   to the weight that is applied; the last line of the table shows it for two layers.
   The Gauss-Newton matrix, without its null directions, did fall: in 50, 49, 50 (two layers) and 50, 50, 50 (three)
   of the 50. But *leaving the row lengths out of the plain matrix* does as much: κ falls in 50 of 50 each time, in
   the median to 0.044 and 0.12 for He's start, where E reaches 0.054 and 0.056. Compared on equal directions, E at
   He's scale falls in 24 of 50 (median 1.04) and 43 of 50 (median 0.56); on uneven rows in 48 (0.05) and 49 (6e-5).
   So at matched scale most of what E does to the Gauss-Newton matrix is to take lengths out, as weight normalization
   does for outputs; on badly scaled rows E itself helps.

d. **[P] Theorem 3.** L2 on z = P⁻¹ θ is decoupled weight decay. *True*: ``IntrinsicAdam`` with l2 is AdamW, bit for
   bit. **[P] Theorem 4.** L1 on z shrinks by αλP. *True.* (Both at length in ``optim/test_intrinsic.py``.)

   **[P] Theorem 5.** The Hessian with respect to one unit's bias and weights is Ĥᵀ S Ĥ, with Ĥ = [1, H] the extended
   matrix of the layer's inputs, a row for each sample, and S the Hessian of the loss with respect to the unit's value
   at each sample. *True*, to rounding, for units of any layer and any loss. S is diagonal where samples do not
   interact (not so under batch norm); for a linear output and squared error it is a multiple of 1. Where the diagonal
   is positive, κ(Hessian) ≤ κ(Ĥ)² · max S / min S.

   **[P] Theorem 6.** Standardized inputs, and batch norm, are a near-optimal scaling of Ĥ. *True*, and more: (1)
   centring never raises κ(Ĥ), at whatever scales of the columns (2,000 of 2,000; to 0.55 in the median); (2) κ([1,
   Hs]) = κ(Hs) for the standardized Hs: the bias costs nothing; (3) hence κ([1, Hs]) ≤ √n κ([1, H] D) for every
   diagonal D, n the number of inputs, against √(n + 1) from van der Sluis alone. Observed: at worst 1.11 times the
   best diagonal found, of 2.24 allowed. On uneven features κ fell in 2,000 of 2,000, to 0.040 in the median. On
   features that are scaled alike already it may rise, and did in 13 of 3,000, by at most 3.6 %.

   **[P] Theorem 7.** Layer norm bounds the norms. *True*: rows (samples) have norm √n exactly where ε = 0 and at most
   √n else, entries are at most √(n − 1), columns over N samples at most √(N (n − 1)), and this is reached. *It bounds
   no κ*: a normalized sample sums to 0, so Ĥ after any layer norm, gains and offsets included, has an exact null
   direction, and so has the Hessian of each unit that reads it. Leaving that direction out, κ fell in 470 of 500 (to
   0.85 in the median) where samples are of one scale, and in 500 of 500 (to 0.034) where their scales run from 0.01
   to 100.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from scipy import optimize
from torch import Tensor, nn
from torch.nn import functional

from enerf.conditioning import maps
from enerf.conditioning.diagnostics.spectrum import condition_number
from enerf.optim.intrinsic import IntrinsicAdam, IntrinsicRMSprop, sparsity

# torch's own forward mode compiles its decompositions by a deprecated call
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix(rows: list[list[int]]) -> Tensor:
    """The paper's W; torch's weight is its transpose."""
    return torch.tensor(rows, dtype=torch.float64)


def equilibrated(paper_w: Tensor) -> Tensor:
    """The paper's E W."""
    return maps.row(paper_w.mT).mT


def best_kappa(scaled: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """The least κ of a scaled matrix that Nelder and Mead find; ``scaled`` takes logarithms of a diagonal."""

    def objective(logs: list[float]) -> float:
        return math.log(condition_number(scaled(torch.as_tensor(logs, dtype=torch.float64))))

    found = optimize.minimize(objective, start.tolist(), method="Nelder-Mead", options={"maxfev": 300})
    return math.exp(found.fun)


# a. van der Sluis, and the form printed in [WC] Theorem 5.1

SHAPES = [(3, 3), (5, 4), (4, 5), (6, 6), (2, 5)]


def test_van_der_sluis_no_diagonal_beats_equilibration_by_more_than_the_root_of_n():
    worst = 0.0
    for seed in range(20):
        n, m = SHAPES[seed % len(SHAPES)]
        w = gaussian(n, m, seed=seed) * gaussian(n, 1, seed=seed + 100).exp()
        kappa = condition_number(equilibrated(w))
        logs = torch.linspace(0, 3, 500, dtype=torch.float64)[:, None, None] * gaussian(500, n, 1, seed=seed + 200)
        best = condition_number(logs.exp() * equilibrated(w)).min().item()
        best = min(best, best_kappa(lambda d, w=w: d.exp()[:, None] * w, -w.norm(dim=1).log()))
        assert kappa <= math.sqrt(n) * best
        worst = max(worst, kappa.item() / best)
    assert worst == pytest.approx(1.336, abs=0.02)


def test_the_printed_theorem_5_1_is_refuted_by_a_matrix_of_zeros_and_ones():
    a = matrix([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1]])
    p = torch.diag(torch.tensor([1.0, 1, 1, 1, 2], dtype=torch.float64))
    assert torch.equal(equilibrated(a), a)
    assert condition_number(equilibrated(a)).item() == pytest.approx(2, abs=1e-12)
    assert condition_number(p @ a).item() == pytest.approx(1, abs=1e-12)


def test_the_root_of_n_cannot_be_much_improved():
    for n in (2, 5, 17, 101):
        a = torch.zeros(n, 2, dtype=torch.float64)
        a[:-1, 0] = a[-1, 1] = 1
        p = torch.ones(n, 1, dtype=torch.float64)
        p[-1] = math.sqrt(n - 1)
        assert condition_number(equilibrated(a)).item() == pytest.approx(math.sqrt(n - 1))
        assert condition_number(p * a).item() == pytest.approx(1)


# b. [WC] Proposition 1


def test_proposition_1_is_refuted_by_a_square_matrix_of_zeros_and_ones():
    w = matrix([[1, 1, 0], [1, 0, 1], [1, 1, 1]])
    assert condition_number(w).item() == pytest.approx(3 + 2 * math.sqrt(2), abs=1e-12)
    assert condition_number(equilibrated(w)).item() == pytest.approx(5.955821404, abs=1e-8)


@pytest.mark.parametrize(
    ("n_in", "n_out", "rose", "most"),
    [
        (3, 3, 139, 1.12),
        (8, 8, 207, 1.16),
        (8, 4, 364, 1.28),
        (4, 8, 119, 1.07),
        (6, 2, 727, 1.81),
        (16, 16, 219, 1.09),
    ],
)
def test_proposition_1_fails_for_some_random_matrices_by_a_little(n_in: int, n_out: int, rose: int, most: float):
    weights = gaussian(3000, n_out, n_in)
    ratio = condition_number(maps.row(weights)) / condition_number(weights)
    assert 0.8 * rose < (ratio > 1).sum() < 1.2 * rose
    assert most - 0.03 < ratio.max() < most + 0.03
    assert 0.78 < ratio.median() < 0.96


def test_with_two_inputs_no_diagonal_beats_equilibration():
    weights = gaussian(3000, 6, 2)
    kappa = condition_number(maps.row(weights))
    for seed in range(20):
        diagonals = (2 * gaussian(3000, 1, 2, seed=seed + 1)).exp()
        assert (kappa <= condition_number(weights * diagonals) * (1 + 1e-12)).all()


def test_on_badly_scaled_rows_kappa_always_falls():
    weights = gaussian(3000, 8, 8) * torch.logspace(0, 3, 8, dtype=torch.float64)
    ratio = condition_number(maps.row(weights)) / condition_number(weights)
    assert ratio.max() < 0.1
    assert ratio.median().item() == pytest.approx(0.0044, rel=0.1)


# c. [WC] Theorem 5.2

SEEDS = 50
POINTS = 64
NETS = {
    "two layers": ([3, 6, 2], functional.softplus),
    "three layers": ([4, 6, 5, 2], torch.tanh),
}
Layers = list[tuple[Tensor, Tensor]]


def unpacked(theta: Tensor, widths: list[int]) -> Layers:
    """One vector of parameters -> weight and bias of each layer."""
    sizes = [size for n_in, n_out in itertools.pairwise(widths) for size in (n_in * n_out, n_out)]
    parts = theta.split(sizes)
    shapes = itertools.pairwise(widths)
    return [(w.reshape(n_out, n_in), b) for w, b, (n_in, n_out) in zip(parts[::2], parts[1::2], shapes, strict=True)]


def mapped(weight: Tensor, kind: str) -> Tensor:
    """The weight that is applied: raw; E W; E W with W's norm; the same with E and norm held constant."""
    if kind == "plain":
        return weight
    if kind == "through":
        return maps.row(weight)
    scale = weight.detach().norm() / math.sqrt(weight.shape[1])
    if kind == "kept":
        return maps.row(weight) * scale
    return weight / weight.detach().norm(dim=0) * scale


def outputs(theta: Tensor, inputs: Tensor, net: str, kind: str) -> Tensor:
    widths, activation = NETS[net]
    *hidden, (last, bias) = unpacked(theta, widths)
    for weight, offset in hidden:
        inputs = activation(functional.linear(inputs, mapped(weight, kind), offset))
    return functional.linear(inputs, mapped(last, kind), bias)


@cache
def points(net: str, start: str) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters, inputs and targets of 50 networks; torch's start, He's, or He's with uneven rows."""
    widths, _ = NETS[net]
    torch.manual_seed(0)
    thetas = []
    for _ in range(SEEDS):
        linears = [nn.Linear(n_in, n_out).double() for n_in, n_out in itertools.pairwise(widths)]
        for linear in linears:
            if start != "default":
                nn.init.kaiming_normal_(linear.weight)
            if start == "uneven":
                with torch.no_grad():
                    linear.weight *= torch.logspace(-1, 1, linear.in_features, dtype=torch.float64)
        thetas.append(torch.cat([p.detach().flatten() for linear in linears for p in linear.parameters()]))
    return torch.stack(thetas), gaussian(SEEDS, POINTS, widths[0], seed=1), gaussian(SEEDS, POINTS, widths[-1], seed=2)


def loss(theta: Tensor, inputs: Tensor, targets: Tensor, net: str, kind: str) -> Tensor:
    return (outputs(theta, inputs, net, kind) - targets).square().mean()


@cache
def hessians(net: str, start: str, kind: str) -> Tensor:
    def of(theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return torch.func.hessian(loss)(theta, inputs, targets, net, kind)

    return torch.func.vmap(of)(*points(net, start))


@cache
def jacobians(net: str, start: str, kind: str) -> Tensor:
    """Of all outputs with respect to all parameters; their Gram matrix is Gauss's and Newton's."""
    thetas, inputs, _ = points(net, start)
    return torch.func.vmap(torch.func.jacrev(lambda t, x: outputs(t, x, net, kind).flatten()))(thetas, inputs)


@cache
def lengths_and_rest(net: str, start: str) -> tuple[Tensor, Tensor]:
    """Unit vectors along each row of each weight, and an orthonormal basis of all other directions."""
    bases = []
    for theta in points(net, start)[0]:
        along = []
        for i, (weight, _) in enumerate(unpacked(theta, NETS[net][0])):
            for j in range(weight.shape[1]):
                layers = [(torch.zeros_like(w), torch.zeros_like(b)) for w, b in unpacked(theta, NETS[net][0])]
                layers[i][0][:, j] = weight[:, j] / weight[:, j].norm()
                along.append(torch.cat([part.flatten() for layer in layers for part in layer]))
        bases.append(torch.linalg.qr(torch.stack(along, 1), mode="complete")[0])
    n = len(along)
    return torch.stack(bases)[..., :n], torch.stack(bases)[..., n:]


def spread(symmetric: Tensor) -> Tensor:
    """Largest over smallest magnitude of an eigenvalue."""
    values = torch.linalg.eigvalsh(symmetric).abs()
    return values.amax(-1) / values.amin(-1)


def fell(after: Tensor, before: Tensor) -> tuple[int, float]:
    """In how many of the 50 networks κ fell, and the median of κ after / κ before."""
    return int((after < before).sum()), (after / before).median().item()


@forward_mode
@pytest.mark.parametrize("net", list(NETS))
def test_with_e_constant_the_hessian_is_congruent_to_the_plain_one_at_the_conditioned_weights(net: str):
    thetas, inputs, targets = points(net, "default")
    for theta, x, y in zip(thetas[:5], inputs, targets, strict=False):
        layers = unpacked(theta, NETS[net][0])
        at = torch.cat([part.flatten() for w, b in layers for part in (mapped(w, "constant"), b)])
        p = torch.cat([part.flatten() for w, b in layers for part in (mapped(w, "constant") / w, torch.ones_like(b))])
        plain = torch.func.hessian(loss)(at, x, y, net, "plain")
        found = torch.func.hessian(loss)(theta, x, y, net, "constant")
        torch.testing.assert_close(found, p[:, None] * plain * p, rtol=1e-9, atol=1e-12)
        assert spread(found) <= spread(plain) * (p.max() / p.min()) ** 2 * (1 + 1e-9)


@forward_mode
@pytest.mark.parametrize("net", list(NETS))
def test_under_e_the_length_of_a_row_is_no_direction_of_descent_and_its_curvature_is_minus_the_gradient(net: str):
    thetas, inputs, targets = points(net, "default")
    along, _ = lengths_and_rest(net, "default")
    reached = jacobians(net, "default", "through") @ along
    assert reached.abs().max() < 1e-12
    ranks = torch.linalg.matrix_rank(jacobians(net, "default", "through"))
    assert (ranks == thetas.shape[1] - along.shape[2]).all()
    gradients = torch.func.vmap(torch.func.grad(lambda *a: loss(*a, net, "through")))(thetas, inputs, targets)
    found = hessians(net, "default", "through")
    for theta, hessian, gradient, rows in zip(thetas, found, gradients, along, strict=True):
        for row in rows.T:
            length = theta @ row
            own = torch.where(row.abs() > 1e-9, gradient, 0.0)
            torch.testing.assert_close(hessian @ row * length, -own, rtol=1e-8, atol=1e-10)


def gauss_newton(net: str, start: str, kind: str, directions: Tensor | None = None) -> Tensor:
    """κ of the Gauss-Newton matrix, of all directions or of those given."""
    jacobian = jacobians(net, start, kind)
    return condition_number(jacobian if directions is None else jacobian @ directions) ** 2


@forward_mode
@pytest.mark.parametrize(
    ("net", "start", "kind", "count"),
    [
        ("two layers", "default", "through", 20),
        ("two layers", "he", "kept", 16),
        ("two layers", "uneven", "kept", 0),
        ("three layers", "default", "through", 42),
        ("three layers", "he", "kept", 25),
        ("three layers", "uneven", "kept", 27),
    ],
)
def test_theorem_5_2_is_a_coin_toss_for_the_hessian_at_matched_scale(net: str, start: str, kind: str, count: int):
    found, _ = fell(spread(hessians(net, start, kind)), spread(hessians(net, start, "plain")))
    assert abs(found - count) <= 6


@pytest.mark.parametrize(
    ("net", "start", "kind", "lengths_out", "everything", "proper"),
    [
        ("two layers", "default", "through", 0.055, (50, 0.016), (45, 0.28)),
        ("two layers", "he", "kept", 0.044, (49, 0.054), (24, 1.04)),
        ("two layers", "uneven", "kept", 0.032, (50, 0.0019), (48, 0.051)),
        ("three layers", "default", "through", 0.051, (50, 0.00057), (50, 0.0088)),
        ("three layers", "he", "kept", 0.12, (50, 0.056), (43, 0.56)),
        ("three layers", "uneven", "kept", 1.3e-5, (50, 8.1e-10), (49, 6.3e-5)),
    ],
)
def test_theorem_5_2_for_gauss_newton_is_mostly_the_removed_lengths(
    net: str, start: str, kind: str, lengths_out: float, everything: tuple[int, float], proper: tuple[int, float]
):
    _, rest = lengths_and_rest(net, start)
    plain, plain_rest = gauss_newton(net, start, "plain"), gauss_newton(net, start, "plain", rest)
    found = gauss_newton(net, start, kind, rest)
    for (count, ratio), (count_expected, ratio_expected) in (
        (fell(plain_rest, plain), (50, lengths_out)),
        (fell(found, plain), everything),
        (fell(found, plain_rest), proper),
    ):
        assert abs(count - count_expected) <= 3
        assert ratio == pytest.approx(ratio_expected, rel=0.3)


@pytest.mark.parametrize("net", list(NETS))
def test_off_the_lengths_the_gradient_of_e_changes_nothing(net: str):
    _, rest = lengths_and_rest(net, "he")
    found, constant = (jacobians(net, "he", kind) @ rest for kind in ("kept", "constant"))
    torch.testing.assert_close(found, constant, rtol=1e-10, atol=1e-12)


# d. [P] Theorems 3 and 4


def test_theorem_3_l2_of_z_is_decoupled_decay():
    params = [nn.Parameter(gaussian(4, 3)) for _ in range(2)]
    ours, adamw = IntrinsicAdam(params[:1], lr=0.1, l2=0.2), torch.optim.AdamW(params[1:], lr=0.1, weight_decay=0.2)
    for _ in range(20):
        for param, optimizer in zip(params, (ours, adamw), strict=True):
            optimizer.zero_grad()
            param.sin().sum().backward()
            optimizer.step()
    assert torch.equal(*params)


def test_theorem_4_l1_of_z_shrinks_by_p_between_p_squared_and_one():
    v = torch.tensor([1e-4, 1.0, 1e4], dtype=torch.float64)
    for shrinkage in ("sign", "soft"):
        param = nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
        optimizer = IntrinsicRMSprop([param], lr=0.1, alpha=1.0, eps=0.0, l1=0.5, shrinkage=shrinkage)
        optimizer.state[param] = {"step": torch.zeros(()), "square_avg": v.clone()}  # P = v^(-1/4), held
        param.grad = torch.zeros_like(param)
        optimizer.step()
        torch.testing.assert_close(2 - param.detach(), 0.1 * 0.5 * v**-0.25)
        assert sparsity(optimizer).overall == 0


# d. [P] Theorem 5


def extended(h: Tensor) -> Tensor:
    """[1, H]: the inputs of a layer, sample by sample, and a column of ones for the bias."""
    return torch.cat([torch.ones(len(h), 1, dtype=torch.float64), h], 1)


def unit_hessians(h: Tensor, theta: Tensor, rest: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Hessians of rest(b + H w) with respect to (b, w) and to the unit's value at each sample."""
    values = extended(h) @ theta
    by_weights = torch.func.hessian(lambda t: rest(extended(h) @ t))(theta)
    return by_weights, torch.func.hessian(rest)(values)


@forward_mode
def test_theorem_5_the_hessian_of_one_unit_is_built_from_the_extended_inputs():
    h, target = gaussian(12, 4).relu(), gaussian(12, seed=1)
    others, outgoing = gaussian(12, 3, seed=2).tanh(), gaussian(4, seed=3)

    def rest(values: Tensor) -> Tensor:  # a hidden unit of a network with other units, and a loss by samples
        mixed = torch.cat([others, values.tanh()[:, None]], 1) @ outgoing
        return functional.softplus(mixed - target).square().mean()

    block, curvatures = unit_hessians(h, gaussian(5, seed=4), rest)
    off_diagonal = curvatures - torch.diag(curvatures.diag())
    assert off_diagonal.abs().max() == 0
    torch.testing.assert_close(
        block, extended(h).T @ torch.diag(curvatures.diag()) @ extended(h), rtol=1e-12, atol=1e-15
    )

    def normalized(values: Tensor) -> Tensor:  # batch norm lets samples speak to each other: no diagonal
        return rest((values - values.mean()) / values.std())

    block, curvatures = unit_hessians(h, gaussian(5, seed=4), normalized)
    torch.testing.assert_close(block, extended(h).T @ curvatures @ extended(h), rtol=1e-9, atol=1e-13)
    assert (curvatures - torch.diag(curvatures.diag())).abs().max() > 0.1 * curvatures.diag().abs().max()


@forward_mode
@pytest.mark.parametrize("unit", range(5))
def test_theorem_5_gives_the_block_of_the_full_hessian_of_a_network(unit: int):
    net, (widths, activation) = "three layers", NETS["three layers"]
    theta, inputs, targets = (values[0] for values in points(net, "default"))
    (w1, b1), (w2, b2), (w3, b3) = unpacked(theta, widths)
    h = activation(functional.linear(inputs, w1, b1))

    def rest(values: Tensor) -> Tensor:
        hidden = functional.linear(h, w2, b2)
        hidden = torch.cat([hidden[:, :unit], values[:, None], hidden[:, unit + 1 :]], 1)
        return (functional.linear(activation(hidden), w3, b3) - targets).square().mean()

    numbers = unpacked(torch.arange(len(theta), dtype=torch.float64), widths)[1]
    own = torch.cat([numbers[1][unit : unit + 1], numbers[0][unit]]).long()
    curvatures = torch.func.hessian(rest)(functional.linear(h, w2, b2)[:, unit]).diag()
    block = torch.func.hessian(loss)(theta, inputs, targets, net, "plain")[own][:, own]
    torch.testing.assert_close(block, extended(h).T @ torch.diag(curvatures) @ extended(h), rtol=1e-10, atol=1e-14)


@forward_mode
def test_theorem_5_bounds_kappa_where_the_loss_is_convex_in_the_unit():
    for seed in range(30):
        h = gaussian(12, 4, seed=seed).relu() + 0.1 * gaussian(12, 4, seed=seed + 50)
        linear, _ = unit_hessians(h, gaussian(5), lambda values: values.square().mean())
        torch.testing.assert_close(linear, extended(h).T @ extended(h) * (2 / 12), rtol=1e-12, atol=0)
        logistic, curvatures = unit_hessians(h, gaussian(5), lambda values: functional.softplus(values).mean())
        uneven = curvatures.diag().max() / curvatures.diag().min()
        assert spread(logistic) <= condition_number(extended(h)) ** 2 * uneven * (1 + 1e-9)


# d. [P] Theorem 6


def standardized(h: Tensor) -> Tensor:
    return (h - h.mean(-2, keepdim=True)) / h.std(-2, correction=0, keepdim=True)


def activations(seeds: int, rows: int, n: int) -> Tensor:
    """Many H of correlated features, of positive means and of spreads of their own."""
    mixed = gaussian(seeds, rows, n) + gaussian(seeds, rows, 1, seed=1)
    return (mixed + 2 * gaussian(seeds, 1, n, seed=2).abs()) * (1.5 * gaussian(seeds, 1, n, seed=3)).exp()


def with_ones(h: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(h[..., :1]), h], -1)


def test_theorem_6_centring_never_raises_kappa_whatever_the_scales():
    h = activations(2000, 20, 5)
    before = condition_number(with_ones(h))
    after = condition_number(with_ones(h - h.mean(-2, keepdim=True)))
    assert (after / before).median().item() == pytest.approx(0.554, abs=0.03)
    assert (after <= before * (1 + 1e-9)).all()


def test_theorem_6_standardizing_is_within_the_root_of_n_of_every_diagonal_scaling():
    n, worst = 5, 0.0
    h = activations(2000, 20, n)
    kappa = condition_number(with_ones(standardized(h)))
    torch.testing.assert_close(kappa, condition_number(standardized(h)), rtol=1e-8, atol=0)  # the ones cost nothing
    plain = condition_number(with_ones(h))
    assert (kappa < plain).all()
    assert (kappa / plain).median().item() == pytest.approx(0.040, abs=0.004)
    for seed in range(10):
        scales = (1.5 * gaussian(2000, 1, n + 1, seed=seed)).exp()
        assert (kappa <= math.sqrt(n) * condition_number(with_ones(h) * scales)).all()
    for i in range(4):
        start = -torch.cat([torch.zeros(1), h[i].std(0).log()])
        for center in (0.0, h[i].mean(0)):
            best = best_kappa(lambda logs, seen=h[i] - center: with_ones(seen) * logs.exp(), start)
            assert kappa[i] <= math.sqrt(n) * best
            worst = max(worst, kappa[i].item() / best)
    assert worst == pytest.approx(1.107, abs=0.02)


def test_theorem_6_standardizing_may_raise_kappa_of_features_that_are_scaled_alike():
    h = gaussian(3000, 20, 5)
    ratio = condition_number(with_ones(standardized(h))) / condition_number(with_ones(h))
    assert 5 <= (ratio > 1).sum() <= 25
    assert ratio.max().item() == pytest.approx(1.036, abs=0.01)


# d. [P] Theorem 7


@pytest.mark.parametrize("n", [2, 5, 16])
def test_theorem_7_layer_norm_bounds_rows_entries_and_columns(n: int):
    rows = 30
    h = torch.exp(4 * gaussian(rows, n)) * gaussian(rows, n, seed=1) + 100 * gaussian(rows, 1, seed=2)
    exact = functional.layer_norm(h, (n,), eps=0.0)
    torch.testing.assert_close(exact.norm(dim=1), torch.full((rows,), math.sqrt(n), dtype=torch.float64))
    made = functional.layer_norm(h, (n,))
    assert (made.norm(dim=1) <= math.sqrt(n)).all()
    assert (made.abs() <= math.sqrt(n - 1)).all()
    assert (made.norm(dim=0) <= math.sqrt(rows * (n - 1))).all()
    assert torch.linalg.matrix_norm(extended(made), ord=2) <= math.sqrt(rows * (n + 1))
    one_high = torch.zeros(rows, n, dtype=torch.float64)
    one_high[:, 0] = 1e9
    assert functional.layer_norm(one_high, (n,)).norm(dim=0)[0].item() == pytest.approx(math.sqrt(rows * (n - 1)))


def test_theorem_7_bounds_no_kappa_the_extended_matrix_after_a_layer_norm_is_singular():
    h, gain, offset = gaussian(30, 6), gaussian(6, seed=1).exp(), gaussian(6, seed=2)
    made = functional.layer_norm(h, (6,), gain, offset)
    null = torch.cat([-(offset / gain).sum()[None], 1 / gain])
    assert (extended(made) @ null).abs().max() < 1e-12 * null.norm()
    assert condition_number(extended(made)) > 1e14
    assert condition_number(extended(h)) < 10
    assert torch.linalg.matrix_rank(extended(made)) == 6


def test_theorem_7_helps_where_samples_differ_in_scale():
    h = gaussian(500, 30, 6)
    scales = torch.logspace(-2, 2, 30, dtype=torch.float64)[:, None]
    for seen, count, ratio in ((h, 470, 0.85), (h * scales, 500, 0.0345)):
        made = functional.layer_norm(seen, (6,), eps=0.0)
        values = torch.linalg.svdvals(with_ones(made))
        after = values[:, 0] / values[:, -2]
        before = condition_number(with_ones(seen))
        assert abs((after < before).sum().item() - count) <= 10
        assert (after / before).median().item() == pytest.approx(ratio, rel=0.1)
