"""Tests of distances between surfaces: what spheres, boxes and shifts give is known in closed form."""

import numpy as np
import pytest
import trimesh

from enerf.core import rng as core_rng
from enerf.tasks.shape import surface_distance as shape_surface_distance
from tests.geometry import solids


def _ball(radius, subdivisions=5):
    made = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return shape_surface_distance.mesh_from_arrays(np.array(made.vertices), np.array(made.faces, dtype=np.int64))


def _box(low, high):
    return shape_surface_distance.mesh_from_arrays(*solids.box(low, high))


def _compared(one, other, n=20_000, scale=1.0):
    there = shape_surface_distance.distances_to(one, other, n, core_rng.generator_for(0, 0))
    back = shape_surface_distance.distances_to(other, one, n, core_rng.generator_for(0, 1))
    return shape_surface_distance.surface_metrics(there, back, (0.5, 1.0), 2.0, scale)


def test_a_surface_is_at_no_distance_from_itself():
    for mesh in (
        _ball(0.7),
        _box((-0.5, -0.2, 0), (0.5, 0.4, 0.1)),
        shape_surface_distance.mesh_from_arrays(*solids.hemisphere()),
    ):
        found = _compared(mesh, mesh)
        for name in ("chamfer_l1", "accuracy", "completeness", "hausdorff", "chamfer_l2"):
            assert found[name] < 1e-14
        for name in ("normal_consistency", "normal_consistency_signed", "fscore_0.5", "fscore_1"):
            assert found[name] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("apart", [0.005, 0.015, 0.1])
def test_concentric_balls_lie_as_far_apart_as_their_radii(apart):
    found = _compared(_ball(0.6), _ball(0.6 + apart))
    for name in ("chamfer_l1", "accuracy", "completeness", "hausdorff"):
        assert found[name] == pytest.approx(apart, abs=4e-4)
    assert found["chamfer_l2"] == pytest.approx(apart**2, rel=0.1)
    assert found["normal_consistency"] > 0.999
    assert (found["fscore_0.5"], found["fscore_1"]) == (float(apart < 0.01), float(apart < 0.02))


def test_a_plate_moved_along_itself_keeps_its_distance_from_the_side_it_left():
    """Of the faces of a cube moved by t along x, two stay as far as t, four are far only within t of an end."""
    t, side = 0.1, 1.0
    found = _compared(_box((0, 0, 0), (side, side, side)), _box((t, 0, 0), (side + t, side, side)), n=100_000)
    # each of two end faces: t or, at what sticks out, the ends beyond; the four others: points within t of an end
    inner = _mean_to_walls(t, side)
    assert found["accuracy"] == pytest.approx(inner, rel=0.02)
    assert found["completeness"] == pytest.approx(found["accuracy"], rel=0.02)
    assert found["hausdorff"] == pytest.approx(t, rel=1e-3)


def _mean_to_walls(t, side):
    """By brute force: points of a cube's surface, distances to the surface of the cube moved by t along x."""
    rng = np.random.default_rng(0)
    n, axis = 400_000, rng.integers(0, 3, 400_000)
    at = rng.random((n, 3)) * side
    at[np.arange(n), axis] = rng.integers(0, 2, n) * side
    beyond = np.abs(at - [t + side / 2, side / 2, side / 2]) - side / 2
    outside = np.linalg.norm(beyond.clip(0), axis=1)
    return np.where(beyond.max(axis=1) > 0, outside, -beyond.max(axis=1)).mean()


def test_distances_are_the_same_from_either_side():
    one, other = _ball(0.6, 3), _box((-0.5, -0.5, -0.5), (0.6, 0.5, 0.5))
    found, back = _compared(one, other, 50_000), _compared(other, one, 50_000)
    assert found["accuracy"] == pytest.approx(back["completeness"], rel=0.02)
    for name in ("chamfer_l1", "chamfer_l2", "normal_consistency", "fscore_0.5", "fscore_1"):
        assert found[name] == pytest.approx(back[name], rel=0.05)


def test_the_normal_error_of_a_turned_plate_is_the_angle():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    tilt = np.radians(12.5)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    one, other = (shape_surface_distance.mesh_from_arrays(v, faces) for v in (corners, corners @ turn.T))
    assert _compared(one, other)["normal_error_degrees"] == pytest.approx(12.5, abs=1e-9)
    flipped = shape_surface_distance.mesh_from_arrays(corners, np.ascontiguousarray(faces[:, ::-1]))
    assert _compared(one, flipped)["normal_error_degrees"] == pytest.approx(0, abs=1e-5)


def test_normals_tell_a_surface_that_looks_inwards():
    ball = _ball(0.7)
    inwards = shape_surface_distance.mesh_from_arrays(ball.vertices, np.ascontiguousarray(ball.faces[:, ::-1]))
    found = _compared(inwards, ball)
    assert found["normal_consistency"] == pytest.approx(1, abs=1e-12)
    assert found["normal_consistency_signed"] == pytest.approx(-1, abs=1e-12)
    assert inwards.report.volume == pytest.approx(-ball.report.volume)


def test_units_are_the_boxs_the_files_and_percent_of_the_side():
    found = _compared(_ball(0.5), _ball(0.6), scale=0.25)
    for name in ("chamfer_l1", "accuracy", "completeness", "hausdorff"):
        assert found[f"{name}_percent"] == pytest.approx(found[name] * 50)
        assert found[f"{name}_file"] == pytest.approx(found[name] * 4)
    assert found["chamfer_l2_file"] == pytest.approx(found["chamfer_l2"] * 16)


def test_finer_sampling_does_not_lower_the_distance_of_equal_surfaces_for_there_is_no_floor():
    coarse, fine = _ball(0.6, 4), _ball(0.6, 5)
    found = [_compared(coarse, fine, n)["chamfer_l1"] for n in (500, 50_000)]
    assert found[0] == pytest.approx(found[1], rel=0.2)
    assert found[1] < 1e-3


def test_faces_without_area_change_nothing():
    ball = _ball(0.6, 3)
    more = shape_surface_distance.mesh_from_arrays(ball.vertices, np.concatenate([ball.faces, [[0, 0, 1], [2, 2, 2]]]))
    assert _compared(more, _ball(0.7, 3)) == _compared(ball, _ball(0.7, 3))


def test_f_scores_are_the_harmonic_mean():
    some = np.array([0.0, 1.0, 2.0, 3.0])
    assert shape_surface_distance.f_score(some, some[:2], 1.5) == pytest.approx(2 * 0.5 / 1.5)
    assert shape_surface_distance.f_score(some + 5, some, 1.5) == 0
    assert shape_surface_distance.f_score(some + 5, some + 5, 1.5) == 0


def test_counts_of_known_shapes():
    about = _ball(0.5).report
    assert (about.watertight, about.euler_number, about.parts, about.open_parts) == (True, 2, 1, 0)
    about = shape_surface_distance.mesh_from_arrays(*solids.together(solids.torus(), solids.hemisphere())).report
    assert (about.watertight, about.euler_number, about.parts, about.open_parts) == (False, 1, 2, 1)
    assert about.boundary_edges == 32
    none = shape_surface_distance.mesh_from_arrays(np.zeros((0, 3)), np.zeros((0, 3), np.int64)).report
    assert (none.faces, none.parts, none.volume, none.area) == (0, 0, 0, 0)
