"""Tests of decimation, smoothing and the removal of small components: closed meshes stay closed and in place."""

import sys

import numpy as np
import pytest
import torch
import trimesh

from enerf.core.errors import InputError
from enerf.geometry import cleanup
from tests.geometry import level_sets
from tests.geometry.level_sets import Ball, Ellipsoid, Torus, Union

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
CELL = 2 / 64


def marched(shape, n: int = 64) -> tuple[np.ndarray, np.ndarray]:
    found = level_sets.extracted(shape, BOX, n, inside="below", slope=1)
    return found.vertices, found.faces


@pytest.mark.parametrize(("shape", "euler"), [(Ellipsoid(), 2), (Torus(), 0)], ids=["ellipsoid", "torus"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_decimated_mesh_is_closed_has_its_topology_and_lies_within_a_cell(shape, euler, offset):
    vertices, faces = marched(shape)
    fewer, kept = cleanup.decimate(vertices + offset, faces, len(faces) // 8)
    assert len(kept) <= len(faces) // 8 + 2
    assert level_sets.is_closed(kept)
    assert level_sets.euler_number(fewer, kept) == euler
    assert len(np.unique(kept)) == len(fewer)
    assert float(shape(torch.from_numpy(fewer - offset)).abs().max()) < CELL
    assert abs(level_sets.volume(fewer - offset, kept) / level_sets.volume(vertices, faces) - 1) < 0.01


def test_a_mesh_that_is_small_enough_stays_as_it_is():
    vertices, faces = marched(Ball(), 16)
    same = cleanup.decimate(vertices, faces, len(faces))
    assert same[0] is vertices
    assert same[1] is faces


def test_too_few_faces_and_a_missing_library_are_told(monkeypatch):
    vertices, faces = marched(Ball(), 16)
    with pytest.raises(ValueError, match="found 3 faces, expected at least 4"):
        cleanup.decimate(vertices, faces, 3)
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    with pytest.raises(InputError, match="pip install fast-simplification"):
        cleanup.decimate(vertices, faces, 20)


@pytest.mark.parametrize("shape", [Ellipsoid(), Torus()], ids=["ellipsoid", "torus"])
def test_smoothing_takes_noise_away_and_keeps_the_volume(shape):
    vertices, faces = marched(shape)
    rng = np.random.default_rng(0)
    rough = vertices + rng.normal(scale=0.2 * CELL, size=vertices.shape)
    smoothed = cleanup.smooth(rough, faces, 10)
    off = [float(shape(torch.from_numpy(v)).abs().mean()) for v in (rough, smoothed)]
    assert off[1] < 0.6 * off[0]
    assert abs(level_sets.volume(smoothed, faces) / level_sets.volume(vertices, faces) - 1) < 0.005
    again = cleanup.smooth(rough + 1e6, faces, 10) - 1e6
    np.testing.assert_allclose(again, smoothed, atol=1e-8)


def test_means_of_neighbors_are_those_of_a_loop():
    mesh = trimesh.creation.icosphere(1)
    n = len(mesh.vertices) + 1  # one that no face has: it stays where it is
    values = np.random.default_rng(0).normal(size=(n, 3))
    expected = [values[list(around)].mean(0) for around in mesh.vertex_neighbors] + [values[-1]]
    np.testing.assert_allclose(cleanup.neighbor_means(n, np.asarray(mesh.faces)) @ values, expected, atol=1e-12)


PARTS = Union((Ball((-0.4, 0.0, 0.0), 0.4), Ball((0.5, 0.0, 0.0), 0.2), Ball((0.5, 0.6, 0.0), 0.1)))


@pytest.mark.parametrize(
    ("options", "left"),
    [({"parts": 1}, 1), ({"parts": 2}, 2), ({"share": 0.15}, 2), ({"share": 0.5}, 1), ({}, 3)],
    ids=str,
)
def test_small_parts_go_and_large_ones_stay_whole(options, left):
    vertices, faces = marched(PARTS)
    kept, chosen, n, every = cleanup.largest(vertices, faces, **options)
    assert (n, every) == (left, 3)
    found = level_sets.parts(kept, chosen)
    assert len(found) == left
    assert {len(part) for part in found} <= {len(part) for part in level_sets.parts(vertices, faces)}
    assert max(map(len, found)) == max(map(len, level_sets.parts(vertices, faces)))
    assert level_sets.is_closed(chosen)


def test_keeping_drops_faces_with_any_vertex_that_goes_and_vertices_of_no_face():
    vertices, faces = marched(Ball())
    kept, chosen = cleanup.keep(vertices, faces, vertices[:, 0] > 0)
    assert (kept[:, 0] > 0).all()
    assert np.array_equal(np.unique(chosen), np.arange(len(kept)))
    assert len(chosen) == ((vertices[:, 0] > 0)[faces].all(1)).sum()
    assert level_sets.area(kept, chosen) / level_sets.area(vertices, faces) == pytest.approx(0.5, abs=0.03)
