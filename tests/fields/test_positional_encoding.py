"""Tests of positional encoding, against the formula written out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.fields import encoders


def _slow(point: list[float], bands: int) -> list[float]:
    values = list(point)
    for k in range(bands):
        for wave in (math.sin, math.cos):
            values += [wave(2**k * v) for v in point]
    return values


@given(
    points=st.integers(1, 4).flatmap(
        lambda d: st.lists(st.lists(st.floats(-3, 3), min_size=d, max_size=d), min_size=1, max_size=3)
    ),
    bands=st.integers(0, 10),
)
@settings(max_examples=40, deadline=None)
def test_it_is_the_formula_in_nerf_pytorchs_order(points: list[list[float]], bands: int):
    found = encoders.positional(torch.tensor(points, dtype=torch.float64), bands)
    expected = torch.tensor([_slow(point, bands) for point in points], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("bands", [0, 1, 4, 10])
def test_the_width_is_what_comes_out(d: int, bands: int):
    assert encoders.positional(torch.zeros(2, 5, d), bands).shape == (
        2,
        5,
        encoders.positional_width(d, bands),
    )


def test_the_published_widths():
    assert (encoders.positional_width(3, 10), encoders.positional_width(3, 4)) == (63, 27)


def test_the_input_itself_comes_first_bit_for_bit():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encoders.positional(x, 6)[:, :3], x)


def test_sine_and_cosine_of_a_band_lie_on_the_unit_circle():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    waves = encoders.positional(x, 6)[:, 3:].reshape(4, 6, 2, 3)
    torch.testing.assert_close(waves.square().sum(2), torch.ones(4, 6, 3, dtype=torch.float64), rtol=0, atol=1e-15)


def test_no_rays_are_encoded_as_no_rays():
    assert encoders.positional(torch.zeros(0, 3), 4).shape == (0, 27)
