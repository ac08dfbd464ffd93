"""Tests of the intrinsic optimizers, against the theorems written as slow loops over numbers."""

import copy
import functools
import io
import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from enerf.optim import intrinsic, shrinkage
from enerf.optim.intrinsic import IntrinsicAdagrad, IntrinsicAdam, IntrinsicRMSprop, sparsity
from tests.grids import once, pairs

OURS = {"adam": IntrinsicAdam, "rmsprop": IntrinsicRMSprop, "adagrad": IntrinsicAdagrad}
TORCHS = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("adam", {}),
    ("adam", {"amsgrad": True, "betas": (0.8, 0.9), "eps": 1e-3}),
    ("adam", {"maximize": True}),
    ("rmsprop", {}),
    ("rmsprop", {"centered": True, "alpha": 0.9}),
    ("rmsprop", {"momentum": 0.7, "eps": 1e-3, "maximize": True}),
    ("adagrad", {}),
    ("adagrad", {"lr_decay": 0.3, "initial_accumulator_value": 0.2, "eps": 1e-3}),
    ("adagrad", {"maximize": True}),
]
every_variant = pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=str)
every_kind = pytest.mark.parametrize("kind", list(OURS))
both_paths = pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
STEPS = 12


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    first = gaussian(3, 2, seed=1, dtype=dtype)
    first[0] *= 0.01
    first[1, 1] = 0
    return [nn.Parameter(first), nn.Parameter(gaussian(4, seed=2, dtype=dtype)), nn.Parameter(torch.zeros(2).to(dtype))]


def gradients(step: int, params: list[nn.Parameter]) -> list[Tensor]:
    """Gradients which depend on the parameters, one entry always 0."""
    made = [param.detach() + gaussian(*param.shape, seed=100 * step + i, dtype=param.dtype) / 3 for i, param in
            enumerate(params)]  # fmt: skip
    made[1][2] = 0
    return made


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], start: int = 0, stop: int = STEPS) -> None:
    for step in range(start, stop):
        for param, gradient in zip(params, gradients(step, params), strict=True):
            param.grad = gradient
        optimizer.step()


