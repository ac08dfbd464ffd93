"""Tests of the orientation of clouds: normals are kept, turned over or refused, and what was done is said."""

import numpy as np
import pytest

from enerf.core import rng
from enerf.core.errors import InputError
from enerf.geometry import cloud_normals, mesh, samples
from enerf.geometry.point_cloud import CloudSolid
from tests.geometry import solids

TWO = solids.together(solids.ellipsoid(), (solids.ellipsoid()[0] + [4, 0, 0], solids.ellipsoid()[1]))
SHELL = solids.together(solids.box(), (solids.box()[0] * 0.4, solids.box()[1][:, ::-1]))


def sampled(made, n=800):
    """Points on a mesh in the box and their outward normals."""
    made = mesh.from_arrays(*made, "made.ply")
    rows, chosen = samples.on_surface(made, n, rng.generator_for(0, 0))
    return rows, made.normals[chosen]


def signs(n, share, seed=0):
    return np.where(np.random.default_rng(seed).random((n, 1)) < share, -1.0, 1.0)


def noisy(normals, amount):
    moved = normals + np.random.default_rng(1).normal(size=normals.shape) * amount
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


@pytest.mark.parametrize("made", [solids.ellipsoid(), solids.torus(), solids.box(), solids.hemisphere(), TWO, SHELL])
def test_outward_normals_are_kept_and_inward_ones_turned_over(made):
    points, normals = sampled(made)
    found, notes = cloud_normals.oriented_outwards(points, normals, "a.ply")
    assert (found is normals, notes) == (True, [])
    found, notes = cloud_normals.oriented_outwards(points, -normals, "a.ply")
    assert np.array_equal(found, normals)
    assert "pointed inwards" in notes[0]


@pytest.mark.parametrize("made", [solids.torus(), solids.box(), solids.hemisphere(), TWO])
def test_signs_at_random_or_wrong_in_a_region_are_mended_by_the_neighbors(made):
    points, normals = sampled(made)
    half = np.where(points[:, 1:2] > points[:, 1].mean(), -1.0, 1.0)
    for factor in (signs(len(points), 0.5), signs(len(points), 0.1), half):
        found, notes = cloud_normals.oriented_outwards(points, normals * factor, "a.ply")
        assert ((found * normals).sum(axis=1) > 0).mean() > 0.995
        assert "not oriented consistently" in notes[0]


def test_one_of_two_parts_that_is_oriented_inwards_is_turned_over():
    points, normals = sampled(TWO)
    given = np.where(points[:, :1] > 0, -normals, normals)
    found, notes = cloud_normals.oriented_outwards(points, given, "a.ply")
    assert np.array_equal(found, normals)
    assert "1 of 2 parts" in notes[0]


def test_noise_in_the_normals_is_no_reason_to_turn_any_over():
    points, normals = sampled(solids.ellipsoid())
    given = noisy(normals, 0.5)
    assert cloud_normals.oriented_outwards(points, given, "a.ply")[0] is given


def test_normals_of_random_directions_are_refused():
    points, normals = sampled(solids.torus())
    with pytest.raises(InputError, match=r"^a\.ply: its normals contradict"):
        cloud_normals.oriented_outwards(points, noisy(normals, 1e3), "a.ply")


def test_an_open_sheet_keeps_its_normals_and_is_said_to_enclose_little():
    flat = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
    points = np.column_stack([flat, 0.1 * np.sin(3 * flat[:, 0])])
    normals = noisy(np.tile([0.0, 0, 1], (1000, 1)), 0.1)
    found, notes = cloud_normals.oriented_outwards(points, normals, "a.ply")
    assert found is normals
    assert "open sheet" in notes[0]


def test_a_large_cloud_is_judged_by_some_of_its_points(monkeypatch):
    monkeypatch.setattr(cloud_normals, "_SOURCES", 500)
    points, normals = sampled(solids.ellipsoid(), 4000)
    found, _ = cloud_normals.oriented_outwards(points, -normals, "a.ply")
    assert np.array_equal(found, normals)


def cloud_file(path, rows, names):
    head = f"ply\nformat ascii 1.0\nelement vertex {len(rows)}\n"
    head += "".join(f"property float {name}\n" for name in names.split()) + "end_header\n"
    path.write_text(head + "\n".join(" ".join(map(str, row)) for row in rows.tolist()))
    return path


def test_a_cloud_whose_normals_point_inwards_encloses_its_inside_and_pcl_names_are_read(tmp_path, caplog):
    points, normals = sampled(solids.ellipsoid(), 500)
    path = cloud_file(tmp_path / "a.ply", np.hstack([points, -normals]), "x y z normal_x normal_y normal_z")
    cloud = mesh.load_point_cloud(path)
    assert "all normals pointed inwards and were turned over" in caplog.text
    assert CloudSolid(cloud).winding(np.zeros((1, 3)))[0] == pytest.approx(1, abs=0.1)


def test_normals_that_are_all_or_partly_missing_are_said(tmp_path, caplog):
    points, normals = sampled(solids.ellipsoid(), 300)
    names = "x y z nx ny nz"
    with pytest.raises(InputError, match="the normals of all of its 300 points are zero"):
        mesh.load_point_cloud(cloud_file(tmp_path / "a.ply", np.hstack([points, 0 * normals]), names))
    with pytest.raises(InputError, match="have no nz, expected"):
        mesh.load_point_cloud(cloud_file(tmp_path / "b.ply", np.hstack([points, normals])[:, :5], "x y z nx ny"))
    normals[::3] = 0
    cloud = mesh.load_point_cloud(cloud_file(tmp_path / "c.ply", np.hstack([points, normals]), names))
    assert len(cloud.points) == 200
    assert "100 of 300 points" in caplog.text
