"""Tests of occupancy from oriented points: it is that of the sampled surface."""

import pickle

import numpy as np
import pytest
import torch

from enerf.core import rng
from enerf.geometry import mesh as geometry_mesh
from enerf.geometry import point_cloud, samples
from enerf.geometry.mesh import PointCloud
from enerf.geometry.point_cloud import CloudSolid
from enerf.geometry.solid import Solid
from tests.geometry import solids


def cloud_of(vertices, faces, n=4000):
    """The mesh in its box, and points drawn from it."""
    mesh = geometry_mesh.from_arrays(vertices, faces, "made.ply")
    rows, chosen = samples.on_surface(mesh, n, rng.generator_for(0, 0))
    return mesh, PointCloud(rows, mesh.normals[chosen], mesh.name, mesh.source, mesh.normalization)


@pytest.mark.parametrize("made", [solids.ellipsoid, solids.torus, solids.box])
def test_what_is_not_in_doubt_is_what_the_mesh_says(made):
    mesh, cloud = cloud_of(*made())
    some = point_cloud.pool(CloudSolid(cloud), 4000, 0, 0)
    known = some.labels != 0.5
    true = Solid(mesh).occupancy(some.points).float()
    assert known.float().mean() > 0.7
    assert (some.labels[known] == true[known]).float().mean() > 0.995
    assert 0 < float(true.mean()) < 1


@pytest.mark.parametrize("made", [solids.ellipsoid, solids.torus])
def test_the_areas_add_up_to_that_of_the_surface_to_a_quarter(made):
    mesh, cloud = cloud_of(*made())
    assert CloudSolid(cloud).areas.sum() == pytest.approx(mesh.areas.sum(), rel=0.25)


def test_normals_turned_inwards_turn_the_solid_inside_out():
    _, cloud = cloud_of(*solids.ellipsoid())
    turned = PointCloud(cloud.points, -cloud.normals, cloud.name, cloud.source, cloud.normalization)
    rows = samples.uniform(500, rng.generator_for(1, 0))
    np.testing.assert_allclose(CloudSolid(turned).winding(rows), -CloudSolid(cloud).winding(rows), atol=1e-9)


def test_a_pool_depends_on_its_seed_and_number_alone_even_through_a_pickle():
    _, cloud = cloud_of(*solids.torus())
    one, other = CloudSolid(cloud), pickle.loads(pickle.dumps(CloudSolid(cloud)))
    for seed, index in ((0, 0), (0, 3), (5, 1)):
        a, b = point_cloud.pool(one, 100, seed, index), point_cloud.pool(other, 100, seed, index)
        assert torch.equal(a.points, b.points)
        assert torch.equal(a.labels, b.labels)
    assert not torch.equal(point_cloud.pool(one, 100, 0, 0).points, point_cloud.pool(one, 100, 0, 1).points)


def test_a_single_point_has_an_area():
    assert point_cloud.areas(np.zeros((1, 3))).tolist() == [1.0]
