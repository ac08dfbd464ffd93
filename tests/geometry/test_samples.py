"""Tests of drawing labelled samples."""

import functools

import numpy as np
import pytest
import torch

from enerf.core import rng
from enerf.geometry import mesh as geometry_mesh
from enerf.geometry import samples as geometry_samples
from enerf.geometry import solid
from tests.contents import same
from tests.geometry import solids


def _mesh(vertices, faces):
    return geometry_mesh.from_arrays(np.asarray(vertices, float), np.asarray(faces, np.int64), "thing.obj")


@functools.cache
def _solid():
    return solid.Solid(_mesh(*solids.ellipsoid(3)))


def _fields(samples):
    return [samples.points, samples.labels, samples.distances, samples.normals]


def _generator(seed=0):
    return rng.generator_for(seed, 0)


MIXED = geometry_samples.Mixture(uniform=1, near=((0.05, 2), (0.01, 1)), surface=1)


def test_samples_of_a_seed_are_always_the_same_and_others_for_others():
    def drawn(seed, index):
        return geometry_samples.pool(_solid(), MIXED, 300, seed, index, distances=True, normals=True)

    assert same(_fields(drawn(1, 2)), _fields(drawn(1, 2)))
    others = [drawn(*key).points for key in ((1, 2), (2, 1), (1, 3), (0, 0))]
    assert all(not torch.equal(a, b) for i, a in enumerate(others) for b in others[:i])


def test_asking_for_more_changes_neither_points_nor_labels():
    plain = geometry_samples.pool(_solid(), MIXED, 500, 0, 0)
    more = geometry_samples.pool(_solid(), MIXED, 500, 0, 0, distances=True, normals=True)
    assert (plain.distances, plain.normals) == (None, None)
    assert torch.equal(plain.points, more.points)
    assert torch.equal(plain.labels, more.labels)


def test_labels_are_those_of_the_very_points_and_agree_with_distances():
    found = geometry_samples.pool(_solid(), MIXED, 2000, 0, 0, distances=True, normals=True)
    assert all(each.dtype == torch.float32 for each in _fields(found))
    surface = found.labels == 0.5
    assert int(surface.sum()) == 400
    assert torch.equal(found.labels[~surface], _solid().occupancy(found.points[~surface]).float())
    assert torch.equal(found.distances[~surface], _solid().signed_distance(found.points[~surface]))
    assert torch.equal(found.labels[~surface] == 1, found.distances[~surface] < 0)
    assert (found.normals.norm(dim=1) - 1).abs().max() < 1e-5


def test_samples_on_the_surface_have_no_distance_and_its_normals():
    only = geometry_samples.Mixture(uniform=0, near=(), surface=1)
    found = geometry_samples.pool(_solid(), only, 1000, 0, 0, distances=True, normals=True)
    assert (found.labels == 0.5).all()
    assert (found.distances == 0).all()
    distances, _ = _solid().signed_distance_and_gradient(found.points)
    assert distances.abs().max() < 2e-7
    outside = _solid().signed_distance(found.points + 1e-4 * found.normals)
    assert (outside - 1e-4).abs().max() < 1e-5


def test_the_surface_is_drawn_from_by_area():
    vertices, faces = solids.box((0, 0, 0), (1, 2, 4))
    mesh = _mesh(vertices, np.concatenate([faces, faces[:1, [0, 1, 1]]]))
    n = 200_000
    places, chosen = geometry_samples.on_surface(mesh, n, _generator())
    expected = mesh.areas / mesh.areas.sum() * n
    counts = np.bincount(chosen, minlength=len(mesh.faces))
    assert ((counts - expected) ** 2 / expected).sum() < 40  # chi squared with 11 degrees of freedom: p < 1e-4 beyond
    for face in range(len(mesh.faces)):
        (a, b, c), inner = mesh.triangles[face], places[chosen == face]
        shares = np.linalg.lstsq(np.stack([b - a, c - a], axis=1), (inner - a).T)[0]
        shares = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares])
        assert shares.min() > -1e-12
        assert np.abs(shares.mean(axis=1) - 1 / 3).max() < 5 / np.sqrt(18 * len(inner))  # of standard deviation
        assert np.abs((shares > 0.5).mean(axis=1) - 1 / 4).max() < 5 / np.sqrt(5 * len(inner))


