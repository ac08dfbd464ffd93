"""Tests of the removal of parts that the solid does not have: exactly these are dropped, small real ones stay."""

import numpy as np
import pytest

from enerf.geometry import sign_grid, spurious
from enerf.geometry.sign_grid import SignGrid
from enerf.geometry.solid import Solid
from enerf.tasks.shape import surface_distance
from tests.geometry import solids

N = 64


def ball(center, radius, inward=False):
    vertices, faces = solids.ellipsoid(2)
    unit = (vertices - solids.CENTER) / solids.HALF_AXES
    return np.asarray(center) + radius * unit, faces[:, ::-1] if inward else faces


REAL = [ball((-0.4, 0, 0), 0.4), ball((0.4, 0.3, 0.1), 0.06), ball((0.4, -0.3, 0.1), 0.01)]  # the last: below a cell


@pytest.fixture(scope="module")
def grid() -> SignGrid:
    vertices, faces = solids.together(*REAL)
    return sign_grid.of_solid(Solid(surface_distance.mesh_from_arrays(vertices, faces)), N)


def dropped_of(grid, *parts):
    vertices, faces, found = spurious.drop(*solids.together(*parts), grid)
    return vertices, faces, found


def test_crumbs_and_bubbles_are_dropped_and_all_that_is_real_stays_as_it_is(grid):
    crumb, bubble = ball((0.5, 0.5, 0.8), 0.02), ball((-0.5, 0.1, 0), 0.02, inward=True)
    hollow = [ball((0, -0.7, 0.6), 0.1), ball((0, -0.7, 0.6), 0.05, inward=True)]
    island = [ball((-0.4, 0, 0.15), 0.06, inward=True), ball((-0.4, 0, 0.15), 0.03)]
    vertices, faces, found = dropped_of(grid, REAL[0], crumb, *hollow, REAL[1], bubble, *island, REAL[2])
    expected = solids.together(*REAL)
    assert (found.parts, found.spurious) == (9, 6)
    assert np.array_equal(vertices, expected[0])
    assert np.array_equal(faces, expected[1])
    assert len(found.vertices) == 6 * len(crumb[0])


def test_a_real_part_that_was_learned_much_too_large_stays(grid):
    _, _, found = dropped_of(grid, REAL[0], ball((0.4, 0.3, 0.1), 0.2), ball((0.4, -0.3, 0.1), 0.08))
    assert found.spurious == 0


@pytest.mark.parametrize("inward", [False, True])
def test_crumbs_that_the_box_cuts_are_dropped_whatever_their_volume_is(inward, grid):
    corner = np.array([0.99, -0.98, 0.97])
    vertices, faces = ball(corner, 0.1, inward)
    crumb = vertices, faces[(np.abs(vertices[faces]) <= 1).all((1, 2))]
    assert len(crumb[1]) < len(faces)
    vertices, faces, found = dropped_of(grid, REAL[0], crumb)
    assert found.spurious == 1
    assert len(faces) == len(REAL[0][1])


def test_a_mesh_in_another_place_is_kept_and_said(grid):
    mesh = solids.together(ball((0.8, 0.8, -0.8), 0.1), ball((0.8, -0.8, -0.8), 0.1))
    _, faces, found = spurious.drop(*mesh, grid)
    assert found.none_left
    assert len(faces) == len(mesh[1])
    assert "none of the 2 parts" in str(found)


def test_every_crumb_beyond_reach_of_the_surface_is_dropped(grid):
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(30, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    sizes = spurious.reach(grid) * generator.uniform(0.01, 2, 30)
    away = 0.4 + sizes + spurious.reach(grid)
    crumbs = [ball(np.array([-0.4, 0, 0]) + r * d, s) for d, r, s in zip(directions, away, sizes, strict=True)]
    assert dropped_of(grid, REAL[0], *crumbs)[2].spurious == 30


def test_small_parts_at_the_surface_are_judged_by_the_solid_itself(grid):
    """Crumbs just outside of the large ball, and bubbles just inside: no cell says what they are."""
    size = spurious.reach(grid) / 20
    middle = np.array([-0.4, 0, 0])
    outwards = np.random.default_rng(1).normal(size=(20, 3))
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    crumbs = [ball(middle + (0.4 + 1.5 * size) * d, size) for d in outwards[:10]]
    bubbles = [ball(middle + (0.38 - 1.5 * size) * d, size, inward=True) for d in outwards[10:]]
    real = [ball(middle + 0.393 * d, 3 * size) for d in -outwards[:3]]  # some of each is within the solid
    mesh = solids.together(*REAL, *crumbs, *bubbles, *real)
    solid = Solid(surface_distance.mesh_from_arrays(*solids.together(*REAL)))
    known = spurious.drop(*mesh, grid, lambda: solid)[2]
    assert (known.parts, known.spurious, known.unchecked) == (26, 20, 0)
    unknown = spurious.drop(*mesh, grid, lambda: None)[2]
    assert unknown.spurious + unknown.unchecked >= 20 + len(real)
    assert spurious.drop(*mesh, grid)[2].unchecked == unknown.unchecked > 0


def test_the_solid_is_not_opened_without_need(grid):
    assert spurious.drop(*solids.together(*REAL[:2]), grid, lambda: pytest.fail("opened"))[2].spurious == 0


def test_a_mesh_without_faces_stays_empty(grid):
    vertices, faces, found = spurious.drop(np.zeros((0, 3)), np.zeros((0, 3), np.int64), grid)
    assert (len(vertices), len(faces), found.parts, found.none_left) == (0, 0, 0, False)
