"""Views of fields: modes, photographs that are moved to a view, two runs with other coordinates."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.core.types import Rendering
from enerf.datasets.scenes import coordinates, llff, pixels, synthetic
from enerf.datasets.scenes.scene import Scene
from enerf.rendering import view_rays
from enerf.rendering.render import Picture
from enerf.tasks.nerf import planes, setup
from enerf.tasks.nerf.views import Renderer
from enerf.viewer import controls, modes, nerf_runs, photographs, poses
from enerf.viewer.modes import Rendered
from enerf.viewer.sources import FieldSource, SplitSource, View


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    """The generated scene, in scene coordinates, each pixel of its photographs one ray."""
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    synthetic.write_scene(folder, views=5, width=48, height=36, supersample=1, progress=False)
    return llff.load(folder, factor=1, llffhold=2, ndc=False)


def oracle(scene: Scene) -> Renderer:
    """A renderer that traces the rays."""
    to_world = np.linalg.inv(scene.world_to_scene.double().numpy())

    def render(asked) -> Rendering:
        origins = asked.origins.double().numpy() @ to_world[:3, :3].T + to_world[:3, 3]
        rgb, t = synthetic.trace(origins, asked.directions.double().numpy() @ to_world[:3, :3].T)
        rgb, t = torch.from_numpy(rgb).float(), torch.from_numpy(t).float()
        one = torch.ones_like(t)
        return Rendering(rgb, t, one, one[:, None], t[:, None])

    return Renderer(render, 100)


def source(scene: Scene, name: str = "a") -> FieldSource:
    renderer = oracle(scene)
    return FieldSource(name, scene, lambda: renderer)


def result_of(work):
    while True:
        try:
            next(work)
        except StopIteration as ended:
            return ended.value


def image_of(work):
    return result_of(work).image


def at_photograph(scene: Scene, view: int, **more) -> View:
    camera = scene.camera
    return View(scene.c2w[view], 2 * math.atan(0.5 * camera.height / camera.fy), 4 / 3, size=48, **more)


def test_at_the_camera_of_a_photograph_the_view_is_the_photograph(scene):
    image = image_of(source(scene).drawn(at_photograph(scene, 2), 48))
    photograph = pixels.view_image(scene, 2).mul(255).round().numpy()
    assert image.shape == photograph.shape
    assert (np.abs(image - photograph).max(-1) < 2).mean() > 0.98


def test_a_photograph_moved_to_its_own_view_stays_as_it_is(scene):
    rendered = result_of(source(scene).rendered(at_photograph(scene, 2), scene.camera, None))
    assert photographs.nearest(scene, scene.c2w[2]) == 2
    depth = view_rays.scene_depth(scene, rendered.rays, rendered.picture)
    colors, shown = photographs.moved(scene, 2, view_rays.points(rendered.rays, depth))
    assert shown.all()
    assert torch.allclose(colors, pixels.view_image(scene, 2), atol=2e-3)


def test_a_photograph_moved_to_another_view_agrees_where_it_shows_the_surface(scene):
    view = at_photograph(scene, 2, mode=modes.DIFFERENCE)
    between = replace(view, c2w=torch.cat([view.c2w[:, :3], (0.7 * scene.c2w[2] + 0.3 * scene.c2w[3])[:, 3:]], 1))
    rendered = result_of(source(scene).rendered(between, scene.camera, None))
    depth = view_rays.scene_depth(scene, rendered.rays, rendered.picture)
    index = photographs.nearest(scene, between.c2w)
    colors, shown = photographs.moved(scene, index, view_rays.points(rendered.rays, depth))
    rgb = rendered.picture.rgb
    as_moved, as_taken = ((rgb - each).abs().mean(-1)[shown] for each in (colors, pixels.view_image(scene, index)))
    assert shown.float().mean() > 0.8
    assert as_moved.mean() < 0.7 * as_taken.mean()
    image = image_of(source(scene).drawn(between, 48))
    assert (image[shown.numpy()][(as_moved < 0.005).numpy()].max(-1) < 40).all()  # dark where both agree
    mixed = image_of(source(scene).drawn(replace(between, mode=modes.BLEND, blend=0.0), 48))
    color = image_of(source(scene).drawn(replace(between, mode=modes.COLOR), 48))
    same = (mixed == color).all(-1)
    assert same.mean() > 0.8  # all that the photograph shows


def test_normals_of_a_plane_face_the_camera(scene):
    camera, c2w = scene.camera, torch.eye(4)[:3]
    rays = view_rays.of_view(scene, camera, c2w)
    size = (camera.height, camera.width)
    picture = Picture(torch.zeros(*size, 3), torch.full(size, 3.0), torch.ones(size))
    image = modes.shown(Rendered(scene, c2w, rays, picture), modes.NORMALS)
    assert (image[2:-2, 2:-2] == [128, 128, 255]).all()


def test_what_is_transparent_has_no_depth_and_no_normal(scene):
    rays = view_rays.of_view(scene, scene.camera, scene.c2w[0])
    size = (scene.camera.height, scene.camera.width)
    nothing = Rendered(scene, scene.c2w[0], rays, Picture(torch.zeros(*size, 3), torch.zeros(size), torch.zeros(size)))
    for mode in (modes.DEPTH, modes.OPACITY, modes.NORMALS, modes.COLOR, modes.DIFFERENCE, modes.BLEND):
        assert (modes.shown(nothing, mode) == 0).all(), mode


def moved(scene: Scene) -> Scene:
    """The same scene in coordinates of another place, direction and size."""
    angle = 0.4
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1.0]])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = 2.5 * turn, [1.0, -2.0, 0.5]
    c2w = coordinates.transform_poses(matrix, scene.c2w.double().numpy())
    return replace(
        scene,
        c2w=torch.from_numpy(c2w).float(),
        world_to_scene=torch.from_numpy(matrix) @ scene.world_to_scene.double(),
        near=2.5 * scene.near,
        far=2.5 * scene.far,
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_two_runs_in_other_coordinates_show_one_view(scene, share):
    both = SplitSource(source(scene), source(moved(scene), "b"))
    view = at_photograph(scene, 2, split=share)
    image, alone = image_of(both.drawn(view, 48)), image_of(source(scene).drawn(view, 48))
    line = (image == 255).all((0, 2)) & ~(alone == 255).all((0, 2))
    assert line.sum() == (0 < share < 1)
    assert (np.abs(image.astype(int) - alone).max(-1) < 3)[:, ~line].mean() > 0.97


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_both_runs_have_depths_in_units_of_the_first(scene, share):
    both, view = SplitSource(source(scene), source(moved(scene), "b")), at_photograph(scene, 2, split=share)
    depth, alone = result_of(both.drawn(view, 48)).depth, result_of(source(scene).drawn(view, 48)).depth
    assert depth.shape == alone.shape == (36, 48)
    assert np.isfinite(alone).any()
    assert (np.isclose(depth, alone, rtol=1e-3) | (depth == alone)).mean() > 0.98  # infinite beside the scene


def test_two_runs_in_other_coordinates_are_cropped_by_one_box(scene):
    low, high = controls.limits(scene)
    box = np.stack([low + [0.3, 0.4, 0.2] * (high - low), low + [0.6, 0.7, 0.9] * (high - low)])
    view = at_photograph(scene, 2, mode=modes.OPACITY, split=0.0, box=box)
    alone = image_of(source(scene).drawn(view, 48))
    assert 0.02 < (alone > 0).mean() < 0.9
    both = SplitSource(source(scene), source(moved(scene), "b"))
    assert (image_of(both.drawn(view, 48)) != alone).any(-1).mean() < 0.01


def test_normals_beside_the_line_between_two_runs_are_those_of_the_whole_picture(scene):
    view = at_photograph(scene, 2, mode=modes.NORMALS, split=0.5)
    image = image_of(SplitSource(source(scene), source(scene, "b")).drawn(view, 48))
    alone = image_of(source(scene).drawn(view, 48))
    alone[:, 24] = 255
    assert np.array_equal(image, alone)


def test_runs_of_two_scenes_are_refused(scene):
    other = replace(scene, image_names=tuple(f"x{name}" for name in scene.image_names))
    with pytest.raises(InputError, match="b: found other photographs than those of a, expected two runs of one scene"):
        SplitSource(source(scene), source(other, "b"))


def test_a_fast_renderer_takes_the_place_of_the_field_unless_space_is_cropped(scene):
    size = []

    def fast(c2w, camera):
        size.append(camera.width)
        shape = (camera.height, camera.width)
        return Picture(torch.full((*shape, 3), 0.5), torch.zeros(shape), torch.ones(shape))

    used = replace(source(scene), fast=fast)
    assert (used.quick(at_photograph(scene, 0), 24).image == 128).all()
    assert size == [24]
    assert used.quick(at_photograph(scene, 0, box=np.array([[-1.0] * 3, [1.0] * 3])), 24) is None
    assert source(scene).quick(at_photograph(scene, 0), 24) is None


def test_a_run_with_baked_planes_is_shown_by_them_while_the_camera_moves(runs, tmp_path):
    folder = tmp_path / "baked"
    shutil.copytree(runs[0], folder)
    assert nerf_runs.source_of(setup.open_run(folder, "cpu"), "a").fast is None
    planes.bake_folder(folder, 16, 0.0, device="cpu")
    used = nerf_runs.source_of(setup.open_run(folder, "cpu"), "a")
    assert used.fast is not None
    view = at_photograph(used.scene, 0)
    quick, exact = used.quick(view, 48).image, image_of(used.drawn(view, 48))
    assert quick.shape == exact.shape
    difference = quick.astype(float) - exact.astype(float)
    assert 20 * np.log10(255 / np.sqrt((difference**2).mean())) > 20


def test_a_camera_starts_behind_all_cameras_and_looks_at_the_scene(scene):
    start = poses.start(scene)
    ahead = start.look_at - start.position
    centers = scene.c2w[:, :, 3].double().numpy()
    assert ((centers - start.position) @ ahead > 0).all()
    low, high = controls.limits(scene)
    assert (low < high).all()


def test_a_camera_starts_beside_cameras_that_turn_on_the_spot(scene):
    """Then the axes meet where the cameras are, and there is no way to look at it."""
    angles = np.linspace(0, 5, len(scene.c2w))
    c2w = np.zeros((len(angles), 3, 4))
    c2w[:, :, :3] = [[[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]] for a in angles]
    there = replace(scene, c2w=torch.from_numpy(c2w).float(), forward_facing=False)
    start, (low, high) = poses.start(there), controls.limits(there)
    assert np.linalg.norm(start.look_at - start.position) > 1e-3
    assert (high - low > 1e-3).all()


def test_poses_survive_the_way_to_viser_and_back(scene):
    for c2w in scene.c2w:
        back = poses.from_viser(*poses.to_viser(c2w.double().numpy()))
        assert torch.allclose(back, c2w, atol=1e-5)


def test_texts_are_shown_as_they_are():
    assert controls.plain("a<b>{c}`") == "<small>a&#60;b&#62;&#123;c&#125;&#96;</small>"
