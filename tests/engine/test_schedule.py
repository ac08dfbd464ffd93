"""Tests of learning-rate schedules."""

import itertools
import math

import pytest
import torch
from torch import nn

from enerf.engine import optimizers, schedule
from enerf.engine.checkpoint import State
from enerf.tasks.nerf.config import TrainOptions


def at(options: TrainOptions, step: int, seconds: float = 0.0) -> float:
    model = nn.Linear(1, 1)
    return schedule.learning_rate(options, State(model, torch.optim.Adam(model.parameters()), step, seconds))


def rates(options: TrainOptions, steps: range, seconds_a_step: float = 0.0) -> list[float]:
    return [at(options, step, seconds_a_step * step) for step in steps]


def test_the_learning_rate_falls_to_a_tenth_in_its_time_and_evenly():
    for thousands in (1, 250, 500):
        assert schedule.decay(0, 5e-4, thousands) == 5e-4
        rates = [schedule.decay(step, 5e-4, thousands) for step in range(0, 2000 * thousands + 1, 100 * thousands)]
        assert rates[10] == pytest.approx(5e-5, rel=1e-14)
        assert rates[20] == pytest.approx(5e-6, rel=1e-14)
        assert [b / a for a, b in itertools.pairwise(rates)] == pytest.approx([0.1**0.1] * 20, rel=1e-12)


def test_without_being_asked_a_step_has_nerfs_learning_rate():
    for step in (0, 1, 999, 250_000):
        assert at(TrainOptions(), step) == schedule.decay(step, 5e-4, 250)
        assert at(TrainOptions(max_seconds=3.0), step, 2.0) == schedule.decay(step, 5e-4, 250)  # no clock in it


# the cosine


def test_the_cosine_starts_at_the_learning_rate_ends_at_a_hundredth_and_stays_there():
    assert schedule.cosine(0, 5e-3) == 5e-3
    for done in (1.0, 1.1, 7, 1e30):
        assert schedule.cosine(done, 5e-3) == pytest.approx(5e-5, rel=1e-14)
        assert schedule.cosine(done, 5e-3, end=0.5) == pytest.approx(2.5e-3, rel=1e-14)


def test_the_cosine_is_symmetric_falls_always_and_is_flat_at_both_ends():
    shares = [i / 200 for i in range(201)]
    values = [schedule.cosine(share, 1.0) for share in shares]
    assert all(b < a for a, b in itertools.pairwise(values))
    for a, b in zip(values, reversed(values), strict=True):
        assert a + b == pytest.approx(1.01, rel=1e-14)
    slopes = [(b - a) * 200 for a, b in itertools.pairwise(values)]
    assert abs(slopes[0]) < 0.02
    assert abs(slopes[-1]) < 0.02
    assert min(slopes) == pytest.approx(-0.99 * math.pi / 2, rel=1e-3)


COSINE = TrainOptions(lrate=2e-2, lrate_schedule="cosine", N_iters=400)


def test_the_cosine_runs_over_the_steps():
    found = rates(COSINE, range(401))
    assert found[0] == 2e-2
    assert found[200] == pytest.approx(0.505 * 2e-2, rel=1e-12)
    assert found[400] == pytest.approx(2e-4, rel=1e-12)
    assert all(b < a for a, b in itertools.pairwise(found))
    assert at(COSINE, 500) == found[400]


def test_the_cosine_runs_over_the_seconds_where_they_end_first():
    timed = TrainOptions(lrate=2e-2, lrate_schedule="cosine", N_iters=400, max_seconds=100.0)
    assert at(timed, 1, 50.0) == pytest.approx(0.505 * 2e-2, rel=1e-12)
    assert at(timed, 1, 100.0) == pytest.approx(2e-4, rel=1e-12)
    assert at(timed, 1, 1e9) == pytest.approx(2e-4, rel=1e-12)
    assert rates(timed, range(401), 0.1) == rates(COSINE, range(401))  # quick: the steps end first
    slow = rates(timed, range(101), 1.0)
    assert slow == pytest.approx([schedule.cosine(step / 100, 2e-2) for step in range(101)], rel=1e-12)


