"""Tests of shapes' fields: what they compute, by which way, and what backends leave as it is."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from enerf.conditioning import layers
from enerf.conditioning.weight_cache import computed_once
from enerf.core.types import Space
from enerf.fields import derivatives
from enerf.fields.activations import KINDS, Activation
from enerf.fields.backends import cpu_dense, dense, module, registry
from enerf.fields.backends.dense import Bound
from enerf.fields.backends.hashgrid import make_grid
from enerf.fields.encoders import Encoder, Fourier, HashEncoder, Positional, WithPoints
from enerf.fields.shape import HEADS, ShapeField, shape_network
from tests.grids import latin, pairs

has_kernel = pytest.mark.skipif(cpu_dense.unavailable_reason() is not None, reason=f"{cpu_dense.unavailable_reason()}")
GRID, BOX = make_grid(3, 2, 10, 4, 16), Space((-1.0,) * 3, (1.0,) * 3)
ENCODERS: dict[str, Callable[[], Encoder]] = {
    "none": lambda: Encoder(3),
    "positional": lambda: Positional(3, 3),
    "fourier": lambda: Fourier(3, 10, 0.5),
    "hash": lambda: HashEncoder(GRID, BOX),
    "hash and points": lambda: WithPoints(HashEncoder(GRID, BOX)),
}


def made(
    kind: str = "relu", encoder: str = "positional", depth: int = 3, width: int = 8, outputs: int = 1, skip: int = 2
) -> ShapeField:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        activation = Activation(kind, beta=5.0, omega=2.0, sigma=0.7)
        field = ShapeField(ENCODERS[encoder](), depth, width, outputs, activation=activation, skip_at=skip)
        for name, p in field.named_parameters():
            if name.endswith("table"):
                p.data.normal_()
    return field


def points(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2.4 * torch.rand(*shape, 3, generator=generator, dtype=torch.float64) - 1.2).to(dtype)


# what is computed


def _slow(field: ShapeField, features: list[float]) -> list[float]:
    """All weights, neuron by neuron."""
    functions = {
        "relu": lambda z: max(z, 0.0),
        "softplus": lambda z: math.log1p(math.exp(5.0 * z)) / 5.0,
        "sine": lambda z: math.sin(2.0 * z),
        "finer": lambda z: math.sin(2.0 * (abs(z) + 1) * z),
        "gaussian": lambda z: math.exp(-(z**2) / (2 * 0.7**2)),
    }

    def affine(layer: torch.nn.Linear, x: list[float]) -> list[float]:
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        return [b + sum(w * v for w, v in zip(row, x, strict=True)) for row, b in rows]

    h = features
    for i, layer in enumerate(field.trunk):
        sources = features + h if 0 < i == field.skip_at else h
        h = [functions[field.activation.kind](z) for z in affine(layer, sources)]
    return affine(field.head, h)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("skip", "outputs"), [(0, 1), (2, 1), (1, 3)])
def test_it_computes_what_a_loop_through_all_weights_does(kind: str, skip: int, outputs: int):
    field = made(kind, skip=skip, outputs=outputs).double()
    found = field(points(4)).reshape(4, outputs)
    features = field.encoder(points(4)).tolist()
    expected = torch.tensor([_slow(field, row) for row in features], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("encoder", "outputs"), latin(2, ENCODERS, [1, 3]))
def test_a_batch_of_any_shape_is_accepted(encoder: str, outputs: int):
    field = made(encoder=encoder, outputs=outputs)
    for shape in [(), (5,), (2, 3), (0,)]:
        values = field(points(*shape, dtype=torch.float32))
        assert values.shape == (shape if outputs == 1 else (*shape, outputs))


@pytest.mark.parametrize("d", [1, 2, 4])
def test_points_of_another_dimension_are_refused(d: int):
    with pytest.raises(ValueError, match=f"points of {d} coordinates, and the field takes 3"):
        made()(torch.zeros(5, d))


def test_in_two_dimensions_an_image_is_a_field():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = ShapeField(Positional(2, 3), 2, 8, 3)
    assert field(torch.zeros(4, 5, 2)).shape == (4, 5, 3)


def test_the_papers_shape_of_network():
    network = shape_network(39, 8, 256, 1, 5)
    assert [sum(network.widths[s] for s in layer.sources) for layer in network.layers] == [
        39,
        *[256] * 4,
        295,
        256,
        256,
        256,
    ]
    assert [layer.relu for layer in network.layers] == [True] * 8 + [False]
    assert all(layer.sources[0] == 0 for layer in network.layers if 0 in layer.sources)


def test_the_head_is_the_one_layer_that_is_never_conditioned():
    for outputs in (1, 3):
        names, _ = layers.select(made(outputs=outputs), "hidden", heads=HEADS)
        assert names == [f"trunk.{i}" for i in range(3)]
        assert layers.select(made(outputs=outputs), "trunk", heads=HEADS).names == names


# derivatives in the points


@pytest.mark.parametrize(("kind", "encoder"), latin(2, KINDS, ENCODERS))
def test_gradients_in_the_points_are_those_of_differences(kind: str, encoder: str):
    field, at = made(kind, encoder).double(), points(6)
    _, exact = derivatives.with_gradient(field, at)
    torch.testing.assert_close(exact, derivatives.differences(field, at, 1e-6), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("kind", "encoder"), latin(2, KINDS, ["positional", "hash and points"]))
def test_an_eikonal_loss_has_the_gradient_of_differences_in_every_weight(kind: str, encoder: str):
    field, at = made(kind, encoder).double(), points(5)

    def loss() -> Tensor:
        _, gradients = derivatives.with_gradient(field, at, for_training=True)
        return (gradients.norm(dim=-1) - 1).square().mean()

    trained = [p for name, p in field.named_parameters() if name.endswith(("weight", "table"))]
    found = torch.autograd.grad(loss(), trained, allow_unused=True, materialize_grads=True)
    for i, (p, g) in enumerate(zip(trained, found, strict=True)):
        direction = torch.randn(p.shape, generator=torch.Generator().manual_seed(i), dtype=p.dtype)
        sides = []
        for step in (1e-6, -2e-6):
            p.data.add_(step * direction)
            sides.append(float(loss().detach()))
        p.data.add_(1e-6 * direction)
        assert float((g * direction).sum()) == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-8)


# backends


def losses(field: ShapeField, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values by the backend, gradients by the reference: one loss of both."""
    near, far = points(40, dtype=dtype), points(30, seed=2, dtype=dtype)
    _, gradients = derivatives.with_gradient(field, far, for_training=True)
    return field(near).square().mean() + (gradients.norm(dim=-1) - 1).square().mean()


