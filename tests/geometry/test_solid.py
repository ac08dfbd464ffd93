"""Tests of winding numbers, occupancy and signed distances."""

import functools
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.geometry import mesh as geometry_mesh
from enerf.geometry import solid as geometry_solid
from enerf.geometry import topology
from tests.geometry import solids


def _solid(vertices, faces):
    return geometry_solid.Solid(
        geometry_mesh.from_arrays(np.asarray(vertices, float), np.asarray(faces, np.int64), "thing.obj")
    )


def _points(n=4000, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 3))


def _near(mesh, n=2000, scale=0.02, seed=0):
    rng = np.random.default_rng(seed)
    return mesh.triangles[rng.integers(0, len(mesh.faces), n)].mean(axis=1) + rng.normal(size=(n, 3)) * scale


@functools.cache
def _ellipsoid():
    return _solid(*solids.ellipsoid(4))


def test_an_off_center_ellipsoid_has_the_inside_of_its_equation():
    solid = _ellipsoid()
    for points in (_points(), _near(solid.mesh)):
        level = solids.level_of_ellipsoid(solid.mesh.normalization.to_file(points))
        clear = np.abs(level - 1) > 2e-3  # the triangles cut a little off
        assert clear.mean() > 0.95
        assert np.array_equal(solid.occupancy(points).numpy()[clear], (level < 1)[clear])


def test_a_torus_has_the_signed_distance_of_its_equation():
    solid = _solid(*solids.torus())
    scale = solid.mesh.normalization.scale
    expected = solids.distance_to_torus(solid.mesh.normalization.to_file(points := _points())) * scale
    found = solid.signed_distance(points).numpy()
    assert np.abs(found - expected).max() < 3e-3 * solids.TUBE * scale + 1e-3


def test_a_box_has_the_signed_distance_of_its_equation_to_float32():
    solid, half = _solid(*solids.box((-1, -2, -0.5), (1, 2, 0.5))), np.array([0.45, 0.9, 0.225])
    beyond = np.abs(points := _points()) - half
    expected = np.linalg.norm(beyond.clip(0), axis=1) + beyond.max(axis=1).clip(max=0)
    assert np.abs(solid.signed_distance(points).numpy() - expected).max() < 1e-7
    assert np.array_equal(solid.occupancy(points).numpy(), expected < 0)


def test_boxes_that_touch_or_overlap_are_one_solid():
    left = solids.box((0, 0, 0), (1, 1, 1))
    for start in (1.0, 0.6):
        solid = _solid(*solids.together(left, solids.box((start, 0, 0), (2, 1, 1))))
        at = solid.mesh.normalization.to_file(points := _points(2000, seed=3))
        within = ((at > 0) & (at < [2, 1, 1])).all(axis=1)
        assert np.array_equal(solid.occupancy(points).numpy(), within)
        assert np.array_equal(solid.signed_distance(points).numpy() < 0, within)


def test_flipped_faces_change_nothing():
    vertices, faces = solids.box()
    mixed = np.where(np.arange(12)[:, None] % 5 == 0, faces[:, ::-1], faces)
    points = _points(500)
    for wrong in (mixed, faces[:, ::-1]):
        assert torch.equal(_solid(vertices, wrong).occupancy(points), _solid(vertices, faces).occupancy(points))


def test_an_open_hemisphere_has_the_inside_that_its_report_states():
    solid = _solid(*solids.hemisphere())
    points = _points(2000)
    exact = topology.winding_sum(solid.mesh.triangles, points)
    clear = np.abs(exact - 0.5) > 1e-3
    assert np.array_equal(solid.occupancy(points).numpy()[clear], (exact > 0.5)[clear])
    at = solid.mesh.normalization.to_file(points)
    deep = (at[:, 2] > 0.3) & (np.linalg.norm(at, axis=1) < 0.98)
    assert deep.sum() > 50
    assert solid.occupancy(points).numpy()[deep].all()
    assert not solid.occupancy(points).numpy()[at[:, 2] < -0.1].any()


def test_winding_numbers_of_closed_surfaces_are_0_or_1():
    for solid in (_ellipsoid(), _solid(*solids.torus()), _solid(*solids.box())):
        found = solid.winding(np.concatenate([_points(), _near(solid.mesh)]), accuracy=4).numpy()
        assert np.abs(found - found.round()).max() < 1e-3
        assert set(found.round()) == {0, 1}


@pytest.mark.parametrize(("accuracy", "error"), [(1, 0.35), (2, 0.01), (4, 5e-4)])
def test_fast_winding_numbers_are_as_accurate_as_stated(accuracy, error):
    for vertices, faces in (solids.ellipsoid(3), solids.hemisphere(), solids.torus()):
        solid = _solid(vertices, faces)
        points = np.concatenate([_points(200), _near(solid.mesh, 200, 0.05), _near(solid.mesh, 200, 1e-3)])
        exact = topology.winding_sum(solid.mesh.triangles, points)
        assert np.abs(solid.winding(points, accuracy).numpy() - exact).max() < error


