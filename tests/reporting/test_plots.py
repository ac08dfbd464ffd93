"""Summaries over several seeds: table cells, and curves with shaded ranges."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from enerf.core import images
from enerf.core.errors import InputError
from enerf.reporting import plots

numbers = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6)


def axes():
    return Figure().subplots()


# cells


@given(numbers)
def test_a_cell_is_the_mean_and_the_deviation_of_the_sample(values):
    mean, deviation = plots.mean_and_std(values, 3).split(" ± ")
    assert float(mean) == pytest.approx(statistics.mean(values), abs=6e-4)
    assert float(deviation) == pytest.approx(statistics.stdev(values), abs=6e-4)


def test_one_value_has_no_deviation_and_a_missing_one_makes_a_dash():
    assert plots.mean_and_std([2.0], 2) == "2.00"
    for values in ([], [None], [1.0, None], [None, 1.0, 2.0]):
        assert plots.mean_and_std(values, 2) == plots.DASH
    assert plots.mean_and_std([0.0, 0.0], 1) == "0.0 ± 0.0"  # a zero is not missing


# points


def test_points_are_those_that_are_there_at_scaled_places():
    rows = [[0, 5.0, None], [10, 6.0, 1], [20, None, 2.5]]
    assert plots.curve_points(rows, 0, 1).tolist() == [[0, 5], [10, 6]]
    assert plots.curve_points(rows, 0, 2, 1 / 10).tolist() == [[1, 1], [2, 2.5]]
    assert plots.curve_points([], 0, 1).shape == plots.curve_points([[0, None]], 0, 1).shape == (0, 2)


def test_curves_of_the_same_places_keep_them_and_others_meet_between_theirs():
    a = np.array([[0, 1.0], [10, 2.0]])
    places, values = plots.align_curves([a, a + np.array([0, 1])])
    assert places.tolist() == [0, 10]
    assert values.tolist() == [[1, 2], [2, 3]]
    places, values = plots.align_curves([a, np.array([[2, 0.0], [12, 10.0]])], n=5)
    assert places.tolist() == [2, 4, 6, 8, 10]
    np.testing.assert_allclose(values, [1 + places / 10, places - 2])


def test_curves_with_no_place_in_common_are_still_finite():
    places, values = plots.align_curves([np.array([[0, 1.0], [1, 2.0]]), np.array([[3, 5.0], [4, 6.0]])], n=3)
    assert places.tolist() == [3, 3, 3]
    assert values.tolist() == [[2, 2, 2], [5, 5, 5]]


# lines


def test_a_line_is_the_mean_and_its_shade_lies_between_the_extremes():
    there, x = axes(), np.arange(5.0)
    plots.plot_curves(there, [np.stack([x, x], 1), np.stack([x, 3 * x], 1), np.stack([x, 5 * x], 1)], "three", "red")
    (line,), (shade,) = there.lines, there.collections
    np.testing.assert_allclose(line.get_ydata(), 3 * x)
    corners = shade.get_paths()[0].vertices
    for place in x:
        heights = corners[corners[:, 0] == place, 1]
        assert (heights.min(), heights.max()) == (place, 5 * place)


def test_one_curve_has_no_shade_and_none_has_only_its_name():
    alone = axes()
    plots.plot_curves(alone, [np.array([[0, 1.0], [1, 2.0]]), np.empty((0, 2))], "alone", "red")
    assert (len(alone.lines), len(alone.collections)) == (1, 0)
    nothing = axes()
    plots.plot_curves(nothing, [np.empty((0, 2))], "nothing", "red")
    plots.plot_curves(nothing, [], "less", "red")
    assert [len(line.get_xdata()) for line in nothing.lines] == [0, 0]
    assert nothing.get_legend_handles_labels()[1] == ["nothing", "less"]


def test_places_are_marked_only_where_there_are_few():
    there = axes()
    for n in (39, 40):
        plots.plot_curves(there, [np.stack([np.arange(n), np.arange(n)], 1).astype(float)], str(n), "red")
    assert [line.get_marker() for line in there.lines] == [".", "None"]


# files


def test_a_figure_is_written_into_new_folders_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "new" / "figure.png"
    small, large = Figure(figsize=(1, 1)), Figure(figsize=(2, 1))
    assert plots.save(small, path) == path
    assert images.read(path).shape[:2] == (110, 110)
    plots.save(large, path)
    assert images.read(path).shape[:2] == (110, 220)
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"figure\.png: cannot be written") as caught:
        plots.save(Figure(), tmp_path / "file" / "figure.png")
    assert "\n" not in str(caught.value)