def assert_bits(found: list[nn.Parameter], expected: list[nn.Parameter]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


# the theorems, number by number


def sign(value: float) -> float:
    return math.copysign(1.0, value) if value else 0.0


class Slow:
    """One number under a preconditioned step with intrinsic terms, from the theorems."""

    def __init__(self, kind: str, theta: float, **options: Any) -> None:
        self.kind, self.theta, self.t = kind, theta, 0
        self.options = {"lr": 0.1, "l1": 0.0, "l2": 0.0, "shrinkage": "sign", "maximize": False, **options}
        self.v, self.v_max, self.mean = options.get("initial_accumulator_value", 0.0), 0.0, 0.0
        self.moving = 0.0

    def direction(self, g: float) -> tuple[float, float]:
        """What α multiplies, and the divisor √v̂ + ε."""
        o = self.options
        if self.kind == "adam":
            (beta1, beta2), eps = o.get("betas", (0.9, 0.999)), o.get("eps", 1e-8)
            self.mean = beta1 * self.mean + (1 - beta1) * g
            self.v = beta2 * self.v + (1 - beta2) * g * g
            self.v_max = max(self.v_max, self.v)
            v = self.v_max if o.get("amsgrad") else self.v
            divisor = math.sqrt(v / (1 - beta2**self.t)) + eps
            return self.mean / (1 - beta1**self.t) / divisor, divisor
        if self.kind == "rmsprop":
            alpha, eps = o.get("alpha", 0.99), o.get("eps", 1e-8)
            self.v = alpha * self.v + (1 - alpha) * g * g
            self.mean = alpha * self.mean + (1 - alpha) * g
            divisor = math.sqrt(self.v - (self.mean**2 if o.get("centered") else 0)) + eps
            self.moving = o.get("momentum", 0.0) * self.moving + g / divisor
            return self.moving, divisor
        self.v += g * g
        divisor = math.sqrt(self.v) + o.get("eps", 1e-10)
        return g / divisor, divisor

    def step(self, g: float) -> None:
        o, before = self.options, self.theta
        lr = o["lr"] / (1 + self.t * o.get("lr_decay", 0.0))
        self.t += 1
        move, divisor = self.direction(-g if o["maximize"] else g)
        p = divisor**-0.5
        moved = (1 - lr * o["l2"]) * before - lr * move
        if o["shrinkage"] == "sign":
            self.theta = moved - lr * o["l1"] * p * sign(before)
        else:
            self.theta = sign(moved) * max(abs(moved) - lr * o["l1"] * p, 0.0)


def run_slowly(kind: str, params: list[nn.Parameter], **options: Any) -> list[Tensor]:
    numbers = [[Slow(kind, float(entry), **options) for entry in param.detach().flatten()] for param in params]
    theta = [nn.Parameter(param.detach().clone()) for param in params]
    for step in range(STEPS):
        for param, row, gradient in zip(theta, numbers, gradients(step, theta), strict=True):
            for number, g in zip(row, gradient.flatten().tolist(), strict=True):
                number.step(g)
            values = torch.tensor([number.theta for number in row], dtype=torch.float64)
            param.data = values.reshape(param.shape)
    return [param.detach() for param in theta]


TERMS = [{"l1": 0.3}, {"l2": 0.4}, {"l1": 0.02, "l2": 0.4}]


@pytest.mark.parametrize(
    ("kind", "options", "foreach", "terms", "shrinkage"),
    [(*variant, *more) for variant, *more in pairs(VARIANTS, [False, True], TERMS, shrinkage.SHRINKAGES)],
    ids=str,
)
def test_each_entry_takes_the_steps_of_the_theorems(
    kind: str, options: dict[str, Any], foreach: bool, terms: dict[str, float], shrinkage: str
):
    params = parameters()
    expected = run_slowly(kind, params, **options, **terms, shrinkage=shrinkage)
    run(OURS[kind](params, lr=0.1, foreach=foreach, shrinkage=shrinkage, **terms, **options), params)
    for param, entries in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), entries, rtol=1e-9, atol=1e-10)


@every_kind
def test_groups_keep_their_own_options(kind: str):
    apart = [{"l1": 0.3, "lr": 0.05}, {"l2": 0.5, "shrinkage": "soft"}, {"l1": 0.1, "l2": 0.2, "shrinkage": "soft"}]
    together = parameters()
    run(OURS[kind]([{"params": [p], **o} for p, o in zip(together, apart, strict=True)], lr=0.1), together)
    for i, options in enumerate(apart):
        expected = run_slowly(kind, parameters(), **{"lr": 0.1, **options})[i]
        torch.testing.assert_close(together[i].detach(), expected, rtol=1e-9, atol=1e-10)


# what is torch's stays torch's

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.mark.parametrize(
    ("kind", "options", "foreach", "dtype"),
    [(*variant, *more) for variant, *more in pairs(VARIANTS, [False, True], DTYPES)],
    ids=str,
)
def test_without_terms_it_is_torchs_own_bit_for_bit(
    kind: str, options: dict[str, Any], foreach: bool, dtype: torch.dtype
):
    found, expected = parameters(dtype), parameters(dtype)
    run(OURS[kind](found, lr=0.1, shrinkage="soft", foreach=foreach, **options), found)
    run(TORCHS[kind](expected, lr=0.1, foreach=foreach, **options), expected)
    assert_bits(found, expected)


PATHS: list[dict[str, bool]] = [{"foreach": False}, {"foreach": True}, {"fused": True}, {}]


@pytest.mark.parametrize(
    ("path", "options", "shrinkage", "dtype"),
    pairs(PATHS, [{}, {"amsgrad": True}, {"maximize": True}], shrinkage.SHRINKAGES, DTYPES),
    ids=str,
)
def test_adam_with_l2_is_adamw_bit_for_bit(
    path: dict[str, bool], options: dict[str, bool], shrinkage: str, dtype: torch.dtype
):
    found, expected = parameters(dtype), parameters(dtype)
    run(IntrinsicAdam(found, lr=0.1, l2=0.3, shrinkage=shrinkage, **path, **options), found)
    run(torch.optim.AdamW(expected, lr=0.1, weight_decay=0.3, **path, **options), expected)
    assert_bits(found, expected)


