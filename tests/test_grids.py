"""Laws of chosen combinations: no value and no pair is lost."""

import itertools

import pytest

from tests.grids import latin, once, pairs

AXES = [("abc", [1, 2]), ("abcde", [1, 2, 3], "xy"), ("ab", [1, 2], "xy", [None]), ("abcdef", [1, 2, 3], "xyz", "pq")]


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_every_value_is_tried_and_every_pair_of_values(axes: tuple):
    assert all(set(tried) == set(axis) for tried, axis in zip(zip(*once(*axes), strict=True), axes, strict=True))
    found = pairs(*axes)
    for a, b in itertools.combinations(range(len(axes)), 2):
        assert {(case[a], case[b]) for case in found} == set(itertools.product(axes[a], axes[b]))
    assert len(found) <= len(list(itertools.product(*axes)))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_part_of_all_pairs_leaves_out_no_value(n: int):
    found = latin(n, "abcd", [1, 2, 3])
    assert {a for a, _ in found} == set("abcd")
    assert {b for _, b in found} == {1, 2, 3}
    assert len(found) == 12 // n
