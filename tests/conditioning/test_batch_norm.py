"""Tests of batch-norm preconditioning."""

import copy
import io
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from enerf.conditioning import batch_norm
from enerf.conditioning.batch_norm import is_preconditioned, precondition_, restore_
from enerf.conditioning.diagnostics import spectrum

EXACT: dict[str, Any] = {"decay": 0.0, "eps_relative": 0.0, "eps": 0.0}


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def awkward(*shape: int, seed: int = 0, channel: int = 1) -> Tensor:
    """Inputs whose features have means and spreads of their own."""
    features = torch.ones(len(shape), dtype=torch.long).tolist()
    features[channel] = shape[channel]
    n = shape[channel]
    spread = torch.logspace(-1, 1, n, dtype=torch.float64).reshape(features)
    return (gaussian(*shape, seed=seed) + 2 * gaussian(n, seed=seed + 1).reshape(features)) * spread


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3), (11, 5)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (11, 5)),
    "linear, small batch": (lambda: nn.Linear(5, 3), (2, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 3, 3, padding=1), (6, 4, 8)),
    "conv2d": (lambda: nn.Conv2d(4, 3, (3, 2), stride=2, padding=1, padding_mode="circular"), (3, 4, 6, 5)),
    "conv2d without bias": (lambda: nn.Conv2d(4, 3, 2, bias=False, dilation=2), (3, 4, 6, 5)),
    "conv2d in groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (3, 4, 6, 5)),
    "conv2d, depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (3, 4, 6, 5)),
    "conv2d, small batch": (lambda: nn.Conv2d(4, 3, 2), (1, 4, 2, 2)),
    "conv3d": (lambda: nn.Conv3d(3, 2, 2), (2, 3, 3, 4, 3)),
}
every_layer = pytest.mark.parametrize("kind", list(LAYERS))


def layer_and_inputs(kind: str) -> tuple[nn.Module, Tensor]:
    make, shape = LAYERS[kind]
    torch.manual_seed(3)
    return make().double(), awkward(*shape)


