"""Depth maps for fusion, of renderers with known surfaces, and the mesh that is made of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.core.types import Rendering
from enerf.datasets.scenes import coordinates, formats, frusta, rays, synthetic
from enerf.datasets.scenes.settings import SceneSettings
from enerf.experiments import extract
from enerf.experiments.options import ExtractOptions
from enerf.geometry.isosurface.source import FusionSettings, MeshSource, MeshSourceSettings
from enerf.tasks.nerf import depth_maps, fused_mesh
from enerf.tasks.nerf.views import Renderer
from enerf.tasks.shape import mesh as shape_mesh

PLANE = 3.0  # depth of the plane z = −PLANE in scene coordinates
RESOLUTION = 40


@pytest.fixture(scope="module", params=[True, False], ids=["ndc", "scene"])
def scene(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fusion") / "toy"
    synthetic.write_scene(folder, views=6, width=40, height=30, supersample=1, progress=False)
    return formats.load("llff", folder, SceneSettings(factor=1, llffhold=3, ndc=request.param))


def wall(scene, *, hole: bool = False, opacity: float = 1.0, gray: float = 0.0) -> Renderer:
    """Renders the plane; with a hole, rays that meet its middle see nothing before infinity."""

    def render(batch):
        z = 1 - 2 / PLANE if scene.ndc else -PLANE
        t = (z - batch.origins[:, 2]) / batch.directions[:, 2]
        if hole:
            x = (batch.origins + t[:, None] * batch.directions)[:, 0]
            width = 0.5 if not scene.ndc else 0.5 / PLANE * 2 * scene.camera.fx / scene.camera.width
            t = torch.where(x.abs() < width, 1 - 1e-7 if scene.ndc else 1e6, t)  # the plane's |x| < 0.5
        weights = torch.tensor([[0.0, opacity, 0.0]]).expand(len(t), 3)
        t_vals = torch.stack([0.5 * t, t, 1.5 * t], -1)
        rgb = torch.full((len(t), 3), opacity * gray + (1 - opacity) * scene.background)
        return Rendering(rgb, (weights * t_vals).sum(-1), weights.sum(-1), weights, t_vals)

    return Renderer(render, 512)


def source_of(scene, renderer: Renderer, colors=None, **settings) -> MeshSource:
    box = torch.from_numpy(frusta.surface_box(scene)).float()
    plain = MeshSource(
        scene.name, lambda p: p[:, 0], box, 0.0, "above",
        to_world=lambda p: coordinates.to_world(scene, p), from_world=lambda p: coordinates.from_world(scene, p),
        colors=colors,
    )  # fmt: skip
    return fused_mesh.fused(plain, scene, renderer, FusionSettings(RESOLUTION, **settings))


def meshed(scene, source: MeshSource, **options) -> tuple[np.ndarray, np.ndarray]:
    surface = extract.march(source, ExtractOptions(resolution=RESOLUTION, coarsest=RESOLUTION, **options), "toy")
    return coordinates.to_scene(scene, surface.vertices), surface.faces


@pytest.mark.parametrize("hole", [False, True], ids=["whole", "hole"])
def test_a_wall_is_where_it_is_rendered_and_has_no_hole(scene, hole):
    scene = replace(scene, bounds=scene.bounds.clamp(max=2 * PLANE))
    source = source_of(scene, wall(scene, hole=hole), between=1)
    vertices, _ = meshed(scene, source)
    box = source.box.double().numpy()
    cell = np.ptp(box, axis=0).max() / RESOLUTION * (PLANE**2 / 2 if scene.ndc else 1)
    inner = (np.abs(vertices[:, :2]) < 0.7).all(1)  # not at the borders of images
    off = np.abs(vertices[inner, 2] + PLANE)
    assert np.percentile(off, 90 if hole else 100) < 0.5 * cell
    assert off.max() < cell  # at the border of what is filled
    across = vertices[np.abs(vertices[:, 1]) < 0.3, 0]
    gaps = np.diff(np.sort(across[np.abs(across) < 0.7]))
    assert gaps.max() < 1.5 * cell


def test_what_is_not_filled_stays_open(scene):
    scene = replace(scene, bounds=scene.bounds.clamp(max=2 * PLANE))
    source = source_of(scene, wall(scene, hole=True), no_fill=True)
    vertices, _ = meshed(scene, source)
    assert not (np.abs(vertices[:, 0]) < 0.25).any()
    assert (np.abs(vertices[:, 0]) < 1).any()


def test_rays_that_meet_nothing_have_no_surface(scene):
    (one, *_) = depth_maps.surface_maps(scene, wall(scene, opacity=0.3), depth_maps.viewpoints(scene), 10**6)
    assert (one.level == (1.0 if scene.ndc else 0.0)).all()
    assert (one.weight == 1).all()


def test_masked_pixels_say_nothing(scene):
    masks = torch.ones(len(scene.images), 30, 40, 1, dtype=torch.bool)
    masks[:, :15] = False
    maps = depth_maps.surface_maps(replace(scene, masks=masks), wall(scene), depth_maps.viewpoints(scene), 10**6)
    assert all((each.weight[:15] == 0).all() and (each.weight[15:] == 1).all() for each in maps)
    with pytest.raises(InputError, match="no ray of the training views meets a surface, expected some"):
        source_of(replace(scene, masks=torch.zeros_like(masks)), wall(scene))


def test_a_field_without_a_surface_is_refused_before_the_extraction(scene):
    with pytest.raises(InputError, match="toy: no ray of the training views meets a surface, expected some"):
        source_of(scene, wall(scene, opacity=0.3))


def test_points_at_the_border_of_ndc_are_where_they_are(scene):
    points = torch.tensor([[1.5, -1.2, 0.5], [0.3, 0.1, 1.0]], dtype=torch.float64)
    found = depth_maps._in_scene(scene, points)
    if scene.ndc:
        torch.testing.assert_close(found[0], rays.point_from_ndc(points[0], scene.camera))
        assert -torch.inf < float(found[1, 2]) < -1e6
    else:
        assert torch.equal(found, points)


def test_colors_are_rendered_ones_without_the_background(scene):
    def elsewhere(points, normals):
        return np.full_like(points, 0.9)

    scene = replace(scene, background=1.0)
    source = source_of(scene, wall(scene, opacity=0.75, gray=0.25), elsewhere)
    assert source.colors is not None
    at = np.array([[0.1, -0.1, -PLANE], [0.1, -0.1, -0.6 * PLANE], [50.0, 0.0, -PLANE]])  # on it, before it, beside it
    world = coordinates.apply_transform(np.linalg.inv(scene.world_to_scene.double().numpy()), at)
    found = source.colors(world, np.tile([0.0, 0.0, 1.0], (3, 1)))
    assert found[:, 0].tolist() == pytest.approx([0.25, 0.9, 0.9], abs=1 / 255)


def test_memory_is_bounded_by_the_number_of_rays(scene):
    where = depth_maps.viewpoints(scene, 2)
    assert len(where) == len(scene.train) + 2 * (len(scene.train) - 1)
    assert [each.view for each in where[: len(scene.train)]] == list(scene.train)
    maps = depth_maps.surface_maps(scene, wall(scene), where, 1000)
    assert 600 < sum(each.level.numel() for each in maps) < 1300


def test_parts_that_few_depth_maps_see_are_dropped(scene):
    source = source_of(scene, wall(scene))
    assert source.support is not None
    nobody = replace(source, support=replace(source.support, least=100.0))
    with pytest.raises(InputError, match="toy: found no part that 100 depth maps see, expected one; try --all_parts"):
        meshed(scene, nobody)
    assert len(meshed(scene, nobody, all_parts=True)[1])
    blind = replace(source, support=replace(source.support, views=lambda p: torch.zeros_like(p[:, 0])))
    with pytest.raises(InputError, match="toy: found no part that 1 depth maps see, expected one; train for longer"):
        meshed(scene, blind, all_parts=True)


def test_a_box_without_a_surface_is_one_sentence(scene):
    empty = replace(source_of(scene, wall(scene)), field=lambda p: torch.ones_like(p[:, 0]))
    with pytest.raises(
        InputError, match=r"^toy: found no surface of depth maps in the box, expected one; give another"
    ):
        meshed(scene, empty)


def test_a_shape_has_no_depth_maps(tmp_path):
    with pytest.raises(InputError, match=r"option --method: found 'fusion', expected 'march': .* without cameras"):
        shape_mesh.mesh_source(tmp_path, MeshSourceSettings(fusion=FusionSettings(8)))
