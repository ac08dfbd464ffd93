"""Oriented point clouds: headers that lie, lists among the numbers, normals that are zero, turned or absent."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.corpus.damage import flipped
from tests.corpus.inputs import base, shape, special_file
from tests.corpus.registry import Command, table

CLOUDH = "ply\nformat {f} 1.0\nelement vertex {n}\n" + "".join(
    f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz")
)


def _cloud() -> bytes:
    return base("mesh", "cloud.ply").read_bytes()


def _sphere(sign: str, names: tuple[str, ...] = ("nx", "ny", "nz")) -> bytes:
    """A sphere of 200 points with normals outward, inward, of random sign, of length 0, or not a number."""
    random = np.random.default_rng(0)
    points = random.normal(size=(200, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    scale = {"out": 1.0, "in": -1.0, "random": random.choice([-1.0, 1.0], (200, 1)), "zero": 0.0, "nan": np.nan}[sign]
    head = CLOUDH.format(f="ascii", n=200)
    for old, new in zip(("nx", "ny", "nz"), names, strict=True):
        head = head.replace(f"property float {old}\n", f"property float {new}\n" if new else "")
    rows = np.hstack([points, points * scale])[:, : 3 + sum(map(bool, names))]
    return (head + "end_header\n" + "\n".join(" ".join(f"{v:.6f}" for v in row) for row in rows) + "\n").encode()


CLOUD = {
    "count_2e31": ("refuse", (CLOUDH.format(f="binary_little_endian", n=2**31) + "end_header\n").encode() + bytes(24)),
    "count_2e63": ("refuse", (CLOUDH.format(f="binary_little_endian", n=2**63) + "end_header\n").encode() + bytes(24)),
    "count_neg": ("refuse", (CLOUDH.format(f="binary_little_endian", n=-1) + "end_header\n").encode() + bytes(240)),
    "count_neg_ascii": ("refuse", (CLOUDH.format(f="ascii", n=-1) + "end_header\n").encode() + b"1 2 3 4 5 6\n" * 5),
    "count_0": ("refuse", (CLOUDH.format(f="ascii", n=0) + "end_header\n").encode()),
    "one_point": ("refuse", (CLOUDH.format(f="ascii", n=1) + "end_header\n1 2 3 0 0 1\n").encode()),
    "text": ("refuse", (CLOUDH.format(f="ascii", n=1) + "end_header\na b c d e f\n").encode()),
    "nan": ("refuse", (CLOUDH.format(f="ascii", n=2) + "end_header\n" + "nan nan nan 0 0 1\n" * 2).encode()),
    "normals_0": ("refuse", (CLOUDH.format(f="ascii", n=2) + "end_header\n0 0 0 0 0 0\n1 1 1 0 0 0\n").encode()),
    "list_char_neg_binary": (
        "refuse",
        (
            CLOUDH.format(f="binary_little_endian", n=1)
            + "element face 2000000000\nproperty list char char v\nend_header\n"
        ).encode()
        + struct.pack("<6f", 0, 0, 0, 0, 0, 1)
        + b"\xff" * 64,
    ),
    "list_neg_ascii": (
        "refuse",
        (
            CLOUDH.format(f="ascii", n=1)
            + "element face 2000000000\nproperty list int int v\nend_header\n0 0 0 0 0 1\n"
            + "-1 " * 64
        ).encode(),
    ),
    "list_zero_rows": (
        "refuse",
        (
            CLOUDH.format(f="binary_little_endian", n=1)
            + "element face 20000000\nproperty list uchar int v\nend_header\n"
        ).encode()
        + struct.pack("<6f", 0, 0, 0, 0, 0, 1)
        + bytes(20000000),
    ),
    "list_inf": (
        "refuse",
        (
            CLOUDH.format(f="ascii", n=1)
            + "element face 1\nproperty list float int v\nend_header\n0 0 0 0 0 1\ninf 1 2\n"
        ).encode(),
    ),
    "list_nan": (
        "refuse",
        (
            CLOUDH.format(f="ascii", n=1)
            + "element face 1\nproperty list float int v\nend_header\n0 0 0 0 0 1\nnan 1 2\n"
        ).encode(),
    ),
    "index_nan": (
        "refuse",
        (
            CLOUDH.format(f="ascii", n=1)
            + "element face 1\nproperty list int float v\nend_header\n0 0 0 0 0 1\n2 nan inf\n"
        ).encode(),
    ),
    "element_noprops_2e31": (
        "refuse",
        (b"ply\nformat ascii 1.0\nelement foo 2147483647\nelement vertex 1\nproperty float x\nend_header\n1\n"),
    ),
    "element_noprops_bin": (
        "refuse",
        (
            b"ply\nformat binary_little_endian 1.0\nelement foo 2147483647\nelement vertex 1\n"
            b"property float x\nend_header\n"
        )
        + bytes(4),
    ),
    "huge_values": (
        "refuse",
        (CLOUDH.format(f="ascii", n=2) + "end_header\n1e300 0 0 0 0 1\n-1e300 0 0 0 0 1\n").encode(),
    ),
    "obj": ("refuse", b"v 0 0 0\n"),
    "x_is_list": ("refuse", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list int float x\nend_header\n1 1\n"),
    "dup_props": (
        "refuse",
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float x\nend_header\n1 1\n",
    ),
    "dup_elements": (
        "refuse",
        b"ply\nformat ascii 1.0\nelement vertex 1\nelement vertex 2\nproperty float x\nend_header\n1 1\n",
    ),
    "valid": ("accept", _cloud),
    **{f"flip{i}": (lambda i=i: flipped(_cloud(), i, 4)) for i in range(6)},
}
MORE_CLOUD = {
    "sphere": ("accept", _sphere("out")),
    "normals_inward": _sphere("in"),
    "normals_random": _sphere("random"),
    "normals_zero": ("refuse", _sphere("zero")),
    "normals_nan": ("refuse", _sphere("nan")),
    "normals_pcl": ("accept", _sphere("out", ("normal_x", "normal_y", "normal_z"))),
    "normals_absent": ("refuse", _sphere("out", ("", "", ""))),
    "normals_two": ("refuse", _sphere("out", ("nx", "ny", ""))),
    "empty": ("refuse", b""),
    "crlf": _sphere("out").replace(b"\n", b"\r\n"),
    "cut": ("refuse", _sphere("out")[:-200]),
    "trailing": _sphere("out") + b"1 2 3\n" * 10,
    "same_points": ("refuse", (CLOUDH.format(f="ascii", n=50) + "end_header\n" + "1 1 1 0 0 1\n" * 50).encode()),
    "double_big_endian": (
        "accept",
        CLOUDH.format(f="binary_big_endian", n=3).replace("float", "double").encode()
        + b"end_header\n"
        + struct.pack(">18d", 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1),
    ),
}


@table("cloud", CLOUD | MORE_CLOUD)
def _(folder: Path, content: bytes | Callable[[], bytes]) -> Command:
    path = folder / "c.ply"
    path.write_bytes(content() if callable(content) else content)
    words = ("--representation", "sdf", "--encoding", "positional", "--netdepth", "2", "--netwidth", "8")
    return shape(folder, "--cloud", path, *words)


@table(
    "cloud_file",
    {kind: kind for kind in ("fifo", "folder", "loop", "devzero", "dangling", "missing", "empty")},
    "refuse",
)
def _(folder: Path, kind: str) -> Command:
    special_file(folder / "c.ply", kind)
    return shape(folder, "--cloud", folder / "c.ply", "--encoding", "positional")
