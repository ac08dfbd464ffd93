"""Record of what computed a run: kept in checkpoints, told by metrics, taken again."""

import json

import pytest

from enerf.engine import backend_record
from enerf.engine.backend_record import Record
from enerf.fields.backends.registry import Resolved

TORCH, COMPILED = Resolved("torch", "fp32", "cpu"), Resolved("compiled", "bf16", "cpu")
UNKNOWN = Resolved()


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
    again = backend_record.record_of((content, tmp_path), TORCH)
    assert again.previous == COMPILED
    assert [(change["backend"], change["until"]) for change in again.changes(12)] == [("torch", 4), ("compiled", 9)]
    assert backend_record.backend_to_reuse((content, tmp_path), TORCH) == COMPILED
    assert backend_record.backend_to_reuse(None, TORCH) == TORCH


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
