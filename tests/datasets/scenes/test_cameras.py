"""A point on the ray of a pixel is projected to that pixel, for batches of any cameras; which pixels have no ray."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, cameras, projections, rays
from enerf.datasets.scenes.camera_models import MODELS
from enerf.datasets.scenes.cameras import Cameras
from tests.contents import refusal
from tests.datasets.scenes.lenses import ALL, HEIGHT, WIDTH, parameters

light = settings(max_examples=15, deadline=None)
DOUBLE = torch.float64
PINHOLE = Camera(7, 5, 9.0, 6.5, 2.75, 3.1)
MIXED = Cameras(list(ALL.values()))
DEVICE = pytest.mark.parametrize(
    "device",
    ["meta", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)


def _pixels(n: int, views: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    view = torch.randint(views, (n,), generator=generator)
    return (
        view,
        torch.randint(WIDTH, (n,), generator=generator),
        torch.randint(HEIGHT, (n,), generator=generator),
    )


def _positions(x: Tensor, y: Tensor, pixel_centers: float = 0.5) -> Tensor:
    return torch.stack([x, y], -1).double() + pixel_centers


# the table


def test_equal_cameras_are_one_row():
    table = Cameras([ALL["OPENCV"], PINHOLE, dataclasses.replace(ALL["OPENCV"]), PINHOLE])
    assert len(table) == 4
    assert table.rows == (ALL["OPENCV"], PINHOLE)
    assert [table.camera(view) for view in range(4)] == [ALL["OPENCV"], PINHOLE] * 2
    assert table.sizes.tolist() == [[WIDTH, HEIGHT], [7, 5]] * 2
    assert (table.is_single, table.is_plain) == (False, False)
    assert (Cameras([PINHOLE] * 3).is_single, Cameras([PINHOLE] * 3).is_plain) == (True, True)
    assert Cameras([PINHOLE, ALL["SIMPLE_PINHOLE"]]).is_plain


@DEVICE
def test_results_are_on_the_device_of_the_table(device: str):
    table = MIXED.to(device)
    directions = table.directions(*_pixels(9, len(MIXED)))
    pixels, valid = table.project(_pixels(9, len(MIXED))[0], directions)
    assert {part.device.type for part in (directions, pixels, valid, table.sizes)} == {device}
    assert (directions.shape, directions.dtype, pixels.dtype) == ((9, 3), torch.float32, torch.float32)


# directions and projection


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("pixel_centers", [0.5, 0.0])
def test_a_table_of_one_pinhole_is_bit_for_bit_the_formula(dtype: torch.dtype, pixel_centers: float):
    x, y = torch.arange(7).repeat(5), torch.arange(5).repeat_interleave(7)
    found = Cameras([PINHOLE] * 2).directions(torch.ones_like(x), x, y, pixel_centers, dtype)
    cam_x, cam_y = (x.to(dtype) + pixel_centers - 2.75) / 9.0, -(y.to(dtype) + pixel_centers - 3.1) / 6.5
    assert torch.equal(found, torch.stack([cam_x, cam_y, -torch.ones_like(cam_x)], -1))
    c2w = torch.randn(35, 3, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    made = rays.through_pixels(PINHOLE, c2w, x, y, near=0, far=1, pixel_centers=pixel_centers)
    for name, values in vars(rays.posed(found, c2w, near=0, far=1)).items():
        assert torch.equal(values, getattr(made, name)), name


@given(seed=st.integers(0, 2**31), distance=st.floats(0.1, 1e3), pixel_centers=st.sampled_from([0.5, 0.0]))
@light
def test_a_point_on_a_ray_projects_to_its_pixel(seed: int, distance: float, pixel_centers: float):
    view, x, y = _pixels(2000, len(MIXED), seed)
    directions = MIXED.directions(view, x, y, pixel_centers, DOUBLE)
    found = MIXED.valid(view, x, y, pixel_centers)
    assert torch.equal(found, directions.isfinite().all(-1))
    assert found.double().mean() > 0.9
    pixels, valid = MIXED.project(view, distance * directions)
    assert valid[found].all()
    expected = _positions(x, y, pixel_centers)
    torch.testing.assert_close(pixels[found], expected[found], rtol=0, atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_directions_of_perspective_models_have_unit_depth_others_unit_length(model: str):
    directions, found = Cameras([camera_models.resized(ALL[model], 20)]).image(0, dtype=DOUBLE)
    assert found.any()
    if projections.is_perspective(model):
        assert (directions[:, 2] == -1).all()
    else:
        torch.testing.assert_close(directions.norm(dim=-1), torch.ones(len(directions), dtype=DOUBLE))


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"EQUIRECTANGULAR"}))
def test_directions_are_those_of_colmap(model: str):
    pycolmap = pytest.importorskip("pycolmap")
    theirs = pycolmap.Camera(model=model, width=WIDTH, height=HEIGHT, params=parameters(model))
    x, y = torch.meshgrid(torch.arange(200, 800, 60), torch.arange(150, 650, 50), indexing="ij")
    x, y = x.reshape(-1), y.reshape(-1)
    directions = Cameras([ALL[model]]).directions(torch.zeros_like(x), x, y, 0.5, DOUBLE)
    expected = theirs.cam_from_img(np.stack([x + 0.5, y + 0.5], 1).astype(float))
    found = directions[:, :2] * torch.tensor([1.0, -1.0], dtype=DOUBLE) / -directions[:, 2:]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # theirs are iterated until 1e-8 or so


def test_pixels_of_many_cameras_are_those_of_each_alone():
    view, x, y = _pixels(900, len(MIXED), 3)
    directions = MIXED.directions(view, x, y, 0.5, DOUBLE)
    pixels, valid = MIXED.project(view, directions)
    for i, camera in enumerate(ALL.values()):
        own, alone = view == i, Cameras([camera])
        zeros = torch.zeros_like(view[own])
        expected = alone.directions(zeros, x[own], y[own], 0.5, DOUBLE)
        torch.testing.assert_close(directions[own], expected, rtol=0, atol=1e-12, equal_nan=True)
        expected_pixels, expected_valid = alone.project(zeros, directions[own])
        assert torch.equal(valid[own], expected_valid)
        torch.testing.assert_close(
            pixels[own][expected_valid], expected_pixels[expected_valid], rtol=0, atol=1e-9, equal_nan=True
        )


def test_many_lenses_of_one_model_have_their_own_coefficients():
    own = [dataclasses.replace(ALL["OPENCV"], coefficients=(-0.01 * i, 0.001 * i, 1e-4 * i, 0.0)) for i in range(20)]
    table, (view, x, y) = Cameras(own), _pixels(500, 20)
    directions = table.directions(view, x, y, 0.5, DOUBLE)
    pixels, valid = table.project(view, directions)
    assert valid.all()
    torch.testing.assert_close(pixels, _positions(x, y), rtol=0, atol=1e-9)


def test_the_shape_of_a_batch_is_kept():
    view, x, y = (part.reshape(5, 3, 4) for part in _pixels(60, len(MIXED)))
    directions = MIXED.directions(view, x, y)
    assert directions.shape == (5, 3, 4, 3)
    flat = MIXED.directions(view.reshape(-1), x.reshape(-1), y.reshape(-1))
    torch.testing.assert_close(directions.reshape(-1, 3), flat, rtol=0, atol=0, equal_nan=True)
    pixels, valid = MIXED.project(view, directions)
    assert (pixels.shape, valid.shape) == ((5, 3, 4, 2), (5, 3, 4))


@pytest.mark.parametrize("model", ["PINHOLE", "OPENCV", "OPENCV_FISHEYE", "EUCM"])
def test_in_float32_a_large_image_is_exact_to_a_thousandth_of_a_pixel(model: str):
    factor = 6  # 6,000 pixels, whose positions have units in the last place of 5e-4
    camera = camera_models.resized(ALL[model], 1 / factor)
    table, (view, x, y) = Cameras([camera, dataclasses.replace(camera, cx=camera.cx + 1)]), _pixels(4000, 2)
    x, y = factor * x, factor * y
    directions = table.directions(view, x, y)
    assert directions.dtype == torch.float32
    rounded, valid = table.project(view, directions.double())  # the rounding of directions alone
    assert valid.all()
    torch.testing.assert_close(rounded, _positions(x, y), rtol=0, atol=7e-4)
    torch.testing.assert_close(table.project(view, directions)[0].double(), rounded, rtol=0, atol=2.5e-4)


# pixels without a ray


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL", "OPENCV", "FULL_OPENCV"])
def test_pixels_beyond_the_fold_of_barrel_distortion_have_no_ray(model: str):
    """With k = −0.5 the image of the fold is a circle, compared with the radius of each pixel."""
    k, count = -0.5, len(MODELS[model].coefficients)
    camera = Camera(60, 50, 30.0, 30.0, 31.0, 24.0, model, (k, *[0.0] * (count - 1)))
    table = Cameras([camera])
    directions, found = table.image(0, dtype=DOUBLE)
    x, y = (torch.arange(3000) % 60 + 0.5 - 31) / 30, (torch.arange(3000) // 60 + 0.5 - 24) / 30
    fold = 1 / math.sqrt(-3 * k)
    assert torch.equal(found, torch.hypot(x, y) < fold * (1 + k * fold**2))
    assert 0 < found.sum() < 3000
    assert (directions[~found] == torch.tensor([0.0, 0.0, -1.0])).all()
    view, column, row = torch.zeros(3000, dtype=torch.int64), torch.arange(3000) % 60, torch.arange(3000) // 60
    assert torch.equal(table.valid(view, column, row), found)
    assert table.directions(view, column, row)[~found].isnan().all()


def test_the_border_of_a_view_whose_picture_is_a_circle_within_the_image_has_rays():
    circle = Camera(40, 30, 36.0, 36.0, 20.0, 15.0, "FULL_OPENCV", (0.0, 0.0, 0.0, 0.0, -100.0, 0.0, 0.0, 0.0))
    wide = Camera(40, 30, 36.0, 36.0, 20.0, 15.0)
    table = Cameras([wide, circle, circle])
    view, x, y = table.border()
    assert torch.bincount(view).min() >= 4
    assert table.valid(view, x, y, 0).all()
    corners = {(0, 0), (40, 0), (0, 30), (40, 30)}
    assert corners <= {(a, b) for i, a, b in zip(view.tolist(), x.tolist(), y.tolist(), strict=True) if i == 0}
    assert (torch.hypot((x[view > 0] - 20.0), (y[view > 0] - 15.0)) < 12).all()


def test_points_behind_the_camera_or_the_fold_are_not_projected():
    table = Cameras([ALL["OPENCV"], Camera(60, 50, 30, 30, 30, 25, "SIMPLE_RADIAL", (-0.5,)), ALL["FISHEYE"]])
    view = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    angles = torch.deg2rad(torch.tensor([10.0, 170.0, 39.0, 39.5, 60.0, 100.0, 175.0, 180.0], dtype=DOUBLE))
    points = torch.stack([angles.sin(), 0 * angles, -angles.cos()], -1)
    points[-1] = torch.tensor([0.0, 0.0, 1.0])
    assert table.project(view, points)[1].tolist() == [True, False, True, False, False, True, True, False]
    assert math.degrees(math.atan(1 / math.sqrt(1.5))) == pytest.approx(39.23, abs=0.01)


def test_an_equirectangular_image_shows_all_directions():
    table = Cameras([Camera(8, 4, 4 / math.pi, 4 / math.pi, 4, 2, "EQUIRECTANGULAR")])
    x, y = torch.tensor([4.0, 6.0, 2.0, 0.0, 4.0]), torch.tensor([2.0, 2.0, 2.0, 2.0, 0.0])
    found = table.directions(torch.zeros(5, dtype=torch.int64), x, y, 0, DOUBLE)
    forward, right, left, back, up = found
    assert torch.allclose(torch.stack([forward, back]), torch.tensor([[0.0, 0, -1], [0, 0, 1]], dtype=DOUBLE))
    assert torch.allclose(torch.stack([right, left]), torch.tensor([[1.0, 0, 0], [-1, 0, 0]], dtype=DOUBLE))
    assert torch.allclose(up, torch.tensor([0.0, 1, 0], dtype=DOUBLE))
    assert table.image(0)[1].all()


@pytest.mark.parametrize("model", [model for model in MODELS if MODELS[model].coefficients])
def test_absurd_coefficients_raise_no_error_and_give_no_wrong_ray(model: str):
    usual = camera_models.resized(ALL[model], 50)
    position = torch.arange(usual.width * usual.height)
    expected = _positions(position % usual.width, position // usual.width)
    for value in (1e9, -1e9, 1e-300, 3.0, -3.0):
        camera = dataclasses.replace(usual, coefficients=(value,) * len(usual.coefficients))
        with contextlib.suppress(InputError):
            cameras.check(camera, "camera")
            table = Cameras([camera])
            directions, found = table.image(0, dtype=DOUBLE)
            pixels, valid = table.project(torch.zeros_like(position), directions)
            assert valid[found].all()
            torch.testing.assert_close(pixels[found], expected[found], rtol=0, atol=1e-6)
            assert cameras.undistorted(camera).model == "PINHOLE"


# pinholes that stand for others


@pytest.mark.parametrize("model", MODELS)
def test_an_undistorted_camera_sees_nothing_that_the_camera_does_not(model: str):
    camera = ALL[model]
    plain = cameras.undistorted(camera)
    assert (plain.width, plain.height, plain.cx, plain.cy) == (camera.width, camera.height, camera.cx, camera.cy)
    assert plain.fx / plain.fy == pytest.approx(camera.fx / camera.fy)
    edges = torch.tensor([[0.0, plain.cy], [WIDTH, plain.cy], [plain.cx, 0], [plain.cx, HEIGHT]], dtype=DOUBLE)
    directions = projections.pinhole_directions(plain, edges[:, 0], edges[:, 1], 0)
    assert (directions[:, :2].norm(dim=-1) <= math.tan(cameras.WIDEST_PINHOLE) * (1 + 1e-9)).all()
    pixels, valid = Cameras([camera]).project(torch.zeros(4, dtype=torch.int64), directions)
    slack = 0.02 * WIDTH  # decentering bends the axes of the image
    assert valid.all()
    assert (pixels > -slack).all()
    assert (pixels < torch.tensor([WIDTH, HEIGHT]) + slack).all()
    if model not in ("EQUIRECTANGULAR",):
        at_an_edge = (pixels - edges).abs().amin(-1) < slack
        assert at_an_edge.any()


def test_a_pinhole_is_its_own_undistorted_camera():
    assert cameras.undistorted(PINHOLE) == PINHOLE
    assert cameras.undistorted(ALL["SIMPLE_PINHOLE"]) == Camera(WIDTH, HEIGHT, 520.0, 520.0, 510.0, 395.0)


def test_the_reference_of_one_camera_is_its_own_and_of_several_the_median():
    assert cameras.reference(Cameras([PINHOLE] * 3)) == PINHOLE
    sizes = [(100, 80), (100, 80), (200, 160), (50, 40), (100, 80)]
    focal = [0.9, 1.3, 1.0, 1.1, 0.8]
    views = [Camera(w, h, f * w, 1.1 * f * w, 0.5 * w, 0.4 * h) for (w, h), f in zip(sizes, focal, strict=True)]
    found = cameras.reference(Cameras(views))
    assert (found.width, found.height, found.model) == (100, 80, "PINHOLE")
    assert (found.fx, found.fy, found.cx, found.cy) == pytest.approx((100.0, 110.0, 50.0, 32.0))


# checks


def test_cameras_of_all_models_are_valid():
    for camera in (*ALL.values(), PINHOLE):
        cameras.check(camera, "camera")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "LENS"}, "found the camera model 'LENS', expected one of SIMPLE_PINHOLE"),
        ({"width": 0}, "found an image of 0 x 800 pixels, expected at least 1 x 1"),
        ({"fx": 0.0}, "found the focal length fx = 0, expected a finite number above 0"),
        ({"fy": math.nan}, "found the focal length fy = nan"),
        ({"fy": math.inf}, "found the focal length fy = inf"),
        ({"cx": 2001.0}, "found the principal point cx = 2001 in an image of 1000 x 800 pixels"),
        ({"cy": -801.0}, "expected a number between -800 and 1600"),
        ({"cy": math.nan}, "found the principal point cy = nan"),
        (
            {"coefficients": (0.1,)},
            "found 1 distortion coefficients of the camera model OPENCV, expected 4: k1, k2, p1, p2",
        ),
        ({"coefficients": (0.1, math.nan, 0.0, 0.0)}, "found the distortion coefficient k2 = nan"),
        ({"coefficients": (0.1, 0.0, math.inf, 0.0)}, "found the distortion coefficient p1 = inf"),
        ({"coefficients": (0.1, 0.0, 0.0, 1e10)}, "expected a number between -1e+09 and 1e+09"),
        ({"model": "EUCM", "coefficients": (1.5, 1.0)}, "alpha = 1.5 and beta = 1"),
        ({"model": "FOV", "coefficients": (3.2,)}, "omega = 3.2"),
    ],
)
def test_what_no_camera_has_is_refused(changed: dict, words: str):
    message = refusal(cameras.check, dataclasses.replace(ALL["OPENCV"], **changed), "cameras.bin, camera 3")
    assert message.startswith("cameras.bin, camera 3: ")
    assert words in message