def gradients(field: ShapeField, loss: Callable[[ShapeField], Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss(field), list(field.parameters()), allow_unused=True, materialize_grads=True))


def values_alone(field: ShapeField) -> Tensor:
    return field(points(40, dtype=torch.float32)).square().mean()


@has_kernel
@pytest.mark.parametrize(("encoder", "conditioned", "outputs"), pairs(ENCODERS, [False, True], [1, 3]))
def test_the_compiled_backend_gives_the_twins_values_and_gradients(encoder: str, conditioned: bool, outputs: int):
    field = made(encoder=encoder, width=24, outputs=outputs)
    if conditioned:
        layers.condition(field, "row", "hidden", heads=HEADS)
    expected = [field(points(50, dtype=torch.float32)), *gradients(field, values_alone)]
    registry.use(field, registry.make("compiled", "fp32", torch.device("cpu")))
    found = [field(points(50, dtype=torch.float32)), *gradients(field, values_alone)]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert all(g.abs().max() > 0 for g in found[1:])


@has_kernel
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("encoder", ["positional", "hash and points"])
def test_derivatives_in_the_points_are_the_twins_under_every_backend(encoder: str, precision: str):
    if cpu_dense.unavailable_reason(precision):
        pytest.skip(f"{cpu_dense.unavailable_reason(precision)}")
    field, at = made(encoder=encoder), points(20, dtype=torch.float32)

    def eikonal(field: ShapeField) -> Tensor:
        _, found = derivatives.with_gradient(field, at, for_training=True)
        return (found.norm(dim=-1) - 1).square().mean()

    expected = [*derivatives.with_gradient(field, at), *gradients(field, eikonal)]
    registry.use(field, registry.make("compiled", precision, torch.device("cpu")))
    found = [*derivatives.with_gradient(field, at), *gradients(field, eikonal)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


class Refusing:
    """A backend that nobody may call."""

    def __call__(self, *args: object) -> Bound:
        raise AssertionError("a backend was bound")


@pytest.mark.parametrize("kind", ["softplus", "sine", "finer", "gaussian"])
def test_other_activations_never_see_a_backend(kind: str):
    field = made(kind)
    before = field(points(5, dtype=torch.float32))
    field.bind = Refusing()
    assert torch.equal(field(points(5, dtype=torch.float32)), before)
    with module.frozen(field):
        assert torch.equal(field(points(5, dtype=torch.float32)), before)


def test_a_relu_field_asks_its_backend_unless_the_points_need_a_gradient():
    field, at = made(), points(5, dtype=torch.float32)
    field.bind = Refusing()
    with pytest.raises(AssertionError, match="was bound"):
        field(at)
    field(at.requires_grad_())
    with torch.no_grad(), pytest.raises(AssertionError, match="was bound"):
        field(at)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_may_ask_values_and_derivatives_with_weights_computed_once(kind: str):
    field = made(kind)
    layers.condition(field, "row", "hidden", heads=HEADS)
    expected = gradients(field, losses)
    with computed_once(field), module.frozen(field):
        losses(field).backward()
    for p, g in zip(field.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["relu", "sine"])
def test_frozen_weights_are_read_once(kind: str, monkeypatch: pytest.MonkeyPatch):
    field, times = made(kind), 0
    layers.condition(field, "row", ["trunk.1"])
    step = field.trunk[1].parametrizations.weight[0]
    inner = step.forward

    def counting(weight: Tensor) -> Tensor:
        nonlocal times
        times += 1
        return inner(weight)

    monkeypatch.setattr(step, "forward", counting)
    with module.frozen(field):
        for _ in range(3):
            field(points(2, dtype=torch.float32))
    assert times == 1


def test_the_state_dict_does_not_depend_on_backends():
    field, plain = made(), made()
    field.bind = Refusing()
    assert list(field.state_dict()) == list(plain.state_dict())
    assert {name.split(".")[0] for name in field.state_dict()} == {"trunk", "head"}
    plain.load_state_dict(field.state_dict())
    assert plain.bind is dense.bind


# conditioning


@pytest.mark.parametrize(("kind", "encoder"), latin(2, KINDS, ["none", "positional", "hash"]))
def test_an_equilibrated_field_is_the_plain_one_with_inputs_divided_by_their_norms(kind: str, encoder: str):
    plain, field = made(kind, encoder).double(), made(kind, encoder).double()
    layers.condition(field, "row", "hidden", heads=HEADS)
    features = plain.encoder(points(7))
    h = features
    for i, layer in enumerate(plain.trunk):
        x = torch.cat([features, h], -1) if i == 2 else h
        norms = layer.weight.square().sum(0).sqrt()  # one for each input: a row of the paper's W
        h = plain.activation((x / norms) @ layer.weight.T + layer.bias)
    torch.testing.assert_close(field(points(7)), plain.head(h)[:, 0], rtol=0, atol=1e-12)
    loss = field(points(7)).square().mean()
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in torch.autograd.grad(loss, list(field.parameters())))
