"""Colored points in PLY files: what is written is read again, in every form that programs write."""

import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.geometry import colored_points
from tests.contents import refusal


@given(seed=st.integers(0, 2**32), n=st.integers(1, 40), colored=st.booleans(), power=st.integers(-30, 30))
@settings(max_examples=40)
def test_what_is_written_is_read_again(tmp_path_factory, seed, n, colored, power):
    rng = np.random.default_rng(seed)
    xyz, rgb = rng.normal(size=(n, 3)) * 10.0**power, rng.integers(0, 256, (n, 3)).astype(np.uint8)
    rgb //= np.uint8(rng.choice([1, 255]))  # dark clouds too, whose bytes are no fractions
    file = tmp_path_factory.getbasetemp() / "cloud.ply"
    colored_points.write(file, xyz, rgb if colored else None)
    found, colors = colored_points.read(file)
    assert np.array_equal(found, xyz)
    assert (colors is not None) == colored
    assert not colored or (colors.dtype == np.uint8 and np.array_equal(colors, rgb))


@pytest.mark.parametrize(("kind", "unit"), [("uchar", 1), ("float", 255), ("double", 255)])
@pytest.mark.parametrize(
    "names", [("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")]
)
def test_bytes_and_fractions_are_told_apart_by_the_header(kind, unit, names, tmp_path):
    file = tmp_path / "a.ply"
    header = ["ply", "format ascii 1.0", "element vertex 2", *(f"property float {axis}" for axis in "xyz")]
    header += [f"property {kind} {name}" for name in names] + ["end_header"]
    file.write_text("\n".join([*header, "0 0 0 1 0 1", "1 2 3 0 1 0", ""]))
    found, colors = colored_points.read(file)
    assert found.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert (colors // unit).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_points_that_are_not_finite_are_left_out_with_their_colors(tmp_path):
    xyz = np.array([[0.0, 1, 2], [np.nan, 0, 0], [3, np.inf, 0], [4, 5, 6]])
    colored_points.write(tmp_path / "a.ply", xyz, np.arange(12, dtype=np.uint8).reshape(4, 3))
    found, colors = colored_points.read(tmp_path / "a.ply")
    assert found.tolist() == [[0, 1, 2], [4, 5, 6]]
    assert colors.tolist() == [[0, 1, 2], [9, 10, 11]]


def _header(count: int, *properties: str) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {count}", *properties, "end_header", ""]
    return "\n".join(lines).encode()


XYZ = [f"property double {axis}" for axis in "xyz"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "cannot be read (it has no PLY header)"),
        (b"not a ply file", "cannot be read (it has no PLY header)"),
        (_header(2, *XYZ) + bytes(47), "cannot be read (it ends before its last row)"),
        (_header(10**17, *XYZ) + bytes(48), "cannot be read (it ends before its last row)"),
        (_header(1, *XYZ[:2]) + bytes(16), "has no vertices with x, y and z"),
        (_header(0, *XYZ), "has no finite vertices"),
        (_header(1, *XYZ) + struct.pack("<3d", 0, 0, float("nan")), "has no finite vertices"),
        (_header(1, *XYZ, *XYZ[:1]) + bytes(32), "its header names a property twice"),
    ],
)
def test_files_without_points_are_one_sentence(content, found, tmp_path):
    (tmp_path / "a.ply").write_bytes(content)
    text = refusal(colored_points.read, tmp_path / "a.ply")
    assert text.startswith(str(tmp_path / "a.ply"))
    assert found in text
    assert text.endswith("expected a PLY file of points")


@pytest.mark.parametrize(("kind", "found"), [("missing", "No such file"), ("folder", "a folder"), ("pipe", "a named")])
def test_what_is_no_file_is_one_sentence(kind, found, tmp_path):
    path = tmp_path / "a.ply"
    if kind != "missing":
        path.mkdir() if kind == "folder" else os.mkfifo(path)
    assert found in refusal(colored_points.read, path)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "a").write_text("")
    assert "cannot be written" in refusal(colored_points.write, tmp_path / "a" / "b.ply", np.zeros((1, 3)), None)
