"""Record of what computed a run: kept in checkpoints, told by metrics, taken again."""

import json

import pytest

from enerf.config import parser
from enerf.engine import run_record
from enerf.engine.inputs import Inputs
from enerf.engine.run_record import Record
from enerf.fields.backends.registry import Resolved
from enerf.tasks.nerf.config import NerfConfig

TORCH, COMPILED = Resolved("torch", "fp32", "cpu"), Resolved("compiled", "bf16", "cpu")
UNKNOWN = Resolved()


def config(**values) -> NerfConfig:
    return parser.from_dict(NerfConfig, values)


def files(digest: str) -> Inputs:
    return Inputs(digest, "stamp", 1, 3, {"a.png": digest})


@pytest.mark.parametrize(
    ("record", "step", "trained", "changes"),
    [
        (Record(TORCH), 5, TORCH, []),
        (Record(COMPILED, TORCH, resumed_at=4), 4, TORCH, []),  # no step taken yet
        (Record(COMPILED, TORCH, resumed_at=4), 5, COMPILED, [("torch", 4)]),
        (Record(COMPILED, TORCH, resumed_at=0), 5, COMPILED, []),  # nothing was trained before
        (Record(TORCH, TORCH, resumed_at=4), 5, TORCH, []),
    ],
)
def test_the_last_backend_and_the_earlier_ones_of_a_step(record, step, trained, changes):
    assert record.trained(step) == trained
    assert [(change["backend"], change["until"]) for change in record.changes(step)] == changes


def test_what_a_checkpoint_keeps_comes_back(tmp_path):
    record = Record(COMPILED, TORCH, resumed_at=4)
    content = {"config": record.saved(), "step": 9}
    again = run_record.record_of((content, tmp_path), TORCH, config(), None)
    assert again.previous == COMPILED
    assert [(change["backend"], change["until"]) for change in again.changes(12)] == [("torch", 4), ("compiled", 9)]
    assert run_record.backend_to_reuse((content, tmp_path), TORCH) == COMPILED
    assert run_record.backend_to_reuse(None, TORCH) == TORCH


def test_metrics_tell_the_training_and_the_evaluation_only_if_it_differs(tmp_path):
    assert Record(TORCH).metrics(5, tmp_path) == {"precision": "fp32", "backend": "torch"}
    evaluated = Record(COMPILED, TORCH, resumed_at=4).metrics(4, tmp_path)
    assert evaluated == {
        **{"precision": "fp32", "backend": "torch"},
        **{"eval_backend": "compiled", "eval_precision": "bf16"},
    }


def test_what_an_earlier_version_did_not_record_is_not_guessed(tmp_path):
    old = Record(COMPILED, UNKNOWN, resumed_at=4)
    assert old.metrics(4, tmp_path) == {"precision": None, "backend": None}
    (tmp_path / "metrics.json").write_text(json.dumps({"precision": "fp32"}))
    assert old.metrics(4, tmp_path) == {"precision": "fp32", "backend": None}


def test_changed_options_and_files_are_in_the_history_from_the_next_step_on(tmp_path):
    saved = {**parser.to_dict(config(lrate=1e-3, i_print=7)), "inputs": files("1").saved(), "resolved": {}}
    record = run_record.record_of(({"config": saved, "step": 40}, tmp_path), TORCH, config(lrate=1e-2), files("2"))
    change = {"step": 40, "options": {"lrate": [1e-3, 1e-2]}, "files": "a.png changed"}
    assert record.history_at(40) == []
    assert record.history_at(41) == [change]
    kept = record.saved()
    assert kept["history"] == [change]
    assert kept["inputs"] == files("2").saved()
    later = {**parser.to_dict(config(lrate=1e-2)), **kept}
    again = run_record.record_of(({"config": later, "step": 90}, tmp_path), TORCH, config(lrate=1e-2), files("2"))
    assert again.history_at(91) == [change]


@pytest.mark.parametrize(("decay", "changed"), [("decay", False), ("constant", False), ("cosine", True)])
def test_a_longer_run_is_a_change_only_if_the_learning_rate_depends_on_its_length(decay, changed, tmp_path):
    short, long = (config(N_iters=n, lrate_schedule=decay) for n in (40, 60))
    record = run_record.record_of(({"config": parser.to_dict(short), "step": 40}, tmp_path), TORCH, long, None)
    history = [{"step": 40, "options": {"N_iters": [40, 60]}}]
    assert record.history_at(41) == (history if changed else [])
    assert record.metrics(41, tmp_path)["options"]["N_iters"] == 60


def test_metrics_tell_the_options_of_the_steps_taken_and_other_files_of_an_evaluation(tmp_path):
    saved = {**parser.to_dict(config(N_iters=40)), "inputs": files("1").saved()}
    record = run_record.record_of(({"config": saved, "step": 40}, tmp_path), TORCH, config(N_iters=30), files("2"))
    found = record.metrics(40, tmp_path)
    assert found["options"]["N_iters"] == 40
    assert "i_print" not in found["options"]
    assert found["eval_files"] == "a.png changed"
    assert found["inputs"] == {"digest": "2", "stamp": "stamp", "count": 1, "size": 3}
    assert "eval_files" not in record.metrics(41, tmp_path)
