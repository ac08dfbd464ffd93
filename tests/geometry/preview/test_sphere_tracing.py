"""Tests of sphere tracing: hits and normals of analytic shapes, with and without a slope."""

import numpy as np
import pytest
import torch

from enerf.geometry.preview import sphere_tracing
from enerf.geometry.preview.cameras import View
from enerf.geometry.preview.raycast import MeshScene
from tests.geometry.level_sets import Ball, Counting, Ellipsoid, Steep, Torus, extracted

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
VIEWS = [View((0.0, 0.0, 0.0), 4.0, a, e, 48, 48) for a, e in ((0.0, 0.0), (35.0, 20.0), (200.0, -60.0))]


def rays(view: View) -> tuple[torch.Tensor, torch.Tensor]:
    origins, directions = view.rays()
    return origins.reshape(-1, 3), directions.reshape(-1, 3)


def exact(shape: Ellipsoid, origins: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance along rays from outside to an ellipsoid (infinite: none), and its unit normals there."""
    axes, center = torch.tensor(shape.axes).double(), torch.tensor(shape.center).double()
    o, d = (origins - center) / axes, directions / axes
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    square = b * b - a * c
    t = torch.where(square >= 0, (-b - square.clamp(min=0).sqrt()) / a, torch.inf)
    normals = (o + t[:, None] * d) / axes
    return t, normals / normals.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("view", VIEWS, ids=["front", "side", "below"])
@pytest.mark.parametrize("slope", [1, None])
def test_an_ellipsoid_is_hit_where_it_is_with_its_normal(view, slope):
    shape = Ellipsoid()
    origins, directions = rays(view)
    t, normals = exact(shape, origins, directions)
    found = sphere_tracing.trace(shape, origins, directions, BOX, inside="below", slope=slope)
    grazing = (normals * directions).sum(-1).abs() < 0.1
    assert ((found.hit == t.isfinite()) | grazing | ~t.isfinite()).all()
    assert not found.hit[t.isinf()].any() or slope == 1  # sphere tracing stops as good as on the surface
    both = found.hit & t.isfinite() & ~grazing
    assert both.sum() > 100
    off = (found.t - t) * (normals * directions).sum(-1)  # across the surface
    assert float(off[both].abs().max()) < 1e-4
    assert float((found.normals * normals).sum(-1)[both].min()) > 0.9999


def test_normals_by_differences_are_those_by_gradients():
    origins, directions = rays(VIEWS[1])
    one = sphere_tracing.trace(Ellipsoid(), origins, directions, BOX, inside="below", slope=1)
    other = sphere_tracing.trace(Ellipsoid(), origins, directions, BOX, inside="below", slope=1, difference_step=1e-4)
    torch.testing.assert_close(one.normals, other.normals, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.normals[one.hit].norm(dim=-1), torch.ones(int(one.hit.sum()), dtype=torch.float64))


def test_a_level_and_above_or_below_do_as_they_say():
    origins, directions = rays(VIEWS[0])
    ball = sphere_tracing.trace(Ball(radius=0.4), origins, directions, BOX, inside="below", slope=1)
    level = sphere_tracing.trace(Ball(radius=0.6), origins, directions, BOX, -0.2, inside="below", slope=1)
    above = sphere_tracing.trace(lambda p: -Ball(radius=0.4)(p), origins, directions, BOX, inside="above", slope=1)
    for other in (level, above):
        assert torch.equal(ball.hit, other.hit)
        torch.testing.assert_close(ball.t[ball.hit], other.t[ball.hit])
        torch.testing.assert_close(ball.normals, other.normals)


def test_a_hit_lies_in_the_box_and_a_ray_that_starts_inside_is_met_at_the_boxs_side():
    shape = Ball(radius=1.3)  # beyond the box's sides, not its corners
    origins, directions = rays(VIEWS[1])
    found = sphere_tracing.trace(shape, origins, directions, BOX, inside="below", slope=1)
    at = (origins + found.t[:, None] * directions)[found.hit]
    assert float(at.abs().max()) < 1 + 1e-9
    cut = float(shape(at).min())
    assert cut < -0.2
    near, _ = sphere_tracing.intersect_box(origins, directions, BOX)
    sides = found.hit & (found.t == near)
    torch.testing.assert_close(found.normals[sides], -directions[sides])


def test_few_steps_are_made_where_a_slope_allows_long_ones():
    origins, directions = rays(VIEWS[0])
    counting = Counting(Torus())
    sphere_tracing.trace(counting, origins, directions, BOX, inside="below", slope=1)
    assert counting.points < 60 * len(origins)


def test_how_many_rays_go_together_changes_nothing():
    origins, directions = rays(VIEWS[2])
    counting = Counting(Torus())
    one = sphere_tracing.trace(Torus(), origins, directions, BOX, inside="below", slope=1)
    other = sphere_tracing.trace(counting, origins, directions, BOX, inside="below", slope=1, rays_at_once=100)
    assert torch.equal(one.t, other.t)
    assert counting.most <= 100


@pytest.mark.parametrize("shape", [Ellipsoid(), Torus()], ids=["ellipsoid", "torus"])
def test_the_field_and_its_mesh_have_the_same_silhouette_and_nearly_the_same_picture(shape):
    found = extracted(shape, BOX, 96, inside="below", slope=1)
    scene = MeshScene(found.vertices, found.faces)
    for view in VIEWS:
        mesh = scene.picture(view, supersample=1)
        field = sphere_tracing.picture(shape, view, BOX, inside="below", slope=1)
        empty = [(picture == 1).all(-1) for picture in (mesh, field)]
        assert (empty[0] != empty[1]).mean() < 0.02
        both = ~empty[0] & ~empty[1]
        assert np.abs(mesh - field)[both].mean() < 0.01


def test_occupancy_without_a_slope_shows_the_same():
    field = Steep(Torus(), 0.05)
    for view in VIEWS[1:]:
        sharp = sphere_tracing.picture(Torus(), view, BOX, inside="below", slope=1)
        soft = sphere_tracing.picture(field, view, BOX, difference_step=1e-3)
        assert ((sharp == 1).all(-1) != (soft == 1).all(-1)).mean() < 0.02
        assert np.abs(sharp - soft).mean() < 0.01
