"""Tests of activations: closed forms, finite everywhere, and the reference that puts them into a network."""

import math

import pytest
import torch
from torch import Tensor

from enerf.fields import activations
from enerf.fields.activations import KINDS, Activation
from enerf.fields.backends import dense
from enerf.fields.backends.dense import Layer, Network

MAGNITUDES = [0.0, 1e-30, 1e-3, 0.1, 0.4, 1.0, 10.0, 80.0, 1e3, 1e10, 1e30]
NETWORK = Network((3, 2), (Layer((0,), 6, True), Layer((2, 1), 5, True), Layer((3,), 2, False)), (4,))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow(kind: str, x: float) -> float:
    if kind == "relu":
        return max(x, 0.0)
    if kind == "softplus":
        return max(x, 0.0) + math.log1p(math.exp(-50.0 * abs(x))) / 50.0
    if kind == "finer":
        return math.sin(7.0 * (abs(x) + 1) * x)
    return math.sin(7.0 * x) if kind == "sine" else math.exp(-(x**2) / (2 * 0.3**2))


def made(kind: str) -> Activation:
    return Activation(kind, beta=50.0, omega=7.0, sigma=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_its_formula(kind: str):
    x = torch.cat([3 * drawn(200), torch.linspace(0.7, 0.9, 41, dtype=torch.float64)])  # β x = 40 lies in there
    expected = torch.tensor([slow(kind, v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(made(kind)(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_finite_at_every_magnitude(kind: str, dtype: torch.dtype):
    x = torch.tensor([s * m for m in MAGNITUDES for s in (1, -1)], dtype=dtype, requires_grad=True)
    values = Activation(kind)(x)
    (slopes,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    assert values.isfinite().all()
    assert slopes.isfinite().all()
    if kind != "relu":
        (bends,) = torch.autograd.grad(slopes.sum(), x)
        assert bends.isfinite().all()


def test_finers_gradient_takes_the_frequency_as_a_constant_unless_it_is_exact():
    x = drawn(20).requires_grad_()
    omega, factor = 30.0, x.detach().abs() + 1
    values = Activation("finer")(x)
    torch.testing.assert_close(values, torch.sin(omega * factor * x))
    (slope,) = torch.autograd.grad(values.sum(), x)
    torch.testing.assert_close(slope, omega * factor * torch.cos(omega * factor * x.detach()))
    assert torch.autograd.gradcheck(Activation("finer", omega=2.0, exact=True), x)


@pytest.mark.parametrize("kind", ["softplus", "sine", "gaussian"])
def test_first_and_second_derivatives_are_those_of_differences(kind: str):
    x = drawn(20).requires_grad_()
    assert torch.autograd.gradcheck(made(kind), x)
    assert torch.autograd.gradgradcheck(made(kind), x)


def test_softplus_is_a_relu_up_to_the_width_of_its_corner():
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    over = Activation("softplus", beta=100.0)(x) - torch.relu(x)
    assert (over >= -1e-15).all()  # rounding
    assert float(over.max()) == pytest.approx(math.log(2) / 100)


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'tanh'.* relu, softplus, sine, finer, gaussian"):
        Activation("tanh")


@pytest.mark.parametrize("number", ["beta", "omega", "sigma"])
@pytest.mark.parametrize("value", [0.0, -1])
def test_the_numbers_of_activations_are_above_zero(number: str, value: float):
    with pytest.raises(ValueError, match="above 0"):
        Activation("sine", **{number: value})


# in networks


def weights() -> tuple[list[Tensor], list[Tensor]]:
    shapes = [(layer.width, sum(NETWORK.widths[s] for s in layer.sources)) for layer in NETWORK.layers]
    return [drawn(*s, seed=i) for i, s in enumerate(shapes)], [drawn(s[0], seed=9 + i) for i, s in enumerate(shapes)]


def test_the_reference_with_relu_is_the_reference_of_dense_networks():
    inputs = [drawn(8, 3), drawn(4, 2)]
    (found,), (expected,) = activations.bind(NETWORK, *weights())(inputs), dense.bind(NETWORK, *weights())(inputs)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_puts_the_activation_where_the_relus_are(kind: str):
    ws, bs = weights()
    inputs = [drawn(4, 3), drawn(4, 2)]
    act = made(kind)
    first = act(inputs[0] @ ws[0].T + bs[0])
    second = act(torch.cat([first, inputs[1]], -1) @ ws[1].T + bs[1])
    (found,) = activations.bind(NETWORK, ws, bs, act)(inputs)
    torch.testing.assert_close(found, second @ ws[2].T + bs[2], rtol=0, atol=1e-13)
