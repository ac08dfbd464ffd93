"""Tests of edges, connected components, holes and orientation."""

import numpy as np
import pytest
import trimesh

from enerf.geometry import topology
from tests.geometry import solids


def _signed(vertices, faces):
    n, part = topology.parts(faces)
    return topology.volumes(vertices, faces, part, n)[0]


def _moebius(n=24):
    """A strip of triangles with half a turn."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    rows = []
    for w in (-0.5, 0.5):
        radius = 2 + w * np.cos(angle / 2)
        rows.append(np.stack([radius * np.cos(angle), radius * np.sin(angle), w * np.sin(angle / 2)], axis=1))
    faces = []
    for i in range(n):
        a, b = i, i + n
        c, d = (i + 1, i + 1 + n) if i + 1 < n else (n, 0)  # the last joins the first upside down
        faces += [[a, c, b], [b, c, d]]
    return np.concatenate(rows), np.array(faces)


def test_edges_of_known_shapes_are_counted():
    for (vertices, faces), boundary, euler in (
        (solids.ellipsoid(2), 0, 2),
        (solids.torus(), 0, 0),
        (solids.hemisphere(), 32, 1),
    ):
        used, index = np.unique(faces, return_inverse=True)
        found = topology.edges(index.reshape(-1, 3))
        assert int(found.boundary.sum()) == boundary
        assert len(used) - found.count + len(faces) == euler
        assert (found.inconsistent, found.non_manifold) == (0, 0)
        assert len(vertices) >= len(used)


def test_edges_agree_with_trimesh_on_faces_drawn_at_random():
    faces = np.random.default_rng(0).integers(0, 12, (60, 3))
    faces = faces[(np.sort(faces, 1)[:, 1:] != np.sort(faces, 1)[:, :-1]).all(axis=1)]
    found = topology.edges(faces)
    counts = np.unique(np.sort(trimesh.geometry.faces_to_edges(faces), axis=1), axis=0, return_counts=True)[1]
    assert found.count == len(counts)
    assert found.boundary.sum() == (counts == 1).sum()
    assert found.non_manifold == (counts > 2).sum()


def test_parts_are_what_shares_vertices():
    vertices, faces = solids.together(solids.box(), solids.torus(), solids.ellipsoid(1))
    n, part = topology.parts(faces)
    assert n == 3
    assert part.tolist() == [0] * 12 + [1] * len(solids.torus()[1]) + [2] * len(solids.ellipsoid(1)[1])
    assert len(vertices) > faces.max()


def test_volumes_are_those_of_closed_forms_also_far_from_the_origin():
    vertices, faces = solids.box((-1, -2, -3), (1, 2, 4))
    assert _signed(vertices + 1e5, faces) == pytest.approx([56], rel=1e-9)
    assert _signed(*solids.torus()) == pytest.approx([2 * np.pi**2 * solids.RING * solids.TUBE**2], rel=5e-3)


def test_a_capped_hole_gives_the_volume_of_what_it_closes():
    vertices, faces = solids.box((0, 0, 0), (1, 2, 3))
    lid = (vertices[faces][:, :, 2] == 3).all(axis=1)
    assert lid.sum() == 2
    assert _signed(vertices, faces[~lid]) == pytest.approx([6], rel=1e-14)
    assert _signed(vertices, faces[~lid][:, ::-1]) == pytest.approx([-6], rel=1e-14)


def test_the_winding_number_of_a_closed_surface_is_a_whole_number():
    vertices, faces = solids.ellipsoid(2)
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    found = topology.winding_sum(vertices[faces], points, chunk=3000)
    assert np.abs(found - found.round()).max() < 1e-12
    assert set(found.round()) == {0, 1}
    assert np.allclose(topology.winding_sum(vertices[faces[:, ::-1]], points), -found, atol=1e-14)


def test_faces_flipped_at_random_are_turned_back():
    rng = np.random.default_rng(0)
    for vertices, faces in (solids.ellipsoid(2), solids.torus(), solids.box(), solids.hemisphere()):
        for share in (0.1, 0.5, 0.9, 1.0):
            flipped = np.where(rng.random(len(faces)) < share, 1, 0)[:, None]
            mixed = np.where(flipped, faces[:, ::-1], faces)
            turned, notes = topology.orient_outwards(vertices, mixed)
            assert topology.edges(turned).inconsistent == 0
            assert _signed(vertices, turned) == pytest.approx(_signed(vertices, faces))
            assert bool(notes) == bool(flipped.any())


def test_faces_that_look_out_are_left_alone():
    for vertices, faces in (solids.ellipsoid(2), solids.torus(), solids.hemisphere()):
        turned, notes = topology.orient_outwards(vertices, faces)
        assert np.array_equal(turned, faces)
        assert notes == []


def _nested(*signs):
    """Boxes one within the other, wound outwards for + and inwards for −."""
    shells = []
    for k, sign in enumerate(signs):
        vertices, faces = solids.box((k - 5,) * 3, (5 - k,) * 3)
        shells.append((vertices, faces if sign > 0 else faces[:, ::-1]))
    return solids.together(*shells)


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ((1, -1), (1, -1)),  # a cavity stays
        ((-1, 1), (1, -1)),  # a whole turned inside out, cavity and all
        ((1, 1), (1, 1)),  # a solid in a solid stays
        ((1, -1, 1), (1, -1, 1)),
        ((1, -1, -1), (1, -1, 1)),  # an island in a cavity looks outwards
    ],
)
def test_a_cavity_looks_into_itself_and_all_else_outwards(signs, expected):
    vertices, faces = _nested(*signs)
    turned, _ = topology.orient_outwards(vertices, faces)
    assert np.sign(_signed(vertices, turned)).tolist() == list(expected)


def test_one_part_of_several_is_turned_alone():
    small = solids.box((3, 0, 0), (4, 1, 1))
    vertices, faces = solids.together(solids.ellipsoid(2), (small[0], small[1][:, ::-1]), solids.torus())
    turned, notes = topology.orient_outwards(vertices, faces)
    assert (_signed(vertices, turned) > 0).all()
    assert notes == ["1 of 3 parts were oriented inwards and were flipped"]


def test_a_sheet_is_left_as_it_is_and_said():
    vertices, faces = solids.box()
    sheet = faces[(vertices[faces][:, :, 2] > 0).all(axis=1)]
    turned, notes = topology.orient_outwards(vertices, sheet)
    assert np.array_equal(turned, sheet)
    assert "1 of 1 parts enclose almost no volume" in " ".join(notes)


def test_a_one_sided_surface_is_said_to_be_one():
    _, notes = topology.orient_outwards(*_moebius())
    assert "one-sided" in " ".join(notes)


def test_copies_of_faces_go_and_walls_between_parts_go_whole():
    _, faces = solids.box()
    rolled = np.roll(faces[:5], 1, axis=1)
    kept, repeats = topology.without_repeats(np.concatenate([faces, rolled, faces[:2]]))
    assert repeats == 7
    assert np.array_equal(kept, faces)
    kept, repeats = topology.without_repeats(np.concatenate([faces, faces[3:5, ::-1]]))
    assert repeats == 4
    assert np.array_equal(kept, np.delete(faces, [3, 4], axis=0))
    assert topology.without_repeats(faces) == (pytest.approx(faces), 0)


def test_dropping_walls_changes_no_winding_number():
    rng = np.random.default_rng(1)
    vertices = rng.normal(size=(8, 3))
    faces = np.array([rng.permutation(8)[:3] for _ in range(400)])  # each triangle many times, either way round
    kept, _ = topology.without_repeats(faces)
    assert len(np.unique(np.sort(kept, axis=1), axis=0)) == len(kept)
    points = rng.normal(size=(20, 3))
    ordered = np.sort(faces, axis=1)
    for face in kept:
        same = (ordered == np.sort(face)).all(axis=1)
        total = topology.winding_sum(vertices[faces[same]], points)
        one = topology.winding_sum(vertices[face[None]], points)
        assert (total * one >= 0).all()
