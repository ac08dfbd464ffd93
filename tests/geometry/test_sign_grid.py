"""Tests of sign grids: no decided cell contains a point of the other side, for closed and for open surfaces."""

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.geometry import mesh, sign_grid
from enerf.geometry.sign_grid import INSIDE, OUTSIDE, UNDECIDED, SignGrid
from enerf.geometry.solid import Solid
from tests.geometry import solids

POINTS = np.random.default_rng(0).uniform(-1, 1, (200_000, 3))


@pytest.fixture(scope="module", params=["torus", "hemisphere"])
def solid(request, tmp_path_factory) -> Solid:
    path = tmp_path_factory.mktemp("solid") / "it.ply"
    trimesh.Trimesh(*getattr(solids, request.param)(), process=False).export(path)
    return Solid(mesh.load(path))


def test_all_points_of_a_decided_cell_have_its_label(solid):
    states, inside = sign_grid.of_solid(solid, 32).at(POINTS), solid.occupancy(POINTS).numpy()
    assert inside[states == INSIDE].all()
    assert not inside[states == OUTSIDE].any()
    assert (states == OUTSIDE).mean() > 0.5 * (~inside).mean()
    if solid.mesh.report.watertight:  # the inside of half a sphere has winding numbers below 0.7
        assert (states == INSIDE).mean() > 0.3 * inside.mean()


def test_twice_as_many_cells_decide_more_and_contradict_nothing(solid):
    coarse, fine = (sign_grid.of_solid(solid, n).at(POINTS) for n in (16, 32))
    assert (fine[coarse != UNDECIDED] == coarse[coarse != UNDECIDED]).all()
    assert (fine != UNDECIDED).mean() > (coarse != UNDECIDED).mean()


@given(st.integers(1, 9), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_a_grid_is_its_text(n, seed):
    grid = SignGrid(np.random.default_rng(seed).integers(-1, 2, (n, n, n)).astype(np.int8))
    assert np.array_equal(SignGrid.from_text(grid.to_text()).cells, grid.cells)


@pytest.mark.parametrize("text", ["", "4", "4:AAAA", "x:AAAA", "-1:", "100000:eJwDAAAAAAE=", "4:é"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="expected the text of a grid of cells"):
        SignGrid.from_text(text)


def test_points_belong_to_the_cell_that_contains_them_and_outside_of_the_box_nothing_is_inside():
    grid = SignGrid(np.array([-1, 0, 1, 1, -1, 0, 1, 1], np.int8).reshape(2, 2, 2))
    some = np.array([[-0.5, -0.5, 0.5], [0.5, 0.5, 0.5], [1, 1, 1], [-1, -1, -1], [0, 0, 1.5]])
    assert grid.at(some).tolist() == [0, 1, 1, -1, -1]
    points, states = grid.draw(500, torch.Generator().manual_seed(0))
    assert states.tolist() == grid.at(points.double().numpy()).tolist()
    assert points.dtype == torch.float32
