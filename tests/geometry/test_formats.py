"""Tests of mesh files as programs write them: variants of OBJ, PLY, STL and OFF, and what must be refused."""

import os
import struct
from contextlib import suppress

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core.errors import InputError
from enerf.geometry import mesh, ply, read

CUBE = np.array([(x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1)], float)
QUADS = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (1, 3, 7, 5), (3, 2, 6, 7), (2, 0, 4, 6)]
TRIANGLES = [t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))]
MIXED = [*QUADS[:5], *TRIANGLES[10:]]
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        read.mesh(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


# OBJ


@pytest.mark.parametrize(
    "text",
    [
        TETRAHEDRON.replace("\n", "\r"),
        TETRAHEDRON.replace("\n", "\r\n"),
        "\ufeff" + TETRAHEDRON,
        TETRAHEDRON.replace("\nf", " # a comment \\\nf").replace("v 0 0 1", "  v\t0 0\t1 0.5 0.5 0.5"),
        TETRAHEDRON.replace("f 2 3 4", "f 2 \\\n 3\\\n4").replace("f 1 2 4", "f 1/1/1 2//2 4/3"),
        "# C:\\models\\\n" + TETRAHEDRON.replace("f 1 3 2", "g é # 7\nusemtl a\nmtllib /dev/zero\nl 1 2\np 1\nf 1 3 2"),
        "v 5 5 5\n" + TETRAHEDRON.split("f", maxsplit=1)[0]
        + "f -4 -2 -3\nf -4 -3 -1\nv 9 9 9\nf -5 -2 -3\nv 1 1 1\nf 3 4 5\n",
    ],
    ids=["cr", "crlf", "bom", "comments", "continued", "backslash", "relative"],
)  # fmt: skip
def test_an_obj_is_read_however_its_lines_are_written(text, tmp_path):
    report = mesh.load(written(tmp_path / "a.obj", text)).report
    assert (report.watertight, report.faces) == (True, 4)
    assert report.volume == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("v 0,5 0 0\nf 1 1 1\n", "vertex 1 is '0,5 0 0'"),
        ("v 0 0 0\nv\nf 1 1 1\n", "vertex 2"),
        ("v 0 0 0\nv 1 0\nf 1 1 1\n", "vertex 2 is '1 0'"),
        (TETRAHEDRON + "f -1 -2 -5\n", "vertex -5"),
        (TETRAHEDRON + "f 1 2 9\n", "vertex 9, expected those of its 4 vertices, which are numbered from 1"),
        (TETRAHEDRON + "f 1 2 x\n", "whole number"),
        (TETRAHEDRON + "f 1 2 18446744073709551617\n", ""),
        (TETRAHEDRON.encode("utf-16"), "not text"),
    ],
)
def test_lines_of_an_obj_that_cannot_be_read_are_named(text, word, tmp_path):
    refused(written(tmp_path / "a.obj", text), word)


def test_what_of_an_obj_is_left_out_is_said(tmp_path, caplog):
    written(tmp_path / "a.obj", TETRAHEDRON + "f 1 2\nsurf 0 1 0 1 1 2 3 4\n")
    assert len(read.mesh(tmp_path / "a.obj")[1]) == 4
    assert "1 faces of fewer than three corners" in caplog.text
    assert "free-form" in caplog.text


# PLY


def ply_file(order, faces, kinds=("uchar", "int"), before="", after="", name="vertex_indices", end="\n"):
    """A PLY file of the cube whose faces have further properties before and after their list."""
    sizes = {"uchar": "B", "ushort": "H", "uint": "I", "int": "i", "short": "h", "float": "f", "double": "d"}
    lines = ["ply", f"format {order} 1.0", "comment end_header is not here", "element vertex 8", "property uchar red"]
    lines += [f"property double {axis}" for axis in "xyz"] + ["property list uchar float extra"]
    lines += [f"element face {len(faces)}", *[f"property {kind} b{i}" for i, kind in enumerate(before.split())]]
    lines += [f"property list {kinds[0]} {kinds[1]} {name}"]
    lines += [f"property {kind} a{i}" for i, kind in enumerate(after.split())] + ["element edge 1", "property int v"]
    body = b""
    rows = [(("uchar", 7), *(("double", x) for x in v), ("uchar", i % 3), *(("float", 0.5),) * (i % 3))
            for i, v in enumerate(CUBE)]  # fmt: skip
    rows += [
        (*((kind, 1) for kind in before.split()), (kinds[0], len(f)), *((kinds[1], i) for i in f),
         *((kind, 2) for kind in after.split())) for f in faces
    ] + [(("int", 5),)]  # fmt: skip
    if order == "ascii":
        body = end.join(" ".join(str(value) for _, value in row) for row in rows).encode()
    else:
        mark = "<" if "little" in order else ">"
        body = b"".join(struct.pack(mark + sizes[kind], value) for row in rows for kind, value in row)
    return (end.join([*lines, "end_header"]) + end).encode() + body


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(
    "about",
    [
        {"faces": MIXED},
        {"faces": MIXED, "kinds": ("uint", "ushort"), "before": "float uchar", "after": "double", "end": "\r\n"},
        {
            "faces": QUADS,
            "kinds": ("ushort", "short"),
            "after": "uchar uchar uchar",
            "name": "vertex_index",
            "end": "\r",
        },
        {"faces": TRIANGLES, "kinds": ("int", "float"), "name": "corners"},
    ],
)
def test_a_ply_file_is_the_cube_whatever_its_faces_and_properties_are(order, about, tmp_path):
    report = mesh.load(written(tmp_path / "a.ply", ply_file(order, **about))).report
    assert (report.watertight, report.volume, report.area) == (True, pytest.approx(1), pytest.approx(6))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 7), max_size=6), max_size=9), st.sampled_from("<>"))