def test_adam_with_l2_and_a_rate_in_a_tensor_is_adamw_bit_for_bit():
    found, expected = parameters(), parameters()
    run(IntrinsicAdam(found, lr=torch.tensor(0.1), l2=0.3), found)
    run(torch.optim.AdamW(expected, lr=torch.tensor(0.1), weight_decay=0.3), expected)
    assert_bits(found, expected)


@every_variant
@pytest.mark.parametrize("shrinkage", shrinkage.SHRINKAGES)
def test_foreach_and_loop_agree(kind: str, options: dict[str, Any], shrinkage: str):
    one, other = parameters(), parameters()
    run(OURS[kind](one, lr=0.1, l1=0.1, l2=0.2, shrinkage=shrinkage, foreach=False, **options), one)
    run(OURS[kind](other, lr=0.1, l1=0.1, l2=0.2, shrinkage=shrinkage, foreach=True, **options), other)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
@pytest.mark.parametrize("shrinkage", shrinkage.SHRINKAGES)
def test_fused_steps_have_the_terms_too(kind: str, shrinkage: str):
    one, other = parameters(), parameters()
    decay = {"lr_decay": 0.1} if kind == "adagrad" else {}
    run(OURS[kind](one, lr=0.1, l1=0.1, l2=0.2, shrinkage=shrinkage, fused=True, **decay), one)
    run(OURS[kind](other, lr=0.1, l1=0.1, l2=0.2, shrinkage=shrinkage, foreach=False, **decay), other)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@every_kind
def test_a_rate_in_a_tensor_gives_the_same_terms(kind: str):
    one, other = parameters(), parameters()
    run(OURS[kind](one, lr=torch.tensor(0.25, dtype=torch.float64), l1=0.1, l2=0.2), one)
    run(OURS[kind](other, lr=0.25, l1=0.1, l2=0.2), other)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@every_kind
