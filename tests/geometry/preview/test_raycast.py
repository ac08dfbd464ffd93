"""Tests of pictures of meshes: hits, normals, colors, also far from the origin."""

import math

import numpy as np
import pytest

from enerf.core.errors import InputError
from enerf.geometry.preview import cameras, raycast
from enerf.geometry.preview.cameras import View
from enerf.geometry.preview.raycast import MeshScene

VERTICES = np.array([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])  # a square that looks to +z
VIEW = View((0.0, 0.0, 0.0), 5.0, azimuth=0.0, elevation=0.0, width=40, height=40)


def test_hits_say_where_which_and_with_what_weights():
    scene = MeshScene(VERTICES, FACES)
    rng = np.random.default_rng(0)
    origins = np.concatenate([rng.uniform(-1.5, 1.5, (500, 2)), np.full((500, 1), 2.0)], 1)
    distance, face, weights = scene.hits(origins, np.tile([[0.0, 0.0, -1.0]], (500, 1)))
    on = (np.abs(origins[:, :2]) < 1).all(1)
    assert np.array_equal(face >= 0, on)
    np.testing.assert_allclose(distance[on], 2.0, rtol=1e-6)
    assert np.isinf(distance[~on]).all()
    at = np.einsum("nk,nkd->nd", weights[on], VERTICES[FACES[face[on]]])
    np.testing.assert_allclose(at, origins[on] * [1, 1, 0], atol=1e-6)


def test_a_square_covers_the_pixels_that_perspective_says():
    picture = MeshScene(VERTICES, FACES).picture(VIEW)
    covered = (picture < 1).any(-1).mean()
    side = 2 / (2 * 5 * math.tan(math.radians(15)))
    assert abs(covered - side**2) < 0.02


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_where_and_how_large_a_mesh_is_changes_nothing(offset, scale):
    if offset * 1e-16 > 1e-6 * scale:
        pytest.skip("float64 itself cannot tell the vertices apart")
    bent = VERTICES + np.array([0.0, 0.0, 1.0]) * np.array([[0.3], [0.0], [-0.2], [0.1]])
    view = cameras.around(bent.min(0), bent.max(0), view=VIEW)
    moved = bent * scale + offset
    there = cameras.around(moved.min(0), moved.max(0), view=VIEW)
    near, far = MeshScene(bent, FACES).picture(view), MeshScene(moved, FACES).picture(there)
    assert (np.abs(near - far).max(-1) > 0.01).mean() < 0.01


def test_the_back_is_red_and_the_front_is_not():
    front = MeshScene(VERTICES, FACES).picture(VIEW)[20, 20]
    back = MeshScene(VERTICES, FACES[:, ::-1]).picture(VIEW)[20, 20]
    assert front[0] < front[2]
    assert back[0] > back[2] + 0.1


def test_colors_of_vertices_are_mixed_over_the_face():
    colors = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    picture = MeshScene(VERTICES, FACES, colors).picture(VIEW)
    low, high = picture[26, 20], picture[14, 20]
    assert low[0] > low[2]
    assert high[2] > high[0]


def test_colors_may_be_a_function_of_points_of_faces():
    """As of a texture: the shares of the corners, against vertex colors that are mixed with the same ones."""
    colors = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.5]])

    def at(face, weights):
        return (weights[:, :, None] * colors[FACES[face]]).sum(1)

    np.testing.assert_allclose(
        MeshScene(VERTICES, FACES, at).picture(VIEW), MeshScene(VERTICES, FACES, colors).picture(VIEW), atol=1e-12
    )


def test_flat_shows_faces_and_smooth_does_not():
    """A roof of two faces: its slopes differ in color by a jump, or by a slide."""
    vertices = np.array([[-1.0, -1, 0], [1, -1, 0], [0, -1, 0.6], [-1, 1, 0], [1, 1, 0], [0, 1, 0.6]])
    faces = np.array([[0, 2, 5], [0, 5, 3], [2, 1, 4], [2, 4, 5]])
    row = {flat: MeshScene(vertices, faces, flat=flat).picture(VIEW)[20, 12:28, 0] for flat in (True, False)}
    assert np.abs(np.diff(row[True])).max() > 2 * np.abs(np.diff(row[False])).max()


def test_vertex_normals_of_a_ball_point_away_from_its_middle():
    import trimesh

    ball = trimesh.creation.icosphere(3)
    normals = raycast.vertex_normals(np.asarray(ball.vertices), np.asarray(ball.faces))
    assert (normals * ball.vertices).sum(1).min() > 0.999
    assert np.array_equal(raycast.vertex_normals(np.zeros((2, 3)), np.zeros((0, 3), dtype=np.int64)), np.zeros((2, 3)))


def test_a_mesh_without_faces_is_told():
    with pytest.raises(InputError, match="has no faces"):
        MeshScene(VERTICES, FACES[:0])
