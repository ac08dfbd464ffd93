"""Fusion of depth maps of analytic scenes: where the surface comes out, what is closed, what is left open."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from enerf.core.types import Camera
from enerf.datasets.scenes import rays
from enerf.datasets.scenes.cameras import Cameras
from enerf.geometry import cleanup, fusion, topology
from enerf.geometry.fusion import FusedDepths, SurfaceMap, Truncation
from enerf.geometry.isosurface import extract
from enerf.geometry.isosurface.extract import ExtractionSettings

PINHOLE = Camera(96, 72, 80.0, 80.0, 48.0, 36.0)
DISTORTED = Camera(96, 72, 80.0, 82.0, 47.0, 37.0, "OPENCV", (-0.15, 0.02, 0.001, -0.001))
FISHEYE = Camera(96, 96, 40.0, 40.0, 48.0, 48.0, "OPENCV_FISHEYE", (0.01, 0.0, 0.0, 0.0))
RADIUS = 1.0


def looking_at_origin(center: np.ndarray) -> torch.Tensor:
    back = center / np.linalg.norm(center)
    right = np.cross([0.0, 0.1, 1.0] if abs(back[2]) < 0.9 else [0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    return torch.from_numpy(np.stack([right, np.cross(back, right), back, center], 1)).float()


def sphere_map(camera: Camera, c2w: torch.Tensor) -> SurfaceMap:
    """Levels of the unit sphere at the origin; rays beside it meet nothing."""
    all_rays = rays.of_image(camera, c2w, 0.0, 10.0)
    origin, unit = c2w[:, 3].double(), all_rays.viewdirs.double()
    along, square = -(unit @ origin), origin @ origin
    inside = RADIUS**2 - square + along**2
    distance = along - inside.clamp(min=0).sqrt()
    level = torch.where(inside > 0, -1 / distance, 0.0).float().reshape(camera.height, camera.width)
    weight = Cameras([camera]).has_ray(0).float().reshape(level.shape)
    return SurfaceMap(camera, c2w, level, weight)


def around(camera: Camera, distance: float = 3.0) -> list[SurfaceMap]:
    axes = np.concatenate([np.eye(3), -np.eye(3), np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T])
    return [sphere_map(camera, looking_at_origin(distance * axis / np.linalg.norm(axis))) for axis in axes]


@pytest.mark.parametrize("camera", [PINHOLE, DISTORTED, FISHEYE], ids=["pinhole", "distorted", "fisheye"])
def test_a_sphere_comes_out_closed_within_half_a_cell(camera):
    cell = 3.0 / 48
    field = FusedDepths(around(camera), Truncation(3 * cell))
    box = torch.tensor([[-1.5] * 3, [1.5] * 3])
    found = extract.extract(field, box, ExtractionSettings(48, 0.0, inside="below", coarsest=24))
    near = field.views_near(torch.from_numpy(found.vertices).float()).numpy() > 0
    vertices, faces = cleanup.keep(found.vertices, found.faces, near)  # not where the images end
    off = np.abs(np.linalg.norm(vertices, axis=1) - RADIUS)
    assert np.percentile(off, 98) < 0.5 * cell
    assert off.max() < cell  # a pixel is 0.4 cells, more where the sphere is seen edge-on
    assert off.mean() < 0.2 * cell
    assert not topology.edges(faces).boundary.any()
    assert topology.parts(faces)[0] == 1


def ndc_map(shift: float, *, hole: bool = False, pixel_centers: float = 0.5) -> SurfaceMap:
    """Levels, z in NDC, of the slanted plane z = −4 + 0.5 x from a camera that is moved along x."""
    c2w = torch.eye(4)[:3].clone()
    c2w[0, 3] = shift
    all_rays = rays.of_image(PINHOLE, c2w, 0.0, 10.0, pixel_centers)
    t = (4 - 0.5 * shift) / (0.5 * all_rays.directions[:, 0] - all_rays.directions[:, 2])
    z = (all_rays.origins + t[:, None] * all_rays.directions)[:, 2]
    level = (1 + 2 / z).reshape(PINHOLE.height, PINHOLE.width)
    known = np.ones(level.shape, bool)
    if hole:
        known[20:45, 30:60] = False
        level = torch.from_numpy(fusion.filled(np.where(known, level.numpy(), np.float32(1)), known))
    weight = torch.from_numpy(np.where(known, 1.0, 0.1)).float()
    return SurfaceMap(PINHOLE, c2w, level, weight, pixel_centers=pixel_centers)


@pytest.mark.parametrize("hole", [False, True])
def test_a_slanted_wall_is_a_plane_in_ndc_also_where_depths_are_filled(hole):
    field = FusedDepths([ndc_map(x, hole=hole) for x in (-0.2, 0.0, 0.2)], Truncation(0.1), PINHOLE)
    box = torch.tensor([[-0.7, -0.7, -0.5], [0.7, 0.7, 0.95]])
    found = extract.extract(field, box, ExtractionSettings(48, 0.0, inside="below", coarsest=24))
    points = rays.point_from_ndc(torch.from_numpy(found.vertices), PINHOLE)
    plane_z = 1 + 2 / (-4 + 0.5 * points[:, 0]).numpy()
    off = np.abs(found.vertices[:, 2] - plane_z)
    assert off.max() < 0.5 * 1.45 / 48
    across = found.vertices[:, :2]
    assert topology.parts(found.faces)[0] == 1
    cells = np.zeros((20, 20), bool)
    cells[tuple(np.clip(((across + 0.7) / 1.4 * 20).astype(int), 0, 19).T)] = True
    assert cells.all()  # no hole


def test_a_map_says_nothing_behind_its_surface_nor_outside_of_its_image():
    one = sphere_map(PINHOLE, looking_at_origin(np.array([0.0, 0.0, 3.0])))
    field = FusedDepths([one], Truncation(0.2))
    points = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 1.05], [0.0, 0.0, 0.95], [0.0, 0.0, -2.0], [9.0, 0.0, 2.0]])
    values = field(points)
    assert values[0] == 1
    assert 0 < float(values[1]) < 1
    assert -1 < float(values[2]) < 0
    assert values[3:].tolist() == [fusion.UNSEEN] * 2
    assert field.views_near(points).tolist() == [0, 1, 1, 0, 0]
    blank = SurfaceMap(one.camera, one.c2w, one.level, torch.zeros_like(one.weight))
    assert FusedDepths([blank], Truncation(0.2))(points).tolist() == [fusion.UNSEEN] * 5


def test_nothing_is_interpolated_between_a_near_and_a_far_surface():
    level = torch.full((8, 8), -1 / 2.0)
    level[:, 4:] = -1 / 8.0
    camera = Camera(8, 8, 8.0, 8.0, 4.0, 4.0)
    c2w = torch.eye(4)[:3]
    field = FusedDepths([SurfaceMap(camera, c2w, level, torch.ones(8, 8))], Truncation(0.2))
    depth = torch.linspace(2.3, 7.5, 50)
    x = torch.linspace(3.6, 4.4, 9)[:, None]
    points = torch.stack([(x - 4) / 8 * depth, torch.zeros_like(x * depth), -depth.expand(9, 50)], -1).reshape(-1, 3)
    values = field(points)
    assert set(values[values > -1].tolist()) == {1.0}


@pytest.mark.parametrize("pixel_centers", [0.5, 0.0])
def test_levels_are_where_the_rays_of_pixels_are(pixel_centers):
    """A slanted plane in NDC, whose levels are linear in the image, is found exactly with rays anywhere in pixels."""
    one = ndc_map(0.1, pixel_centers=pixel_centers)
    field = FusedDepths([one], Truncation(0.1), PINHOLE)
    x, y = torch.meshgrid(torch.linspace(-1, 1, 9), torch.linspace(-0.8, 0.8, 7), indexing="xy")
    at = torch.stack([x.flatten(), y.flatten(), -4 + 0.5 * x.flatten()], 1)
    values = field(rays.point_to_ndc(at, PINHOLE))
    assert float(values.abs().max()) < 1e-3  # half a pixel is 0.015


def test_colors_are_those_of_the_maps_that_see_a_point():
    """Maps that the ball hides a point from, and those without colors, do not count; colors are those of normals."""
    maps = []
    for one in around(PINHOLE):
        all_rays = rays.of_image(one.camera, one.c2w, 0.0, 10.0)
        distance = -1 / one.level.reshape(-1, 1).clamp(max=-1e-3)
        normals = all_rays.origins + distance * all_rays.viewdirs
        rgb = (127.5 + 127.5 * normals).round().clamp(0, 255).byte().reshape(*one.level.shape, 3)
        maps.append(replace(one, rgb=rgb))
    points = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    found, weight = FusedDepths([*maps, around(PINHOLE)[0]], Truncation(0.2)).colors(points, points)
    assert float(weight.min()) > 0
    assert float((found - (0.5 + 0.5 * points)).abs().max()) < 0.03
    top = max(range(6), key=lambda i: float(maps[i].c2w[2, 3]))
    alone, seen = FusedDepths([maps[top]], Truncation(0.2)).colors(points, points)
    assert bool((seen[points[:, 2] < 0] == 0).all())  # behind the horizon
    assert bool((seen[points[:, 2] > 0.6] > 0).all())
    assert float((alone - found)[points[:, 2] > 0.6].abs().max()) < 0.05
    assert not FusedDepths(around(PINHOLE), Truncation(0.2)).colors(points, points)[1].any()


def test_the_map_that_sees_a_point_best_counts_most():
    """Two cameras see a plane, of one color each: the nearer and more frontal one prevails, both count."""
    center = torch.tensor([[0.0, 0.0, 0.0]])
    maps = []
    for place, value in (([0.0, 0.0, 2.0], 200), ([2.0, 0.0, 2.0], 0)):
        c2w = looking_at_origin(np.array(place))
        all_rays = rays.of_image(PINHOLE, c2w, 0.0, 10.0)
        distance = -c2w[2, 3] / all_rays.viewdirs[:, 2]  # to the plane z = 0
        level = (-1 / distance).reshape(PINHOLE.height, PINHOLE.width)
        rgb = torch.full((*level.shape, 3), value, dtype=torch.uint8)
        maps.append(SurfaceMap(PINHOLE, c2w, level, torch.ones_like(level), rgb))
    found, _ = FusedDepths(maps, Truncation(0.3)).colors(center, torch.tensor([[0.0, 0.0, 1.0]]))
    ratio = (2**-0.5 / 2) ** 2  # of pixels per area: the cosine over the square of the distance, squared
    assert found[0].tolist() == pytest.approx([200 / 255 / (1 + ratio)] * 3, abs=1e-3)


def test_filling_is_linear_in_planes_and_keeps_what_is_known():
    y, x = np.mgrid[:60, :80].astype(np.float32)
    plane = 0.01 * x - 0.02 * y
    known = np.ones(plane.shape, bool)
    known[15:50, 20:70] = False
    found = fusion.filled(np.where(known, plane, np.float32(9)), known)
    assert np.abs(found - plane).max() < 0.03  # of a range of 0.8 in the hole
    np.testing.assert_array_equal(found[known], plane[known])
    np.testing.assert_array_equal(fusion.filled(plane, np.zeros_like(known)), plane)


def test_single_pixels_that_differ_are_replaced():
    level = np.zeros((9, 9), np.float32)
    level[4, 4] = 1
    assert not fusion.without_speckles(level).any()