def test_scale_and_place_change_no_answer():
    vertices, faces = solids.ellipsoid(2)
    plain, points = _solid(vertices, faces), _points(1000)
    level = np.abs(plain.signed_distance(points).numpy()) > 1e-6
    for scale, shift in ((1e-6, 0), (1e6, 0), (1e-6, 1e-4), (2.0, 1e6)):
        other = _solid(vertices * scale + shift, faces)
        assert np.array_equal(plain.occupancy(points).numpy()[level], other.occupancy(points).numpy()[level])
        assert (plain.signed_distance(points) - other.signed_distance(points)).abs().max() < 1e-7


def test_gradients_are_unit_and_lead_away_from_the_surface():
    solid = _ellipsoid()
    points = np.concatenate([_points(500), _near(solid.mesh, 500)])
    distances, gradients = solid.signed_distance_and_gradient(points)
    assert torch.equal(distances, solid.signed_distance(points))
    assert np.abs(gradients.norm(dim=-1).numpy() - 1).max() < 1e-5
    back = points - distances.numpy()[:, None].astype(float) * gradients.numpy()
    assert np.abs(solid.signed_distance(back).numpy()).max() < 1e-6


def test_on_the_surface_gradients_are_its_normals():
    mesh = _ellipsoid().mesh
    distances, gradients = _ellipsoid().signed_distance_and_gradient(mesh.triangles.mean(axis=1))
    assert distances.abs().max() < 1e-7
    assert np.abs(gradients.numpy() - mesh.normals).max() < 1e-6


def test_shapes_and_kinds_of_points_carry_over():
    solid, points = _ellipsoid(), _points(24).reshape(2, 3, 4, 3)
    for given in (points, torch.from_numpy(points), torch.from_numpy(points).requires_grad_()):
        assert solid.occupancy(given).shape == (2, 3, 4)
        assert solid.winding(given).dtype == solid.signed_distance(given).dtype == torch.float32
        assert solid.signed_distance_and_gradient(given)[1].shape == (2, 3, 4, 3)
    rounded = torch.from_numpy(points).float()
    assert torch.equal(solid.signed_distance(rounded), solid.signed_distance(rounded.double()))
    assert solid.occupancy(np.zeros((0, 3))).shape == (0,)
    assert not solid.occupancy(np.full((1, 3), 1e20)).any()


def test_points_that_are_not_finite_are_refused():
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            _ellipsoid().occupancy(np.full((2, 3), value))


def test_answers_do_not_depend_on_the_company_they_are_asked_in(monkeypatch):
    solid, points = _ellipsoid(), _points(1000)
    whole = solid.signed_distance_and_gradient(points)
    monkeypatch.setattr(geometry_solid, "CHUNK", 7)
    for one, other in zip(whole, solid.signed_distance_and_gradient(points[::-1].copy()), strict=True):
        assert torch.equal(one, other.flip(0))


def test_threads_may_ask_at_once_and_pickles_answer_alike():
    solid, points = _ellipsoid(), _points(2000)
    answers = {}
    threads = [
        threading.Thread(target=lambda i=i: answers.update({i: solid.signed_distance(points)})) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers[4] = pickle.loads(pickle.dumps(solid)).signed_distance(points)
    assert all(torch.equal(answers[0], answers[i]) for i in range(5))


def _sheet():
    vertices, faces = solids.box()
    return vertices, faces[(vertices[faces][:, :, 2] > 0).all(axis=1)]


def test_what_encloses_nothing_is_one_sentence():
    vertices, faces = _sheet()
    tilted = vertices @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    for flat in (vertices, tilted):
        with pytest.raises(InputError, match=r"^thing.obj is flat or encloses no volume, expected [^.]*$"):
            _solid(flat, faces)


def test_the_curve_visits_each_point_once_and_keeps_neighbors():
    points = _points(5000)
    order = geometry_solid.morton_order(points)
    assert np.array_equal(np.sort(order), np.arange(len(points)))
    steps = np.linalg.norm(np.diff(points[order], axis=0), axis=1)
    assert steps.mean() < 0.2 * np.linalg.norm(np.diff(points, axis=0), axis=1).mean()


@pytest.mark.data
@pytest.mark.parametrize("name", ["armadillo.obj", "happy_buddha.obj", "bunny_zipper_open.ply", "teapot.obj"])
def test_real_meshes_are_labelled_as_the_exact_sum_says(name):
    file = Path(os.environ.get("ENERF_DATA", "")) / "shapes" / name
    if "ENERF_DATA" not in os.environ or not file.is_file():
        pytest.skip(f"ENERF_DATA names no folder with shapes/{name}")
    solid = geometry_solid.Solid(geometry_mesh.load(file))
    points = np.concatenate([_points(60), _near(solid.mesh, 60, 0.02), _near(solid.mesh, 60, 1e-3)])
    exact = topology.winding_sum(solid.mesh.triangles, points)
    clear = np.abs(exact - 0.5) > 1e-3
    assert np.array_equal(solid.occupancy(points).numpy()[clear], (exact > 0.5)[clear])
    assert np.abs(solid.winding(points).numpy() - exact).max() < 0.01
