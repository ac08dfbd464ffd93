"""Tests of reading meshes and points from files, intact and damaged."""

import struct

import numpy as np
import pytest
import trimesh

from enerf.core.errors import InputError
from enerf.geometry import mesh, ply
from enerf.geometry import read as geometry_read
from tests.geometry import solids

SUFFIXES = ["obj", "ply", "stl", "off", "glb"]


def _write(path, vertices, faces):
    trimesh.Trimesh(vertices, faces, process=False).export(path)
    return path


def _sentence(caught):
    words = str(caught.value)
    assert "\n" not in words
    assert not words.endswith(".")
    return words


def _refused(path):
    with pytest.raises(InputError) as caught:
        geometry_read.mesh(path)
    words = _sentence(caught)
    assert path.name in words
    return words


def _corners(vertices, faces):
    """The triangles as a sorted list, each started at its least corner."""
    found = [tuple(map(tuple, np.roll(t, -min(range(3), key=lambda i: tuple(t[i])), axis=0))) for t in vertices[faces]]
    return sorted(found)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_triangles(suffix, tmp_path):
    vertices, faces = solids.box((-1.5, 0.25, 2), (1, 3, 2.5))
    read = geometry_read.mesh(_write(tmp_path / f"box.{suffix}", vertices, faces))
    assert read[0].dtype == np.float64
    assert _corners(*read) == _corners(vertices, faces)


def test_numbers_of_text_files_keep_their_float64(tmp_path):
    vertices = np.array([[1e6 + 1 / 3, 1e-6 / 3, 1 / 7], [1, 0, 0], [0, 1, 0]])
    text = "".join("v " + " ".join(map(repr, map(float, v))) + "\n" for v in vertices) + "f 1 2 3\n"
    (tmp_path / "a.obj").write_text(text)
    assert np.array_equal(geometry_read.mesh(tmp_path / "a.obj")[0], vertices)


def test_meshes_of_a_scene_stand_where_it_puts_them_and_mirrored_ones_look_outwards(tmp_path):
    box = trimesh.Trimesh(*solids.box())
    scene = trimesh.Scene()
    for shift, mirror in ((0, 1), (3, -1)):
        matrix = np.diag([mirror, 1, 1, 1.0])
        matrix[0, 3] = shift
        scene.add_geometry(box, geom_name="box", transform=matrix)
    scene.export(tmp_path / "two.glb")
    made = mesh.load(tmp_path / "two.glb")
    assert (made.report.parts, made.report.watertight) == (2, True)
    assert made.report.notes == ()
    assert made.report.volume == pytest.approx(2, rel=1e-6)
    span = made.normalization.to_file(made.vertices)
    assert np.allclose([span.min(0), span.max(0)], [[-0.5, -0.5, -0.5], [3.5, 0.5, 0.5]], atol=1e-6)


STRIP = """ply
format {format} 1.0
comment a strip of triangles, twice
element vertex 5
property float x
property uchar red
property float y
property float z
element tristrips 2
property list int int vertex_indices
end_header
"""
ROWS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1)]
STRIPS = [[0, 1, 2, 3, -1, 0, 4, 1], [1, 2, 2, 3, 4]]
TRIANGLES = [[0, 1, 2], [2, 1, 3], [0, 4, 1], [2, 3, 4]]


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_strips_of_a_ply_file_are_read_as_triangles_wound_alike(kind, tmp_path):
    header = STRIP.format(format=kind).encode()
    if kind == "ascii":
        rows = [f"{x} 7 {y} {z}" for x, y, z in ROWS] + [f"{len(s)} " + " ".join(map(str, s)) for s in STRIPS]
        body = "\n".join(rows).encode()
    else:
        order = "<" if "little" in kind else ">"
        body = b"".join(struct.pack(f"{order}fBff", x, 7, y, z) for x, y, z in ROWS)
        body += b"".join(struct.pack(f"{order}{len(s) + 1}i", len(s), *s) for s in STRIPS)
    (tmp_path / "strip.ply").write_bytes(header + body)
    vertices, faces = geometry_read.mesh(tmp_path / "strip.ply")
    assert np.array_equal(vertices, ROWS)
    assert faces.tolist() == TRIANGLES
    (tmp_path / "cut.ply").write_bytes((header + body)[:-6])
    assert "cut.ply cannot be read" in _refused(tmp_path / "cut.ply")


def test_text_and_bytes_of_one_ply_file_say_the_same(tmp_path):
    made = trimesh.Trimesh(*solids.box())
    for encoding in ("ascii", "binary"):
        (tmp_path / f"{encoding}.ply").write_bytes(made.export(file_type="ply", encoding=encoding))
    text, binary = (
        ply.parse((tmp_path / f"{encoding}.ply").read_bytes(), encoding) for encoding in ("ascii", "binary")
    )
    assert np.array_equal(text["face"].faces().indices(), binary["face"].faces().indices())
    for axis in "xyz":
        assert np.array_equal(text["vertex"].columns[axis], binary["vertex"].columns[axis])


@pytest.mark.parametrize("suffix", [*SUFFIXES, "gltf"])
def test_files_of_no_bytes_are_one_sentence(suffix, tmp_path):
    (tmp_path / f"empty.{suffix}").touch()
    assert "is empty (0 bytes)" in _refused(tmp_path / f"empty.{suffix}")


