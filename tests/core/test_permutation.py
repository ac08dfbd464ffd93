"""Tests of permutations that are evaluated without a list."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from enerf.core.permutation import IndexPermutation


@given(size=st.integers(1, 3000), key=st.integers(0, 2**63 - 1))
def test_every_index_occurs_once(size: int, key: int):
    found = IndexPermutation(size, key)(torch.arange(size))
    assert torch.equal(found.sort().values, torch.arange(size))


@given(size=st.integers(1, 2**40), start=st.integers(0, 2**40), key=st.integers(0, 2**63 - 1))
def test_a_part_of_a_large_range_stays_inside_and_apart_and_is_what_single_indices_give(size, start, key):
    start = min(start, size - 1)
    index = torch.arange(start, min(size, start + 50))
    permutation = IndexPermutation(size, key)
    found = permutation(index)
    assert 0 <= int(found.min()) <= int(found.max()) < size
    assert len(found.unique()) == len(index)
    assert int(permutation(index[-1:])) == int(found[-1])


def test_places_and_distances_of_neighbors_are_uniform():
    size, keys = 13_824, 2000
    found = torch.stack([IndexPermutation(size, 7919 * key)(torch.arange(64)) for key in range(keys)])
    for values in (found, (found[:, 1:] - found[:, :-1]) % size, (found[1:] - found[:-1]) % size):
        counts = torch.histc(values.double(), 64, 0, size)
        chi_square = float(((counts - counts.mean()).square() / counts.mean()).sum())
        assert chi_square < 63 + 5 * (2 * 63) ** 0.5  # five standard deviations above its mean


def test_a_size_without_indices_is_refused():
    for size in (0, 1 << 62):
        with pytest.raises(ValueError, match="it must be at least 1"):
            IndexPermutation(size, 0)
