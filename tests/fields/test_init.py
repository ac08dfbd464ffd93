"""Tests of initializations: the distributions of SIREN, and fields that approximate the distance to a sphere."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from enerf.conditioning import layers
from enerf.fields import init
from enerf.fields.activations import Activation
from enerf.fields.encoders import Encoder, Fourier, Positional, WithPoints
from enerf.fields.shape import HEADS, ShapeField
from tests.grids import pairs

OMEGA, RADIUS = 30.0, 0.5


def field_of(
    encoder: Encoder, depth: int, width: int, kind: str = "relu", outputs: int = 1, skip: int = 0
) -> ShapeField:
    return ShapeField(encoder, depth, width, outputs, activation=Activation(kind), skip_at=skip)


def siren(width: int = 256, depth: int = 5, biases: bool = True, seed: int = 0) -> ShapeField:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        field = field_of(Encoder(3), depth, width, "sine")
        init.siren_(field.linears(), OMEGA)
    if not biases:
        for layer in field.linears():
            layer.bias.data.zero_()
    return field


def sines(field: ShapeField) -> list[tuple[Tensor, Tensor]]:
    """What goes into the sines of each layer, ω₀ (W x + b), and what comes out, over points of the cube."""
    h = 2 * torch.rand(400, 3, generator=torch.Generator().manual_seed(1)) - 1
    outputs = []
    with torch.no_grad():
        for layer in field.trunk:
            z = OMEGA * layer(h)
            h = torch.sin(z)
            outputs.append((z.flatten(), h.flatten()))
    return outputs


def distance(sample: Tensor, distribution: Tensor) -> float:
    """Kolmogorov and Smirnov's: the largest difference of a sample's distribution from one given at sorted samples."""
    steps = torch.arange(1, len(sample) + 1) / len(sample)
    return float((distribution - steps).abs().max())


# sine layers


def test_weights_are_uniform_within_the_bounds_of_siren():
    for i, layer in enumerate(siren().linears()):
        bound = 1 / 3 if i == 0 else math.sqrt(6 / 256) / OMEGA
        shares = layer.weight.detach().flatten() / bound
        assert 0.97 < shares.abs().max() <= 1
        assert float(shares.std()) == pytest.approx(1 / math.sqrt(3), rel=0.1)


def test_the_initialization_of_sines_leaves_biases_alone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = [layer.bias.clone() for layer in field_of(Encoder(3), 5, 256, "sine").linears()]
    assert all(torch.equal(a, layer.bias) for a, layer in zip(before, siren().linears(), strict=True))


@pytest.mark.parametrize("biases", [True, False])
def test_the_variance_of_what_sines_see_goes_from_layer_to_layer_as_stated(biases: bool):
    width = 512
    outputs = sines(siren(width, biases=biases))
    for (before, _), (after, _) in itertools.pairwise(outputs):
        expected = 1 - math.exp(-2 * float(before.var())) + (OMEGA**2 / (3 * width) if biases else 0.0)
        assert float(after.var()) == pytest.approx(expected, rel=0.05)


def test_without_biases_sines_see_nearly_normal_values_of_nearly_unit_variance():
    outputs = sines(siren(512, depth=6, biases=False))
    for i, (z, _) in enumerate(outputs[1:]):
        deviation = float(z.std())
        assert 0.87 < deviation < 1.05
        ordered = z.sort().values / deviation
        if i:  # the second layer's inputs are still few waves of three coordinates
            assert distance(ordered, 0.5 + 0.5 * torch.erf(ordered / math.sqrt(2))) < 0.02
    assert float(outputs[-1][0].var()) == pytest.approx(0.797, rel=0.05)  # where v = 1 - exp(-2v)


def test_sines_are_distributed_as_the_arcsine_distribution():
    for layers_of_seeds in zip(*(sines(siren(seed=seed)) for seed in range(6)), strict=True):
        h = torch.cat([h for _, h in layers_of_seeds]).sort().values
        assert distance(h, 0.5 + torch.asin(h) / math.pi) < 0.02
        assert float(h.square().mean()) == pytest.approx(0.5, rel=0.03)


# a sphere


def sphere(
    kind: str = "relu",
    encoder: str = "none",
    depth: int = 8,
    width: int = 256,
    skip: int = 5,
    seed: int = 0,
    d: int = 3,
) -> ShapeField:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inner = {
            "none": Encoder,
            "positional": lambda d: Positional(d, 6),
            "fourier": lambda d: WithPoints(Fourier(d, 32, 6.0)),
        }
        field = field_of(inner[encoder](d), depth, width, kind, skip=skip)
        init.geometric_(field, RADIUS)
    return field


def places(n: int = 500, d: int = 3, radius: float = 1.7) -> tuple[Tensor, Tensor]:
    """Points of a ball and their distance from its center."""
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(n, d, generator=generator)
    lengths = radius * torch.rand(n, generator=generator)
    return lengths[:, None] * directions / directions.norm(dim=-1, keepdim=True), lengths


def error(field: ShapeField, d: int = 3) -> float:
    """Root mean square of f(x) - (|x| - r)."""
    points, lengths = places(d=d)
    with torch.no_grad():
        return float((field(points) - (lengths - RADIUS)).square().mean().sqrt())


@pytest.mark.parametrize(
    ("kind", "encoder", "skip", "d"), pairs(init.GEOMETRIC, ["none", "positional", "fourier"], [0, 5], [2, 3])
)
def test_the_papers_network_begins_as_about_a_sphere(kind: str, encoder: str, skip: int, d: int):
    field = sphere(kind, encoder, skip=skip, d=d)
    init.calibrate_(field, RADIUS)
    points, lengths = places(d=d)
    with torch.no_grad():
        values = field(points)
        center = float(field(torch.zeros(d)))
    assert center == pytest.approx(-RADIUS, abs=1e-5) if kind == "relu" else -RADIUS < center < -0.1
    assert (values[lengths < 0.25] < 0).all()
    assert (values[lengths > 1.0] > 0).all()
    assert error(field, d) < 0.25


def test_the_wider_the_truer():
    narrow, wide = (
        sum(error(sphere(depth=3, width=w, skip=2, seed=seed)) for seed in range(3)) / 3 for w in (32, 1024)
    )
    assert wide < 0.06
    assert wide < narrow / 3


def test_softplus_begins_the_nearer_to_relu_the_sharper_it_is():
    errors = []
    points, _ = places()
    for beta in (30.0, 100.0, 1e5):
        rounded, sharp = sphere("softplus"), sphere()
        rounded.activation = Activation("softplus", beta=beta)
        with torch.no_grad():
            errors.append(float((rounded(points) - sharp(points)).abs().max()))
    assert errors[0] > errors[1] > 100 * errors[2]


@pytest.mark.parametrize("encoder", ["none", "positional"])
def test_a_relu_sphere_is_exactly_as_long_as_it_is_far(encoder: str):
    field = sphere(encoder=encoder).double()
    points = places()[0].double()
    with torch.no_grad():
        one, twice = field(points) + RADIUS, field(2 * points) + RADIUS
    torch.testing.assert_close(twice, 2 * one, rtol=0, atol=1e-13)


@pytest.mark.parametrize("encoder", ["positional", "fourier"])
def test_encoded_features_have_no_effect_at_initialization(encoder: str):
    field = sphere(encoder=encoder)
    features = field.encoder(places()[0])
    other = features.clone()
    other[:, 3:] = torch.randn(other[:, 3:].shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(field.bound()([features])[0], field.bound()([other])[0])
    encoded = features.shape[1] - 3
    assert init.zero_inputs(field) == {"trunk.0": encoded, "trunk.5": encoded}
    assert init.zero_inputs(sphere()) == {}


@pytest.mark.parametrize("kind", init.GEOMETRIC)
@pytest.mark.parametrize("conditioned", [False, True])
def test_calibration_puts_the_mean_over_the_sphere_to_zero_and_scales_the_head_alone(kind: str, conditioned: bool):
    field, before = sphere(kind), sphere(kind)
    if conditioned:
        for model in (field, before):
            layers.condition(model, "row", "hidden", heads=HEADS)
    init.calibrate_(field, RADIUS)
    directions = torch.randn(4000, 3, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        values = field(RADIUS * directions / directions.norm(dim=-1, keepdim=True))
    assert abs(float(values.mean())) < 0.02
    changed = [n for n, p in field.state_dict().items() if not torch.equal(p, before.state_dict()[n])]
    assert changed == ["head.weight"]
    ratios = field.head.weight.detach() / before.head.weight.detach()
    assert ratios.min() > 0
    torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios))


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (field_of(Encoder(3), 2, 8, "sine"), "sine, expected relu or softplus"),
        (field_of(Encoder(3), 2, 8, "gaussian"), "gaussian, expected relu"),
        (field_of(Encoder(3), 2, 8, outputs=3), "3 outputs, expected 1"),
        (field_of(Fourier(3, 4, 1.0), 2, 8), "does not return the coordinates"),
    ],
)
def test_fields_that_cannot_begin_so_are_refused_with_the_reason(field: ShapeField, reason: str):
    with pytest.raises(ValueError, match=reason):
        init.geometric_(field, RADIUS)