def test_faces_without_area_are_never_drawn():
    mesh = _mesh(*solids.box())
    flat = mesh.areas.copy()
    flat[[0, 5, 11]] = 0
    object.__setattr__(mesh, "areas", flat)
    assert set(geometry_samples.on_surface(mesh, 5000, _generator())[1]) == set(range(12)) - {0, 5, 11}


@pytest.mark.parametrize("scale", [0.1, 0.01, 1e-3])
def test_near_samples_lie_as_far_as_their_scale(scale):
    sheet = _mesh(*solids.box((0, 0, 0), (1, 1, 1e-5)))  # far from its edges only one coordinate matters
    found = geometry_samples.near_surface(sheet, 20000, scale, _generator())
    middle = found[(np.abs(found[:, :2]) < 0.3).all(axis=1)]
    assert middle[:, 2].std() == pytest.approx(scale, rel=0.05)
    assert np.abs(found).max() <= 1


def test_mirroring_keeps_what_is_inside_and_is_continuous():
    inner = np.random.default_rng(0).uniform(-1, 1, (100, 3))
    assert np.allclose(geometry_samples.reflected(inner), inner, atol=1e-15)
    line = np.linspace(-9, 9, 10001)[:, None].repeat(3, axis=1)
    folded = geometry_samples.reflected(line)
    assert np.abs(folded).max() <= 1
    assert np.allclose(np.abs(np.diff(folded, axis=0)), line[1, 0] - line[0, 0], atol=2e-3)


def test_uniform_samples_fill_the_box():
    found = geometry_samples.uniform(30000, _generator())
    assert np.abs(found).max() <= 1
    assert np.histogramdd(found, bins=3, range=[(-1, 1)] * 3)[0].min() > 30000 / 27 * 0.85
    share = geometry_samples.pool(_solid(), geometry_samples.Mixture(near=()), 30000, 0, 0).labels.mean()
    scale = _solid().mesh.normalization.scale
    assert float(share) == pytest.approx(_solid().mesh.report.volume * scale**3 / 8, rel=0.1)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 1000])
def test_counts_follow_the_shares_and_add_up(n):
    counts = MIXED.counts(n)
    assert sum(counts) == n
    assert np.abs(np.array(counts) - np.array([1, 1, 2, 1]) / 5 * n).max() <= 1
    assert len(geometry_samples.pool(_solid(), MIXED, n, 0, 0)) == n


@pytest.mark.parametrize(
    "wrong", [{"uniform": -1}, {"uniform": 0, "near": ()}, {"near": ((0.0, 1),)}, {"near": ((0.1, -1),)}]
)
def test_shares_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="shares must not"):
        geometry_samples.Mixture(**wrong)


def test_samples_are_cut_and_moved_whole():
    whole = geometry_samples.pool(_solid(), MIXED, 50, 0, 0, distances=True, normals=True)
    some = whole[torch.tensor([3, 1])].to("cpu")
    assert same(_fields(some), [each[[3, 1]] for each in _fields(whole)])
    plain = geometry_samples.pool(_solid(), MIXED, 50, 0, 0)[10:20]
    assert (len(plain), plain.distances, plain.normals) == (10, None, None)


def test_samples_of_a_cloud_are_its_points():
    vertices, _ = solids.ellipsoid(2)
    normals = vertices / np.linalg.norm(vertices, axis=1)[:, None]
    cloud = geometry_mesh.PointCloud(vertices, normals, "c", "c.ply", geometry_mesh.normalize(vertices, "c.ply"))
    found = geometry_samples.from_cloud(cloud, 400, _generator())
    gaps, nearest = torch.cdist(found.points.double(), torch.from_numpy(vertices)).min(dim=1)
    assert gaps.max() < 1e-6
    assert torch.allclose(found.normals.double(), torch.from_numpy(cloud.normals)[nearest], atol=1e-7)
    assert (found.distances == 0).all()
