"""Second derivatives through backends: refused with an error, never left out; fields take the reference for them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from enerf.core.first_order import first_order, only_first_order
from enerf.core.types import Space
from enerf.fields import derivatives, encoders
from enerf.fields.backends import cpu_dense, cpu_hashgrid, hashgrid, inductor, registry
from enerf.fields.backends.dense import Layer, Network
from enerf.fields.shape import ShapeField

compiled = pytest.mark.skipif(not cpu_hashgrid.available(), reason="no C++ compiler made the kernels")
NETWORK = Network((3,), (Layer((0,), 8, True), Layer((1,), 1, False)), (2,))
GRID = hashgrid.make_grid(2, 2, 9, 4, 16)
REFUSED = "a second derivative of a network, encoding or rendering was needed"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


class _Cube(torch.autograd.Function):
    """x³ by a kernel, as it were."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return w * x**3

    @staticmethod
    @first_order
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        return 3 * w * x**2 * grad if ctx.needs_input_grad[0] else None, x**3 * grad


def cube() -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    w = drawn(5)
    return lambda x: _Cube.apply(x, w), drawn(5, seed=1), w


def passed() -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    w = drawn(5)
    return lambda x: only_first_order(w * x**3, x, w), drawn(5, seed=1), w


def network() -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    w = drawn(8, 3)
    run = cpu_dense.bind(NETWORK, [w, drawn(1, 8)], [drawn(8), drawn(1)])
    return lambda x: run([x])[0], drawn(6, 3, seed=1), w


def encoding() -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    table = drawn(GRID.offsets[-1], GRID.features)
    return lambda x: cpu_hashgrid.encode(x, table, GRID), torch.rand(6, 3).requires_grad_(), table


kinds = pytest.mark.parametrize(
    "kind", [cube, passed, pytest.param(network, marks=compiled), pytest.param(encoding, marks=compiled)]
)


@kinds
@pytest.mark.parametrize("incoming", ["constant", "differentiable"])
@pytest.mark.parametrize("wanted", ["all", "weights", "points"])
def test_a_second_derivative_is_an_error_whatever_it_is_asked_for(kind, incoming: str, wanted: str):
    function, x, w = kind()
    out = function(x)
    loss = out.sum() if incoming == "constant" else out.square().sum()
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    penalty = slope.square().sum() + function(x).square().sum()  # with the second term alone there would be gradients
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.backward(penalty, inputs={"all": None, "weights": [w], "points": [x]}[wanted])


@kinds
def test_a_second_derivative_of_gradients_of_weights_is_an_error(kind):
    function, x, w = kind()
    (gradient,) = torch.autograd.grad(function(x.detach()).square().sum(), w, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.grad(gradient.square().sum(), w)


@kinds
def test_first_derivatives_under_create_graph_are_those_without(kind):
    function, x, w = kind()
    plain, recorded = (torch.autograd.grad(function(x).square().sum(), (x, w), create_graph=c) for c in (False, True))
    assert all(map(torch.equal, plain, recorded))
    assert not any(g.requires_grad for g in plain)


def test_a_compiled_function_refuses_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inductor, "_compiled_grid", lambda grid: lambda p, t: hashgrid.encode(p, t, grid))
    table, points = drawn(GRID.offsets[-1], 2), torch.rand(5, 3).requires_grad_()
    (slope,) = torch.autograd.grad(inductor.encode(points, table, GRID).sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.grad(slope.square().sum(), table)


@compiled
@pytest.mark.parametrize("encoded", ["positional", "hash"])
def test_an_eikonal_loss_has_the_same_gradients_with_the_kernels_as_with_torch(encoded: str):
    torch.manual_seed(0)
    if encoded == "hash":
        encoder: nn.Module = encoders.HashEncoder(GRID, Space((-1.0,) * 3, (1.0,) * 3))
    else:
        encoder = encoders.Positional(3, 4)
    field, found = ShapeField(encoder, 3, 16), []
    points = torch.rand(50, 3) * 2 - 1
    for name in ("torch", "compiled"):
        registry.use(field, registry.make(name, "fp32", torch.device("cpu")))
        values, slopes = derivatives.with_gradient(field, points, for_training=True)
        loss = values.abs().mean() + (slopes.norm(dim=-1) - 1).square().mean() + field(points).square().mean()
        found.append(torch.autograd.grad(loss, list(field.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
