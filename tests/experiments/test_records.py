"""Tests of records of checkpoints: none is lost, none outlives its checkpoint."""

import json
import math
import os
from pathlib import Path

import pytest

from enerf.core.errors import InputError
from enerf.engine.checkpoint import MissingCheckpoint
from enerf.experiments.records import Records

ABOUT = {"scene": "toy", "method": "nerf"}


@pytest.fixture
def checkpoints(tmp_path) -> list[Path]:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    paths = [folder / f"{step:06d}.pt" for step in (5, 10)]
    for path in paths:
        path.write_bytes(b"weights of " + path.name.encode())
    return paths


def test_what_is_added_is_there_for_the_next_reader_in_the_order_of_steps(checkpoints, tmp_path):
    records = Records(tmp_path / "out" / "analysis.json", {"rays": 4})
    for path in reversed(checkpoints):
        records.add(path, ABOUT, {"step": int(path.stem), "kappa": math.inf})
    again = Records(tmp_path / "out" / "analysis.json", {"rays": 4})
    assert again.get(checkpoints[0])["step"] == 5
    told = again.history(checkpoints)
    assert (told["scene"], told["method"]) == ("toy", "nerf")
    assert [record["step"] for record in told["records"]] == [5, 10]
    assert told["records"][0]["kappa"] is None
    json.loads((tmp_path / "out" / "analysis.json").read_text(), parse_constant=pytest.fail)


def test_what_is_measured_again_takes_the_earlier_records_place(checkpoints, tmp_path):
    records = Records(tmp_path / "a.json", {})
    for kappa in (1.0, 2.0):
        records.add(checkpoints[0], ABOUT, {"step": 5, "kappa": kappa})
    assert [record["kappa"] for record in records.history(checkpoints)["records"]] == [2.0]


def test_a_checkpoint_that_was_replaced_has_no_record(checkpoints, tmp_path):
    records = Records(tmp_path / "a.json", {})
    records.add(checkpoints[0], ABOUT, {"step": 5})
    os.utime(checkpoints[0], (1, 1))
    assert records.get(checkpoints[0]) is None
    assert records.history(checkpoints) is None


def test_checkpoints_saved_by_time_belong_to_the_same_run(checkpoints, tmp_path):
    recent = checkpoints[0].parent / "recent" / "000007.pt"
    recent.parent.mkdir()
    recent.write_bytes(b"weights")
    records = Records(tmp_path / "a.json", {})
    for path in (recent, checkpoints[1]):
        records.add(path, ABOUT, {"step": int(path.stem)})
    assert len(records.runs) == 1
    history = records.history([checkpoints[0], recent, checkpoints[1]])
    assert [record["step"] for record in history["records"]] == [7, 10]


def test_a_checkpoint_that_its_run_deleted_has_no_record(checkpoints, tmp_path):
    records = Records(tmp_path / "a.json", {})
    for path in checkpoints:
        records.add(path, ABOUT, {"step": int(path.stem)})
    checkpoints[0].unlink()
    assert records.get(checkpoints[0]) is None
    assert [record["step"] for record in records.history(checkpoints)["records"]] == [10]
    with pytest.raises(MissingCheckpoint, match=r"000005\.pt: no such checkpoint$"):
        records.add(checkpoints[0], ABOUT, {"step": 5})


def test_other_settings_are_another_measurement(checkpoints, tmp_path, caplog):
    caplog.set_level("INFO", "enerf")
    Records(tmp_path / "a.json", {"rays": 4}).add(checkpoints[0], ABOUT, {"step": 5})
    assert Records(tmp_path / "a.json", {"rays": 8}).get(checkpoints[0]) is None
    assert "made with other settings" in caplog.text


@pytest.mark.parametrize("content", ["[1]", "{}", '{"runs": 3}'])
def test_a_file_of_something_else_holds_no_records(content, checkpoints, tmp_path):
    (tmp_path / "a.json").write_text(content)
    assert Records(tmp_path / "a.json", {"rays": 4}).get(checkpoints[0]) is None


@pytest.mark.parametrize("content", ["", "{"])
def test_a_damaged_file_is_one_sentence(content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=r"^.*a\.json: cannot be read as JSON"):
        Records(tmp_path / "a.json", {"rays": 4})
