"""Tests of the points that shapes are judged at: the grid is even, the shell uniform, the labels those of the mesh."""

import functools
import pickle

import numpy as np
import pytest
import torch
import trimesh

from enerf.core import rng
from enerf.geometry import mesh
from enerf.geometry import solid as geometry_solid
from enerf.tasks.shape import eval_points as shape_eval_points
from enerf.tasks.shape.eval_points import EvalSettings, Reference
from tests.geometry import solids

SMALL = EvalSettings(grid=32, shell_points=20_000, surface_points=5_000)


def _solid(vertices, faces):
    return geometry_solid.Solid(mesh.from_arrays(np.asarray(vertices, float), np.asarray(faces, np.int64), "thing.obj"))


@functools.cache
def _ball():
    made = trimesh.creation.icosphere(subdivisions=5)
    return _solid(made.vertices, made.faces)  # of radius 0.9 in the box


@functools.cache
def _cube():
    return _solid(*solids.box())  # of side 1.8 in the box


def _uniform(values, low=0.0, high=1.0):
    """Whether values are uniform, by Kolmogorov's and Smirnov's test: p above 1e-4."""
    ordered = (np.sort(values) - low) / (high - low)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()) < 2.23 / np.sqrt(len(ordered))


# The grid


@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_the_grid_has_one_point_in_each_cell_in_order(n):
    found = torch.cat(list(shape_eval_points.grid(n, chunk=50)))
    cells = ((found.double() + 1) * n / 2).floor().long()
    assert torch.equal(cells, torch.cartesian_prod(*[torch.arange(n)] * 3))
    assert found.dtype == torch.float32


def test_no_point_of_the_grid_is_a_sample_of_an_even_lattice():
    share = (next(shape_eval_points.grid(128)).double() + 1) / 2
    for n in (64, 100, 128, 256, 512):
        for offset in (0.0, 0.5):
            away = (share * n - offset - (share * n - offset).round()).abs()
            assert away.amin(0).max() > 1e-3


def test_a_part_is_the_same_by_number():
    whole, index = torch.cat(list(shape_eval_points.grid(16))), torch.tensor([0, 77, 4095])
    assert torch.equal(shape_eval_points.grid_points(index, 16), whole[index])


def test_a_quick_evaluation_uses_one_point_of_each_block():
    for grid, thin in ((32, 4), (30, 4), (8, 16)):
        found = Reference(_cube(), EvalSettings(grid=grid, thin=thin, shell_points=500)).quick_index
        side = -(-grid // thin)
        block = torch.stack([found // grid**2, found // grid % grid, found % grid], -1) // thin
        assert torch.equal(block, torch.cartesian_prod(*[torch.arange(side)] * 3).reshape(-1, 3))


# The shell


def test_the_shell_of_a_ball_is_uniform():
    found, volume = shape_eval_points.shell(_ball(), 0.05, 60_000, rng.generator_for(0, 0))
    rows = found.double().numpy()
    radius = np.linalg.norm(rows, axis=1)
    low, high = 0.85, 0.95
    assert radius.min() > low - 1e-3
    assert radius.max() < high + 1e-3
    inner = (radius > low + 1e-3) & (radius < high - 1e-3)  # the triangles cut a little off
    assert _uniform(radius[inner] ** 3, (low + 1e-3) ** 3, (high - 1e-3) ** 3)
    assert _uniform(rows[:, 2] / radius, -1, 1)
    assert _uniform(np.arctan2(rows[:, 1], rows[:, 0]), -np.pi, np.pi)
    assert volume == pytest.approx(4 / 3 * np.pi * (high**3 - low**3), rel=0.01)


@pytest.mark.parametrize("width", [0.01, 0.05])
def test_edges_and_corners_have_the_share_of_the_shell_that_is_theirs(width):
    n, half = 50_000, 0.9
    found, volume = shape_eval_points.shell(_cube(), width, n, rng.generator_for(1, 0))
    beyond = (found.abs().double().numpy() > half).sum(axis=1)
    side = 2 * half
    parts = np.array(
        [
            side**3 - (side - 2 * width) ** 3,
            6 * side**2 * width,
            12 * side * np.pi * width**2 / 4,
            4 / 3 * np.pi * width**3,
        ]
    )
    expected = parts / parts.sum() * n
    counts = np.bincount(beyond, minlength=4)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected) + 1).all()
    assert volume == pytest.approx(parts.sum(), rel=0.02)


def test_every_point_of_the_shell_is_near_the_surface_and_in_the_box():
    for width in (0.01, 0.05, 0.3):
        solid = _solid(*solids.torus())
        found, _ = shape_eval_points.shell(solid, width, 3000, rng.generator_for(0, 0))
        assert found.shape == (3000, 3)
        assert solid.signed_distance(found).abs().max() < width * (1 + 1e-5)
        assert found.abs().max() <= 1


def test_the_shell_is_the_same_for_a_seed_and_another_for_another():
    drawn = [shape_eval_points.shell(_cube(), 0.01, 1000, rng.generator_for(seed, 0))[0] for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


# The reference


def test_labels_are_those_of_the_very_points():
    reference = Reference(_cube(), SMALL)
    at = torch.cat(list(shape_eval_points.grid(32)))
    assert torch.equal(reference.grid_labels, (at.abs() < 0.9).all(-1))
    assert torch.equal(reference.near.inside, (reference.near.points.abs() < 0.9).all(-1))
    assert reference.seconds > 0


def test_the_volume_is_that_of_the_shape():
    reference = Reference(_ball(), EvalSettings(grid=64, shell_points=10))
    assert reference.volume == pytest.approx(4 / 3 * np.pi * 0.9**3, 2e-3)
    about = reference.describe()
    assert about["volume_file"] == pytest.approx(4 / 3 * np.pi, 2e-3)
    assert about["volume_by_faces_file"] == pytest.approx(4 / 3 * np.pi, 1e-3)


def test_it_travels_to_another_process():
    reference = Reference(_cube(), SMALL)
    other = pickle.loads(pickle.dumps(reference))
    assert torch.equal(other.grid_labels, reference.grid_labels)
    assert torch.equal(other.near.points, reference.near.points)
    assert torch.equal(other.quick_index, reference.quick_index)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([solids.ellipsoid()], None),
        ([solids.torus()], None),
        ([solids.box((0, 0, 0), (1, 1, 1)), solids.box((1, 0, 0), (2, 1, 1))], None),
        ([solids.box((0, 0, 0), (1, 1, 1)), solids.box((0.5, 0.2, 0.2), (2, 0.8, 0.8))], "overlap"),
        ([solids.hemisphere()], "open"),
        ([solids.box((-1, -1, -1e-3), (1, 1, 1e-3))], "thinner"),
    ],
    ids=["ellipsoid", "torus", "touching", "overlapping", "open", "plate"],
)
def test_assumptions_about_the_interior_are_reported(parts, words):
    reference = Reference(_solid(*solids.together(*parts)), SMALL)
    assumed = reference.describe()["assumed"]
    assert (assumed is None) == (words is None)
    assert words is None or words in assumed


@pytest.mark.parametrize(
    "wrong", [{"grid": 0}, {"shell": 0.0}, {"shell": 3}, {"thin": 0}, {"surface_points": 0}, {"thresholds": (0,)}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="expected counts"):
        EvalSettings(**wrong)
