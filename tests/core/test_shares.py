"""Tests of shares of a batch: they are parts of it, with the random numbers that the whole batch would have."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from enerf.core import shares
from enerf.core.shares import Share


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 9))
def test_shares_divide_a_batch_into_parts_that_differ_by_one_row_at_most(n, at_once, size):
    counted = []
    for rank in range(size):
        parts = list(Share(rank, size).parts(n, at_once))
        assert len(parts) == -(-n // at_once)
        assert all(part.rows.stop > part.rows.start for part in parts)
        assert all(part.count in (0, part.rows.stop - part.rows.start) for part in parts)
        counted.append([list(range(n))[part.rows] if part.count else [] for part in parts])
    for of_part in zip(*counted, strict=True):
        assert max(map(len, of_part)) - min(map(len, of_part)) <= 1
    assert [row for of_part in zip(*counted, strict=True) for own in of_part for row in own] == list(range(n))


def _numbers(share: Share, n: int, at_once: int) -> torch.Tensor:
    """Two kinds of random numbers of each part, one after the other, as a renderer draws them."""
    generator = shares.generator(share, "cpu").manual_seed(3)
    drawn = []
    for part in share.parts(n, at_once, generator):
        rows = part.rows.stop - part.rows.start
        uniform = shares.rand((rows, 5), generator, torch.float64, torch.device("cpu"))
        normal = shares.randn_like(torch.empty(rows, 20, dtype=torch.float64), generator)
        drawn.append(torch.cat([uniform, normal], 1)[: part.count])
    return torch.cat(drawn)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("at_once", [7, 11, 100])
def test_shares_have_the_random_numbers_of_their_rows_bit_for_bit(size, at_once):
    n = 29
    whole, of_shares = _numbers(shares.WHOLE, n, at_once), [_numbers(Share(r, size), n, at_once) for r in range(size)]
    parts = [list(Share(rank, size).parts(n, at_once)) for rank in range(size)]
    for rank in range(size):
        rows = torch.cat([torch.arange(n)[part.rows][: part.count] for part in parts[rank]])
        assert torch.equal(of_shares[rank], whole[rows])


def test_random_numbers_of_other_rows_than_those_of_the_share_are_an_error():
    generator = shares.generator(Share(0, 2), "cpu")
    for _ in Share(0, 2).parts(8, 8, generator):
        with pytest.raises(ValueError, match=r"shape \(3, 2\): expected 4 rows"):
            shares.rand((3, 2), generator, torch.float32, torch.device("cpu"))


def test_a_generator_of_the_whole_is_an_ordinary_one():
    assert type(shares.generator(shares.WHOLE, "cpu")) is torch.Generator
