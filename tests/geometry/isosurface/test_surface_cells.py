"""Tests of cells that are refined in any case: exactly the overlapping ones are marked, and small parts are found."""

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.geometry.isosurface.sample_grid import Lattice
from enerf.geometry.isosurface.surface_cells import SurfaceCells
from tests.geometry import level_sets
from tests.geometry.level_sets import Ball, Counting, Union, extracted

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
SMALL = [Ball((x / 10, (x * 37 % 17 - 8) / 10, (x * 23 % 13 - 6) / 8), 0.035) for x in range(-8, 9, 2)]


def test_parts_between_the_coarse_samples_of_a_saturated_field_are_found():
    every = Union(tuple(SMALL))
    field = Counting(lambda points: -torch.tanh(every(points) / 0.001))
    index = np.floor((np.concatenate([_points_of(ball) for ball in SMALL]) + 1) * 32).astype(int)
    cells = SurfaceCells(np.unique(index, axis=0), 64)
    coarsely = extracted(field, BOX, 96, closed=True, coarsest=12)
    found = extracted(field, BOX, 96, closed=True, coarsest=12, surface_cells=cells)
    dense = extracted(field, BOX, 96, closed=True, exhaustive=True)
    assert len(coarsely.faces) < len(found.faces)
    assert np.array_equal(found.vertices, dense.vertices)
    assert np.array_equal(
        level_sets.triangles(found.vertices, found.faces), level_sets.triangles(dense.vertices, dense.faces)
    )
    assert found.evaluations < dense.evaluations / 4


def _points_of(ball: Ball) -> np.ndarray:
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    return np.array(ball.center) + ball.radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)


@given(
    st.tuples(*[st.integers(2, 9)] * 3),
    st.integers(1, 8),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_marked_cells_are_those_that_overlap(cells, n, stride, closed, seed):
    generator = np.random.default_rng(seed)
    low = generator.uniform(-1, 0, 3)
    lattice = Lattice(torch.from_numpy(np.stack([low, low + generator.uniform(0.5, 1, 3)])), cells, closed)
    index = generator.integers(0, n, (3, 3))
    shape = tuple(-(-(count - 1) // stride) for count in lattice.counts)
    found = SurfaceCells(index, n).mask(lattice, stride, shape)
    if (stride * lattice.spacing < 2 / n * (1 - 1e-6)).any():
        assert found is None
        return
    at = lattice.box[0].numpy() + (np.arange(50)[:, None] - closed) * lattice.spacing
    for cell in itertools.product(*map(range, shape)):
        lower = np.array([at[stride * k, axis] for axis, k in enumerate(cell)])
        upper = lower + stride * lattice.spacing
        overlap = np.minimum(upper, (index + 1) * 2 / n - 1) - np.maximum(lower, index * 2 / n - 1)
        if (np.abs(overlap).min(1) > 1e-4).all():
            assert found[cell] == (overlap > 0).all(1).any()