def test_where_steps_and_seconds_cross_there_is_no_jump():
    timed = TrainOptions(lrate=1.0, lrate_schedule="cosine", N_iters=1000, max_seconds=100.0)
    clock = [0.02 * step if step < 500 else 10 + 0.2 * (step - 500) for step in range(951)]  # becomes slower
    found = [at(timed, step, seconds) for step, seconds in enumerate(clock)]
    assert all(0 <= a - b < 0.99 * math.pi / 2 * 0.0021 for a, b in itertools.pairwise(found))
    assert found[-1] == pytest.approx(0.01, rel=1e-12)


def test_a_run_of_no_steps_has_a_learning_rate():
    assert at(TrainOptions(lrate_schedule="cosine", N_iters=0), 0) == 5e-4


# steps, or none


def test_a_constant_rate_stays_whatever_the_step_and_the_clock():
    constant = TrainOptions(lrate=3e-3, lrate_schedule="constant", N_iters=400, max_seconds=100.0, lrate_decay=1)
    assert rates(constant, range(0, 1000, 7), 0.5) == [3e-3] * 143


MILESTONES = TrainOptions(lrate=0.1, lrate_schedule="milestones", N_iters=400)


def test_milestones_fall_to_a_tenth_at_half_of_the_run_and_to_a_hundredth_at_three_quarters():
    found = rates(MILESTONES, range(500))
    assert found[:200] == [0.1] * 200
    assert found[200:300] == pytest.approx([0.01] * 100, rel=1e-14)
    assert found[300:] == pytest.approx([0.001] * 200, rel=1e-14)
    for done, share in ((0, 1), (0.4999, 1), (0.5, 0.1), (0.7499, 0.1), (0.75, 0.01), (1, 0.01), (1e30, 0.01)):
        assert schedule.milestones(done, 2) == 2 * share


def test_milestones_come_with_the_seconds_where_they_end_first():
    timed = TrainOptions(lrate=0.1, lrate_schedule="milestones", N_iters=400, max_seconds=100.0)
    assert rates(timed, range(401), 0.1) == rates(MILESTONES, range(401))
    assert [at(timed, 1, seconds) for seconds in (49.9, 50.0, 74.9, 75.0)] == pytest.approx([0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize("name", ["constant", "milestones"])
def test_a_run_of_no_steps_has_one_of_these_rates_too(name: str):
    assert at(TrainOptions(lrate_schedule=name, N_iters=0), 0) == 5e-4


# the warm-up


@pytest.mark.parametrize("name", ["decay", "cosine", "constant", "milestones"])
def test_the_warm_up_rises_evenly_and_then_is_gone(name: str):
    cold = TrainOptions(lrate_schedule=name, N_iters=1000, lrate_warmup=9)
    without = TrainOptions(lrate_schedule=name, N_iters=1000)
    share = [a / b for a, b in zip(rates(cold, range(30)), rates(without, range(30)), strict=True)]
    assert share[:10] == pytest.approx([(step + 1) / 10 for step in range(10)], rel=1e-12)
    assert share[9:] == [1.0] * 21


def test_no_step_of_a_warm_up_is_wasted():
    assert at(TrainOptions(lrate_warmup=100), 0) > 0
    assert at(TrainOptions(lrate_warmup=0), 0) == 5e-4


def test_every_group_gets_its_share():
    model = nn.ModuleDict({"grid": nn.Module(), "linear": nn.Linear(2, 2)})
    model["grid"].table = nn.Parameter(torch.zeros(3, 2))
    optimizer = optimizers.adam(model, 1e-3, grid_scale=20)
    optimizers.set_learning_rate(optimizer, at(COSINE, 200))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0101, 0.202], rel=1e-12)


def test_an_exponential_rate_ends_at_its_fraction_and_falls_evenly():
    options = TrainOptions(lrate=5e-3, lrate_schedule="exponential", lrate_end=0.2, N_iters=200)
    found = rates(options, range(0, 201, 20))
    assert found[0] == 5e-3
    assert found[-1] == pytest.approx(1e-3, rel=1e-14)
    assert [b / a for a, b in itertools.pairwise(found)] == pytest.approx([0.2**0.1] * 10, rel=1e-12)
    assert schedule.depends_on_length(options)