def gradients(layer: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Of a loss that is not quadratic, with respect to the layer's parameters."""
    return list(torch.autograd.grad(layer(inputs).sin().sum(), list(layer.parameters())))


def statistics(inputs: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean, variance and number of rows, feature by feature."""
    rows = inputs.movedim(1, -1).reshape(-1, inputs.shape[1])
    return rows.mean(0), (rows - rows.mean(0)).square().mean(0), len(rows)


# values


@every_layer
@pytest.mark.parametrize("training", [True, False])
def test_outputs_stay_bit_for_bit(kind: str, training: bool):
    layer, inputs = layer_and_inputs(kind)
    layer.train(training)
    expected = layer(inputs)
    precondition_(layer)
    assert torch.equal(layer(inputs), expected)
    assert torch.equal(layer(inputs.float().double()), functional_of(layer, inputs.float().double()))


def functional_of(layer: nn.Module, inputs: Tensor) -> Tensor:
    plain = copy.deepcopy(layer)
    restore_(plain)
    return plain(inputs)


@every_layer
def test_gradients_of_inputs_stay_bit_for_bit(kind: str):
    layer, inputs = layer_and_inputs(kind)
    inputs.requires_grad_()
    (expected,) = torch.autograd.grad(layer(inputs).sin().sum(), inputs)
    precondition_(layer)
    (found,) = torch.autograd.grad(layer(inputs).sin().sum(), inputs)
    assert torch.equal(found, expected)


# gradients


def dense_preconditioner(mean: Tensor, tempered: Tensor, taps: int, q2: float, with_bias: bool) -> Tensor:
    """P of one output, written out: channels repeated for each tap."""
    mean, sigma = mean.repeat_interleave(taps), tempered.sqrt().repeat_interleave(taps)
    if not with_bias:
        return torch.diag(1 / sigma) / math.sqrt(q2)
    upper = torch.eye(len(mean) + 1, dtype=torch.float64)
    upper[0, 1:] = -mean
    return upper @ torch.diag(torch.cat([torch.ones(1), 1 / sigma])) / math.sqrt(q2)


@every_layer
@pytest.mark.parametrize("options", [{}, {"eps_relative": 0.3, "eps": 0.1}], ids=str)
def test_the_gradient_is_the_product_with_p_p_transposed(kind: str, options: dict[str, float]):
    layer, inputs = layer_and_inputs(kind)
    plain = gradients(layer, inputs)
    precondition_(layer, **options)
    found = gradients(layer, inputs)
    mean, variance, rows = statistics(inputs)
    tempered = variance + options.get("eps_relative", 1e-2) * variance.max() + options.get("eps", 1e-4)
    n_out, n_in = layer.weight.shape[:2]
    taps, groups = layer.weight[0, 0].numel(), len(mean) // n_in
    q2 = max(n_in * taps / rows, 1)
    for output in range(n_out):
        first = output // (n_out // groups) * n_in
        own = slice(first, first + n_in)
        p = dense_preconditioner(mean[own], tempered[own], taps, q2, layer.bias is not None)
        extended = plain[0][output].flatten()
        if layer.bias is not None:
            extended = torch.cat([plain[1][output : output + 1], extended])
        expected = p @ p.T @ extended
        assembled = found[0][output].flatten()
        if layer.bias is not None:
            assembled = torch.cat([found[1][output : output + 1], assembled])
        torch.testing.assert_close(assembled, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_is_no_part_of_p(frozen: str):
    layer, inputs = layer_and_inputs("linear, small batch")
    moving = "bias" if frozen == "weight" else "weight"
    plain = dict(zip(["weight", "bias"], gradients(layer, inputs), strict=True))
    precondition_(layer, **EXACT)
    layer.get_parameter(frozen).requires_grad_(False)
    layer(inputs).sin().sum().backward()
    scale = 1.0 if frozen == "weight" else statistics(inputs)[1]
    assert layer.get_parameter(frozen).grad is None
    torch.testing.assert_close(layer.get_parameter(moving).grad, plain[moving] / scale / (5 / 2))


def test_a_gradient_step_is_plain_descent_in_z():
    layer, inputs = layer_and_inputs("linear")
    mean, variance, _ = statistics(inputs)
    tempered = variance + 1e-2 * variance.max() + 1e-4
    p = dense_preconditioner(mean, tempered, 1, 1.0, True)
    theta = torch.cat([layer.bias[:, None], layer.weight], 1).detach()
    z = torch.linalg.solve(p, theta.T).requires_grad_()
    b, *w = p @ z
    (slope,) = torch.autograd.grad((inputs @ torch.stack(w) + b).sin().sum(), z)
    expected = p @ (z - 0.1 * slope)
    precondition_(layer)
    weight, bias = gradients(layer, inputs)
    stepped = torch.cat([(layer.bias - 0.1 * bias)[:, None], layer.weight - 0.1 * weight], 1)
    torch.testing.assert_close(stepped.T, expected.detach(), rtol=1e-11, atol=1e-12)


class Standardized(nn.Module):
    """A layer that sees (x − μ) / σ̃, batch by batch; the statistics are constants to autograd."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        mean, self.sigma = inputs.detach().mean(0), inputs.detach().std(0, correction=0)
        self.mean = mean
        return self.layer((inputs - mean) / self.sigma)


def test_it_is_plain_descent_on_the_network_with_standardized_inputs_mapped_back():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    inputs, target = awkward(40, 4), gaussian(40, 2, seed=5)
    for i in (0, 2, 4):
        precondition_(net[i], **EXACT)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(5):
        copied = copy.deepcopy(net)
        hidden = inputs
        for i in (0, 2, 4):  # the same function of standardized inputs
            restore_(copied[i])
            mean, sigma = hidden.mean(0), hidden.std(0, correction=0)
            with torch.no_grad():
                copied[i].bias += copied[i].weight @ mean
                copied[i].weight *= sigma
            hidden = net[: i + 2](inputs).detach() if i < 4 else hidden
            copied[i] = Standardized(copied[i])
        torch.testing.assert_close(copied(inputs), net(inputs), rtol=1e-10, atol=1e-11)
        descent = torch.optim.SGD(copied.parameters(), lr=0.05)
        (copied(inputs) - target).square().mean().backward()
        descent.step()
        optimizer.zero_grad()
        (net(inputs) - target).square().mean().backward()
        optimizer.step()
        for i in (0, 2, 4):
            weight = copied[i].layer.weight / copied[i].sigma
            torch.testing.assert_close(net[i].weight, weight, rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(
                net[i].bias, copied[i].layer.bias - weight @ copied[i].mean, rtol=1e-9, atol=1e-10
            )


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_the_path_is_invariant_to_affine_rescaling_of_the_inputs(kind: str):
    torch.manual_seed(1)
    layer = (nn.Linear(5, 3) if kind == "linear" else nn.Conv2d(5, 3, 2)).double()
    inputs = awkward(12, 5) if kind == "linear" else awkward(4, 5, 4, 4)
    view = (-1, *[1] * (inputs.ndim - 2))
    scale, shift = gaussian(5, seed=7).exp(), 3 * gaussian(5, seed=8)
    other = copy.deepcopy(layer)
    with torch.no_grad():  # the same outputs for scale · x + shift
        other.weight /= scale.reshape(view)
        other.bias -= (other.weight * shift.reshape(view)).flatten(1).sum(1)
    outputs = []
    for each, seen in ((layer, inputs), (other, inputs * scale.reshape(view) + shift.reshape(view))):
        precondition_(each, **EXACT)
        optimizer = torch.optim.SGD(each.parameters(), lr=0.02)
        path = []
        for _ in range(10):
            optimizer.zero_grad()
            path.append(each(seen))
            path[-1].cos().sum().backward()
            optimizer.step()
        outputs.append(torch.stack(path))
    torch.testing.assert_close(*outputs, rtol=1e-8, atol=1e-9)
    assert (outputs[0][-1] - outputs[0][0]).abs().max() > 0.1


def test_the_preconditioned_hessian_has_the_kappa_of_the_standardized_extended_matrix():
    inputs = awkward(50, 6)
    mean, variance, rows = statistics(inputs)
    extended = torch.cat([torch.ones(rows, 1, dtype=torch.float64), inputs], 1)
    standardized = torch.cat([extended[:, :1], (inputs - mean) / variance.sqrt()], 1)
    p = dense_preconditioner(mean, variance, 1, 1.0, True)
    hessian = extended.T @ extended / rows
    kappa = spectrum.condition_number(p.T @ hessian @ p)
    torch.testing.assert_close(kappa, spectrum.condition_number(standardized) ** 2, rtol=1e-8, atol=0)
    assert kappa < 10
    assert spectrum.condition_number(hessian) > 1000


def test_ill_conditioned_least_squares_takes_far_fewer_steps():
    inputs, rows = awkward(50, 6), 50
    target = inputs @ gaussian(6, 1, seed=2) + 1
    extended = torch.cat([torch.ones(rows, 1, dtype=torch.float64), inputs], 1)
    mean, variance, _ = statistics(inputs)
    p = dense_preconditioner(mean, variance, 1, 1.0, True)

    def steps(preconditioned: bool, limit: int = 2000) -> int:
        torch.manual_seed(0)
        layer = nn.Linear(6, 1).double()
        within = torch.eye(7, dtype=torch.float64)
        if preconditioned:
            precondition_(layer, **EXACT)
            within = p
        curvatures = torch.linalg.eigvalsh(within.T @ extended.T @ extended @ within / rows)
        optimizer = torch.optim.SGD(layer.parameters(), lr=2 / (curvatures[0] + curvatures[-1]).item())
        for step in range(limit):
            loss = (layer(inputs) - target).square().mean() / 2
            if loss < 1e-8:
                return step
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return limit

    assert steps(preconditioned=True) < 40
    assert steps(preconditioned=False) == 2000


def test_gradients_add_up_over_parts_of_a_batch_while_the_averages_stand_still():
    layer, inputs = layer_and_inputs("linear")
    precondition_(layer)
    layer(inputs)
    layer.eval()
    layer(inputs).sin().sum().backward()
    whole = [param.grad for param in layer.parameters()]
    layer.zero_grad()
    for part in (inputs[:5], inputs[5:]):
        layer(part).sin().sum().backward()
    for param, expected in zip(layer.parameters(), whole, strict=True):
        torch.testing.assert_close(param.grad, expected, rtol=1e-11, atol=1e-12)


def test_two_calls_before_the_backward_pass_keep_their_own_statistics():
    layer, inputs = layer_and_inputs("linear")
    other = 5 + awkward(11, 5, seed=4)
    precondition_(layer, **EXACT)
    apart = [gradients(layer, seen) for seen in (inputs, other)]
    loss = layer(inputs).sin().sum() + layer(other).sin().sum()
    found = torch.autograd.grad(loss, list(layer.parameters()))
    for i in range(2):
        torch.testing.assert_close(found[i], apart[0][i] + apart[1][i], rtol=1e-11, atol=1e-12)


def test_products_with_the_hessian_are_preconditioned_from_both_sides():
    layer, inputs = layer_and_inputs("linear")

    def product(of: nn.Module, v: list[Tensor]) -> list[Tensor]:
        params = list(of.parameters())
        first = torch.autograd.grad(of(inputs).sin().sum(), params, create_graph=True)
        return list(torch.autograd.grad(first, params, v))

    def both(v: list[Tensor]) -> list[Tensor]:
        mean, variance, _ = statistics(inputs)
        p = dense_preconditioner(mean, variance, 1, 1.0, True)
        scaled = torch.cat([v[1][:, None], v[0]], 1) @ p @ p.T
        return [scaled[:, 1:], scaled[:, 0]]

    v = [gaussian(3, 5, seed=9), gaussian(3, seed=10)]
    expected = both(product(layer, both(v)))
    precondition_(layer, **EXACT)
    for a, b in zip(product(layer, v), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


# averages


@every_layer
def test_the_first_calls_average_all_data_so_far(kind: str):
    layer, inputs = layer_and_inputs(kind)
    precondition_(layer)
    batches = [inputs + seed for seed in range(4)]
    for batch in batches:
        layer(batch)
    mean, variance, _ = statistics(torch.cat(batches))
    torch.testing.assert_close(layer.input_mean, mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(layer.input_variance, variance, rtol=1e-12, atol=1e-13)
    assert layer.input_batches == 4


def test_later_calls_keep_decay_of_the_mixture_so_far():
    layer, _ = layer_and_inputs("linear")
    precondition_(layer, decay=0.75)
    first, second = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for t in range(20):
        batch = awkward(11, 5, seed=t)
        layer(batch)
        kept = min(0.75, t / (t + 1))
        first = kept * first + (1 - kept) * batch.mean(0)
        second = kept * second + (1 - kept) * batch.square().mean(0)
    torch.testing.assert_close(layer.input_mean, first, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(layer.input_variance, second - first.square(), rtol=1e-9, atol=1e-10)


def test_batches_of_one_row_have_a_variance_in_the_end():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    precondition_(layer)
    inputs = awkward(30, 5)
    for row in inputs:
        layer(row)  # without a batch axis, too
        assert all(gradient.isfinite().all() for gradient in gradients(layer.eval(), row[None]))
        layer.train()
    torch.testing.assert_close(layer.input_variance, statistics(inputs)[1], rtol=1e-10, atol=1e-12)


def test_leading_axes_of_a_linear_layer_are_rows():
    layer, _ = layer_and_inputs("linear")
    inputs = awkward(12, 5)
    precondition_(layer, **EXACT)
    flat = gradients(layer, inputs)
    mean = layer.input_mean.clone()
    for a, b in zip(gradients(layer, inputs.reshape(3, 4, 5)), flat, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(layer.input_mean, mean)


def test_evaluation_and_empty_batches_update_nothing():
    layer, inputs = layer_and_inputs("linear")
    precondition_(layer)
    layer(inputs)
    before = copy.deepcopy(layer.state_dict())
    layer(inputs[:0]).sum().backward()
    layer.eval()(inputs + 1)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), name


# life of a module


def test_copies_and_saved_states_go_on_the_same(tmp_path: Any):
    layer, inputs = layer_and_inputs("conv2d")
    precondition_(layer)
    layer(inputs)
    copied = copy.deepcopy(layer)
    loaded = LAYERS["conv2d"][0]().double()
    precondition_(loaded)
    loaded.load_state_dict(layer.state_dict())
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    whole = torch.load(file, weights_only=False)
    expected = gradients(layer, inputs + 1)
    for other in (copied, loaded, whole):
        for a, b in zip(gradients(other, inputs + 1), expected, strict=True):
            assert torch.equal(a, b)
    copied(inputs + 2)
    assert not torch.equal(copied.input_mean, layer.input_mean)


@every_layer
def test_restored_it_is_the_plain_layer_again(kind: str):
    layer, inputs = layer_and_inputs(kind)
    kind_before, state, parameters = type(layer), copy.deepcopy(layer.state_dict()), list(layer.parameters())
    expected = gradients(layer, inputs)
    assert not is_preconditioned(layer)
    precondition_(layer)
    assert is_preconditioned(layer)
    layer(inputs)
    restore_(layer)
    assert type(layer) is kind_before
    assert not is_preconditioned(layer)
    assert list(layer.state_dict()) == list(state)
    assert set(vars(layer)) == set(vars(LAYERS[kind][0]()))
    assert all(a is b for a, b in zip(layer.parameters(), parameters, strict=True))
    for a, b in zip(gradients(layer, inputs), expected, strict=True):
        assert torch.equal(a, b)
    precondition_(layer)


def test_hooks_stay_and_the_printed_layer_says_what_it_is():
    layer, inputs = layer_and_inputs("linear")
    calls: list[str] = []
    layer.register_forward_hook(lambda *_: calls.append("after"))
    precondition_(layer, decay=0.9)
    layer(inputs)
    assert calls == ["after"]
    assert isinstance(layer, nn.Linear)
    assert repr(layer) == (
        "PreconditionedLinear(in_features=5, out_features=3, bias=True, batch-norm preconditioned, decay=0.9)"
    )


def test_under_autocast_outputs_are_the_plain_layers_and_gradients_are_near_the_exact_ones():
    layer, inputs = layer_and_inputs("linear")
    layer, inputs = layer.float(), inputs.float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(inputs)
        precondition_(layer)
        found = layer(inputs)
    assert torch.equal(found, expected)
    assert layer.input_mean.dtype == torch.float32
    exact = copy.deepcopy(layer).double()
    for layer_, seen in ((layer, found), (exact, exact(inputs.double()))):
        seen.sum().backward()
        assert layer_.weight.grad.dtype == layer_.weight.dtype
    torch.testing.assert_close(layer.bias.grad.double(), exact.bias.grad, rtol=0.05, atol=0.05)


def test_bfloat16_layers_keep_their_averages_in_float32():
    layer, inputs = layer_and_inputs("linear")
    layer = layer.bfloat16()
    precondition_(layer)
    layer(inputs.bfloat16()).sum().backward()
    assert layer.weight.grad.dtype == torch.bfloat16
    assert layer.input_variance.dtype == torch.float32
    torch.testing.assert_close(layer.input_mean, inputs.bfloat16().float().mean(0))


TRACED = """
import copy, torch
from torch import nn
from enerf.conditioning.batch_norm import precondition_

for make, shape in [(lambda: nn.Linear(5, 3), (11, 5)), (lambda: nn.Linear(5, 3, bias=False), (11, 5)),
                    (lambda: nn.Conv2d(4, 6, 3, groups=2), (3, 4, 6, 5))]:
    layer, inputs = make().double(), 3 * torch.randn(shape, dtype=torch.float64) + 1
    precondition_(layer)
    traced = copy.deepcopy(layer)
    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True)
    for step in range(3):
        for each, params in ((layer, layer), (compiled, traced)):
            params.zero_grad()
            each(inputs + step).sin().sum().backward()
        for a, b in zip(traced.parameters(), layer.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-11)
    for a, b in zip(traced.buffers(), layer.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    assert layer.input_batches == 3
print("the same")
"""


def test_the_compiled_layer_is_the_layer_in_one_graph():
    # in a process of its own: torch cannot trace the shape checks of these tests
    done = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr


GRAPHS = """
import torch
from torch import nn
from enerf.conditioning.batch_norm import precondition_

graphs = []

def backend(graph, inputs):
    graphs.append(graph)
    return graph.forward

layer = nn.Linear(4, 4)
precondition_(layer)
compiled = torch.compile(layer, backend=backend)
for _ in range(5):
    layer.zero_grad()
    compiled(torch.randn(8, 4)).square().sum().backward()
    print(len(graphs))
"""


def test_no_call_of_a_compiled_layer_is_compiled_again():
    done = subprocess.run([sys.executable, "-c", GRAPHS], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1"] * 5, done.stderr


def test_functional_gradients_are_preconditioned_too():
    layer, inputs = layer_and_inputs("linear")
    precondition_(layer)
    layer(inputs)
    layer.eval()
    params, buffers = dict(layer.named_parameters()), dict(layer.named_buffers())

    def loss(weights: dict[str, Tensor], seen: Tensor) -> Tensor:
        return torch.func.functional_call(layer, (weights, buffers), (seen,)).sin().sum()

    expected = gradients(layer, inputs)
    for a, b in zip(torch.func.grad(loss)(params, inputs).values(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    parts = torch.func.vmap(torch.func.grad(loss), (None, 0))(params, inputs.reshape(11, 1, 5).expand(11, 5, 5))
    for a, b in zip(parts.values(), expected, strict=True):
        torch.testing.assert_close(a.sum(0), 5 * b, rtol=1e-10, atol=1e-11)


# refusals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"decay": 1.0}, r"decay is 1.0; it must be at least 0 and below 1"),
        ({"decay": -0.1}, r"decay is -0.1; it must be"),
        ({"eps_relative": -1.0}, r"eps_relative is -1.0; it must be a number from 0 up"),
        ({"eps": math.nan}, r"eps is nan; it must be a number from 0 up"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_and_change_nothing(options: dict[str, float], sentence: str):
    layer, _ = layer_and_inputs("linear")
    with pytest.raises(ValueError, match=sentence):
        precondition_(layer, **options)
    assert not is_preconditioned(layer)
    assert len(layer.state_dict()) == 2


def test_other_modules_are_refused_in_a_sentence():
    known = "batch-norm preconditioning takes nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d"
    with pytest.raises(ValueError, match=f"the layer is a ReLU; {known}"):
        precondition_(nn.ReLU())
    with pytest.raises(ValueError, match="the layer is a ParametrizedLinear"):
        precondition_(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match="the layer is a Linear; only layers changed by precondition_ can be restored"):
        restore_(nn.Linear(3, 2))
    layer = nn.Linear(3, 2)
    precondition_(layer)
    with pytest.raises(ValueError, match="preconditioned already; it is done once"):
        precondition_(layer)
    nn.utils.parametrizations.weight_norm(layer)
    assert is_preconditioned(layer)
    with pytest.raises(ValueError, match="the layer is a ParametrizedPreconditionedLinear"):
        restore_(layer)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own forward mode
def test_forward_mode_is_refused_by_torch():
    layer, inputs = layer_and_inputs("linear")
    precondition_(layer)
    layer.eval()
    params = dict(layer.named_parameters())
    with pytest.raises(RuntimeError, match="forward mode AD"):
        torch.func.jvp(lambda p: torch.func.functional_call(layer, p, (inputs,)), (params,), (params,))


# on a GPU


@every_layer
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_gradients_are_those_on_the_processor(kind: str):
    layer, inputs = layer_and_inputs(kind)
    precondition_(layer)
    there = copy.deepcopy(layer).cuda()
    for a, b in zip(gradients(there, inputs.cuda()), gradients(layer, inputs), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-10)
    assert batch_norm.is_preconditioned(there)


ACCUMULATED = "gradients of several calls are accumulated"


def test_accumulation_in_training_is_refused_unless_one_accepts_it():
    for accepted in (False, True):
        layer, inputs = layer_and_inputs("linear")
        precondition_(layer, accumulation=accepted)
        layer(inputs).sin().sum().backward()
        if accepted:
            layer(inputs).sin().sum().backward()
            continue
        before = layer.weight.grad.clone()
        with pytest.raises(RuntimeError, match=ACCUMULATED):
            layer(inputs).sin().sum().backward()
        assert torch.equal(layer.weight.grad, before)
        layer.zero_grad(set_to_none=False)
        layer(inputs).sin().sum().backward()
        torch.optim.SGD(layer.parameters(), lr=0.1).step()  # without zero_grad the next gradient is added to this one
        with pytest.raises(RuntimeError, match=ACCUMULATED):
            layer(inputs).sin().sum().backward()
        layer.eval()(inputs).sin().sum().backward()


def test_the_calls_of_one_backward_pass_are_accepted_and_so_are_further_passes_through_them():
    layer, inputs = layer_and_inputs("linear")
    precondition_(layer)
    first, second = layer(inputs).sin().sum(), layer(2 * inputs).cos().sum()
    (first + second).backward(retain_graph=True)
    first.backward(retain_graph=True)
    second.backward()
    third = layer(inputs).sin().sum()
    with pytest.raises(RuntimeError, match=ACCUMULATED):
        third.backward()


def test_gradients_of_other_terms_are_no_accumulation():
    layer, inputs = layer_and_inputs("linear")
    precondition_(layer)
    for _ in range(3):
        loss = layer(inputs).sin().sum()
        layer.zero_grad()
        layer.weight.square().sum().backward()  # a penalty, by a pass of its own
        loss.backward()
    kept = copy.deepcopy(layer)
    assert pickle.loads(pickle.dumps(layer))(inputs).shape == kept(inputs).shape
    with pytest.raises(RuntimeError, match=ACCUMULATED):
        layer(inputs).sin().sum().backward()


class Aside(torch.optim.SGD):
    """An optimizer that writes through ``.data``, which torch does not count as a change of the parameter."""

    def step(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.data.sub_(0.1 * parameter.grad)


@pytest.mark.parametrize("order", ["zero_grad before the call", "zero_grad before the backward pass"])
@pytest.mark.parametrize("kind", ["SGD", "fused SGD", "fused AdamW", "through .data", "skipped", "without this layer"])
def test_training_with_any_optimizer_is_not_taken_for_accumulation(kind: str, order: str):
    checked, unchecked = (trained(kind, order, accumulation) for accumulation in (False, True))
    for a, b in zip(checked, unchecked, strict=True):
        assert a.grad.any()
        assert torch.equal(a.grad, b.grad)
        assert torch.equal(a, b)


def trained(kind: str, order: str, accumulation: bool) -> list[nn.Parameter]:
    """The parameters, with gradients, of a network after three steps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    precondition_(net[0], accumulation=accumulation)
    parameters = list((net[1] if kind == "without this layer" else net).parameters())
    optimizer = {
        "fused SGD": lambda: torch.optim.SGD(parameters, lr=0.1, fused=True),
        "fused AdamW": lambda: torch.optim.AdamW(parameters, lr=0.1, fused=True),
        "through .data": lambda: Aside(parameters, lr=0.1),
    }.get(kind, lambda: torch.optim.SGD(parameters, lr=0.1))()
    cleared = net if kind == "without this layer" else optimizer
    for _ in range(3):
        if order == "zero_grad before the call":
            cleared.zero_grad()
        loss = net(torch.randn(8, 4)).square().mean()
        cleared.zero_grad()
        loss.backward()
        if kind != "skipped":  # as by a scaler of gradients that are not finite
            optimizer.step()
    return list(net.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_averages_of_models_in_16_bits_stay_in_32(dtype: torch.dtype):
    layer = nn.Linear(4, 4)
    precondition_(layer)
    layer.input_mean.fill_(1e5)
    layer.to(dtype)
    assert layer.weight.dtype == dtype
    assert layer.input_mean.tolist() == [1e5] * 4
    layer((torch.randn(64, 4) * 500).to(dtype)).sum().backward()
    assert layer.input_variance.isfinite().all()
    assert layer.weight.grad.any()
    assert layer.double().input_mean.dtype == torch.float64
    assert layer.to("meta").input_mean.is_meta


def test_a_pickled_layer_of_an_earlier_version_is_complete():
    layer = nn.Linear(4, 4)
    precondition_(layer)
    del layer.accumulation
    restored = pickle.loads(pickle.dumps(layer))
    restored(torch.randn(8, 4)).sum().backward()
    assert restored.weight.grad.any()
