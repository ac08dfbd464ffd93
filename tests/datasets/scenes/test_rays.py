"""A point on a pixel's ray projects to that pixel, in scene space and in NDC."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.core.types import Camera, Rays
from enerf.datasets.scenes import camera_models, rays
from enerf.datasets.scenes.cameras import Cameras

CAMERA = Camera(7, 5, 9.0, 6.5, 2.75, 3.1)  # the principal point is off the center, and fx is not fy
SEEDS = st.integers(0, 2**31)
CENTERS = pytest.mark.parametrize("pixel_centers", [0.5, 0.0])
light = settings(max_examples=25, deadline=None)


def _pose(seed: int, tilt: float = 10.0) -> Tensor:
    """A random pose; a small ``tilt`` leaves it looking down −z."""
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(torch.eye(3, dtype=torch.float64) + tilt * noise[:, :3])
    q = q * r.diagonal().sign()
    return torch.cat([q * torch.linalg.det(q), noise[:, 3:]], -1)


def _turned(degrees: float) -> Tensor:
    """A camera at the origin, turned about the y axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0]], dtype=torch.float64)


def _project(points: Tensor, camera: Camera, c2w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel coordinates and depth of points, from the definition of a pinhole camera."""
    right, up, back = ((points - c2w[:, 3]) @ c2w[:, :3]).unbind(-1)
    return camera.cx - camera.fx * right / back, camera.cy + camera.fy * up / back, -back


def _slow_rays(camera: Camera, c2w: Tensor, pixel_centers: float) -> tuple[Tensor, Tensor, Tensor]:
    """Origins, directions and viewdirs, one ray at a time."""
    pose, rows = c2w.tolist(), []
    for y in range(camera.height):
        for x in range(camera.width):
            d = (
                (x + pixel_centers - camera.cx) / camera.fx,
                -(y + pixel_centers - camera.cy) / camera.fy,
                -1.0,
            )
            world = [sum(pose[i][j] * d[j] for j in range(3)) for i in range(3)]
            length = math.sqrt(sum(v * v for v in world))
            rows.append(([pose[i][3] for i in range(3)], world, [v / length for v in world]))
    origins, directions, viewdirs = zip(*rows, strict=True)
    return tuple(torch.tensor(part, dtype=torch.float64) for part in (origins, directions, viewdirs))


def _assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


# pixels to rays


@CENTERS
@given(seed=SEEDS)
@light
def test_a_point_on_a_ray_projects_to_its_pixel_at_depth_t(pixel_centers: float, seed: int):
    c2w = _pose(seed)
    made = rays.of_image(CAMERA, c2w, 0.1, 9.0, pixel_centers)
    t_vals = torch.tensor([0.3, 1.0, 8.0], dtype=torch.float64).expand(len(made), 3)
    x, y, depth = _project(made.at(t_vals), CAMERA, c2w)
    index = torch.arange(len(made))[:, None].expand(-1, 3)
    torch.testing.assert_close(x, index % 7 + pixel_centers + 0.0 * x, rtol=0, atol=1e-11)
    torch.testing.assert_close(y, index // 7 + pixel_centers + 0.0 * y, rtol=0, atol=1e-11)
    torch.testing.assert_close(depth, t_vals, rtol=1e-11, atol=0)


@CENTERS
def test_rays_are_those_of_a_slow_loop(pixel_centers: float):
    made = rays.of_image(CAMERA, _pose(3), 0.25, 4.0, pixel_centers)
    origins, directions, viewdirs = _slow_rays(CAMERA, _pose(3), pixel_centers)
    _assert_close(made.origins, origins)
    _assert_close(made.directions, directions)
    _assert_close(made.viewdirs, viewdirs)
    assert (made.near == 0.25).all()
    assert (made.far == 4.0).all()


@given(seed=SEEDS)
@light
def test_viewdirs_are_unit_and_along_the_directions(seed: int):
    made = rays.of_image(CAMERA, _pose(seed), 0, 1)
    _assert_close(made.viewdirs.norm(dim=-1), torch.ones(35, dtype=torch.float64))
    _assert_close(made.viewdirs * made.directions.norm(dim=-1, keepdim=True), made.directions)


@CENTERS
def test_a_picture_is_its_pixels_row_by_row(pixel_centers: float):
    c2w = _pose(1)
    whole = rays.of_image(CAMERA, c2w, 0, 1, pixel_centers)
    assert len(whole) == 7 * 5
    y, x = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    one_by_one = rays.through_pixels(CAMERA, c2w.expand(5, 7, 3, 4), x, y, near=0, far=1, pixel_centers=pixel_centers)
    for name, values in vars(one_by_one).items():
        assert torch.equal(getattr(whole, name), values.flatten(0, 1)), name


def test_each_pixel_has_a_pose_of_its_own():
    c2w = torch.stack([_pose(1), _pose(2)])
    x, y = torch.tensor([6, 2]), torch.tensor([0, 4])
    both = rays.through_pixels(CAMERA, c2w, x, y, near=0, far=1)
    for i in range(2):
        alone = rays.of_image(CAMERA, c2w[i], 0, 1)[y[i] * 7 + x[i] + torch.arange(1)]
        assert torch.equal(both.directions[i], alone.directions[0])
        assert torch.equal(both.origins[i], c2w[i, :, 3])


def test_a_center_lies_half_a_pixel_from_the_corner():
    corner = rays.of_image(CAMERA, _turned(0), 0, 1, 0.0).directions
    center = rays.of_image(CAMERA, _turned(0), 0, 1, 0.5).directions
    half = torch.tensor([0.5 / 9.0, -0.5 / 6.5, 0.0], dtype=torch.float64)
    _assert_close(center - corner, half.expand(35, 3))


@pytest.mark.parametrize(
    "device",
    [
        "meta",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
    ],
)
def test_rays_live_where_the_poses_do_wherever_the_pixels_come_from(device: str):
    c2w, x = _pose(0).to(device).expand(4, 3, 4), torch.arange(4)
    made = rays.through_pixels(CAMERA, c2w, x, x, near=0, far=1)
    assert {part.device.type for part in vars(made).values()} == {device}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rays_have_the_precision_of_the_poses(dtype: torch.dtype):
    made = rays.to_ndc(rays.of_image(CAMERA, _turned(0).to(dtype), 0, 1), CAMERA)
    assert {part.dtype for part in vars(made).values()} == {dtype}


# smaller pictures


@given(factor=st.floats(0.3, 20.0) | st.integers(1, 9))
@light
def test_a_resized_camera_keeps_its_field_of_view(factor: float):
    small = camera_models.resized(CAMERA, factor)
    assert (small.width, small.height) == (max(1, int(7 / factor)), max(1, int(5 / factor)))
    for a, b in (
        (small.cx / small.fx, CAMERA.cx / CAMERA.fx),
        (small.cy / small.fy, CAMERA.cy / CAMERA.fy),
        (small.width / small.fx, CAMERA.width / CAMERA.fx),
        (small.height / small.fy, CAMERA.height / CAMERA.fy),
    ):
        assert math.isclose(a, b, rel_tol=1e-12)


def test_a_picture_of_the_same_size_has_the_same_camera():
    assert camera_models.resized(CAMERA, 1) == CAMERA


def test_a_resized_camera_keeps_its_model_and_coefficients():
    small = camera_models.resized(dataclasses.replace(CAMERA, model="RADIAL", coefficients=(0.1, 0.2)), 2)
    assert (small.width, small.model, small.coefficients) == (3, "RADIAL", (0.1, 0.2))


# normalized device coordinates


def _forward(seed: int, near: float = 1.0) -> tuple[Rays, Rays]:
    """Rays that all go down −z, in scene space and in NDC."""
    scene_rays = rays.of_image(CAMERA, _pose(seed, tilt=0.05), 0, 1)
    return scene_rays, rays.to_ndc(scene_rays, CAMERA, near)


@given(seed=SEEDS, near=st.sampled_from([0.5, 1, 2.5]))
@light
def test_points_on_a_scene_ray_lie_on_its_ndc_ray_at_one_minus_near_over_depth(seed: int, near: float):
    scene_rays, ndc_rays = _forward(seed, near)
    depths = near * torch.tensor([1.0, 1.7, 40.0, 1e6], dtype=torch.float64)
    t_vals = (-depths - scene_rays.origins[:, 2:]) / scene_rays.directions[:, 2:]
    points = rays.point_to_ndc(scene_rays.at(t_vals), CAMERA, near)
    on_ndc_ray = ndc_rays.at((1 - near / depths).expand(len(ndc_rays), 4))
    torch.testing.assert_close(points, on_ndc_ray, rtol=1e-9, atol=1e-9)


@given(seed=SEEDS)
@light
def test_the_near_plane_is_z_minus_one_and_infinity_z_one(seed: int):
    _, ndc_rays = _forward(seed)
    ends = ndc_rays.at(torch.stack([ndc_rays.near, ndc_rays.far], -1))[..., 2]
    _assert_close(ends, torch.tensor([-1.0, 1.0], dtype=torch.float64).expand_as(ends))
    assert (ndc_rays.near == 0).all()
    assert (ndc_rays.far == 1).all()


def test_rays_in_ndc_are_those_of_a_slow_loop():
    scene_rays, ndc_rays = _forward(7, near=1.5)
    sx, sy = CAMERA.width / (2 * CAMERA.fx), CAMERA.height / (2 * CAMERA.fy)
    for i in range(len(scene_rays)):
        o, d = scene_rays.origins[i].tolist(), scene_rays.directions[i].tolist()
        t = -(1.5 + o[2]) / d[2]
        x, y, z = (o[k] + t * d[k] for k in range(3))
        at_axis = 2 * CAMERA.cx / CAMERA.width - 1, 1 - 2 * CAMERA.cy / CAMERA.height
        origin = [at_axis[0] - x / (sx * z), at_axis[1] - y / (sy * z), 1 + 2 * 1.5 / z]
        direction = [-(d[0] / d[2] - x / z) / sx, -(d[1] / d[2] - y / z) / sy, -2 * 1.5 / z]
        _assert_close(ndc_rays.origins[i], torch.tensor(origin, dtype=torch.float64))
        _assert_close(ndc_rays.directions[i], torch.tensor(direction, dtype=torch.float64))


def test_the_frustum_becomes_the_cube():
    camera = Camera(8, 6, 5.0, 7.0, 4.0, 3.0)
    corners = [[x, y] for x in (-4 / 5, 4 / 5) for y in (-3 / 7, 3 / 7)]
    for depth in (1.0, 3.0, 1e9):
        points = depth * torch.tensor([[*corner, -1.0] for corner in corners], dtype=torch.float64)
        cube = rays.point_to_ndc(points, camera)
        _assert_close(cube[:, :2], torch.tensor(corners, dtype=torch.float64).sign())
        _assert_close(cube[:, 2], torch.full((4,), 1 - 2 / depth, dtype=torch.float64))


def test_the_image_of_an_off_center_camera_becomes_the_cube_at_any_depth():
    """The corners of pixels at the image's edges are mapped to −1 and 1, all others linearly between."""
    grown = dataclasses.replace(CAMERA, width=8, height=6)  # its pixels' corners are those of CAMERA
    made = rays.of_image(grown, _turned(0), 0, 1, 0.0)
    for depth in (1.0, 3.0, 1e9):
        ndc = rays.point_to_ndc(depth * made.directions, CAMERA).reshape(6, 8, 3)
        _assert_close(ndc[..., 0], torch.linspace(-1, 1, 8, dtype=torch.float64).expand(6, 8))
        _assert_close(ndc[..., 1], torch.linspace(1, -1, 6, dtype=torch.float64)[:, None].expand(6, 8))
        _assert_close(ndc[..., 2], torch.full((6, 8), 1 - 2 / depth, dtype=torch.float64))


@given(width=st.integers(1, 9000), factor=st.floats(0.2, 20.0))
@light
def test_a_centered_camera_has_no_shear_in_ndc_however_it_was_resized(width: int, factor: float):
    camera = Camera(width, 2 * width + 1, 7.0, 8.0, width / 2, (2 * width + 1) / 2)
    assert rays.ndc_shear(camera) == (0, 0)
    assert rays.ndc_shear(camera_models.resized(camera_models.resized(camera, factor), 1.7)) == (0, 0)


def test_ndc_of_a_centered_camera_is_bit_for_bit_that_of_the_formula():
    camera = Camera(12, 9, 11.0, 13.0, 6.0, 4.5)
    made = rays.of_image(camera, _pose(3, tilt=0.05).float(), 0, 1)
    ndc = rays.to_ndc(made, camera)
    shift = -(1.0 + made.origins[..., 2]) / made.directions[..., 2]
    x, y, z = (made.origins + shift[..., None] * made.directions).unbind(-1)
    origins = [-2.0 * 11.0 / 12 * x / z, -2.0 * 13.0 / 9 * y / z, 1.0 + 2.0 / z]
    assert torch.equal(ndc.origins, torch.stack(origins, -1))


def test_viewdirs_are_taken_before_ndc():
    scene_rays, ndc_rays = _forward(2)
    assert torch.equal(ndc_rays.viewdirs, scene_rays.viewdirs)


@pytest.mark.parametrize(
    ("degrees", "forward"), [(0, True), (40, True), (-40, True), (50, False), (-50, False), (180, False)]
)
def test_a_camera_of_ninety_degrees_looks_forward_until_its_edge_does_not(degrees: float, forward: bool):
    camera = Camera(8, 2, 4.0, 4.0, 4.0, 1.0)
    assert rays.all_forward(Cameras([camera]), _turned(degrees)[None]) is forward


@pytest.mark.parametrize("axes", [[0, 1, 2], [1, 0, 2]], ids=["across", "down"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_camera_looks_forward_exactly_as_long_as_its_last_pixel_corner_does(axes: list[int], sign: int):
    camera = Camera(8, 8, 4.0, 4.0, 4.0, 4.0)  # 45 degrees to each side
    for beyond in (-1e-3, -1e-9, 1e-9, 1e-3):
        c2w = _turned(sign * (45 + beyond))[axes][:, [*axes, 3]]
        assert rays.all_forward(Cameras([camera]), c2w[None]) is (beyond < 0)


def test_one_view_that_looks_elsewhere_is_enough():
    assert rays.all_forward(Cameras([CAMERA] * 2), torch.stack([_turned(0), _turned(5)]))
    assert not rays.all_forward(Cameras([CAMERA] * 2), torch.stack([_turned(0), _turned(170)]))


@given(seed=SEEDS, tilt=st.floats(0.1, 2.0))
@light
def test_all_forward_is_what_the_rays_of_all_pixel_corners_say(seed: int, tilt: float):
    c2w = _pose(seed, tilt)
    grown = Camera(8, 6, *list(vars(CAMERA).values())[2:])  # its pixels' corners are those of CAMERA
    by_rays = bool((rays.of_image(grown, c2w, 0, 1, 0.0).directions[:, 2] < 0).all())
    assert rays.all_forward(Cameras([CAMERA]), c2w[None]) is by_rays
