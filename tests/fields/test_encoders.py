"""Tests of what coordinate networks see of a point."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from enerf.core.types import Space
from enerf.fields import encoders
from enerf.fields.backends import cpu_hashgrid
from enerf.fields.backends.hashgrid import make_grid
from enerf.fields.encoders import Encoder, Fourier, HashEncoder, Positional, WithPoints

GRID = make_grid(3, 2, 10, 4, 16)
BOX = Space((-1.0, 0.5, 2.0), (3.0, 1.0, 4.0))


def hashed() -> HashEncoder:
    made = HashEncoder(GRID, BOX)
    with torch.no_grad():
        made.hashed.encoding.table.mul_(1e4)
    return made


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "none": lambda: Encoder(3),
    "positional": lambda: Positional(3, 4),
    "fourier": lambda: Fourier(3, 9, 2.0),
    "hash": hashed,
    "fourier and points": lambda: WithPoints(Fourier(3, 9, 2.0)),
    "hash and points": lambda: WithPoints(hashed()),
}


def made(name: str, seed: int = 0) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ENCODERS[name]().double()


def points(n: int = 9, d: int = 3, seed: int = 0) -> Tensor:
    low, high = torch.tensor(BOX.low[:d]), torch.tensor(BOX.high[:d])
    share = torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * (1.2 * share - 0.1)  # a few lie outside the box


@pytest.mark.parametrize("name", ENCODERS)
def test_a_point_becomes_as_many_values_as_the_encoder_says(name: str):
    encoder = made(name)
    assert encoder(points()).shape == (9, encoder.width)
    assert encoder(points(0)).shape == (0, encoder.width)
    assert encoder.d == 3


@pytest.mark.parametrize("name", ENCODERS)
def test_the_reference_has_the_same_values(name: str):
    encoder = made(name)
    torch.testing.assert_close(encoder.reference(points()), encoder(points()), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ENCODERS)
def test_it_is_known_whether_the_first_values_are_the_points(name: str):
    encoder = made(name)
    assert encoders.begins_with_points(encoder) is torch.equal(encoder(points())[:, :3], points())


@pytest.mark.parametrize("name", ENCODERS)
def test_the_reference_can_be_differentiated_twice(name: str):
    encoder = made(name)
    at = points(2).requires_grad_()
    assert torch.autograd.gradcheck(encoder.reference, at, fast_mode=True)
    if name != "none":  # whose second derivative does not exist as a graph
        assert torch.autograd.gradgradcheck(encoder.reference, at, fast_mode=True)


def test_positional_features_are_those_of_nerf():
    assert torch.equal(made("positional")(points()), encoders.positional(points(), 4))


def test_features_beside_points_are_those_of_the_inner_encoder():
    encoder = made("hash and points")
    assert torch.equal(encoder(points()), torch.cat([points(), encoder.inner(points())], -1))


@pytest.mark.skipif(not cpu_hashgrid.available(), reason="no compiled hash grid")
def test_a_grids_reference_does_not_depend_on_its_backend():
    encoder = made("hash").float()
    at = points().float()
    before = encoder.reference(at)
    encoder.hashed.encoding.encode = cpu_hashgrid.encode
    assert torch.equal(encoder.reference(at), before)
    torch.testing.assert_close(encoder(at), before, rtol=1e-5, atol=1e-6)


def test_a_grid_of_a_plane_is_the_lowest_slice_of_the_grid_of_space():
    torch.manual_seed(0)
    solid = hashed()
    torch.manual_seed(0)
    flat = HashEncoder(GRID, BOX, 2)
    with torch.no_grad():
        flat.hashed.encoding.table.mul_(1e4)
    at = torch.rand(20, 3) * torch.tensor([4.0, 0.5, 0.0]) + torch.tensor(BOX.low)
    assert flat.d == 2
    assert torch.equal(flat(at[:, :2]), solid(at))
    assert torch.equal(flat.reference(at[:, :2]), solid.reference(at))
    assert len(torch.unique(flat(at[:, :2]), dim=0)) == 20


def test_spaces_without_bounds_are_refused():
    with pytest.raises(ValueError, match="a shape fills a box"):
        HashEncoder(GRID, Space(BOX.low, BOX.high, contracted=True))


# Fourier features


def test_fourier_features_are_waves_along_fixed_directions():
    encoder = made("fourier")
    directions = encoder.frequencies.tolist()
    for row, point in zip(encoder(points()).tolist(), points().tolist(), strict=True):
        phases = [2 * math.pi * sum(b * x for b, x in zip(wave, point, strict=True)) for wave in directions]
        expected = [math.cos(p) for p in phases] + [math.sin(p) for p in phases]
        assert row == pytest.approx(expected, abs=1e-12)


def test_fourier_features_compare_points_by_their_difference_alone():
    encoder = made("fourier")
    one, other, shift = points(seed=1), points(seed=2), points(1, seed=3)
    alike = (encoder(one) * encoder(other)).sum(-1)
    torch.testing.assert_close((encoder(one + shift) * encoder(other + shift)).sum(-1), alike, rtol=0, atol=1e-12)
    torch.testing.assert_close(encoder(one).square().sum(-1), torch.full((9,), 9.0, dtype=torch.float64))


@pytest.mark.parametrize("d", [2, 3])
def test_frequencies_are_normal_with_the_deviation_requested(d: int):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        frequencies = Fourier(d, 4096, 5.0).frequencies
    assert frequencies.shape == (4096, d)
    assert float(frequencies.std()) == pytest.approx(5.0, rel=0.03)
    assert abs(float(frequencies.mean())) < 0.2
    assert float((frequencies.abs() < 5.0).double().mean()) == pytest.approx(0.6827, abs=0.02)


def test_frequencies_are_saved_and_never_trained():
    encoder = made("fourier")
    assert list(encoder.parameters()) == []
    other = made("fourier", seed=1)
    assert not torch.equal(other.frequencies, encoder.frequencies)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(points()), encoder(points()))


def test_a_positional_encoding_from_pi_is_that_of_points_scaled_by_pi():
    x = points()
    found, scaled = Positional(3, 4, math.pi)(x), Positional(3, 4)(math.pi * x)
    torch.testing.assert_close(found[:, 3:], scaled[:, 3:], rtol=0, atol=1e-13)
    assert torch.equal(found[:, :3], x)
