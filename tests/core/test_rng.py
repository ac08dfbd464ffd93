"""Random number streams: independent, and fixed by seed and number."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from enerf.core import rng

whole = st.integers(0, 2**63 - 1)


def drawn(seed: int, number: int) -> list[int]:
    return torch.randint(2**62, (8,), generator=rng.generator_for(seed, number)).tolist()


def test_a_stream_depends_on_its_seed_and_number_alone():
    first = drawn(3, 7)
    torch.rand(5)
    drawn(3, 8)
    assert drawn(3, 7) == first


def test_torchs_own_random_numbers_stay_as_they_were():
    before = torch.get_rng_state()
    drawn(3, 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_neighbors_have_nothing_in_common():
    pairs = list(itertools.product(range(20), range(20)))
    assert len({rng.stream_seed(*pair) for pair in pairs}) == len(pairs)
    numbers = [number for pair in pairs for number in drawn(*pair)]
    assert len(set(numbers)) == len(numbers)


def test_a_seed_and_a_number_do_not_change_places():
    assert all(rng.stream_seed(a, b) != rng.stream_seed(b, a) for a, b in itertools.combinations(range(50), 2))


def test_neighboring_numbers_differ_in_half_of_the_bits():
    apart = [bin(rng.stream_seed(0, n) ^ rng.stream_seed(0, n + 1)).count("1") for n in range(2000)]
    assert sum(apart) / len(apart) == pytest.approx(31.5, abs=0.5)
    assert min(apart) > 10


@given(whole, whole)
def test_every_seed_is_one_that_options_and_torch_take(seed: int, number: int):
    assert 0 <= rng.stream_seed(seed, number) < 2**63
    assert rng.generator_for(seed, number).initial_seed() == rng.stream_seed(seed, number)
