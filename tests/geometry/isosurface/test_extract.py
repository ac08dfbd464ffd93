"""Properties of extraction: the mesh of the dense lattice, from few evaluations; complete, welded, facing outwards."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
import trimesh

from enerf.geometry.isosurface import extract, marching_cubes
from enerf.geometry.isosurface.extract import ExtractionSettings
from enerf.geometry.isosurface.sample_grid import Lattice
from tests.geometry import level_sets
from tests.geometry.level_sets import Ball, Box, Counting, Ellipsoid, Steep, Torus, Union, Waves, extracted
from tests.memory import least_peak

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
CELL = 2 / 96
PLATE = Box((-0.7, -0.301, -0.6), (0.8, -0.301 + 1.01 * CELL, 0.7))  # one cell of 96 thick
BOXES = Union((Box((-0.6, -0.5, -0.4), (0.1, 0.3, 0.2)), Box((0.1, -0.2, -0.1), (0.7, 0.5, 0.5))))
DISTANCES = {
    "ellipsoid": Ellipsoid(),
    "torus": Torus(),
    "touching boxes": BOXES,
    "thin plate": PLATE,
    "crumbs": Union(tuple(Ball((x / 10, (x * 37 % 17 - 8) / 10, (x * 23 % 13 - 6) / 8), 0.023) for x in range(-8, 9))),
}


def _dense(field, box, cells, iso_value=0.0, inside="above"):
    """Vertices and faces of the whole lattice, evaluated in one call."""
    at = torch.stack(
        torch.meshgrid(*[torch.from_numpy(Lattice(box, cells).along[k]) for k in range(3)], indexing="ij"), -1
    )
    values = field(at.to(box)).numpy() - np.float64(iso_value)
    return marching_cubes.dense(
        (values if inside == "above" else -values).astype(at.to(box).numpy().dtype), Lattice(box, cells)
    )


def _same(found, expected) -> bool:
    vertices, faces = expected
    return np.array_equal(found.vertices, vertices) and np.array_equal(
        level_sets.triangles(found.vertices, found.faces), level_sets.triangles(vertices, faces)
    )


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_with_a_known_slope_the_mesh_is_that_of_the_dense_lattice(name, dtype):
    box = BOX.to(dtype)
    found = extracted(DISTANCES[name], box, 96, inside="below", slope=1, coarsest=6)
    assert _same(found, _dense(DISTANCES[name], box, (96,) * 3, inside="below"))


@pytest.mark.parametrize(
    ("field", "iso_value"),
    [
        (Waves(), 0.0),
        (Waves(seed=1), 1.5),
        (Steep(Ellipsoid()), 0.0),
        (Steep(Torus(), 1e-3), -3.0),
        (Steep(BOXES), 2.0),
    ],
    ids=["waves", "waves at an iso value", "ellipsoid", "steep torus at an iso value", "boxes at an iso value"],
)
def test_with_a_measured_slope_too_where_parts_are_larger_than_the_first_cells(field, iso_value):
    found = extracted(field, BOX, 80, iso_value, coarsest=20)
    assert _same(found, _dense(field, BOX, (80,) * 3, iso_value))


def test_with_a_known_slope_any_rotation_and_any_offset_are_found_down_to_the_last_cell():
    rng = np.random.default_rng(0)
    for _ in range(6):
        turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 3)))[0])
        shift = torch.from_numpy(rng.uniform(-0.3, 0.3, 3))
        field = lambda p, turn=turn, shift=shift: PLATE((p - shift) @ turn)  # noqa: E731
        found = extracted(field, BOX, 64, inside="below", slope=1, coarsest=4)
        assert _same(found, _dense(field, BOX, (64,) * 3, inside="below"))


def test_an_exhaustive_extraction_gives_the_same_mesh():
    few = extracted(Ellipsoid(), BOX, 64, inside="below", slope=1, coarsest=8)
    all_ = extracted(Ellipsoid(), BOX, 64, inside="below", exhaustive=True)
    assert _same(few, (all_.vertices, all_.faces))
    assert all_.evaluations == 65**3


def test_a_thin_part_that_hangs_together_with_a_thick_one_is_found_whole():
    """The plate does not affect the coarse samples; it is tracked from the ball."""
    hidden = Box((-0.85, -0.301, -0.05), (0.85, -0.301 + 1.01 * CELL, 0.01))
    field = Steep(Union((hidden, Ball((0.0, -0.3, 0.0), 0.2))), 1e-3)
    found = extracted(field, BOX, 96, coarsest=12)
    assert _same(found, _dense(field, BOX, (96,) * 3))
    assert found.vertices[:, 0].max() > 0.8


def test_what_is_found_is_whole_and_what_is_missed_is_counted():
    rng = np.random.default_rng(0)
    crumbs = tuple(Ball(tuple(rng.uniform(-0.9, 0.9, 3)), r) for r in np.repeat([0.03, 0.05, 0.2], 6))
    field = Steep(Union(crumbs), 1e-3)
    found = extracted(field, BOX, 96, coarsest=12, check=1)
    every = _dense(field, BOX, (96,) * 3)
    whole = {part.tobytes() for part in level_sets.parts(*every)}
    ours = {part.tobytes() for part in level_sets.parts(found.vertices, found.faces)}
    assert level_sets.is_closed(found.faces)
    assert ours < whole
    assert found.check.missed > 0
    assert found.check.bricks == found.check.total == 12**3
    assert len(found.check.where) == 5
    assert (np.abs(field(torch.from_numpy(found.check.where)).numpy()) <= 10).all()


@pytest.mark.parametrize("share", [1, 0.2])
def test_a_check_of_a_complete_mesh_finds_nothing_missed(share):
    found = extracted(Torus(), BOX, 48, inside="below", slope=1, coarsest=6, check=share)
    assert found.check.missed == 0
    assert found.check.sign_changes > 0
    assert found.evaluations < 49**3 / 2


def test_a_full_check_sees_every_cell_on_the_surface():
    found = extracted(Ball(), BOX, 40, inside="below", slope=1, coarsest=5, check=1)
    assert len(found.faces) / 5 <= found.check.sign_changes <= len(found.faces)


@pytest.mark.parametrize("side", [2, 4, 16])
@pytest.mark.parametrize("closed", [False, True])
def test_the_size_of_bricks_changes_nothing(side, closed):
    field, box = Steep(Torus(0.9, 0.3), 0.5), BOX.float()
    one = extracted(field, box, 50, coarsest=12, closed=closed)
    other = extracted(field, box, 50, coarsest=12, closed=closed, side=side)
    assert _same(one, (other.vertices, other.faces))


@pytest.mark.parametrize("at_once", [97, 1 << 20])
def test_the_chunk_size_changes_nothing(at_once):
    field = Counting(Ellipsoid())
    one = extracted(Ellipsoid(), BOX.float(), 40, inside="below", coarsest=10)
    other = extracted(field, BOX.float(), 40, inside="below", coarsest=10, points_at_once=at_once)
    assert np.array_equal(one.vertices, other.vertices)
    assert np.array_equal(one.faces, other.faces)
    assert field.most <= at_once


def test_bricks_worked_on_by_several_threads_change_nothing(two_threads):
    found = []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        found.append(extracted(Ellipsoid(), BOX.float(), 40, inside="below", coarsest=10))
    assert _same(found[0], (found[1].vertices, found[1].faces))


def test_no_sample_is_asked_for_twice():
    seen = []
    field = lambda p: seen.append(p) or Torus()(p)  # noqa: E731
    found = extracted(field, BOX, 64, inside="below", slope=1, coarsest=8)
    points = torch.cat(seen)
    assert len(points) == found.evaluations == len(torch.unique(points, dim=0))


def test_evaluations_are_counted_and_estimated():
    """As many as a shell of three to four cells about the surface holds."""
    for field, options in ((Ellipsoid(), {"slope": 1}), (Torus(), {"slope": 1}), (Waves(frequency=2.0), {})):
        counting = Counting(field)
        found = extracted(counting, BOX, 128, inside="below", coarsest=16, **options)
        assert found.evaluations == counting.points
        assert 0.5 < found.plan.evaluations / found.evaluations < 2
        assert 0.5 < found.plan.vertices / len(found.vertices) < 2
        assert found.plan.dense == 129**3
        shell = level_sets.area(found.vertices, found.faces) / (2 / 128) ** 2
        assert found.evaluations < (10 if options else 16) * shell + 17**3


def test_a_plan_is_announced_and_takes_few_evaluations():
    counting, announced = Counting(Ellipsoid()), []
    plan = extract.plan(counting, BOX, ExtractionSettings(512, inside="below", slope=1))
    assert counting.points < 0.01 * plan.dense
    assert plan.evaluations < plan.dense / 20
    small = {"inside": "below", "slope": 1, "coarsest": 8}
    extracted(Ellipsoid(), BOX, 64, announce=announced.append, **small)
    again = extract.plan(Ellipsoid(), BOX, ExtractionSettings(64, **small))
    assert dataclasses.replace(announced[0], seconds=0.0) == dataclasses.replace(again, seconds=0.0)
    assert "million field evaluations" in str(plan)


def test_memory_stays_within_the_plan():
    field = Ellipsoid()
    found = extracted(field, BOX.float(), 160, inside="below", slope=1, coarsest=20)
    peak = least_peak(lambda: extracted(field, BOX.float(), 160, inside="below", slope=1, coarsest=20), repeats=2)
    assert 0 < peak < found.plan.bytes


def test_what_cannot_fit_is_refused_before_the_work():
    counting = Counting(Ellipsoid())
    with pytest.raises(ValueError, match=r"512×512×512 cells need about .* GiB, more than the 0.12 GiB allowed"):
        extracted(counting, BOX, 512, inside="below", slope=1, memory=1 << 27)
    assert counting.points < 513**3 / 100
    counting = Counting(Ellipsoid())
    with pytest.raises(ValueError, match="choose a lower resolution"):
        extracted(counting, BOX, 2048, inside="below", exhaustive=True)
    assert counting.points == 0


def test_an_off_center_ellipsoid_keeps_its_axes():
    shape = Ellipsoid()
    found = extracted(shape, BOX, 96, inside="below", slope=1, coarsest=12)
    for axis in range(3):
        low, high = found.vertices[:, axis].min(), found.vertices[:, axis].max()
        assert abs(low - (shape.center[axis] - shape.axes[axis])) < 0.1 * CELL
        assert abs(high - (shape.center[axis] + shape.axes[axis])) < 0.1 * CELL
    assert float(shape(torch.from_numpy(found.vertices)).abs().max()) < 0.1 * CELL


@pytest.mark.parametrize(
    ("shape", "volume", "area"),
    [
        (Ball((0.03, -0.02, 0.01), 0.6), 4 / 3 * math.pi * 0.6**3, 4 * math.pi * 0.6**2),
        (Torus(), 2 * math.pi**2 * 0.55 * 0.2**2, 4 * math.pi**2 * 0.55 * 0.2),
    ],
    ids=["ball", "torus"],
)
def test_volume_and_area_converge_with_the_square_of_the_cell(shape, volume, area):
    errors = []
    for n in (24, 48, 96):
        found = extracted(shape, BOX, n, inside="below", slope=1, coarsest=12)
        mesh = found.vertices, found.faces
        errors.append((abs(level_sets.volume(*mesh) / volume - 1), abs(level_sets.area(*mesh) / area - 1)))
    for coarse, fine in itertools.pairwise(errors):
        assert fine[0] < coarse[0] / 3
        assert fine[1] < coarse[1] / 3
    assert max(errors[-1]) < 3e-3


@pytest.mark.parametrize(
    ("shape", "euler", "parts"),
    [(Ellipsoid(), 2, 1), (Torus(), 0, 1), (BOXES, 2, 1), (PLATE, 2, 1), (Union((Torus(), Ball(radius=0.2))), 2, 2)],
    ids=["ellipsoid", "torus", "touching boxes", "thin plate", "ball in a torus"],
)
def test_meshes_are_closed_and_look_outwards_and_have_their_topology(shape, euler, parts):
    found = extracted(shape, BOX, 96, inside="below", slope=1, coarsest=12)
    mesh = found.vertices, found.faces
    assert level_sets.is_closed(found.faces)
    assert level_sets.volume(*mesh) > 0
    assert level_sets.euler_number(*mesh) == euler
    assert len(level_sets.parts(*mesh)) == parts
    loaded = trimesh.Trimesh(*mesh)
    assert loaded.is_watertight
    assert loaded.is_winding_consistent
    assert loaded.euler_number == euler


def test_boxes_that_touch_on_samples_are_one_closed_part_whose_volumes_add():
    """Their common wall lies on samples, where the distance is exactly 0: no film is left in between."""
    shape = Union((Box((-0.5, -0.5, -0.5), (0.0, 0.5, 0.5)), Box((0.0, -0.25, -0.25), (0.5, 0.25, 0.25))))
    found = extracted(shape, BOX, 64, inside="below", slope=1, coarsest=8)
    mesh = found.vertices, found.faces
    assert level_sets.is_closed(found.faces)
    assert level_sets.euler_number(*mesh) == 2
    assert abs(level_sets.volume(*mesh) - 0.625) < 0.02
    assert np.array_equal(found.vertices.min(0), [-0.5] * 3)


def test_inside_turns_a_field_inside_out():
    below = extracted(Ellipsoid(), BOX, 40, inside="below")
    above = extracted(lambda p: -Ellipsoid()(p), BOX, 40, inside="above")
    assert np.array_equal(below.vertices, above.vertices)
    assert np.array_equal(below.faces, above.faces)


def test_a_density_is_cut_at_its_iso_value():
    field = lambda p: 100 * torch.exp(-10 * (p**2).sum(-1))  # noqa: E731
    found = extracted(field, BOX, 64, 20.0, coarsest=16)
    radius = math.sqrt(math.log(5) / 10)
    np.testing.assert_allclose(np.linalg.norm(found.vertices, axis=1), radius, rtol=0, atol=1e-3)


@pytest.mark.parametrize("slope", [1, None])
def test_what_the_box_cuts_is_open_or_closed_on_request(slope):
    shape = Ellipsoid((0.5, 0.5, 0.5), (1.2, 1.3, 1.4))
    options = {"inside": "below", "slope": slope, "coarsest": 6}
    cut = extracted(shape, BOX, 48, **options)
    assert not level_sets.is_closed(cut.faces)
    closed = extracted(shape, BOX, 48, closed=True, **options)
    mesh = closed.vertices, closed.faces
    assert level_sets.is_closed(closed.faces)
    assert level_sets.euler_number(*mesh) == 2
    assert closed.vertices.max() == 1.0
    assert closed.vertices.min() >= -1.0
    lattice = extracted(shape, BOX, 96, closed=True, exhaustive=True, inside="below")
    assert abs(level_sets.volume(*mesh) / level_sets.volume(lattice.vertices, lattice.faces) - 1) < 2e-3


def test_closing_equals_the_dense_lattice_with_a_layer_outside():
    field = Waves(frequency=3.0)
    few = extracted(field, BOX, 48, closed=True, coarsest=24)
    every = extracted(field, BOX, 48, closed=True, exhaustive=True)
    assert _same(few, (every.vertices, every.faces))
    assert every.evaluations == 49**3
    assert len(np.unique(every.vertices, axis=0)) == len(every.vertices)


@pytest.fixture(params=[False, True], ids=["", "subnormal numbers are flushed"])
def _subnormal_numbers(request):
    if request.param and not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("_subnormal_numbers")
def test_a_full_box_has_the_boxs_own_surface_when_closed():
    found = extracted(lambda p: torch.ones_like(p[:, 0]), BOX, 8, closed=True)
    assert np.isclose(level_sets.volume(found.vertices, found.faces), 8.0)
    assert level_sets.is_closed(found.faces)


@pytest.mark.parametrize("cells", [(5, 7, 3), (33, 20, 41), (64, 1, 64)], ids=str)
def test_any_number_of_cells_will_do(cells):
    box = torch.tensor([[-0.9, -0.5, -1.0], [1.0, 0.9, 0.7]], dtype=torch.float64)
    field = Union((Ball((0.9, 0.1, -0.2), 0.7), PLATE))
    found = extracted(field, box, cells, inside="below", slope=1, coarsest=8)
    assert _same(found, _dense(field, box, cells, inside="below"))


def test_cells_are_cubes_as_far_as_the_box_allows():
    box = torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, 0.5]])
    found = extracted(Ball((1.0, 0.5, 0.25), 0.2), box, 64, inside="below")
    assert found.plan.cells == (64, 32, 16)


@pytest.mark.parametrize("iso_value", [7.0, -3.0])
def test_an_iso_value_that_is_never_crossed_is_reported_with_the_range(iso_value):
    sentence = rf"the field does not cross the iso value {iso_value:g}; it ranges over \[-1.5, 2\]"
    with pytest.raises(ValueError, match=sentence):
        extracted(lambda p: 0.25 + 1.75 * p[:, 0].clamp(-1, 1), BOX, 32, iso_value)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_values_that_are_not_finite_are_reported_with_a_location(wrong):
    field = lambda p: torch.where(p[:, 0] > 0.9, wrong, p[:, 0])  # noqa: E731
    with pytest.raises(ValueError, match=r"the field is not finite at \d+ of \d+ points, first at \(1, -1, -1\)"):
        extracted(field, BOX, 16, points_at_once=1 << 20)


def test_values_of_another_shape_are_reported():
    with pytest.raises(ValueError, match=r"the field returned shape \(4913, 1\) for points \(4913, 3\)"):
        extracted(lambda p: p[:, :1], BOX, 16)


@pytest.mark.parametrize(
    ("box", "resolution", "options", "sentence"),
    [
        (BOX.flip(0), 8, {}, "expected a lowest and a highest corner"),
        (BOX * math.inf, 8, {}, "expected a lowest and a highest corner"),
        (BOX, 0, {}, "resolution: found 0, expected at least 1"),
        (BOX, 8, {"side": 6}, "side: found 6, expected a power of two"),
    ],
    ids=["flipped box", "infinite box", "no cells", "odd bricks"],
)
def test_invalid_arguments_are_reported(box, resolution, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        extracted(Ball(), box, resolution, **options)


def test_progress_shows_points_and_the_time_left(capsys):
    extracted(Ball(), BOX, 24, inside="below", progress=True)
    shown = capsys.readouterr().err
    assert "extract" in shown
    assert "100%" in shown


def test_mapped_moves_the_vertices_and_keeps_the_outside_out():
    found = extracted(Ellipsoid(), BOX, 40, inside="below")
    volume = level_sets.volume(found.vertices, found.faces)
    moved = found.mapped(lambda p: 2 * p + 1)
    assert np.isclose(level_sets.volume(moved.vertices, moved.faces), 8 * volume)
    mirrored = found.mapped(lambda p: p * np.array([1.0, 1.0, -1.0]))
    assert np.isclose(level_sets.volume(mirrored.vertices, mirrored.faces), volume)
    assert np.array_equal(mirrored.vertices * np.array([1.0, 1.0, -1.0]), found.vertices)


def test_gradients_are_neither_needed_nor_left():
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    extracted(lambda p: (p * weight).norm(dim=-1) - 0.5, BOX, 16, inside="below")
    assert weight.grad is None


@pytest.mark.slow
def test_a_sphere_at_512_takes_a_twentieth_of_the_dense_evaluations_and_fits_in_its_memory():
    for options in ({"slope": 1}, {}):
        found = extracted(Ball(radius=0.7), BOX.float(), 512, inside="below", check=0.002, **options)
        assert found.plan.dense > 20 * found.evaluations
        assert found.plan.bytes < extract.MEMORY
        assert found.check.missed == 0
        assert level_sets.euler_number(found.vertices, found.faces) == 2