def test_schedules_change_the_terms_with_the_rate(kind: str):
    param = nn.Parameter(torch.tensor([4.0], dtype=torch.float64))
    optimizer = OURS[kind]([param], lr=0.5, l2=0.25, eps=1.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for rate in (0.5, 0.25, 0.125):
        before, param.grad = param.item(), torch.zeros_like(param)
        optimizer.step()
        schedule.step()
        assert param.item() == before * (1 - rate * 0.25)


@every_kind
def test_a_closure_is_called_once_with_gradients_on_and_its_loss_comes_back(kind: str):
    param = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    plain = nn.Parameter(param.detach().clone())
    optimizer, other = (OURS[kind]([p], lr=0.1, l1=0.2, l2=0.1) for p in (param, plain))
    calls = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        calls.append(loss.item())
        return loss

    assert optimizer.step(closure).item() == 13
    assert calls == [13]
    plain.square().sum().backward()
    other.step()
    assert torch.equal(param, plain)


@every_kind
def test_hooks_run_once_around_a_step(kind: str):
    TORCHS[kind](parameters())  # torch puts hooks around the steps of a class when it is first used
    torch.optim.AdamW(parameters())
    params, calls = parameters(), []
    optimizer = OURS[kind](params)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    run(optimizer, params, stop=1)
    assert calls == ["before", "after"]


@pytest.mark.parametrize("kind", ["adam", "adagrad"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_skips_the_terms_with_the_step(kind: str, fused: bool):
    params, expected = parameters(torch.float32), parameters(torch.float32)
    optimizer, plain = (OURS[kind](p, lr=0.1, l1=0.1, l2=0.2, fused=fused) for p in (params, expected))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for value in (math.inf, 1.0):
        before = [param.detach().clone() for param in params]
        loss = sum(param.sum() for param in params) * value
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if value == math.inf:
            assert_bits(params, before)
    for param in expected:
        param.grad = torch.ones_like(param)
    plain.step()
    assert_bits(params, expected)


@every_kind
def test_parameters_without_gradients_stay(kind: str):
    params = parameters()
    optimizer = OURS[kind](params, lr=0.1, l1=0.5, l2=0.5)
    optimizer.step()
    assert_bits(params, parameters())
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert not torch.equal(params[0], parameters()[0])
    assert_bits(params[1:], parameters()[1:])


@pytest.mark.parametrize(
    ("kind", "options", "foreach"), [(*variant, path) for variant, path in once(VARIANTS, [False, True])], ids=str
)
def test_half_way_saved_and_resumed_it_goes_on_bit_for_bit(kind: str, options: dict[str, Any], foreach: bool):
    terms = {"lr": 0.1, "l1": 0.1, "l2": 0.2, "shrinkage": "soft", "foreach": foreach, **options}
    through = parameters()
    run(OURS[kind](through, **terms), through)
    params = parameters()
    optimizer = OURS[kind](params, **terms)
    run(optimizer, params, stop=STEPS // 2)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = OURS[kind](params, lr=7.0, foreach=foreach)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    run(resumed, params, start=STEPS // 2)
    assert_bits(params, through)


@every_kind
def test_a_deep_copy_goes_its_own_way(kind: str):
    params = parameters()
    optimizer = OURS[kind](params, lr=0.1, l1=0.1, l2=0.2)
    run(optimizer, params, stop=3)
    copied = copy.deepcopy(optimizer)
    copied_params = copied.param_groups[0]["params"]
    run(optimizer, params, start=3)
    assert not torch.equal(copied_params[0], params[0])
    run(copied, copied_params, start=3)
    assert_bits(copied_params, params)
    assert copied.param_groups[0]["l1"] == 0.1


@every_kind
def test_a_pickled_optimizer_and_one_with_a_schedule_take_the_same_steps(kind: str):
    params = parameters()
    optimizer = OURS[kind](params, lr=0.1, l1=0.1, l2=0.2)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)  # replaces ``step`` of the object
    run(optimizer, params, stop=3)
    pickled = pickle.loads(pickle.dumps(optimizer.__class__(parameters(), lr=0.1, l1=0.1, l2=0.2)))
    copied_params = pickled.param_groups[0]["params"]
    run(pickled, copied_params, stop=3)
    assert isinstance(pickled, TORCHS[kind])
    assert_bits(copied_params, params)


@every_kind
def test_checkpoints_of_torchs_own_are_loaded_and_go_on_bit_for_bit(kind: str):
    params, expected = parameters(), parameters()
    old, own = TORCHS[kind](params, lr=0.1), TORCHS[kind](expected, lr=0.1)
    run(old, params, stop=4)
    resumed = OURS[kind](params)
    resumed.load_state_dict(old.state_dict())
    run(resumed, params, start=4)
    run(own, expected)
    assert_bits(params, expected)
    assert [resumed.param_groups[0][name] for name in shrinkage.DEFAULTS] == list(shrinkage.DEFAULTS.values())


def test_a_checkpoint_of_adamw_brings_its_decay_as_l2():
    params, expected = parameters(), parameters()
    old, own = (torch.optim.AdamW(p, lr=0.1, weight_decay=0.3) for p in (params, expected))
    run(old, params, stop=4)
    resumed = IntrinsicAdam(params)
    resumed.load_state_dict(old.state_dict())
    assert (resumed.param_groups[0]["l2"], resumed.param_groups[0]["weight_decay"]) == (0.3, 0)
    run(resumed, params, start=4)
    run(own, expected)
    assert_bits(params, expected)


@every_kind
def test_a_checkpoint_with_coupled_decay_is_refused_and_changes_nothing(kind: str):
    old = TORCHS[kind](parameters(), weight_decay=0.3)
    optimizer = OURS[kind](parameters(), lr=0.1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"weight_decay 0\.3 without decoupled_weight_decay; only decoupled .* to l2"):
        optimizer.load_state_dict(old.state_dict())
    assert optimizer.state_dict()["param_groups"] == before["param_groups"]


def test_an_own_checkpoint_is_loaded_that_does_not_say_that_its_decay_is_decoupled():  # as of torch before 2.7
    params = parameters()
    state = IntrinsicAdam(params, lr=0.1, l2=0.3).state_dict()
    for group in state["param_groups"]:
        group.pop("decoupled_weight_decay", None)
    resumed = IntrinsicAdam(params)
    resumed.load_state_dict(state)
    assert (resumed.param_groups[0]["l2"], resumed.param_groups[0]["weight_decay"]) == (0.3, 0)


# gradients that are sparse


@every_kind
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # torch's Adagrad makes them itself
def test_sparse_gradients_are_refused_or_taken_as_torch_does(kind: str):
    def step(made: Callable[..., torch.optim.Optimizer], **options: Any) -> Tensor:
        param = nn.Parameter(torch.ones(4))
        entries = torch.tensor([[1, 3]]), torch.tensor([1.0, 2.0])
        param.grad = torch.sparse_coo_tensor(*entries, (4,), check_invariants=True)
        made([param], lr=0.1, **options).step()
        return param.detach()

    if kind == "adagrad":
        assert torch.equal(step(OURS[kind]), step(TORCHS[kind]))
    else:
        with pytest.raises(RuntimeError, match="does not support sparse gradients"):
            step(OURS[kind])
    for term in ("l1", "l2"):
        with pytest.raises(RuntimeError, match="a gradient is sparse; l1 and l2 act on all entries"):
            step(OURS[kind], **{term: 0.1})


# the theorems as invariances, with P held still


def still(params: list[nn.Parameter], v: list[Tensor], **options: Any) -> IntrinsicRMSprop:
    """An RMSprop whose second moments stay as they are: P = v^(−1/4)."""
    optimizer = IntrinsicRMSprop(params, alpha=1.0, eps=0.0, **options)
    for param, moment in zip(params, v, strict=True):
        optimizer.state[param] = {"step": torch.zeros(()), "square_avg": moment.clone()}
    return optimizer


def test_theorem_3_the_step_is_plain_descent_in_z_on_the_loss_with_l2_of_z():
    v = gaussian(5).square() + 0.1
    p, lr, l2 = v**-0.25, 0.05, 0.3
    param = nn.Parameter(gaussian(5, seed=1))
    z = (param.detach() / p).requires_grad_()

    def loss(theta: Tensor) -> Tensor:
        return theta.sin().sum() + (theta**4).mean()

    optimizer = still([param], [v], lr=lr, l2=l2)
    for _ in range(20):
        optimizer.zero_grad()
        loss(param).backward()
        optimizer.step()
        (slope,) = torch.autograd.grad(loss(p * z) + l2 / 2 * z.square().sum(), z)
        z = (z - lr * slope).detach().requires_grad_()
        torch.testing.assert_close(param.detach(), (p * z).detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shrinkage", shrinkage.SHRINKAGES)
def test_theorem_4_the_step_is_plain_descent_in_z_on_the_loss_with_l1_of_z(shrinkage: str):
    v = gaussian(5).square() + 0.1
    p, lr, l1 = v**-0.25, 0.05, 0.3
    param = nn.Parameter(gaussian(5, seed=1))
    z = param.detach() / p
    optimizer = still([param], [v], lr=lr, l1=l1, shrinkage=shrinkage)
    for _ in range(20):
        param.grad = param.detach().cos()
        optimizer.step()
        moved = z - lr * p * (p * z).cos()
        z = moved - lr * l1 * z.sign() if shrinkage == "sign" else nn.functional.softshrink(moved, lr * l1)
        torch.testing.assert_close(param.detach(), p * z, rtol=1e-12, atol=1e-13)


def test_intrinsic_l1_stands_between_adam_with_l1_and_adamw_with_l1():
    v = torch.tensor([1e-4, 1.0, 1e4], dtype=torch.float64)
    param = nn.Parameter(torch.full((3,), 7.0, dtype=torch.float64))
    param.grad = torch.zeros_like(param)
    still([param], [v], lr=0.1, l1=0.01).step()
    shrunk = 7 - param.detach()
    loss_with_l1, decoupled = 0.1 * 0.01 / v.sqrt(), torch.full_like(v, 0.1 * 0.01)
    torch.testing.assert_close(shrunk, (loss_with_l1 * decoupled).sqrt(), rtol=1e-10, atol=0)


@both_paths
def test_soft_is_the_minimiser_in_the_metric_of_p(foreach: bool):
    theta, p, lr, l1 = 3 * gaussian(200), gaussian(200, seed=1).exp(), 0.7, 1.3
    found = theta.clone()
    shrinkage.soft_threshold_([found], [lr * l1 * p], foreach)
    # 0 ∈ λ ∂|u| / p + (u − θ⁺) / (α p²)
    pull = (theta - found) * p / (lr * l1) / p**2
    zero = found == 0
    assert 20 < zero.sum() < 180
    assert (pull[zero].abs() <= 1).all()
    torch.testing.assert_close(pull[~zero], found[~zero].sign(), rtol=1e-12, atol=0)

    def objective(u: Tensor) -> Tensor:
        return l1 * (u / p).abs() + (u - theta) ** 2 / (2 * lr * p**2)

    for seed, scale in itertools.product(range(5), (1e-3, 1e-1, 1.0)):
        assert (objective(found) <= objective(found + scale * gaussian(200, seed=10 + seed))).all()


# zeros


@functools.cache
def lasso(shrinkage: str, foreach: bool = False) -> tuple[Tensor, Tensor, Tensor, IntrinsicRMSprop]:
    """A lasso in z, run for long: θ, the gradient of its loss there, p, the optimizer. Look, do not write."""
    matrix, v = gaussian(20, 8), 10 ** torch.linspace(-2, 2, 8, dtype=torch.float64)
    target = matrix @ torch.tensor([3.0, -2.0, 0, 0, 0, 1.5, 0, 0], dtype=torch.float64) + 0.1 * gaussian(20, seed=1)
    param, p = nn.Parameter(gaussian(8, seed=2)), v**-0.25
    rate = 1 / torch.linalg.matrix_norm(matrix * p, ord=2).item() ** 2
    optimizer = still([param], [v], lr=rate, l1=3.0, shrinkage=shrinkage, foreach=foreach)
    for _ in range(1500):
        param.grad = matrix.T @ (matrix @ param.detach() - target)
        optimizer.step()
    return param.detach(), matrix.T @ (matrix @ param.detach() - target), p, optimizer


@both_paths
def test_soft_solves_the_lasso_weighted_by_p_with_exact_zeros(foreach: bool):
    theta, gradient, p, optimizer = lasso("soft", foreach)
    zero = theta == 0
    assert 2 <= zero.sum() <= 6
    torch.testing.assert_close(gradient[~zero], -3.0 * theta[~zero].sign() / p[~zero], rtol=1e-9, atol=1e-9)
    assert (gradient[zero].abs() < 3.0 / p[zero]).all()
    assert sparsity(optimizer).overall == zero.sum().item() / 8


def test_sign_jitters_about_the_same_point_by_the_threshold_and_has_no_exact_zeros():
    theta, _, p, optimizer = lasso("sign")
    solution, *_ = lasso("soft")
    threshold = optimizer.param_groups[0]["lr"] * 3.0 * p
    assert sparsity(optimizer).overall == 0
    zero = solution == 0
    assert ((theta - solution).abs()[zero] <= 2 * threshold[zero]).all()
    assert (theta.abs()[zero] > 1e-3 * threshold[zero]).all()
    assert sparsity([theta], threshold=2 * threshold.max().item()).overall >= zero.sum().item() / 8


@every_kind
def test_soft_reaches_exact_zeros_and_sign_does_not(kind: str):
    matrix = gaussian(30, 6)
    target = matrix[:, :2].sum(1)
    shares = {}
    for shrink in shrinkage.SHRINKAGES:
        param = nn.Parameter(gaussian(6, seed=3))
        optimizer = OURS[kind]([param], lr=0.02, l1=0.5, shrinkage=shrink)
        for _ in range(900):
            param.grad = matrix.T @ (matrix @ param.detach() - target)
            optimizer.step()
        shares[shrink] = sparsity(optimizer).overall
        assert (param[:2] > 0.2).all()
    assert shares["sign"] == 0
    assert shares["soft"] >= 0.5


def test_sparsity_counts_zeros_of_parameters_and_of_groups():
    params = [nn.Parameter(torch.tensor([0.0, -0.0, 0.1, -3.0])), nn.Parameter(torch.zeros(2, 2))]
    assert sparsity(params) == (0.75, [0.5, 1.0])
    assert sparsity(iter(params), threshold=0.1).parts == [0.75, 1.0]
    optimizer = torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.1}], lr=1.0)
    assert sparsity(optimizer) == (0.75, [0.5, 1.0])
    assert sparsity([]) == (0.0, [])
    with pytest.raises(ValueError, match=r"threshold is -1.0; it must be a number from 0 up"):
        sparsity(params, -1.0)


# refusals


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"l1": -0.1}, r"l1 is -0.1; it must be a number from 0 up"),
    ({"l1": math.nan}, r"l1 is nan; it must be"),
    ({"l2": math.inf}, r"l2 is inf; it must be"),
    ({"shrinkage": "hard"}, r"shrinkage is 'hard'; it must be one of sign, soft"),
    ({"weight_decay": 0.1}, r"weight_decay is 0.1; it must be 0, .*: use l2"),
    ({"differentiable": True}, r"differentiable is True; it must be False"),
]


