"""The encoding of meshes: nothing is lost but the rounding of positions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.export import mesh_code


def faces_of(vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray | None) -> np.ndarray:
    """Faces as corners, each begun with its smallest corner, in a canonical order: their winding matters."""
    corners = vertices[faces] if colors is None else np.concatenate([vertices, colors], 1)[faces]
    turned = [min(np.roll(face, -k, 0).tolist() for k in range(3)) for face in corners]
    return np.array(sorted(turned))


def rounded(vertices: np.ndarray, code: mesh_code.MeshCode) -> np.ndarray:
    return np.rint((vertices - np.array(code.meta["low"])) / code.meta["step"])


def assert_same(vertices, faces, colors=None, bits=14):
    code = mesh_code.encode(vertices, faces, colors, bits)
    found, triangles, tints = mesh_code.decode(code)
    first = faces_of(rounded(vertices, code), faces, colors)
    assert np.array_equal(first, faces_of(rounded(found, code), triangles, tints))
    assert np.abs(np.sort(found, 0)[0] - np.sort(vertices[faces].reshape(-1, 3), 0)[0]).max() <= code.meta["step"]
    return code


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_triangles_come_back_with_their_winding(data):
    n, m = data.draw(st.integers(3, 12)), data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    vertices, faces = rng.normal(size=(n, 3)) * 10.0 ** rng.integers(-6, 6), rng.integers(0, n, (m, 3))
    colors = rng.integers(0, 256, (n, 3), dtype=np.uint8) if data.draw(st.booleans()) else None
    assert_same(vertices, faces, colors)


def test_a_closed_surface_takes_less_than_three_bytes_a_face():
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 80, endpoint=False), np.linspace(0, 2 * np.pi, 60, endpoint=False))
    torus = np.stack([(2 + np.cos(v)) * np.cos(u), np.sin(v), (2 + np.cos(v)) * np.sin(u)], -1).reshape(-1, 3)
    index = np.arange(80 * 60).reshape(60, 80)
    a, b, c, d = index, np.roll(index, -1, 1), np.roll(index, -1, 0), np.roll(index, (-1, -1), (0, 1))
    faces = np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)]).reshape(-1, 3)
    code = assert_same(torus, faces)
    assert len(code.data) < 3 * len(faces)


@pytest.mark.parametrize("name", ["flat", "point"])
def test_extreme_boxes_are_encoded(name):
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]) if name == "flat" else np.full((3, 3), 7.0)
    assert_same(vertices, np.array([[0, 1, 2]]))
