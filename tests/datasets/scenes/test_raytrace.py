"""The ray tracer, on the synthetic scene: first hits, and agreement between views."""

import numpy as np
import pytest

from enerf.datasets.scenes import raytrace, synthetic
from enerf.datasets.scenes.raytrace import Box, Capsule, Plane, Sphere


def distance(shape, points):
    """Signed distance to one shape, negative inside: no formula of the tracer is used."""
    if isinstance(shape, Plane):
        return (points - np.array(shape.point)) @ np.array(shape.upwards)
    if isinstance(shape, Sphere):
        return np.linalg.norm(points - np.array(shape.center), axis=-1) - shape.radius
    if isinstance(shape, Capsule):
        start, end = np.array(shape.start), np.array(shape.end)
        share = np.clip((points - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
        return np.linalg.norm(points - start - share[..., None] * (end - start), axis=-1) - shape.radius
    assert isinstance(shape, Box)
    x, y, z = np.moveaxis(points - np.array(shape.center), -1, 0)
    turned = (x + 1j * z) * np.exp(1j * shape.turn)
    beyond = np.abs(np.stack([turned.real, y, turned.imag], -1)) - np.array(shape.half)
    return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(-1), 0)


def clearance(points):
    return np.min([distance(thing.shape, points) for thing in synthetic.OBJECTS], axis=0)


def march(origins, directions, limit=np.inf):
    """The t at which balls of free space, laid one after the other along each ray, come to a halt."""
    t, going = np.zeros(len(origins)), np.arange(len(origins))
    lengths = np.linalg.norm(directions, axis=-1)
    for _ in range(3000):
        gap = clearance(origins[going] + t[going, None] * directions[going])
        t[going] += gap / lengths[going]
        going = going[(gap > 1e-7) & (t[going] < limit)]
        if not len(going):
            break
    return t


def rays(count, seed=0):
    """Random rays of random views of the default capture; t in their units is z-depth."""
    rng = np.random.default_rng(seed)
    camera, c2w = synthetic.camera(), synthetic.poses(20)[rng.integers(0, 20, count)]
    x, y = rng.uniform(0, camera.width, count), rng.uniform(0, camera.height, count)
    seen = np.stack([(x - camera.cx) / camera.fx, (camera.cy - y) / camera.fy, -np.ones(count)], -1)
    return c2w[:, :, 3], (c2w[:, :, :3] @ seen[:, :, None])[:, :, 0]


def look(origins, directions):
    return raytrace.trace_rays(synthetic.OBJECTS, synthetic.LIGHT, origins, directions)


def test_t_lies_on_a_surface_and_nothing_is_nearer():
    origins, directions = rays(3000)
    rgb, t = synthetic.trace(origins, directions)
    assert np.abs(clearance(origins + t[:, None] * directions)).max() < 1e-9
    assert np.abs(march(origins, directions) - t).max() < 1e-3  # marching halts early at grazing rays only
    assert np.quantile(np.abs(march(origins, directions) - t), 0.98) < 1e-6
    assert rgb.min() >= 0
    assert rgb.max() <= 1


def test_every_thing_is_seen():
    origins, directions = rays(6000)
    assert set(look(origins, directions).index) == set(range(len(synthetic.OBJECTS)))


def test_every_ray_down_z_hits():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(500, 3)) * (1, 1, 0) - (0, 0, 0.1)
    assert np.isfinite(synthetic.trace(np.zeros((500, 3)), directions)[1]).all()


def test_a_ray_that_meets_nothing_is_black_at_infinity():
    rgb, t = synthetic.trace(np.zeros(3), np.array([0.0, 0.3, 1.0]))
    assert t == np.inf
    assert (rgb == 0).all()


def test_t_is_counted_in_directions_and_batches_do_not_matter():
    origins, directions = rays(60)
    rgb, t = synthetic.trace(origins, directions)
    again, half = synthetic.trace(origins.reshape(3, 20, 3), 2 * directions.reshape(3, 20, 3))
    np.testing.assert_allclose(half.ravel() * 2, t, rtol=1e-12)
    np.testing.assert_allclose(again.reshape(-1, 3), rgb, atol=1e-9)


@pytest.mark.parametrize("kind", [Sphere, Box, Capsule])
def test_normals_are_the_gradient_of_distance(kind):
    origins, directions = rays(6000)
    sight = look(origins, directions)
    for i, shape in enumerate(thing.shape for thing in synthetic.OBJECTS):
        if isinstance(shape, kind):
            points = (origins + sight.t[:, None] * directions)[sight.index == i]
            steps = 1e-6 * np.eye(3)
            slope = [distance(shape, points + step) - distance(shape, points - step) for step in steps]
            close = np.abs(shape.normal(points) - np.stack(slope, -1) / 2e-6).max(-1) < 1e-4
            assert close.mean() > 0.99  # a step may cross a box's edge


def test_the_lamp_lights_what_a_free_beam_reaches():
    origins, directions = rays(1500)
    sight = look(origins, directions)
    points, lamp = origins + sight.t[:, None] * directions, np.array(synthetic.LIGHT.position)
    normals = np.stack(
        [synthetic.OBJECTS[i].shape.normal(p[None])[0] for i, p in zip(sight.index, points, strict=True)]
    )
    lit = raytrace.is_lit(synthetic.OBJECTS, synthetic.LIGHT, points, normals)
    faces = ((lamp - points) * normals).sum(-1) > 0
    starts = points + 1e-4 * normals
    free = march(starts, lamp - starts, limit=1.0) >= 1.0
    assert (lit == (faces & free)).mean() > 0.995  # all but penumbras of a ten-thousandth
    assert 0.3 < lit.mean() < 0.95


def test_two_views_agree_about_a_point():
    origins, directions = rays(3000)
    here = look(origins, directions)
    points = origins + here.t[:, None] * directions
    others = np.roll(origins, 1, axis=0)
    there = look(others, points - others)
    assert (there.t < 1 + 1e-9).all()  # the point stops the ray, or something before it
    visible = there.t > 1 - 1e-9
    assert visible.mean() > 0.8
    np.testing.assert_array_equal(here.index[visible], there.index[visible])
    np.testing.assert_allclose(here.diffuse[visible], there.diffuse[visible], atol=1e-9)
    flat = visible & (np.array([thing.gloss for thing in synthetic.OBJECTS])[here.index] == 0)
    assert flat.mean() > 0.3
    np.testing.assert_allclose(here.rgb()[flat], there.rgb()[flat], atol=1e-9)


def test_highlights_move_with_the_eye():
    origins, directions = rays(6000)
    here = look(origins, directions)
    (bright,) = np.nonzero(here.specular > 0.8)
    point = origins[bright[0]] + here.t[bright[0]] * directions[bright[0]]
    eyes = synthetic.poses(20)[:, :, 3]
    sight = look(eyes, point - eyes)
    assert np.ptp(sight.specular) > 0.1
    assert np.ptp(sight.rgb(), axis=0).max() > 0.1
    assert np.ptp(sight.diffuse, axis=0).max() < 1e-9
