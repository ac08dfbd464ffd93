"""Meshes in PLY, OBJ, STL and OFF: counts that lie, indices out of range, mixed polygons, flipped bits."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.corpus.damage import cut, flipped, zipped
from tests.corpus.inputs import base, shape, special_file
from tests.corpus.registry import Command, table

PLYH = (
    "ply\nformat {f} 1.0\nelement vertex {n}\nproperty float x\nproperty float y\nproperty float z\n"
    "element face {m}\nproperty list {k} {t} vertex_indices\nend_header\n"
)
V3 = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)
CUBE = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
# A unit cube of four quadrilaterals and four triangles, counterclockwise from outside.
MIXED = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3))


def _mesh(suffix: str) -> bytes:
    return base("mesh", f"m.{suffix}").read_bytes()


def _strips(form: str, n: int, length: str, index: str) -> bytes:
    """The header of a PLY of three vertices and triangle strips."""
    corners = PLYH.partition("element face")[0].format(f=form, n=3)
    return f"{corners}element tristrips {n}\nproperty list {length} {index} vertex_indices\nend_header\n".encode()


def _mixed(form: str) -> bytes:
    """A PLY of the cube of quadrilaterals and triangles in one of the three formats."""
    head = PLYH.format(f=form, n=8, m=len(MIXED), k="uchar", t="int").encode()
    if form == "ascii":
        lines = [" ".join(map(str, corner)) for corner in CUBE]
        lines += [" ".join(map(str, (len(face), *face))) for face in MIXED]
        return head + "\n".join(lines).encode() + b"\n"
    order = "<" if "little" in form else ">"
    faces = b"".join(struct.pack(f"{order}B{len(face)}i", len(face), *face) for face in MIXED)
    return head + np.array(CUBE, f"{order}f4").tobytes() + faces


def _stl(count: int | None = None, trailing: bytes = b"", header: bytes = bytes(80)) -> bytes:
    """A binary STL of the cube, with the given number of facets in its header."""
    triangles = [t for face in MIXED for t in ([face[:3]] if len(face) == 3 else [face[:3], (face[0], *face[2:])])]
    facets = b"".join(bytes(12) + np.array([CUBE[i] for i in t], "<f4").tobytes() + bytes(2) for t in triangles)
    return header + struct.pack("<I", len(triangles) if count is None else count) + facets + trailing


def _obj(line_end: str = "\n", comment: str = "") -> bytes:
    """An OBJ of a tetrahedron."""
    lines = ("v 0 0 0", "v 1 0 0", "v 0 1 0", "v 0 0 1", "f 1 3 2", "f 1 2 4", "f 2 3 4", "f 1 4 3", "")
    return line_end.join(line + comment if line else "" for line in lines).encode()


def _concave(start: int) -> bytes:
    """An OBJ of an L-shaped prism whose caps are one concave polygon each, begun at a corner."""
    outline = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
    corners = [f"v {x} {y} {z}" for z in (0, 1) for x, y in outline]
    turn = [(start + i) % 6 for i in range(6)]
    faces = ["f " + " ".join(str(i + 1) for i in reversed(turn)), "f " + " ".join(str(i + 7) for i in turn)]
    faces += [f"f {i + 1} {(i + 1) % 6 + 1} {(i + 1) % 6 + 7} {i + 7}" for i in range(6)]
    return "\n".join([*corners, *faces, ""]).encode()


MESH = {
    "ply:count_2e31": PLYH.format(f="binary_little_endian", n=2**31, m=1, k="uchar", t="int").encode() + V3,
    "ply:faces_2e31": PLYH.format(f="binary_little_endian", n=3, m=2**31, k="uchar", t="int").encode()
    + V3
    + struct.pack("<B3i", 3, 0, 1, 2),
    "ply:count_neg": PLYH.format(f="binary_little_endian", n=-3, m=1, k="uchar", t="int").encode() + V3,
    "ply:ascii_2e31": PLYH.format(f="ascii", n=2**31, m=1, k="uchar", t="int").encode()
    + b"0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
    "ply:list_neg": PLYH.format(f="binary_little_endian", n=3, m=1, k="char", t="int").encode()
    + V3
    + struct.pack("<b3i", -1, 0, 1, 2),
    "ply:index_neg": (
        "refuse",
        PLYH.format(f="binary_little_endian", n=3, m=1, k="uchar", t="int").encode()
        + V3
        + struct.pack("<B3i", 3, 0, 1, -2),
    ),
    "ply:index_big": (
        "refuse",
        PLYH.format(f="binary_little_endian", n=3, m=1, k="uchar", t="int").encode()
        + V3
        + struct.pack("<B3i", 3, 0, 1, 2**31 - 1),
    ),
    "ply:nan": (
        "refuse",
        PLYH.format(f="ascii", n=3, m=1, k="uchar", t="int").encode() + b"nan nan nan\n1 0 0\n0 1 0\n3 0 1 2\n",
    ),
    "ply:list_2e31": PLYH.format(f="binary_little_endian", n=3, m=1, k="uint", t="int").encode()
    + V3
    + struct.pack("<I3i", 2**31, 0, 1, 2),
    "ply:header_only": ("refuse", b"ply\n"),
    "ply:no_end": ("refuse", b"ply\nformat ascii 1.0\nelement vertex 3\n"),
    "ply:header_10MB": ("refuse", b"ply\nformat ascii 1.0\n" + b"comment x\n" * 1000000),
    "ply:elements_1e5": (
        "refuse",
        b"ply\nformat ascii 1.0\n"
        + b"".join(b"element e%d 1\nproperty float x\n" % i for i in range(20000))
        + b"end_header\n",
    ),
    "ply:digits": (
        "refuse",
        b"ply\nformat ascii 1.0\nelement vertex " + b"9" * 5000 + b"\nproperty float x\nend_header\n",
    ),
    "ply:strips_neg_list": (
        "refuse",
        _strips("binary_little_endian", 2000000000, "char", "char") + V3 + b"\xff" * 40,
    ),
    "ply:strips_2e31": (
        "refuse",
        _strips("binary_little_endian", 1, "uint", "int") + V3 + struct.pack("<I", 2**31),
    ),
    "ply:strips_inf": (
        "refuse",
        _strips("ascii", 1, "float", "int") + b"0 0 0 1 0 0 0 1 0 inf 1 2\n",
    ),
    "ply:strips_no_vertex": (
        "refuse",
        b"ply\nformat ascii 1.0\nelement tristrips 1\nproperty list int int vertex_indices\nend_header\n3 0 1 2\n",
    ),
    "ply:strips_nan_index": (
        "refuse",
        _strips("ascii", 1, "int", "float") + b"0 0 0 1 0 0 0 1 0 3 0 nan 1e30\n",
    ),
    "obj:zero_index": ("refuse", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n"),
    "obj:neg": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -3\n",
    "obj:neg_far": ("refuse", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -300\n"),
    "obj:big": ("refuse", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 2147483648\n"),
    "obj:2e64": ("refuse", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 18446744073709551617\n"),
    "obj:nan": ("refuse", b"v nan nan nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"),
    "obj:inf": ("refuse", b"v inf 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"),
    "obj:1e200": ("refuse", b"v 1e200 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"),
    "obj:1e-200": ("refuse", b"v 1e-200 0 0\nv 0 0 0\nv 0 1e-200 0\nf 1 2 3\n"),
    "obj:1e90": b"v 1e90 0 0\nv 0 0 0\nv 0 1e90 0\nv 0 0 1e90\nf 1 2 3\nf 1 2 4\nf 2 3 4\n",
    "obj:one_triangle": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "obj:line": ("refuse", b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"),
    "obj:no_faces": ("refuse", b"v 0 0 0\nv 1 0 0\n"),
    "obj:empty": ("refuse", b"\n"),
    "obj:binary": ("refuse", bytes(range(256)) * 20),
    "obj:ngon_1e5": b"".join(b"v %d %d %d\n" % (i, i * i % 97, i % 13) for i in range(3000))
    + b"f "
    + b" ".join(b"%d" % i for i in range(1, 3001))
    + b"\n",
    "obj:comma": ("refuse", b"v 0,5 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"),
    "obj:mtllib": b"mtllib ../../../../etc/passwd\nmtllib /dev/zero\nusemtl a\n"
    + b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 2 3 4\nf 1 3 4\n",
    "obj:line_10MB": ("refuse", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf " + b"1 2 3 " * (1 << 20) + b"\n"),
    "obj:two_coords": ("refuse", b"v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n"),
    "obj:crlf": b"v 0 0 0\r\nv 1 0 0\r\nv 0 1 0\r\nv 0 0 1\r\nf 1 2 3\r\nf 1 2 4\r\nf 2 3 4\r\nf 1 3 4\r\n",
    "obj:continuation": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 \\\n2 3\n",
    "obj:utf16": ("refuse", "v 0 0 0\nf 1 2 3\n".encode("utf-16")),
    "stl:count_2e31": ("refuse", bytes(80) + struct.pack("<I", 2**31) + bytes(50)),
    "stl:count_big": ("refuse", bytes(80) + struct.pack("<I", 2**32 - 1) + bytes(500)),
    "stl:count_0": ("refuse", bytes(84)),
    "stl:ascii_bad": (
        "refuse",
        b"solid x\nfacet normal 0 0 0\nouter loop\nvertex a b c\nendloop\nendfacet\nendsolid\n",
    ),
    "stl:ascii_2vert": (
        "refuse",
        b"solid x\nfacet normal 0 0 0\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nendloop\nendfacet\nendsolid\n",
    ),
    "stl:nan": ("refuse", bytes(80) + struct.pack("<I", 1) + struct.pack("<12f", *[float("nan")] * 12) + b"\0\0"),
    "stl:short": ("refuse", bytes(80)),
    "off:count_2e31": ("refuse", b"OFF\n2147483648 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"),
    "off:faces_2e31": ("refuse", b"OFF\n3 2147483648 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"),
    "off:neg": ("refuse", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 -2\n"),
    "off:big": ("refuse", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 9999999999\n"),
    "off:nohead": ("refuse", b"3 1 0\n"),
    "off:coff": b"COFF\n3 1 0\n0 0 0 255 0 0 255\n1 0 0 255 0 0 255\n0 1 0 255 0 0 255\n3 0 1 2\n",
    "off:negcount": ("refuse", b"OFF\n-3 -1 0\n0 0 0\n"),
    "off:ngon_neg": ("refuse", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n-3 0 1 2\n"),
    "off:ngon_2e31": ("refuse", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n2147483647 0 1 2\n"),
    **{
        f"{s}:flip{i}": (lambda s=s, i=i: flipped(_mesh(s), i, 4))
        for s in ("ply", "stl", "glb", "obj", "off")
        for i in range(6)
    },
    **{
        f"{s}:cut{i}": (lambda s=s, i=i: cut(_mesh(s), i, 5))
        for s in ("ply", "stl", "glb", "obj", "off")
        for i in (1, 3)
    },
    "xyz:text": ("refuse", b"0 0 0\n1 1 1\n"),
    "3mf:zip": ("refuse", zipped({"3D/3dmodel.model": b"<x/>"})),
    "dae:xxe": (
        "refuse",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><COLLADA>&x;</COLLADA>',
    ),
    "zip:mesh": ("refuse", zipped({"../../evil.obj": b"v 0 0 0\n"})),
    "stp:text": ("refuse", b"ISO-10303-21;\n"),
    "txt:text": ("refuse", b"hi"),
}
MORE_MESH = {
    **{
        f"ply:mixed_{form}": ("accept", _mixed(form)) for form in ("ascii", "binary_little_endian", "binary_big_endian")
    },
    "ply:mixed_cut": ("refuse", _mixed("binary_little_endian")[:-6]),
    "ply:mixed_trailing": _mixed("binary_little_endian") + bytes(100),
    "ply:degenerate_faces": PLYH.format(f="ascii", n=3, m=2, k="uchar", t="int").encode()
    + b"0 0 0\n1 0 0\n0 1 0\n2 0 1\n3 0 1 2\n",
    "ply:crlf": _mixed("ascii").replace(b"\n", b"\r\n"),
    "ply:cr": _mixed("ascii").replace(b"\n", b"\r"),
    "ply:version_9": ("any", _mixed("ascii").replace(b"ascii 1.0", b"ascii 9.0")),
    "ply:format_unknown": ("refuse", _mixed("ascii").replace(b"format ascii", b"format morse")),
    "ply:latin1_comment": _mixed("ascii").replace(b"element vertex", b"comment caf\xe9\nelement vertex", 1),
    "stl:count_0_whole": ("accept", _stl(count=0)),
    "stl:count_11": ("accept", _stl(count=11)),
    "stl:count_13": ("accept", _stl(count=13)),
    "stl:trailing": ("accept", _stl(trailing=bytes(137))),
    "stl:solid_header": ("accept", _stl(header=b"solid made by a scanner".ljust(80))),
    "stl:cut_facet": _stl()[:-20],
    "obj:inline_comment": ("accept", _obj(comment=" # made by hand")),
    "obj:cr": ("accept", _obj("\r")),
    "obj:crlf_blank": ("accept", _obj("\r\n")),
    "obj:bom": b"\xef\xbb\xbf" + _obj(),
    "obj:latin1": ("accept", b"o caf\xe9\n" + _obj()),
    "obj:nul": _obj() + bytes(100),
    "obj:face_of_one": _obj() + b"f 1\n",
    "obj:face_of_text": ("refuse", _obj() + b"f a b c\n"),
    "obj:slashes": ("accept", _obj().replace(b"f 1 3 2", b"f 1// 3//1 2/1/")),
    "obj:weights": ("accept", _obj().replace(b"v 1 0 0", b"v 1 0 0 1.0")),
    "obj:colors": ("accept", _obj().replace(b"v 1 0 0", b"v 1 0 0 0.5 0.5 0.5")),
    "obj:huge_exponent": ("refuse", _obj().replace(b"v 1 0 0", b"v 1e999999999 0 0")),
    "off:comment": (
        "accept",
        b"OFF # made\n# by hand\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 1 2 3\n3 2 0 3\n",
    ),
    "off:one_line": b"OFF 3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
    "off:short": ("refuse", b"OFF\n3 1 0\n0 0 0\n"),
    **{f"obj:concave{i}": ("accept", _concave(i)) for i in range(6)},
}


def _mesh_case(name: str) -> None:
    suffix = name.split(":", maxsplit=1)[0]

    @table("mesh", {name.replace(":", "_"): ALL[name]})
    def _(folder: Path, content: bytes | Callable[[], bytes]) -> Command:
        (folder / f"m.{suffix}").write_bytes(content() if callable(content) else content)
        return shape(folder, "--mesh", folder / f"m.{suffix}")


ALL = MESH | MORE_MESH
for _name in ALL:
    _mesh_case(_name)


SPECIAL = {
    f"{suffix}_{kind}": (f"m.{suffix}", kind)
    for suffix in ("ply", "obj", "stl", "off", "glb")
    for kind in ("fifo", "devzero")
}
SPECIAL |= {f"ply_{kind}": ("m.ply", kind) for kind in ("folder", "loop", "dangling", "empty", "missing")}


@table("mesh_file", SPECIAL, "refuse")
def _(folder: Path, named: tuple[str, str]) -> Command:
    special_file(folder / named[0], named[1])
    return shape(folder, "--mesh", folder / named[0])


MIX = {"one_fifo": "fifo", "one_devzero": "devzero", "one_dangling": "dangling", "one_empty": "empty"}


@table("mesh_folder", MIX)
def _(folder: Path, kind: str) -> Command:
    (folder / "in").mkdir()
    (folder / "in" / "a.obj").write_bytes(_obj())
    special_file(folder / "in" / "b.ply", kind)
    return shape(folder, "--mesh", folder / "in")
