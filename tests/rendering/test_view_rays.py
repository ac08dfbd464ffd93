"""Rays of cameras that stand anywhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from enerf.core.types import Rendering
from enerf.datasets.scenes import llff, rays, synthetic
from enerf.datasets.scenes.scene import Scene
from enerf.rendering import view_rays
from enerf.tasks.nerf.views import Renderer


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    synthetic.write_scene(folder, views=4, width=24, height=18, supersample=1, progress=False)
    return llff.load(folder, factor=1, llffhold=2, ndc=True)


def test_at_a_pose_of_the_scene_they_are_those_of_evaluation(scene):
    for view in range(4):
        found = view_rays.of_view(scene, scene.camera, scene.c2w[view])
        wanted = rays.to_ndc(rays.of_image(scene.camera, scene.c2w[view], 0.0, 1.0), scene.camera)
        assert found.met.all()
        for name in ("origins", "directions", "viewdirs", "near", "far"):
            assert torch.equal(getattr(found.field_rays, name), getattr(wanted, name)), name


def test_rays_that_do_not_look_forward_are_left_out(scene):
    turned = scene.c2w[0].clone()
    turned[:, :3] = turned[:, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    assert not view_rays.of_view(scene, scene.camera, turned).met.any()
    aside = scene.c2w[0].clone()
    aside[:, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    found = view_rays.of_view(scene, scene.camera, aside)
    assert 0 < found.met.sum() < len(found.met)
    assert found.field_rays.directions.isfinite().all()


def test_a_camera_beyond_the_near_plane_starts_at_itself(scene):
    inside = scene.c2w[0].clone()
    inside[:, 3] = torch.tensor([0.0, 0.0, -2.0])
    found = view_rays.of_view(scene, scene.camera, inside)
    start = found.field_rays.at(found.field_rays.near[:, None])[:, 0]
    wanted = rays.point_to_ndc(inside[:, 3].expand_as(start), scene.camera)
    assert torch.allclose(start, wanted, atol=1e-5)


@pytest.mark.parametrize("ndc", [True, False])
def test_a_box_bounds_the_rays(scene, ndc):
    used = scene if ndc else replace(scene, ndc=False, near=0.5, far=20.0)
    box = np.array([[-0.4, -0.5, -4.0], [0.6, 0.3, -2.0]])
    found = view_rays.of_view(used, used.camera, used.c2w[0], box)
    assert 0 < found.met.sum() < len(found.met)
    for share in (0.001, 0.5, 0.999):
        t = found.field_rays.near + share * (found.field_rays.far - found.field_rays.near)
        at = found.field_rays.at(t[:, None])[:, 0].double().numpy()
        if ndc:
            from enerf.datasets.scenes import coordinates

            at = coordinates.from_ndc(at, used.camera)
        assert (at >= box[0] - 1e-3).all()
        assert (at <= box[1] + 1e-3).all()


def test_a_camera_far_outside_still_sees_the_object(scene):
    around = replace(scene, ndc=False, forward_facing=False, near=2.0, far=6.0)
    centers = 4 * torch.nn.functional.normalize(around.c2w[:, :, 3] + 1, dim=-1)
    around = replace(around, c2w=torch.cat([around.c2w[:, :, :3], centers[:, :, None]], -1))
    outside = around.c2w[0].clone()
    at_start = view_rays.of_view(around, around.camera, outside).field_rays
    assert (float(at_start.near[0]), float(at_start.far[0])) == (2.0, 6.0)
    outside[:, 3] *= 3
    found = view_rays.of_view(around, around.camera, outside).field_rays
    assert (float(found.near[0]), float(found.far[0])) == pytest.approx((10.0, 14.0), abs=1e-4)


@pytest.mark.parametrize("ndc", [True, False])
def test_depths_and_points_are_those_of_the_scene(scene, ndc):
    """A renderer that says where the plane z = −3 is."""
    used = scene if ndc else replace(scene, ndc=False, near=0.5, far=20.0)

    def render(batch):
        z = 1 + 2 / -3.0 if ndc else -3.0
        t = (z - batch.origins[:, 2]) / batch.directions[:, 2]
        one = torch.ones_like(t)
        return Rendering(batch.viewdirs.abs(), t, one, one[:, None], t[:, None])

    picture = Renderer(render, 100).free_picture(used, used.c2w[1], used.camera)
    view = view_rays.of_view(used, used.camera, used.c2w[1])
    points = view_rays.points(view, view_rays.scene_depth(used, view, picture))
    assert torch.allclose(points[..., 2], torch.tensor(-3.0), atol=1e-3)


def test_a_picture_of_nothing_is_the_background(scene):
    turned = scene.c2w[0].clone()
    turned[:, :3] = turned[:, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    picture = Renderer(lambda batch: pytest.fail("nothing is to be rendered"), 100).free_picture(
        replace(scene, background=1.0), turned, scene.camera
    )
    assert (picture.rgb == 1).all()
    assert (picture.opacity == 0).all()
