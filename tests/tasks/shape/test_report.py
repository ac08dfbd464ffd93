"""Tests of tables and curves of shape runs."""

import copy
import csv
import io

import pytest

from enerf.core import images
from enerf.core.errors import InputError
from enerf.reporting import tables
from enerf.tasks.shape import report as shape_report


def _run(shape="ball", method="plain", seed=0, iou=0.9, steps=100, **more):
    found = {
        **{"shape": shape, "method": method, "seed": seed, "steps": steps, "seconds": {"train": 10.0 + seed}},
        "field": {"iou": iou, "iou_near": iou / 2, "sign_f1_near": 0.7},
        "mesh": {"chamfer_l1_percent": 0.123, "normal_consistency": 0.98, "fscore_0.5": 1.0, "hausdorff_percent": 2.0}
        | {"parts": 1, "parts_dropped": 12},
        "curve": [[s, s * (0.1 + 0.01 * seed), iou * s / steps, iou * s / steps / 2] for s in range(0, steps + 1, 10)],
    }
    return {**found, **more}


def _columns(rows):
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_runs_of_a_shape_and_method_are_averaged_over_seeds():
    rows = shape_report.table([_run(seed=0, iou=0.8), _run(seed=1, iou=0.9), _run(method="E", iou=0.5)])
    plain, other = _columns(rows)
    assert plain["IoU"] == "0.8500 ± 0.0707"
    assert plain["near IoU"] == "0.4250 ± 0.0354"
    assert plain["train [s]"] == "10 ± 1"
    assert (plain["parts"], plain["dropped"]) == ("1 ± 0", "12 ± 0")
    assert (plain["steps"], plain["seeds"]) == ("100", "2")
    assert (other["method"], other["IoU"], other["Chamfer L1 [%]"], other["F 0.5 %"]) == (
        "E",
        "0.5000",
        "0.123",
        "1.0000",
    )


def test_what_is_missing_is_a_dash_and_no_zero():
    empty = _run(seed=1)
    empty["mesh"] = dict.fromkeys(empty["mesh"])
    (row,) = _columns(shape_report.table([_run(), empty]))
    assert row["Chamfer L1 [%]"] == row["NC"] == "–"
    assert row["IoU"] == "0.9000 ± 0.0000"
    none = _run(seed=2)
    del none["mesh"]
    assert "NC" not in shape_report.table([none])[0]
    assert _columns(shape_report.table([_run(), none]))[0]["NC"] == "–"


def test_runs_of_other_lengths_and_models_are_distinguished():
    rows = _columns(shape_report.table([_run(steps=50), _run(steps=70), _run(model="8×256 sine")]))
    assert rows[0]["steps"] == "50–70"
    assert rows[1]["method"] == "plain, 8×256 sine"


def test_pictures_have_their_own_columns():
    picture = {"shape": "a", "method": "plain", "steps": 5, "seed": 0, "seconds": {"train": 1.0}}
    picture |= {"picture": {"psnr": 31.234, "psnr_heldout": None}, "curve": [[0, 0, 1.0], [5, 1, 31.0]]}
    rows = shape_report.table([picture])
    assert rows[0] == ["shape", "method", "PSNR [dB]", "steps", "train [s]", "seeds"]
    assert rows[1][2] == "31.23"


def test_rows_are_a_table_in_every_form():
    rows = shape_report.table([_run(), _run(shape="torus")])
    assert len({len(row) for row in rows}) == 1
    assert list(csv.reader(io.StringIO(tables.as_csv(rows)))) == rows
    assert tables.as_markdown(rows).count("\n") == 3
    assert "torus" in tables.as_text(rows)
    assert shape_report.table([]) == [["shape", "method", "steps", "train [s]", "seeds"]]


def test_curves_are_drawn_for_every_shape_and_method(tmp_path):
    runs = [_run(s, m, seed) for s in ("ball", "torus") for m in ("plain", "E") for seed in (0, 1)]
    path = shape_report.draw_curves(runs[:-1], tmp_path / "new" / "curves.png", "IoU")
    picture = images.read(path)
    assert picture.std() > 0.05
    taller = images.read(shape_report.draw_curves(runs[:2], tmp_path / "one.png", "IoU"))
    assert picture.shape[0] > taller.shape[0]


def test_curves_of_pictures_are_drawn_with_or_without_held_out_pixels(tmp_path):
    for extra in ([], [20.0]):
        run = {"shape": "a", "method": "plain", "picture": {}, "curve": [[0, 0, 10.0, *extra], [5, 1, 31.0, *extra]]}
        assert images.read(shape_report.draw_curves([run], tmp_path / "a.png", "PSNR")).std() > 0.02


def test_without_a_curve_there_is_no_picture(tmp_path):
    assert shape_report.draw_curves([_run(curve=[]), _run(curve=None)], tmp_path / "a.png", "none") is None
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_changed_by_drawing(tmp_path):
    runs = [_run(), _run(seed=1)]
    before = copy.deepcopy(runs)
    shape_report.draw_curves(runs, tmp_path / "a.png", "IoU")
    shape_report.table(runs)
    assert runs == before


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        shape_report.draw_curves([_run()], tmp_path / "file" / "a.png", "IoU")