def test_lists_of_any_lengths_are_those_that_were_written(rows, mark):
    order = "binary_little_endian" if mark == "<" else "binary_big_endian"
    head = f"ply\nformat {order} 1.0\nelement e {len(rows)}\nproperty short a\nproperty list uchar int l\n"
    head += "property list uint char m\nproperty float b\nend_header\n"
    body = b""
    for i, row in enumerate(rows):
        body += struct.pack(f"{mark}hB{len(row)}iI{i % 3}bf", i, len(row), *row, i % 3, *[i] * (i % 3), i / 2)
    found = ply.parse(head.encode() + body, "a.ply")["e"]
    assert [some.tolist() for some in found.lists["l"].rows()] == rows
    assert [some.tolist() for some in found.lists["m"].rows()] == [[i] * (i % 3) for i in range(len(rows))]
    assert found.columns["a"].tolist() == list(range(len(rows)))
    assert found.columns["b"].tolist() == [i / 2 for i in range(len(rows))]


HEAD = "ply\nformat {} 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nelement face {}\n"
HEAD += "property list {} int vertex_indices\nend_header\n"
THREE = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)
BINARY = "binary_little_endian"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (HEAD.format(BINARY, 10**12, 1, "uchar").encode() + THREE, "ends before"),
        (HEAD.format("ascii", 10**12, 1, "uchar").encode() + b"1 2 3\n", "ends before"),
        (HEAD.format(BINARY, 3, 2**31, "uchar").encode() + THREE + b"\3" * 99, "ends before"),
        (HEAD.format(BINARY, 3, 1, "char").encode() + THREE + struct.pack("<b3i", -1, 0, 1, 2), "length -1"),
        (
            HEAD.format(BINARY, 3, 1, "uint").encode() + THREE + struct.pack("<I3i", 2**31, 0, 1, 2),
            "length 2.14748e+09",
        ),
        (HEAD.format("ascii", 3, 1, "int").encode() + b"0 0 0 1 0 0 0 1 0 inf 1 2", "length inf"),
        (HEAD.format("ascii", 3, 1, "int").encode() + b"0 0 0 1 0 0 0 1 0 3 0 1 1.5", "whole numbers"),
        (HEAD.format("ascii", 3, 1, "int").encode() + b"0 0 0 1 0 0 0 1 x 3 0 1 2", "not a number"),
        (HEAD.format("ascii", -3, 1, "int").encode() + b"0 0 0", "invalid number"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "no x, y and z"),
        (b"ply\nformat ascii 1.0\nelement e 2\nproperty float x\nproperty float x\nend_header\n1 1\n", "twice"),
        (b"ply\n" + b"comment x\n" * 200_000 + b"end_header\n", "no PLY header"),
    ],
)
def test_ply_files_that_contradict_themselves_are_one_sentence(content, word, tmp_path):
    refused(written(tmp_path / "a.ply", content), word)


# STL


def facets(triangles=TRIANGLES):
    return b"".join(struct.pack("<12fH", 0, 0, 0, *CUBE[list(t)].ravel(), 0) for t in triangles)


@pytest.mark.parametrize(
    ("header", "count", "tail", "said"),
    [
        (bytes(80), 12, b"", None),
        (b"solid but binary".ljust(80), 12, b"", None),
        (bytes(80), 12, bytes(17), "17 bytes after"),
        (bytes(80), 12, bytes(50), "50 bytes after"),
        (bytes(80), 12, b"\xff" * 50, "50 bytes after"),
        (bytes(80), 0, b"", "says 0 facets, but it holds 12"),
        (b"solid but binary".ljust(80), 7, b"", "says 7 facets, but it holds 12"),
        (bytes(80), 1000, b"", "says 1000 facets, but it holds 12"),
        (bytes(80), 0, bytes(17), "17 bytes after"),
    ],
)
def test_all_whole_facets_of_a_binary_stl_are_read_and_a_wrong_count_is_said(
    header, count, tail, said, tmp_path, caplog
):
    path = written(tmp_path / "a.stl", header + struct.pack("<I", count) + facets() + tail)
    report = mesh.load(path).report
    assert (report.watertight, report.faces, report.volume) == (True, 12, pytest.approx(1))
    assert (said or "") in caplog.text
    assert bool(caplog.text) == bool(said)


