"""Properties of cost estimates: from few samples, within a factor of two, for any shape and resolution."""

import itertools

import pytest
import torch

from enerf.geometry.isosurface import extract
from enerf.geometry.isosurface.extract import ExtractionSettings
from tests.geometry.level_sets import Ball, Counting, Ellipsoid, Steep, Torus

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


@pytest.mark.parametrize("field", [Ellipsoid(), Torus()], ids=["ellipsoid", "torus"])
@pytest.mark.parametrize("n", [64, 100, 160])
def test_evaluations_vertices_and_dense_are_estimated(field, n):
    plan = extract.plan(field, BOX, ExtractionSettings(n, inside="below", slope=1, coarsest=16))
    found = extract.extract(field, BOX, ExtractionSettings(n, inside="below", slope=1, coarsest=16))
    assert 0.5 < plan.evaluations / found.evaluations < 2
    assert 0.5 < plan.vertices / len(found.vertices) < 2
    assert plan.dense == (n + 1) ** 3
    assert plan.cells == (n, n, n)


def test_a_plan_takes_few_evaluations_and_its_seconds_are_their_pace():
    counting = Counting(Steep(Ball(), 0.1))
    plan = extract.plan(counting, BOX, ExtractionSettings(512))
    assert counting.points < plan.evaluations
    assert counting.points < 0.02 * plan.dense
    assert plan.seconds > 0


def test_more_cells_need_more_of_everything():
    plans = [extract.plan(Torus(), BOX, ExtractionSettings(n, inside="below", slope=1)) for n in (64, 128, 256)]
    for less, more in itertools.pairwise(plans):
        assert less.evaluations < more.evaluations
        assert less.bytes <= more.bytes
        assert less.vertices < more.vertices