@pytest.mark.parametrize("suffix", ["ply", "stl", "off", "glb"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_files_that_end_too_soon_are_one_sentence(suffix, share, tmp_path):
    whole = _write(tmp_path / f"whole.{suffix}", *solids.ellipsoid(2)).read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(whole[: int(len(whole) * share)])
    _refused(tmp_path / f"cut.{suffix}")


def test_an_obj_that_ends_too_soon_is_refused_or_said_to_be_open(tmp_path):
    whole = _write(tmp_path / "whole.obj", *solids.ellipsoid(2)).read_bytes()
    (tmp_path / "cut.obj").write_bytes(whole[: int(len(whole) * 0.4)])
    assert "three numbers" in _refused(tmp_path / "cut.obj")
    (tmp_path / "cut.obj").write_bytes(whole[: whole.rindex(b"\nf ", 0, int(len(whole) * 0.9))])
    assert "boundary edges" in " ".join(mesh.load(tmp_path / "cut.obj").report.notes)


@pytest.mark.parametrize("suffix", [*SUFFIXES, "gltf"])
def test_text_that_is_no_mesh_is_one_sentence(suffix, tmp_path):
    (tmp_path / f"text.{suffix}").write_text("hello, this is no mesh at all\nbut two lines of text\n")
    _refused(tmp_path / f"text.{suffix}")


def test_what_is_no_file_or_of_no_known_kind_is_one_sentence(tmp_path):
    assert "does not exist" in _refused(tmp_path / "none.obj")
    assert "found a folder" in _refused(tmp_path)
    (tmp_path / "mesh.docx").write_text("hello")
    assert "'docx'" in _refused(tmp_path / "mesh.docx")
    (tmp_path / "mesh").write_text("hello")
    assert "without a suffix" in _refused(tmp_path / "mesh")


@pytest.mark.parametrize("suffix", ["obj", "ply", "xyz"])
def test_points_alone_are_one_sentence_that_names_the_other_way(suffix, tmp_path):
    trimesh.PointCloud(solids.ellipsoid(1)[0]).export(tmp_path / f"points.{suffix}")
    assert "42 points and no faces" in (words := _refused(tmp_path / f"points.{suffix}"))
    assert "oriented point cloud" in words


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_a_mesh_without_anything_is_one_sentence(text, tmp_path):
    (tmp_path / "a.obj").write_text(text + "\n")
    assert "no vertices and no faces" in _refused(tmp_path / "a.obj")


@pytest.mark.parametrize("face", ["1 2 9", "0 1 2", "1 2 0", "1/1 0/1 2/1"])
def test_faces_that_name_no_vertex_of_an_obj_are_one_sentence(face, tmp_path):
    (tmp_path / "a.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1 2 3\nf {face}\n")
    _refused(tmp_path / "a.obj")


@pytest.mark.parametrize("index", [3, 4000000, -1])
def test_faces_that_name_no_vertex_of_a_ply_are_one_sentence(index, tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 {index}\n"
    )
    _refused(tmp_path / "a.ply")


def _cloud(path, rows, names="x y z nx ny nz", kind="ascii"):
    header = f"ply\nformat {kind} 1.0\nelement vertex {len(rows)}\n"
    header += "".join(f"property double {name}\n" for name in names.split()) + "end_header\n"
    rows = np.asarray(rows, np.float64)
    body = (
        "\n".join(" ".join(map(repr, map(float, row))) for row in rows).encode() if kind == "ascii" else rows.tobytes()
    )
    path.write_bytes(header.encode() + body)
    return path


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
def test_an_oriented_cloud_comes_with_unit_normals_in_the_box(kind, tmp_path):
    places, _ = solids.ellipsoid(2)
    places = places * 1e-3 + 50
    normals = (places - places.mean(axis=0)) * 7e3
    cloud = mesh.load_point_cloud(_cloud(tmp_path / "c.ply", np.hstack([places, normals]), kind=kind))
    assert cloud.name == "c"
    assert np.abs(np.linalg.norm(cloud.normals, axis=1) - 1).max() < 1e-15
    assert np.abs(np.cross(cloud.normals, normals)).max() < 1e-14
    assert np.abs(cloud.points).max() == pytest.approx(0.9, rel=1e-9)
    assert np.allclose(cloud.normalization.to_file(cloud.points), places, rtol=1e-13)


def test_bad_points_of_a_cloud_are_left_out_and_said(tmp_path, caplog):
    rows = np.random.default_rng(0).normal(size=(9, 6))
    rows[0, 0], rows[1, 3:], rows[2, 4] = np.nan, 0, np.inf
    cloud = mesh.load_point_cloud(_cloud(tmp_path / "c.ply", rows))
    assert len(cloud.points) == 6
    assert "3 of 9 points" in caplog.text


def test_clouds_that_cannot_be_used_are_one_sentence(tmp_path):
    bad = {
        "no nx, ny, nz": _cloud(tmp_path / "a.ply", np.ones((3, 3)), "x y z"),
        "none of its 2 points": _cloud(tmp_path / "b.ply", np.full((2, 6), np.nan)),
        "longest side is 0": _cloud(tmp_path / "c.ply", np.ones((3, 6))),
        "no nx": _write(tmp_path / "d.ply", *solids.box()),
        "no PLY header": _write(tmp_path / "e.obj", *solids.box()),
        "does not exist": tmp_path / "f.ply",
    }
    for words, path in bad.items():
        with pytest.raises(InputError) as caught:
            mesh.load_point_cloud(path)
        assert words in _sentence(caught)
        assert path.name in str(caught.value)
