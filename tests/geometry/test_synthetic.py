"""Tests of analytic shapes: meshes, files, distances, volumes and areas agree."""

import numpy as np
import pytest

from enerf.core.errors import InputError
from enerf.geometry import mesh as geometry_mesh
from enerf.geometry import solid, synthetic
from enerf.geometry.synthetic import SHAPES, Box, Composite, Ellipsoid, Torus

PARTS = {"ellipsoid": 1, "torus": 1, "touching_boxes": 2, "plate": 1, "demo": 4}


def _points(shape, n=3000, seed=0):
    vertices, _ = shape.mesh()
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return np.random.default_rng(seed).uniform(low - 0.3 * (high - low), high + 0.3 * (high - low), (n, 3))


@pytest.mark.parametrize("name", SHAPES)
def test_files_have_the_volume_area_and_euler_number_of_the_formulas(name, tmp_path):
    path = next(p for p in synthetic.write_shapes(tmp_path) if p.stem == name)
    about, shape = geometry_mesh.load(path).report, SHAPES[name]
    assert about.watertight
    assert about.notes == ()
    assert (about.parts, about.euler_number) == (PARTS[name], shape.euler_number)
    assert 0.997 * shape.volume < about.volume < shape.volume * (1 + 1e-12)
    assert 0.997 * shape.area < about.area < shape.area * (1 + 1e-12)
    assert geometry_mesh.load(path).normalization.center != (0, 0, 0)


@pytest.mark.parametrize("name", SHAPES)
def test_vertices_lie_on_the_surface(name):
    vertices, faces = SHAPES[name].mesh()
    assert np.abs(SHAPES[name].distance(vertices)).max() < 1e-9
    assert np.array_equal(np.unique(faces), np.arange(len(vertices)))


@pytest.mark.parametrize("name", SHAPES)
def test_distances_are_those_of_the_mesh(name):
    shape = SHAPES[name]
    mesh = geometry_mesh.from_arrays(*shape.mesh(), source="shape.ply")
    points = _points(shape)
    found = solid.Solid(mesh).signed_distance(mesh.normalization.to_box(points)).numpy() / mesh.normalization.scale
    assert np.abs(found - shape.distance(points)).max() < 2e-3  # the chords of round meshes


def test_distances_of_an_ellipsoid_are_exact_also_where_symmetry_makes_them_hard():
    shape = Ellipsoid((1.0, 2.0, 3.0), (3.0, 2.0, 1.0))
    center = np.array(shape.center)
    at = np.array([[0, 0, 0], [4, 0, 0], [0, 0, -2], [0, 5, 0], [3, 0, 0], [0, 0, 0.5], [0, 1e-3, 0]], float)
    expected = [-1, 1, 1, 3, 0, -0.5]
    found = shape.distance(center + at)
    assert found[:6] == pytest.approx(expected, abs=1e-12)
    assert found[6] == pytest.approx(-1, abs=1e-6)
    ball = Ellipsoid((0, 0, 0), (0.5, 0.5, 0.5))
    points = _points(ball)
    np.testing.assert_allclose(ball.distance(points), np.linalg.norm(points, axis=1) - 0.5, atol=1e-12)


def test_a_step_along_an_ellipsoids_normal_is_its_distance():
    shape = Ellipsoid((0.1, -0.2, 0.3), (0.9, 0.5, 0.3))
    unit = np.random.default_rng(0).normal(size=(2000, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    on, normals = unit * shape.axes, unit / shape.axes
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for step in (0.7, 1e-3, -1e-3, -0.05):  # the smallest radius of curvature is 0.1
        np.testing.assert_allclose(shape.distance(on + step * normals + shape.center), step, atol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_distances_never_change_faster_than_one_goes(name):
    shape = SHAPES[name]
    a, b = _points(shape, 2000, 1), _points(shape, 2000, 2)
    gone = np.linalg.norm(a - b, axis=1)
    assert (np.abs(shape.distance(a) - shape.distance(b)) <= gone * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("name", SHAPES)
def test_volumes_are_those_that_random_points_count(name):
    shape = SHAPES[name]
    points = _points(shape, 200_000)
    extent = np.prod(points.max(axis=0) - points.min(axis=0))
    share = shape.volume / extent
    deviation = np.sqrt(share * (1 - share) / len(points))
    assert (shape.distance(points) < 0).mean() == pytest.approx(share, abs=4 * deviation + 1e-3 * share)


def test_areas_are_those_of_known_special_cases():
    assert Ellipsoid((0, 0, 0), (2, 2, 2)).area == pytest.approx(16 * np.pi)
    oblate, e = Ellipsoid((0, 0, 0), (2, 2, 1)), np.sqrt(3) / 2
    assert oblate.area == pytest.approx(2 * np.pi * 4 * (1 + (1 - e**2) / e * np.arctanh(e)))
    assert Box((0, 0, 0), (1, 2, 3)).area == 22


def test_a_ring_turns_about_its_axis():
    for axis in range(3):
        vertices, _ = Torus((1, 2, 3), 0.5, 0.1, axis).mesh()
        half = np.ptp(vertices, axis=0) / 2
        assert half[axis] == pytest.approx(0.1, rel=1e-2)
        assert np.delete(half, axis) == pytest.approx([0.6, 0.6], rel=1e-2)


def test_the_ellipsoid_goes_through_the_ring_and_touches_nothing():
    parts = SHAPES["demo"].shapes
    for i, part in enumerate(parts):
        others = Composite(tuple(p for p in parts if p is not part))
        assert others.distance(part.mesh()[0]).min() > 0.03, i
    tips = np.array(synthetic.ELLIPSOID.center) + np.array([[-0.75, 0, 0], [0.75, 0, 0]])
    assert (tips[:, 0] - synthetic.RING.center[0]).tolist() == pytest.approx([-0.75, 0.75])


def test_the_same_files_are_written_every_time_and_nothing_else_is_overwritten(tmp_path):
    paths = synthetic.write_shapes(tmp_path / "new" / "folder")
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    assert [path.stem for path in paths] == list(SHAPES)
    assert synthetic.write_shapes(tmp_path / "new" / "folder") == paths
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before
    paths[1].write_text("mine")
    with pytest.raises(InputError, match=r"torus\.ply exists"):
        synthetic.write_shapes(tmp_path / "new" / "folder")
    assert paths[1].read_text() == "mine"
    with pytest.raises(InputError, match="cannot be written"):
        synthetic.write_shapes(paths[0])
