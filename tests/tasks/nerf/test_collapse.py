"""Tests of collapse detection: what a blank image is, and the warning after many of them."""

import logging

import pytest
from torch import nn

from enerf.engine import optimizers
from enerf.engine.checkpoint import State
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf.step import StepReport

SEEN = StepReport(loss=0.1, mse=0.01, opacity=0.5, rgb_std=0.2, target_std=0.2)
BLANK = StepReport(loss=0.1, mse=0.01, opacity=0.0, rgb_std=0.2, target_std=0.2)


def fresh() -> State:
    model = nn.Linear(2, 1)
    return State(model, optimizers.adam(model, 1e-3))


@pytest.mark.parametrize(
    ("report", "blank"),
    [
        (SEEN, False),
        (BLANK, True),
        (StepReport(0.1, 0.01, 0.009, 0.2, 0.2), True),
        (StepReport(0.1, 0.01, 0.011, 0.2, 0.2), False),
        (StepReport(0.1, 0.01, 1.0, 0.0039, 0.2), True),
        (StepReport(0.1, 0.01, 1.0, 0.0041, 0.2), False),
        (StepReport(0.1, 0.01, 1.0, 0.0, 0.0), False),  # the photographs are of one color too
    ],
)
def test_blank_is_nothing_opaque_or_one_color_before_varied_photographs(report, blank):
    assert nerf_step.is_blank(report) is blank


def test_a_collapse_is_as_many_blank_steps_in_a_row_as_the_patience(monkeypatch):
    monkeypatch.setattr(nerf_step, "BLANK_STEPS", 3)
    of, told = fresh(), []
    for letter in "bbsbbbbsb":
        nerf_step.update_collapsed(of, BLANK if letter == "b" else SEEN)
        told.append(of.collapsed)
    assert told == [False, False, False, False, False, True, True, False, False]


def test_a_collapse_is_said_once_and_its_end_once_even_over_a_resumed_run(caplog, monkeypatch):
    monkeypatch.setattr(nerf_step, "BLANK_STEPS", 3)
    of = fresh()
    with caplog.at_level(logging.INFO, "enerf"):
        for step in range(1, 11):
            of.step = step
            nerf_step.update_collapsed(of, BLANK if step <= 8 else SEEN)
            if step == 5:  # as a checkpoint carries it over
                of = State(of.model, of.optimizer, step=5, collapsed=of.collapsed, blank_for=of.blank_for)
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(
        "step 3: the rendered image has been blank for 3 steps: this run has collapsed"
    )
    assert caplog.messages[1] == "step 9: the image is no longer blank"