@pytest.mark.parametrize(
    ("kind", "options", "sentence"), [(kind, *refused) for kind, refused in once(OURS, REFUSED)], ids=str
)
def test_what_cannot_be_had_is_refused_in_a_sentence(kind: str, options: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        OURS[kind](parameters(), **options)
    with pytest.raises(ValueError, match=sentence):
        OURS[kind]([{"params": parameters(), **options}])
    optimizer = OURS[kind](parameters())
    with pytest.raises(ValueError, match=sentence):
        optimizer.add_param_group({"params": parameters(), **options})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": parameters(), "l1": 0.5})
    assert (optimizer.param_groups[1]["l1"], optimizer.param_groups[1]["shrinkage"]) == (0.5, "sign")


@every_kind
def test_complex_parameters_are_refused(kind: str):
    with pytest.raises(ValueError, match="a parameter is complex; it must be real"):
        OURS[kind]([nn.Parameter(torch.ones(2, dtype=torch.complex64))])


# on a GPU


@every_variant
@pytest.mark.parametrize("shrinkage", shrinkage.SHRINKAGES)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_steps_are_those_on_the_processor(kind: str, options: dict[str, Any], shrinkage: str):
    expected, params = parameters(), [nn.Parameter(param.detach().cuda()) for param in parameters()]
    terms = {"lr": 0.1, "l1": 0.1, "l2": 0.2, "shrinkage": shrinkage, **options}
    optimizers = OURS[kind](expected, **terms), OURS[kind](params, **terms)
    for step in range(STEPS):
        for i, gradient in enumerate(gradients(step, expected)):
            expected[i].grad, params[i].grad = gradient, gradient.cuda()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(params, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
@pytest.mark.parametrize("shrinkage", shrinkage.SHRINKAGES)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_step_is_the_eager_one_and_waits_for_nothing(kind: str, shrinkage: str):
    def ready() -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
        params = [nn.Parameter(param.detach().cuda()) for param in parameters()]
        for param in params:
            param.grad = torch.ones_like(param)
        rate = torch.tensor(0.1, device="cuda", dtype=torch.float64)
        made = OURS[kind](params, lr=rate, l1=0.1, l2=0.2, shrinkage=shrinkage, capturable=True)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            made.step()
        torch.cuda.current_stream().wait_stream(stream)
        return params, made

    params, optimizer = ready()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for _ in range(3):
        graph.replay()
    expected, eager = ready()
    for _ in range(3):
        eager.step()
    for a, b in zip(params, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    assert intrinsic.sparsity(optimizer).overall <= 1
