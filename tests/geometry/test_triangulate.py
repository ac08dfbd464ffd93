"""Tests of polygons to triangles: area, orientation and edges are those of the polygon."""

import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core.errors import InputError
from enerf.geometry import mesh, topology, triangulate
from enerf.geometry.solid import Solid
from enerf.geometry.triangulate import Polygons

L_SHAPE = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]


def shoelace(polygon):
    x, y = np.asarray(polygon, float).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def prism(polygon, height=1.0, start=0, reverse=False):
    """Vertices and polygons of a prism with outward faces, or all inwards, whose caps begin at one corner."""
    flat = np.roll(np.asarray(polygon, float), -start, axis=0)
    n = len(flat)
    vertices = np.concatenate([np.column_stack([flat, np.full(n, z)]) for z in (0.0, height)])
    faces = [list(range(n))[::-1], list(range(n, 2 * n))]
    faces += [[i, (i + 1) % n, (i + 1) % n + n, i + n] for i in range(n)]
    faces = [face[::-1] for face in faces] if reverse else faces
    return vertices, Polygons(np.concatenate(faces), np.array([len(face) for face in faces]))


def turned(vertices, seed):
    """Vertices under a random rotation."""
    return vertices @ np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0].T


@st.composite
def simple_polygons(draw):
    """Counter-clockwise star-shaped polygons with a far from constant radius: most are concave."""
    n = draw(st.integers(5, 12))
    radii = draw(st.lists(st.floats(0.2, 2.0), min_size=n, max_size=n))
    angles = 2 * np.pi * np.arange(n) / n
    return np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


@settings(max_examples=60, deadline=None)
@given(simple_polygons(), st.integers(0, 11), st.booleans(), st.integers(0, 1000))
def test_area_and_volume_of_a_prism_do_not_depend_on_the_first_corner(polygon, start, reverse, seed):
    vertices, polygons = prism(polygon, 1.0, start % len(polygon), reverse)
    vertices = turned(vertices, seed)
    faces = triangulate.triangles(vertices, polygons, "a.obj")
    side = np.linalg.norm(polygon - np.roll(polygon, -1, axis=0), axis=1).sum()
    assert topology.areas(vertices, faces).sum() == pytest.approx(2 * shoelace(polygon) + side, rel=1e-9)
    made = mesh.from_arrays(vertices, faces, "a.obj")
    assert made.report.watertight
    assert made.report.volume == pytest.approx(shoelace(polygon), rel=1e-6)


@pytest.mark.parametrize("start", range(6))
def test_the_notch_of_a_concave_cap_is_outside(start):
    vertices, polygons = prism(L_SHAPE, 1.0, start)
    made = mesh.from_arrays(vertices, triangulate.triangles(vertices, polygons, "a.obj"), "a.obj")
    inside, outside = np.array([[0.5, 1.5, 0.5], [1.5, 0.5, 0.5]]), np.array([[1.5, 1.5, 0.5]])
    solid = Solid(made)
    assert (made.report.area, made.report.volume) == pytest.approx((14, 3))
    assert solid.occupancy(made.normalization.to_box(inside)).all()
    distance = float(solid.signed_distance(made.normalization.to_box(outside))) / made.normalization.scale
    assert distance == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("start", range(4))
def test_a_concave_quad_is_split_at_its_inner_corner(start):
    vertices, polygons = prism([(0, 0), (2, 0), (0.4, 0.4), (0, 2)], 1.0, start)
    made = mesh.from_arrays(vertices, triangulate.triangles(vertices, polygons, "a.obj"), "a.obj")
    assert made.report.volume == pytest.approx(0.8)


def test_corners_on_a_straight_side_keep_the_edges_of_their_neighbors():
    outline = [(0, 0), (0.5, 0), (1.25, 0), (2, 0), (2, 1), (1, 1), (1, 1.5), (1, 2), (0, 2), (0, 1)]
    for start in range(len(outline)):
        vertices, polygons = prism(outline, 1.0, start)
        made = mesh.from_arrays(vertices, triangulate.triangles(vertices, polygons, "a.obj"), "a.obj")
        assert made.report.watertight
        assert (made.report.area, made.report.volume) == pytest.approx((14, 3))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 5))
def test_a_polygon_that_is_not_quite_planar_is_split_as_the_planar_one(seed, start):
    vertices, polygons = prism(L_SHAPE, 1.0, start)
    rough = vertices + np.random.default_rng(seed).normal(size=vertices.shape) * 1e-3
    faces = triangulate.triangles(turned(rough, seed), polygons, "a.obj")
    assert topology.areas(rough, faces).sum() == pytest.approx(14, rel=0.01)
    assert topology.edges(faces).boundary.sum() == 0


def test_triangles_follow_the_order_of_the_polygons():
    vertices = np.random.default_rng(0).normal(size=(9, 3))
    counts = [3, 4, 3, 2, 4]
    corners = np.array([0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 0, 1, 5, 6, 7, 8])
    faces = triangulate.triangles(vertices, Polygons(corners, np.array(counts)), "a.off")
    owners = [set(some) for some in np.split(corners, np.cumsum(counts)[:-1])]
    of_triangle = [owners[i] for i in (0, 1, 1, 2, 4, 4)]
    assert [set(face) <= owner for face, owner in zip(faces.tolist(), of_triangle, strict=True)] == [True] * 6


def test_what_intersects_itself_is_said(caplog):
    star = [(np.cos(4 * np.pi * i / 5), np.sin(4 * np.pi * i / 5), 0) for i in range(5)]
    bow = [(3, 0, 0), (4, 1, 0), (4, 0, 0), (3, 1.5, 0)]
    polygons = Polygons(np.arange(9), np.array([5, 4]))
    faces = triangulate.triangles(np.array(star + bow, float), polygons, "a.off")
    assert len(faces) == 5
    assert "intersect themselves" in caplog.text


def test_without_mapbox_earcut_convex_polygons_are_read_and_concave_ones_name_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "mapbox_earcut":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    angle = 2 * np.pi * np.arange(7) / 7
    vertices, polygons = prism(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    assert len(triangulate.triangles(np.float32(vertices).astype(np.float64), polygons, "a.obj")) == 2 * 5 + 14
    vertices, polygons = prism(L_SHAPE)
    with pytest.raises(InputError, match=r"a\.obj: .*concave.*6 corners.*mapbox-earcut.*enerf\[app\]"):
        triangulate.triangles(vertices, polygons, "a.obj")
