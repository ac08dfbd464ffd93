"""Laws of learning rates over a run."""

import itertools

import pytest

from enerf.training import schedule


def test_the_learning_rate_falls_to_a_tenth_in_its_time_and_evenly():
    for thousands in (1, 250, 500):
        assert schedule.decay(0, 5e-4, thousands) == 5e-4
        rates = [schedule.decay(step, 5e-4, thousands) for step in range(0, 2000 * thousands + 1, 100 * thousands)]
        assert rates[10] == pytest.approx(5e-5, rel=1e-14)
        assert rates[20] == pytest.approx(5e-6, rel=1e-14)
        assert [b / a for a, b in itertools.pairwise(rates)] == pytest.approx([0.1**0.1] * 20, rel=1e-12)