def test_text_stl_files_may_hold_several_solids_in_capitals(tmp_path):
    def solid(shift):
        lines = ["FACET NORMAL 0 0 0\nOUTER LOOP\n{}\nENDLOOP\nENDFACET".format("\n".join(
            f"VERTEX {x + shift:g} {y:e} {z}" for x, y, z in CUBE[list(t)])) for t in TRIANGLES]  # fmt: skip
        return "solid a\n" + "\n".join(lines) + "\nendsolid a\n"

    report = mesh.load(written(tmp_path / "a.stl", solid(0) + solid(3))).report
    assert (report.parts, report.volume) == (2, pytest.approx(2))


@pytest.mark.parametrize(
    "content",
    [bytes(84), bytes(80) + struct.pack("<I", 12) + facets()[:-20], b"solid\nfacet\nvertex 1 2 3\nendfacet\n"],
)
def test_stl_files_that_end_within_a_facet_or_have_none_are_one_sentence(content, tmp_path):
    refused(written(tmp_path / "a.stl", content))


# OFF


@pytest.mark.parametrize(
    "head", ["OFF\n8 6 12", "OFF8 6 0", "COFF # colors\n\n8 6 0\n", "OFF 8 6 0", "\ufeffNOFF\r8 6 0"]
)
def test_an_off_file_has_any_header_and_polygons(head, tmp_path):
    more = " 1 0 0 1" if "C" in head else " 0 0 1" if "N" in head else ""
    rows = [" ".join(map(str, v)) + more for v in CUBE] + [f"4 {' '.join(map(str, q))} 0.5 0.5 0.5 # q" for q in QUADS]
    report = mesh.load(written(tmp_path / "a.off", "\n".join([head, *rows]))).report
    assert (report.watertight, report.volume) == (True, pytest.approx(1))


@pytest.mark.parametrize(
    "text",
    ["OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n-3 0 1 2\n", "OFF\n1000000000000 1 0\n", "4OFF\n0 0 0\n", "OFF BINARY\n\1\2",
     "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2\n"],
)  # fmt: skip
def test_off_files_that_cannot_be_read_are_one_sentence(text, tmp_path):
    refused(written(tmp_path / "a.off", text))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.off", "OFF\n4 1 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n"),
        ("a.ply", HEAD.format(BINARY, 3, 1, "uchar").encode() + THREE + struct.pack("<B3i", 3, 0, 1, 2) + bytes(13)),
        ("a.ply", HEAD.format("ascii", 3, 1, "uchar").encode() + b"0 0 0 1 0 0 0 1 0 3 0 1 2\n3 0 1 2\n"),
    ],
)
def test_rows_beyond_those_of_the_header_are_said(name, content, tmp_path, caplog):
    assert len(read.mesh(written(tmp_path / name, content))[1]) == 1
    assert "after its last" in caplog.text


# any


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "off", "glb", "gltf", "xyz"])
def test_pipes_devices_and_sparse_giants_are_one_sentence_at_once(suffix, tmp_path):
    os.mkfifo(pipe := tmp_path / f"pipe.{suffix}")
    refused(pipe, "named pipe")
    (device := tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    refused(device, "character device")
    for size in (1 << 33, 1 << 50):
        with open(giant := tmp_path / f"giant{size}.{suffix}", "wb") as file:
            file.write({"ply": HEAD.format(BINARY, 3, 1, "uchar").encode(), "obj": b"v 0 0 0\n"}.get(suffix, b""))
            try:
                file.truncate(size)
            except OSError:
                continue
        if suffix != "xyz" and not (suffix == "ply" and size == 1 << 33):
            refused(giant)


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "off", "glb", "gltf"])
def test_damaged_bytes_give_a_mesh_or_one_sentence(suffix, tmp_path):
    made = trimesh.Trimesh(CUBE, TRIANGLES, process=False)
    exported = made.export(file_type=suffix)
    whole = exported["model.gltf"] if suffix == "gltf" else exported
    for name, content in exported.items() if suffix == "gltf" else ():
        written(tmp_path / name, content)
    whole = whole.encode() if isinstance(whole, str) else whole
    generator = np.random.default_rng(0)
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        places = generator.integers(0, len(damaged), generator.integers(1, 5))
        damaged[places] = generator.choice([0, 9, 32, 45, 48, 57, 255, generator.integers(256)], len(places))
        path = written(tmp_path / f"a.{suffix}", damaged.tobytes())
        with suppress(InputError):
            found = mesh.load(path)
            assert np.isfinite(found.vertices).all()
            assert 0 <= found.faces.min() <= found.faces.max() < len(found.vertices)
