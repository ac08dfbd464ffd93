"""Tests of figures of shapes: perfect for what is perfect, in closed form for balls and boxes, null with a reason."""

import functools
import json

import numpy as np
import pytest
import torch
import trimesh

from enerf.geometry import mesh as geometry_mesh
from enerf.geometry import solid
from enerf.tasks.shape import eval_points as shape_eval_points
from enerf.tasks.shape import metrics as shape_metrics
from enerf.tasks.shape.eval_points import EvalSettings, Reference
from tests.geometry import solids

R = 0.9  # of the ball in the box
SMALL = EvalSettings(grid=64, shell_points=20_000, surface_points=10_000)


def _reference(vertices, faces, settings=SMALL):
    mesh = geometry_mesh.from_arrays(np.asarray(vertices, float), np.asarray(faces, np.int64), "thing.obj")
    return Reference(solid.Solid(mesh), settings)


def _icosphere(radius=1.0, subdivisions=5):
    made = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return np.array(made.vertices), np.array(made.faces, dtype=np.int64)


@functools.cache
def _ball():
    return _reference(*_icosphere())


def _within(radius):
    return lambda points: points.norm(dim=-1) < radius


def _shell_volume(low, high):
    return high**3 - low**3


# Fields


def test_a_shape_against_itself_is_perfect():
    for shape in (solids.ellipsoid(), solids.torus(), solids.hemisphere()):
        reference = _reference(*shape)
        for quick in (False, True):
            found = shape_metrics.measure_field(reference.solid.occupancy, reference, quick=quick)
            assert (found["iou"], found["iou_near"], found["sign_f1_near"], found["volume_error"]) == (1, 1, 1, 0)


@pytest.mark.parametrize("radius", [0.3, 0.6, 0.85])
def test_a_smaller_ball_has_the_iou_and_the_volume_of_its_radius(radius):
    found = shape_metrics.measure_field(_within(radius), _ball())
    assert found["iou"] == pytest.approx((radius / R) ** 3, abs=4e-3)
    assert found["volume_error"] == pytest.approx((radius / R) ** 3 - 1, abs=4e-3)
    assert found["volume"] == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)


@pytest.mark.parametrize("radius", [0.893, 0.897, 0.905])
def test_near_the_surface_a_small_error_has_the_iou_of_the_shell(radius):
    found = shape_metrics.measure_field(_within(radius), _ball())
    small, large = sorted([radius, R])
    expected = _shell_volume(R - 0.01, small) / _shell_volume(R - 0.01, large)
    # triangles lie up to 2 % of the shell further in, and 20,000 points deviate by 0.005
    assert found["iou_near"] == pytest.approx(expected, abs=0.03)
    outside = _shell_volume(large, R + 0.01) / _shell_volume(small, R + 0.01)
    f1 = [2 * x / (1 + x) for x in (expected, outside)]
    assert found["sign_f1_near"] == pytest.approx(sum(f1) / 2, abs=0.03)


def test_near_the_surface_iou_tells_apart_what_the_volume_does_not():
    fields = [shape_metrics.measure_field(_within(R - error), _ball()) for error in (0.001, 0.003)]
    assert fields[0]["iou"] - fields[1]["iou"] < 0.01
    assert fields[0]["iou_near"] - fields[1]["iou_near"] > 0.1


def test_all_inside_and_all_outside():
    everything = shape_metrics.measure_field(lambda p: torch.ones(len(p), dtype=torch.bool), _ball())
    assert everything["iou"] == pytest.approx(_ball().volume / 8)
    assert everything["volume"] == 8
    share = float(_ball().near.inside.double().mean())
    assert everything["iou_near"] == pytest.approx(share)
    assert everything["sign_f1_near"] == pytest.approx(share / (1 + share))
    nothing = shape_metrics.measure_field(lambda p: torch.zeros(len(p), dtype=torch.bool), _ball())
    assert (nothing["iou"], nothing["iou_near"], nothing["volume"], nothing["volume_error"]) == (0, 0, 0, -1)


def test_iou_and_f1_are_symmetric_and_f1_in_the_two_signs_too():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1000, generator=generator) < share for share in (0.3, 0.6))
    assert shape_metrics.iou(a, b) == shape_metrics.iou(b, a)
    assert shape_metrics.sign_f1(a, b) == shape_metrics.sign_f1(b, a) == shape_metrics.sign_f1(~a, ~b)
    none = torch.zeros(3, dtype=torch.bool)
    assert shape_metrics.iou(none, none) is None
    assert shape_metrics.sign_f1(none, none) is None


def test_a_shifted_box_has_the_iou_of_its_overlap():
    reference = _reference(*solids.box((0, 0, 0), (1, 1, 1)))  # of side 1.8 in the box
    found = shape_metrics.measure_field(lambda p: ((p - torch.tensor([0.3, 0.0, 0.0])).abs() < 0.9).all(-1), reference)
    outside = 0.2  # of the moved box lies beyond the box of all
    assert found["iou"] == pytest.approx(1.5 / (1.8 + 0.3 - outside), abs=0.02)


def test_a_quick_evaluation_agrees_approximately():
    whole, quick = (shape_metrics.measure_field(_within(0.895), _ball(), quick=quick) for quick in (False, True))
    for name in ("iou", "iou_near", "sign_f1_near", "volume_error"):
        assert quick[name] == pytest.approx(whole[name], abs=0.03)
    asked = []
    shape_metrics.measure_field(lambda p: (asked.append(len(p)), _within(0.5)(p))[1], _ball(), quick=True)
    assert sum(asked) == 2 * 16**3


