"""Properties of marching cubes: equals libigl's, has no cracks, vertices by linear interpolation."""

import itertools
import sys

import igl
import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.geometry.isosurface import marching_cubes
from enerf.geometry.isosurface.sample_grid import Lattice
from tests.geometry import level_sets


def _lattice(*cells: int) -> Lattice:
    return Lattice(torch.tensor([[0.0, 0.0, 0.0], cells], dtype=torch.float64), cells)


def _noise(seed: int, n: int = 12) -> np.ndarray:
    """Random values, outside at the border."""
    values = np.full((n, n + 1, n + 2), -0.5)
    values[1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).normal(size=(n - 2, n - 1, n))
    return values


@pytest.mark.parametrize("seed", range(3))
def test_the_mesh_is_the_librarys(seed):
    values = _noise(seed)
    shape = values.shape
    vertices, faces = marching_cubes.dense(values, _lattice(*(n - 1 for n in shape)))
    at = np.stack(np.meshgrid(*map(np.arange, shape[::-1]), indexing="ij")[::-1], -1).reshape(-1, 3).astype(float)
    expected, theirs, _ = igl.marching_cubes(-values.transpose(2, 1, 0).ravel(), at, *shape, 0.0)
    assert len(vertices) == len(expected)
    assert len(faces) == len(theirs)
    ours = level_sets.triangles(np.round(vertices, 9), faces)
    np.testing.assert_allclose(ours, level_sets.triangles(np.round(expected, 9), theirs), atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_noise_becomes_a_closed_surface_that_looks_outwards(seed):
    vertices, faces = marching_cubes.dense(_noise(seed), _lattice(11, 12, 13))
    assert level_sets.is_closed(faces)
    assert level_sets.volume(vertices, faces) > 0


def test_every_pair_of_cases_fits_together():
    """Two cells that share four corners draw the same lines on the face between them, each from its own side."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random((24, 24, 24)) < 0.5, 1.0, -1.0)
    values[[0, -1]] = values[:, [0, -1]] = values[:, :, [0, -1]] = -1.0
    seen = {int(case) for case in marching_cubes._case(values[None] >= 0).ravel()}
    assert seen == set(range(256))
    assert level_sets.is_closed(marching_cubes.dense(values, _lattice(23, 23, 23))[1])


def test_a_vertex_divides_its_edge_as_linear_interpolation_does():
    rng = np.random.default_rng(1)
    corner = rng.normal(size=4)
    points = np.stack(np.meshgrid(*[np.arange(6.0)] * 3, indexing="ij"), -1)
    values = points @ corner[:3] - 2.5 * corner[:3].sum() + 0.1 * corner[3]
    vertices, _ = marching_cubes.dense(values, _lattice(5, 5, 5))
    np.testing.assert_allclose(vertices @ corner[:3], 2.5 * corner[:3].sum() - 0.1 * corner[3], rtol=0, atol=1e-14)


def test_a_surface_through_samples_has_each_vertex_once_and_no_empty_face():
    values = -np.abs(np.stack(np.meshgrid(*[np.arange(-3.0, 4.0)] * 3, indexing="ij"))).sum(0) + 2.0
    vertices, faces = marching_cubes.dense(values, _lattice(6, 6, 6))
    assert len(np.unique(vertices, axis=0)) == len(vertices)
    assert level_sets.is_closed(faces)
    assert level_sets.euler_number(vertices, faces) == 2
    assert np.isclose(level_sets.volume(vertices, faces), 4 / 3 * 2**3)


def test_vertices_that_a_file_could_not_tell_apart_are_one_at_their_sample():
    values = -np.abs(np.stack(np.meshgrid(*[np.arange(-3.0, 4.0)] * 3, indexing="ij"))).sum(0) + 2.0
    values += 1e-6 * np.random.default_rng(0).normal(size=values.shape)
    vertices, faces = marching_cubes.dense(values, _lattice(6, 6, 6))
    assert level_sets.is_closed(faces)
    assert len(np.unique(vertices.astype(np.float32), axis=0)) == len(vertices)
    on = np.abs(vertices - np.round(vertices)).max(1) == 0
    assert on.any()
    assert (np.abs(vertices - np.round(vertices)).max(1)[~on] > marching_cubes.WELD).all()


def test_thin_diagonal_bridges_are_joined():
    values = -np.ones((4, 4, 3))
    values[1, 1, 1] = values[2, 2, 1] = 1.0
    vertices, faces = marching_cubes.dense(values, _lattice(3, 3, 2))
    assert len(level_sets.parts(vertices, faces)) == 1


def test_cells_that_are_not_within_make_no_triangles():
    values = _noise(0)[None]
    builder = marching_cubes.MeshBuilder(_lattice(11, 12, 13))
    within = np.zeros((1, 11, 12, 13), dtype=bool)
    builder.add(values, np.zeros((1, 3), dtype=np.int64), within)
    vertices, faces = builder.welded()
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)


@pytest.mark.parametrize("cut", [(5, 5), (1, 11), (8, 3)], ids=str)
def test_builder_that_share_a_layer_are_welded(cut):
    values, lattice = _noise(2), _lattice(11, 12, 13)
    builder = marching_cubes.MeshBuilder(lattice)
    for x, y in itertools.product(*[((0, at + 1), (at, None)) for at in cut]):
        part = values[slice(*x), slice(*y)]
        within = np.ones((1, *(n - 1 for n in part.shape)), dtype=bool)
        builder.add(part[None], np.array([[x[0], y[0], 0]]), within)
    vertices, faces = builder.welded()
    whole = marching_cubes.dense(values, lattice)
    assert np.array_equal(vertices, whole[0])
    assert np.array_equal(level_sets.triangles(vertices, faces), level_sets.triangles(*whole))


def test_a_missing_library_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "igl", None)
    with pytest.raises(InputError, match="libigl is missing"):
        marching_cubes.cases.__wrapped__()
