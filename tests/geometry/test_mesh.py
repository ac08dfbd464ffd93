"""Tests of meshes in the box: normalization, repair, orientation, report."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import trimesh

from enerf.core.errors import InputError
from enerf.geometry import mesh
from tests.geometry import solids


def _made(vertices, faces, **options):
    return mesh.from_arrays(np.asarray(vertices, float), np.asarray(faces, np.int64), "thing.obj", **options)


def _sentence(caught):
    words = str(caught.value)
    assert "\n" not in words
    assert words.startswith("thing.obj")
    assert not words.endswith(".")
    return words


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_normalizing_there_and_back_is_exact(scale):
    for shift in (0.0, 1e-6, 1.0, 1e6):
        vertices = solids.ellipsoid(2)[0] * scale + shift
        found = mesh.normalize(vertices, "a.obj")
        back = found.to_file(found.to_box(vertices))
        assert np.abs(back - vertices).max() <= 1e-12 * np.abs(vertices).max()


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
def test_a_mesh_is_centerd_and_its_longest_side_leaves_the_margin(margin):
    made = _made(*solids.ellipsoid(2), margin=margin)
    low, high = made.vertices.min(axis=0), made.vertices.max(axis=0)
    assert np.abs(low + high).max() < 1e-14
    assert (high - low).max() == pytest.approx(2 * (1 - margin), rel=1e-14)
    assert np.argmax(high - low) == np.argmax(solids.HALF_AXES)


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0), (1e-6, 1e-4), (1e6, 0), (3.0, 1e6), (1e-90, 0), (1e90, 0)])
def test_scale_and_place_change_nothing_in_the_box(scale, shift):
    vertices, faces = solids.torus()
    plain, other = _made(vertices, faces), _made(vertices * scale + shift, faces)
    assert np.array_equal(plain.faces, other.faces)
    assert np.abs(plain.vertices - other.vertices).max() < 1e-8
    assert other.report.area == pytest.approx(plain.report.area * scale**2, rel=1e-7)
    assert other.report.volume == pytest.approx(plain.report.volume * scale**3, rel=1e-7)
    assert other.report.watertight


def test_seams_are_merged_also_where_the_mesh_is_tiny():
    vertices, faces = solids.ellipsoid(2)
    for scale in (1e-9, 1, 1e9):
        made = _made(vertices[faces].reshape(-1, 3) * scale, np.arange(faces.size).reshape(-1, 3))
        assert made.report.vertices == len(vertices)
        assert made.report.watertight
        assert (made.report.euler_number, made.report.parts) == (2, 1)


def test_areas_normals_and_volume_are_those_of_a_box():
    made = _made(*solids.box((0, 0, 0), (1, 2, 4)))
    assert made.report.area == pytest.approx(28, rel=1e-14)
    assert made.report.volume == pytest.approx(8, rel=1e-14)
    assert np.abs(made.normals).sum(axis=1) == pytest.approx(np.ones(12))
    middles = made.triangles.mean(axis=1)
    assert ((middles * made.normals).sum(axis=1) > 0).all()
    assert made.areas.sum() == pytest.approx(28 * made.normalization.scale**2, rel=1e-14)


def test_boxes_that_touch_become_one_solid_without_the_wall():
    left, right = solids.box((0, 0, 0), (1, 1, 1)), solids.box((1, 0, 0), (2, 1, 1))
    mirrored = right[0] * [-1, 1, 1] + [3, 0, 0]  # so that the diagonals of the two walls meet
    made = _made(*solids.together(left, (mirrored, right[1][:, ::-1])))
    assert (made.report.watertight, made.report.parts, made.report.faces) == (True, 1, 20)
    assert made.report.volume == pytest.approx(2, rel=1e-14)
    assert "4 duplicate or coincident opposite faces were dropped" in made.report.notes
    made = _made(*solids.together(left, right))
    assert made.report.volume == pytest.approx(2, rel=1e-14)


def test_an_open_hemisphere_says_what_is_assumed():
    made = _made(*solids.hemisphere())
    assert (made.report.watertight, made.report.open_parts, made.report.boundary_edges) == (False, 1, 32)
    assert any("winding number above 1/2 count as inside" in note for note in made.report.notes)
    assert made.report.volume == pytest.approx(2 / 3 * np.pi, rel=2e-2)


def test_many_open_parts_are_handled_and_said():
    vertices, faces = solids.hemisphere()
    shells = [
        (vertices + np.array([3 * (i % 7), 3 * (i // 7), 0]), faces[:, ::-1] if i % 3 else faces) for i in range(44)
    ]
    made = _made(*solids.together(*shells))
    assert (made.report.parts, made.report.open_parts) == (44, 44)
    assert "44 of 44 parts are open" in made.report.notes[-1]
    assert made.report.volume == pytest.approx(44 * 2 / 3 * np.pi, rel=2e-2)


def test_faces_with_values_that_are_not_finite_are_dropped_and_said():
    vertices, faces = solids.ellipsoid(2)
    vertices[0, 1], vertices[5] = np.nan, np.inf
    lost = np.isin(faces, [0, 5]).any(axis=1)
    made = _made(vertices, faces)
    assert made.report.faces == (~lost).sum()
    assert f"{lost.sum()} faces with vertices that are not finite were dropped" in made.report.notes
    assert np.isfinite(made.vertices).all()


def test_faces_without_area_go_unless_they_hold_a_seam_together():
    vertices, faces = solids.box()
    made = _made(vertices, np.concatenate([faces, [[0, 0, 1], [2, 2, 2]]]))
    assert (made.report.watertight, made.report.faces) == (True, 12)
    assert "2 faces without area were dropped" in made.report.notes
    a, b, c = faces[0]
    middle = [[*(vertices[a] + vertices[b]) / 2]]  # splits one side's edge, and not its neighbor's
    split = np.concatenate([faces[1:], [[a, 8, c], [8, b, c], [a, b, 8]]])
    assert _made(np.concatenate([vertices, middle]), split).report.watertight


def test_vertices_that_no_face_uses_do_not_count():
    vertices, faces = solids.box()
    made = _made(np.concatenate([vertices, [[100.0, 0, 0]]]), faces)
    assert made.report.vertices == 8
    assert np.abs(made.vertices).max() == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("vertices", "faces", "words"),
    [
        (np.full((3, 3), np.nan), [[0, 1, 2]], "not finite in all of its 1 faces"),
        (np.ones((3, 3)), np.zeros((0, 3), np.int64), "has no faces"),
        (np.ones((3, 3)), [[0, 1, 2]], "longest side is 0"),
        ([[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 1, 2]], "no area or cancel each other"),
        ([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 1]], "no area or cancel each other"),
        (np.eye(3) * 1e-200, [[0, 1, 2]], "longest side is 1e-200"),
        (np.eye(3) * 1e200 * [1, -1, 1], [[0, 1, 2]], "longest side is 1e+200"),
        (np.array([[-1.7e308, 0, 0], [1.7e308, 0, 0], [0, 1, 0]]), [[0, 1, 2]], "longest side is inf"),
    ],
)
def test_a_mesh_without_a_surface_is_one_sentence(vertices, faces, words):
    with pytest.raises(InputError) as caught:
        _made(vertices, faces)
    assert words in _sentence(caught)


def test_a_loaded_mesh_is_named_for_its_file_and_survives_pickling(tmp_path, caplog):
    trimesh.Trimesh(*solids.hemisphere()).export(tmp_path / "dome.ply")
    made = mesh.load(tmp_path / "dome.ply")
    assert made.name == "dome"
    assert made.source == (tmp_path / "dome.ply").as_posix()
    assert "1 of 1 parts are open" in caplog.text
    again = pickle.loads(pickle.dumps(made))
    assert np.array_equal(again.vertices, made.vertices)
    assert again.report == made.report


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "watertight", "euler", "parts"),
    [
        ("armadillo.obj", True, 2, 1),
        ("bunny.obj", True, 2, 1),
        ("bunny_zipper_open.ply", False, -3, 1),
        ("dragon.obj", True, 0, 1),
        ("happy_buddha.obj", False, None, 1),
        ("spot.obj", True, 2, 1),
        ("fandisk.obj", True, 2, 1),
        ("teapot.obj", False, None, 3),
    ],
)
def test_real_meshes_are_what_their_readme_says(name, watertight, euler, parts):
    file = Path(os.environ.get("ENERF_DATA", "")) / "shapes" / name
    if "ENERF_DATA" not in os.environ or not file.is_file():
        pytest.skip(f"ENERF_DATA names no folder with shapes/{name}")
    report = mesh.load(file).report
    assert (report.watertight, report.parts) == (watertight, parts)
    assert euler is None or report.euler_number == euler
    assert report.volume > 0