def test_fields_are_evaluated_in_chunks_without_gradients(monkeypatch):
    monkeypatch.setattr(shape_eval_points, "POINTS_PER_CALL", 1000)
    weight = torch.ones(3, requires_grad=True)

    def field(points):
        assert len(points) <= 1 << 18
        assert not (points * weight).requires_grad
        return points.norm(dim=-1) < 0.5

    shape_metrics.measure_field(field, _ball(), quick=True)


@pytest.mark.parametrize("wrong", [lambda p: p[:, 0], lambda p: p > 0, lambda p: (p[:, 0] > 0)[:-1]])
def test_results_of_another_shape_or_dtype_are_refused(wrong):
    with pytest.raises(ValueError, match="inside test of"):
        shape_metrics.measure_field(wrong, _ball())


# Meshes


def test_a_mesh_against_itself_is_perfect():
    for shape in (solids.ellipsoid(), solids.torus()):
        reference = _reference(*shape)
        mesh = reference.solid.mesh
        found = shape_metrics.measure_mesh(mesh.vertices, mesh.faces, reference)
        assert (found["iou"], found["iou_near"], found["volume_error"]) == (1, 1, 0)
        assert found["chamfer_l1"] < 1e-15
        assert found["normal_consistency_signed"] == pytest.approx(1, abs=1e-9)
        assert (found["fscore_0.5"], found["fscore_1"]) == (1, 1)
        assert found["volume_error_by_faces"] == pytest.approx(0, abs=1e-12)
        assert (found["watertight"], found["parts"], found["reason"]) == (True, 1, None)
        assert found["euler_number"] == mesh.report.euler_number


def test_a_smaller_ball_as_a_mesh_has_every_figure_in_closed_form():
    found = shape_metrics.measure_mesh(*_icosphere(0.85), _ball())
    assert found["iou"] == pytest.approx((0.85 / R) ** 3, abs=4e-3)
    assert found["volume_error_by_faces"] == pytest.approx((0.85 / R) ** 3 - 1, rel=1e-9)
    for name in ("chamfer_l1", "hausdorff"):
        assert found[name] == pytest.approx(0.05, abs=4e-4)
        assert found[f"{name}_percent"] == pytest.approx(2.5, abs=0.02)
    assert found["fscore_1"] == 0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_the_file_change_what_is_in_them_and_nothing_else(scale):
    settings = EvalSettings(grid=24, shell_points=2000, surface_points=1000)
    vertices, faces = _icosphere(1.0, 3)
    plain, other = (_reference(vertices * s, faces, settings) for s in (1.0, scale))
    extracted = _icosphere(0.85, 3)
    here, there = (shape_metrics.measure_mesh(*extracted, reference) for reference in (plain, other))
    powers = {"volume_file": 3, "chamfer_l2_file": 2}
    for name, value in here.items():
        power = powers.get(name, 1 if name.endswith("_file") else 0)
        rel = 0.2 if name == "normal_error_degrees" else 1e-5  # points on edges are nearest to either face
        assert there[name] == (pytest.approx(value * scale**power, rel=rel) if isinstance(value, float) else value)
    assert other.describe()["volume_file"] == pytest.approx(plain.describe()["volume_file"] * scale**3)


def test_metrics_that_cannot_be_computed_are_null_with_a_reason():
    vertices, faces = _icosphere(0.85, 2)
    none = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    holed = vertices.copy()
    holed[5] = np.nan
    cases = {
        "empty": none,
        "not finite": (holed, faces),
        "no area": (vertices * 0, faces),
        "inward normals": (vertices, faces[:, ::-1]),
        "is flat": (vertices * [1, 1, 0], faces),
    }
    keys = set(shape_metrics.measure_mesh(vertices, faces, _ball()))
    for words, (v, f) in cases.items():
        found = shape_metrics.measure_mesh(v, f, _ball())
        assert set(found) == keys
        assert words in found["reason"]
        assert found["iou"] is None
        json.dumps(found, allow_nan=False)
    inwards = shape_metrics.measure_mesh(vertices, faces[:, ::-1], _ball())
    assert inwards["chamfer_l1"] == pytest.approx(0.05, abs=0.02)
    assert shape_metrics.measure_mesh(*none, _ball())["parts"] == 0


def test_an_open_reference_is_reported_and_its_surface_compared():
    reference = _reference(*solids.hemisphere())
    mesh = reference.solid.mesh
    found = shape_metrics.measure_mesh(mesh.vertices, mesh.faces, reference)
    assert (found["iou"], found["watertight"], found["volume_error_by_faces"]) == (1, False, None)
    assert reference.describe()["watertight"] is False
    assert "film" in reference.describe()["assumed"]


def test_a_shape_thinner_than_the_grid_is_judged_near_its_surface():
    reference = _reference(*solids.box((-1, -1, -1e-3), (1, 1, 1e-3)))
    found = shape_metrics.measure_field(reference.solid.occupancy, reference)
    assert (found["iou"], found["volume_error"], found["iou_near"]) == (None, None, 1)


def test_the_whole_is_strict_json_with_its_protocol():
    found = shape_metrics.measure(_ball(), _within(0.8), _icosphere(0.8, 3))
    assert set(found) == {"reference", "protocol", "field", "mesh"}
    for part in found.values():
        assert not any(isinstance(value, dict) for value in part.values())
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["protocol"]["seed"] == 0
    assert again["protocol"]["grid"].startswith("64³")
    assert again["protocol"]["shell"] == 0.01
    assert again["field"]["iou"] == found["field"]["iou"]
    assert "mesh" not in shape_metrics.measure(_ball(), _within(0.8))
