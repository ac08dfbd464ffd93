"""Charts: scales, ticks and what is drawn."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enerf.reporting import charts
from enerf.reporting.charts import Series, chart

FINITE = st.floats(-1e12, 1e12, allow_nan=False)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=20), st.booleans(), st.booleans())
@example([(5e-324, 0.0)], True, False)
@example([(0.0, 5e-324), (1.0, 1e-323)], False, False)
def test_everything_that_is_drawn_lies_within_the_frame(points, log_x, log_y):
    drawn = chart("t", "x", "y", [Series("a", "a", points)], ["a"], log_x=log_x, log_y=log_y)
    left, top, right, bottom = drawn.box
    places = [tuple(map(float, place.split(","))) for place in drawn.lines[0].path[1:].split("L")]
    assert all(left - 0.1 <= x <= right + 0.1 and top - 0.1 <= y <= bottom + 0.1 for x, y in places)
    assert all(left - 0.1 <= x <= right + 0.1 for x, _ in drawn.x_ticks)
    assert all(top - 0.1 <= y <= bottom + 0.1 for y, _ in drawn.y_ticks)
    assert len(drawn.x_ticks) <= 25


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e6))
def test_an_axis_has_at_least_two_ticks(low, factor):
    for logarithmic in (False, True):
        axis = charts._axis([low, low * factor], 0, 100, logarithmic)
        assert len(axis.ticks()) >= 2


def test_values_that_are_not_finite_are_left_out_and_large_values_are_up():
    drawn = chart("t", "x", "y", [Series("a", "a", [(0, 1.0), (1, math.nan), (2, 3.0)])], ["a"])
    assert drawn.lines[0].path == "M58,230L448,10"


def test_long_lines_are_thinned_out_and_keep_their_ends():
    drawn = chart("t", "x", "y", [Series("a", "a", [(i, float(i)) for i in range(10_000)])], ["a"])
    places = drawn.lines[0].path[1:].split("L")
    assert len(places) == charts.MOST_POINTS
    assert (places[0], places[-1]) == ("58,230", "448,10")
    assert not drawn.lines[0].marks


def test_a_group_has_the_same_color_in_every_chart():
    groups = ["a", "b"]
    drawn = chart("t", "x", "y", [Series("b seed 1", "b", [(0, 1.0)]), Series("b seed 2", "b", [(0, 2.0)])], groups)
    assert [line.color for line in drawn.lines] == [1, 1]


def test_an_axis_with_values_at_or_below_zero_is_linear():
    drawn = chart("t", "x", "y", [Series("a", "a", [(0, 0.0), (1, 100.0)])], ["a"], log_y=True)
    assert "logarithmic" not in drawn.y_label


@pytest.mark.parametrize("points", [[], [(0, math.inf)]])
def test_nothing_is_drawn_without_a_point(points):
    assert chart("t", "x", "y", [Series("a", "a", points)], ["a"]) is None


def test_ticks_have_different_texts():
    drawn = chart("t", "x", "y", [Series("a", "a", [(1_234_500, 26.0001), (1_234_505, 26.0005)])], ["a"])
    for ticks in (drawn.x_ticks, drawn.y_ticks):
        assert len({text for _, text in ticks}) == len(ticks) >= 2


def test_values_whose_differences_overflow_are_left_out():
    assert chart("t", "x", "y", [Series("a", "a", [(0, 1.7e308), (1, -1.7e308)])], ["a"]) is None
