"""Tests of classifiers' curves: where they lie, and that they are drawn whatever the runs."""

import copy
import math

import numpy as np
import pytest

from enerf.core import images
from enerf.core.errors import InputError
from enerf.tasks.classifier import curves as classifier_curves
from tests.tasks.classifier.test_report import _run


def test_curves_are_drawn_for_every_method_and_change_nothing(tmp_path):
    runs = [_run(method, seed, 70.0 + seed) for method in ("bn", "bn+e") for seed in (0, 1)]
    before = copy.deepcopy(runs)
    picture = images.read(classifier_curves.draw(runs, tmp_path / "new" / "curves.png", "CIFAR"))
    height, width = picture.shape[:2]
    assert 300 < height < 1000
    assert width > 2 * height
    assert picture.std() > 0.05
    assert runs == before


def test_curves_lie_at_epochs(tmp_path, monkeypatch):
    seen = []

    def drawn(axes, found, name, color) -> None:
        axes.plot([], label=name)
        seen.append((name, found))

    monkeypatch.setattr(classifier_curves.plots, "plot_curves", drawn)
    monkeypatch.setattr(classifier_curves.plots, "save", lambda figure, path: path)
    classifier_curves.draw([_run(), _run("bn+e", arm="E")], tmp_path / "a.png", "epochs")
    assert [name for name, _ in seen] == ["bn", "E"] * len(classifier_curves.PANELS)
    for (_, column, _), (_, found) in zip(classifier_curves.PANELS, seen[::2], strict=True):
        np.testing.assert_allclose(found[0], [[row[0] / 10, row[column]] for row in _run()["curve"]])


def test_curves_without_a_kappa_and_of_more_methods_than_a_palette_has_colors_are_drawn(tmp_path):
    runs = [_run(f"method {i}") for i in range(21)]
    for run, kappa in zip(runs, [None, math.inf, *[5.0] * 19], strict=True):
        run["curve"] = [[*row[:-1], kappa] for row in run["curve"][::10]]
    assert images.read(classifier_curves.draw(runs, tmp_path / "a.png", "many")).std() > 0.05


def test_without_a_curve_there_is_no_picture(tmp_path):
    bare = _run()
    del bare["curve"]
    runs = [_run(curve=[]), _run(curve=None), _run(curve=_run()["curve"][:1]), bare]
    assert classifier_curves.draw(runs, tmp_path / "a.png", "none") is None
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"a\.png: cannot be written") as caught:
        classifier_curves.draw([_run()], tmp_path / "file" / "a.png", "CIFAR")
    assert "\n" not in str(caught.value)


def test_rates_are_drawn_where_variants_name_several_and_a_seed_without_all_of_them_is_skipped(tmp_path, monkeypatch):
    runs = [_run(accuracy=70.0 + i, arm=f"bn@{rate}") for i, rate in enumerate((0.1, 0.02, 0.5))]
    runs += [_run(seed=1, accuracy=10.0, arm="bn@0.1")]
    assert images.read(classifier_curves.draw_rates(runs, tmp_path / "a.png", "rates")).std() > 0.05
    assert classifier_curves.draw_rates(runs[:1], tmp_path / "b.png", "one rate") is None
    assert classifier_curves.draw_rates([_run(), _run("bn+e")], tmp_path / "b.png", "no rate") is None
    seen = []
    monkeypatch.setattr(classifier_curves.plots, "plot_curves", lambda axes, found, name, color: seen.append(found))
    monkeypatch.setattr(classifier_curves.plots, "save", lambda figure, path: path)
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda axes: None)
    classifier_curves.draw_rates(runs, tmp_path / "a.png", "rates")
    np.testing.assert_allclose(seen[0], [[[0.02, 71.0], [0.1, 70.0], [0.5, 72.0]]])
