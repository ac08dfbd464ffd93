"""Conversion between the three frames: invertible, consistent with the NDC of rays, correct distances."""

import dataclasses

import numpy as np
import pytest
import torch

from enerf.core.types import Camera
from enerf.datasets.scenes import coordinates, llff, rays, synthetic
from enerf.datasets.scenes.scene import Scene

CAMERA = Camera(12, 9, 11.0, 13.0, 6.0, 4.5)
OFF_CENTER = Camera(12, 9, 11.0, 13.0, 7.5, 3.0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("scenes") / "demo"
    return llff.load(synthetic.write_scene(folder, views=5, width=40, height=30, supersample=1, progress=False), 1)


def points(n: int = 200, seed: int = 0) -> np.ndarray:
    """In the world of the demo, before its cameras."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(-3, 3, n), rng.uniform(-2, 2, n), rng.uniform(-9, -4, n)], 1)


@pytest.mark.parametrize("ndc", [True, False])
def test_there_and_back_is_where_it_was(demo, ndc):
    scene = dataclasses.replace(demo, ndc=ndc)
    there = coordinates.from_world(scene, points())
    np.testing.assert_allclose(coordinates.to_world(scene, there), points(), atol=1e-9)
    assert (np.abs(there[:, 2]) < 1).all() == ndc


@pytest.mark.parametrize("camera", [CAMERA, OFF_CENTER])
def test_ndc_is_that_of_rays_and_goes_back_up_to_far_away(camera):
    local = points() * [1, 1, 100]
    there = coordinates.to_ndc(local, camera, 0.7)
    np.testing.assert_allclose(there, rays.point_to_ndc(torch.from_numpy(local), camera, 0.7).numpy())
    np.testing.assert_allclose(coordinates.from_ndc(there, camera, 0.7), local, rtol=1e-9)


def test_points_of_ndc_rays_lie_on_the_rays_of_the_world(demo):
    """The pixel that a point is seen in says where it is, through all three frames."""
    c2w = synthetic.poses(5)
    x, y = torch.tensor([3, 30, 20]), torch.tensor([4, 5, 22])
    made = rays.through_pixels(demo.camera, demo.c2w[[2, 2, 2]].double(), x, y, near=0.0, far=1.0)
    ndc = rays.to_ndc(made, demo.camera)
    found = coordinates.to_world(demo, ndc.at(torch.tensor([0.3, 0.6]).expand(3, 2).double()).reshape(-1, 3).numpy())
    local = (found - c2w[2, :, 3]) @ c2w[2, :, :3]
    u = demo.camera.fx * local[:, 0] / -local[:, 2] + demo.camera.cx
    v = -demo.camera.fy * local[:, 1] / -local[:, 2] + demo.camera.cy
    np.testing.assert_allclose(u, np.repeat(x.numpy() + 0.5, 2), atol=1e-3)
    np.testing.assert_allclose(v, np.repeat(y.numpy() + 0.5, 2), atol=1e-3)


def test_a_cell_of_ndc_grows_with_the_square_of_its_distance():
    z = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.001], [0.0, 0.0, 0.8], [0.0, 0.0, 0.801]])
    depth = -coordinates.from_ndc(z, CAMERA)[:, 2]
    assert (depth[3] - depth[2]) / (depth[1] - depth[0]) == pytest.approx((depth[2] / depth[0]) ** 2, rel=0.01)
