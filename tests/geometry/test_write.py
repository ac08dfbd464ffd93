"""Tests of mesh files: what is read back is the same closed mesh, at any location and scale."""

import logging
import os

import numpy as np
import pytest
import torch
import trimesh

from enerf.core.errors import InputError
from enerf.geometry import mesh as geometry_mesh
from enerf.geometry import read, write
from tests.geometry import level_sets
from tests.geometry.level_sets import Ellipsoid, Torus

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
FORMATS = ["obj", "ply", "stl", "glb"]
PLACES = [(1.0, 0.0), (1.0, 1e6), (1e-6, 0.0), (1e6, -3e6), (100.0, 12345.678)]


@pytest.fixture(scope="module")
def torus() -> tuple[np.ndarray, np.ndarray]:
    found = level_sets.extracted(Torus(), BOX, 48, inside="below", slope=1)
    return found.vertices.astype(np.float64), found.faces


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(("scale", "offset"), PLACES)
def test_a_mesh_comes_back_closed_with_its_topology_and_its_place(tmp_path, torus, suffix, scale, offset):
    vertices, faces = torus[0] * scale + np.array([offset, 0.0, -offset]), torus[1]
    path = tmp_path / f"mesh.{suffix}"
    size = np.ptp(vertices, axis=0).max()
    if write.too_coarse(path, vertices.min(0), vertices.max(0), size / 48):
        assert suffix == "stl"
        pytest.skip("refused beforehand")
    write.write(path, vertices, faces)
    mesh = geometry_mesh.load(path)
    assert mesh.report.watertight
    assert mesh.report.euler_number == 0
    assert mesh.report.volume == pytest.approx(
        level_sets.volume(vertices - offset * np.array([1, 0, -1]), faces), rel=1e-3
    )
    back = mesh.normalization.to_file(mesh.vertices)
    np.testing.assert_allclose(back.min(0), vertices.min(0), atol=1e-6 * size + 1e-7 * abs(offset) * (suffix == "stl"))
    np.testing.assert_allclose(back.max(0), vertices.max(0), atol=1e-6 * size + 1e-7 * abs(offset) * (suffix == "stl"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_trimesh_reads_the_same_as_it_stands(tmp_path, torus, suffix):
    vertices, faces = torus
    write.write(tmp_path / f"mesh.{suffix}", vertices, faces)
    mesh = trimesh.load_mesh(tmp_path / f"mesh.{suffix}")
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 0
    assert mesh.volume > 0
    assert len(mesh.faces) == len(faces)


@pytest.mark.parametrize("suffix", ["obj", "ply"])
def test_double_precision_is_kept(tmp_path, suffix):
    vertices = np.array([[1e6, 0, 0], [1e6 + 1e-5, 0, 0], [1e6, 1e-5, 0], [1e6, 0, 1.0]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    write.write(tmp_path / f"mesh.{suffix}", vertices, faces)
    back, again = read.mesh(tmp_path / f"mesh.{suffix}")
    np.testing.assert_allclose(back, vertices, rtol=0, atol=1.2e-9)
    assert np.array_equal(again, faces)


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
def test_colors_come_back(tmp_path, torus, suffix):
    vertices, faces = torus
    colors = np.random.default_rng(0).integers(0, 256, (len(vertices), 3)).astype(np.uint8)
    path = tmp_path / f"mesh.{suffix}"
    write.write(path, vertices, faces, colors)
    scene = trimesh.load_scene(path, process=False)
    (mesh,) = scene.geometry.values()
    assert np.abs(np.asarray(mesh.visual.vertex_colors)[:, :3].astype(int) - colors).max() <= 1


def test_stl_says_that_it_has_no_colors(tmp_path, torus, caplog):
    vertices, faces = torus
    with caplog.at_level(logging.WARNING, logger="enerf"):
        write.write(tmp_path / "mesh.stl", vertices, faces, np.zeros((len(vertices), 3), np.uint8))
    assert "STL files hold no colors" in caplog.text


def test_stl_is_too_coarse_far_from_the_origin_and_the_others_are_not(tmp_path):
    low = np.array([1e6, 0.0, 0.0])
    for suffix in FORMATS:
        assert write.too_coarse(tmp_path / f"a.{suffix}", low, low + 1, 1 / 512) == (suffix == "stl")
    assert not write.too_coarse(tmp_path / "a.stl", low * 0 - 1, low * 0 + 1, 2 / 1024)


@pytest.mark.parametrize("name", ["mesh", "mesh.off", "mesh.ply.zip"])
def test_an_unknown_suffix_is_told_with_the_known_ones(tmp_path, name):
    found = level_sets.extracted(Ellipsoid(), BOX, 16, inside="below")
    with pytest.raises(InputError, match=r"expected one of \.obj, \.ply, \.stl, \.glb"):
        write.write(tmp_path / name, found.vertices.astype(float), found.faces)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, torus, suffix, monkeypatch):
    path = tmp_path / f"mesh.{suffix}"
    path.write_bytes(b"old")

    def cut(path, *_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(write.WRITERS, f".{suffix}", cut)
    with pytest.raises(KeyboardInterrupt):
        write.write(path, *torus)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_suffix_in_capitals_and_a_new_folder_will_do(tmp_path, torus):
    write.write(tmp_path / "new" / "MESH.PLY", *torus)
    assert trimesh.load_mesh(tmp_path / "new" / "MESH.PLY", file_type="ply").is_watertight


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path, torus):
    (tmp_path / "mesh.ply").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write.write(tmp_path / "mesh.ply", *torus)
