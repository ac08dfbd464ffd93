"""Names and parameters are COLMAP's, and so is the projection; a ray that is found is projected to its pixel again."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.core.types import Camera
from enerf.datasets.scenes import projections, undistortion
from enerf.datasets.scenes.camera_models import MODELS, camera_from_parameters, parameters_of
from tests.contents import refusal
from tests.datasets.scenes.lenses import ALL, COEFFICIENTS, HEIGHT, WIDTH, parameters

light = settings(max_examples=25, deadline=None)
lighter = settings(max_examples=6, deadline=None)
SCALES = {  # coefficients of strong distortions, in either direction
    "RADIAL": (0.6, 0.4),
    "OPENCV": (0.6, 0.4, 0.01, 0.01),
    "FULL_OPENCV": (0.6, 0.4, 0.01, 0.01, 0.2, 0.4, 0.2, 0.1),
    "OPENCV_FISHEYE": (0.2, 0.1, 0.05, 0.02),
    "THIN_PRISM_FISHEYE": (0.2, 0.1, 0.01, 0.01, 0.05, 0.02, 0.01, 0.01),
    "RAD_TAN_THIN_PRISM_FISHEYE": (0.3, 0.2, 0.1, 0.1, 0.05, 0.02, *(0.01,) * 6),
}
WIDE = ("FISHEYE", "FOV", "DIVISION", "EUCM")  # with a closed form
STRONG = pytest.mark.parametrize("family", SCALES)


def _double(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _coefficients(family: str, seed: int, n: int = 20) -> Tensor:
    noise = torch.rand(n, len(SCALES[family]), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * noise - 1) * _double(SCALES[family])


def _disc(radius: Tensor, seed: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row, and random points of a disc for each of the radii."""
    generator = torch.Generator().manual_seed(seed)
    share, turn = torch.rand(2, len(radius) * n, generator=generator, dtype=torch.float64)
    row = torch.arange(len(radius)).repeat_interleave(n)
    r, angle = radius[row] * share.sqrt(), 2 * math.pi * turn
    return row, r * angle.cos(), r * angle.sin()


# names and parameters


def test_names_numbers_and_parameters_are_those_of_colmap():
    pycolmap = pytest.importorskip("pycolmap")
    for name, model in MODELS.items():
        theirs = pycolmap.Camera(model=name, width=WIDTH, height=HEIGHT, params=parameters(name))
        assert (name, model.colmap_id) == (model.name, int(theirs.model))
        assert list(model.parameters) == theirs.params_info.replace(" ", "").split(",")
    assert {name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"} == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_parameters_there_and_back(model: str):
    assert parameters_of(ALL[model]) == parameters(model)
    assert len(ALL[model].coefficients) == len(MODELS[model].coefficients)


def test_an_equirectangular_camera_sees_everything_at_equal_angles():
    found = camera_from_parameters("EQUIRECTANGULAR", 8, 4, (8, 4))
    assert found == Camera(8, 4, 4 / math.pi, 4 / math.pi, 4.0, 2.0, "EQUIRECTANGULAR")


def test_wrong_parameters_are_refused_with_the_right_ones():
    assert "'PINHOL', expected one of SIMPLE_PINHOLE, PINHOLE" in refusal(
        camera_from_parameters, "PINHOL", 8, 4, (1, 2, 3), "a.bin"
    )
    assert refusal(camera_from_parameters, "RADIAL", 8, 4, (1, 2, 3), "a.bin, camera 2") == (
        "a.bin, camera 2: found 3 parameters of the camera model RADIAL, expected 5: f, cx, cy, k1, k2"
    )
    assert "9 x 4 pixels" in refusal(camera_from_parameters, "EQUIRECTANGULAR", 8, 4, (9, 4))
    assert "7 and 8" in refusal(parameters_of, Camera(8, 6, 7, 8, 4, 3, "SIMPLE_RADIAL", (0.1,)))


# agreement with COLMAP


@pytest.mark.parametrize("model", MODELS)
def test_projection_is_that_of_colmap(model: str):
    pycolmap = pytest.importorskip("pycolmap")
    theirs = pycolmap.Camera(model=model, width=WIDTH, height=HEIGHT, params=parameters(model))
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(-0.9, 0.9, 500), rng.uniform(-0.7, 0.7, 500), rng.uniform(0.9, 1.1, 500)], 1)
    points[0] = [0, 0, 2]
    camera, family = ALL[model], projections.family_of(model)
    c = tuple(_double(projections.family_coefficients(model, camera.coefficients)))
    u, v, valid = projections.project(family, *torch.from_numpy(points).unbind(1), c)
    assert valid.all()
    pixels = torch.stack([camera.fx * u + camera.cx, camera.fy * v + camera.cy], 1)
    np.testing.assert_allclose(pixels, theirs.img_from_cam(points), rtol=0, atol=1e-9)


# distortion


@STRONG
def test_derivatives_are_those_of_autograd(family: str):
    c = tuple(_coefficients(family, 5, 30).T)
    _, a, b = _disc(torch.full((30,), 0.9, dtype=torch.float64), 0, 1)
    a.requires_grad_(), b.requires_grad_()
    found = projections.distort(family, a, b, c)
    for value, expected in ((found.u, (found.du_da, found.du_db)), (found.v, (found.dv_da, found.dv_db))):
        for slope, wanted in zip(torch.autograd.grad(value.sum(), (a, b), retain_graph=True), expected, strict=True):
            torch.testing.assert_close(slope, wanted, rtol=1e-10, atol=1e-10)


@STRONG
@given(seed=st.integers(0, 2**31))
@example(seed=1_000_000_001)  # whole Newton steps jump to and fro on one of its lenses
@example(seed=5126)  # one of its lenses has points that are harder to find than the samples
@lighter
def test_points_of_the_domain_are_found_after_their_distortion(family: str, seed: int):
    """Up to near the fold, and never another point that is distorted to the same."""
    inverse = undistortion.inverse_of(family, _coefficients(family, seed), torch.full((20,), 1.2, dtype=torch.float64))
    row, a, b = _disc(inverse.limit.clamp(max=1.5) * 0.99, seed, 100)
    at = projections.distort(family, a, b, tuple(inverse.coefficients[:, row]))
    x, y, found = undistortion.undistort(inverse, row, at.u, at.v)
    in_image = torch.hypot(at.u, at.v) < 1.2
    assert (~found & in_image).double().mean() < 0.002
    torch.testing.assert_close(torch.stack([x, y])[:, found], torch.stack([a, b])[:, found], rtol=0, atol=1e-8)


@STRONG
@given(seed=st.integers(0, 2**31))
@lighter
def test_a_ray_that_is_found_lies_in_the_domain_and_is_projected_again(family: str, seed: int):
    inverse = undistortion.inverse_of(family, _coefficients(family, seed), torch.full((20,), 1.2, dtype=torch.float64))
    row, u, v = _disc(torch.full((20,), 3.0, dtype=torch.float64), seed, 100)
    a, b, found = undistortion.undistort(inverse, row, u, v)
    c, limit = tuple(inverse.coefficients[:, row]), inverse.limit[row]
    x, y, valid = projections.project(family, *projections.from_plane(family, a, b), c, limit)
    assert valid[found].all()
    assert (torch.hypot(x - u, y - v)[found] < 1e-9).all()
    assert (torch.hypot(a, b)[found] < limit[found]).all()


@pytest.mark.parametrize("k", [-0.5, -0.1, -2.0])
def test_barrel_distortion_is_inverted_up_to_the_fold_and_no_farther(k: float):
    """The radius r (1 + k r²) grows up to r = 1 / √(−3 k); no ray is found for any distorted radius above that."""
    fold = 1 / math.sqrt(-3 * k)
    farthest = fold * (1 + k * fold**2)
    inverse = undistortion.inverse_of("RADIAL", _double([[k, 0.0]]), _double([2 * farthest]))
    assert inverse.limit.item() == pytest.approx(fold, rel=1e-9)
    shares = torch.cat([torch.linspace(0, 0.9999, 2000), torch.linspace(1.0001, 50, 5000)]).double()
    a, b, found = undistortion.undistort(inverse, None, 0.6 * farthest * shares, -0.8 * farthest * shares)
    assert torch.equal(found, shares < 1)
    radius = torch.hypot(a, b)[found]
    assert (radius < fold).all()
    torch.testing.assert_close(radius * (1 + k * radius**2), farthest * shares[found], rtol=0, atol=1e-11)
    x = _double([0.99 * fold, 1.01 * fold, 1.7 * fold])  # the last is projected near the center, by mistake
    assert projections.project("RADIAL", x, 0 * x, 1 + 0 * x, (_double(k), _double(0.0)), inverse.limit[0])[
        2
    ].tolist() == [True, False, False]


def test_the_domain_ends_at_a_pole_of_the_rational_model():
    c = _double([[0.0, 0, 0, 0, 0, -0.25, 0, 0], [0.1, 0, 0, 0, 0, 0.0, 0, 0]])  # r / (1 − r² / 4)
    assert undistortion.limits("FULL_OPENCV", c)[0].item() == pytest.approx(2.0, rel=1e-9)
    assert undistortion.limits("FULL_OPENCV", c)[1].item() == pytest.approx(math.tan(undistortion.WIDEST))


def test_a_narrow_pole_is_found():
    """(1 − r² / 4.0001) / (1 − r² / 4) is 1 but for a pole at r = 2 and a zero at 2.00002."""
    c = _double([[-1 / 4.0001, 0, 0, 0, 0, -0.25, 0, 0]])
    assert undistortion.limits("FULL_OPENCV", c).item() <= 2.0 * (1 + 1e-9)


# closed forms


@pytest.mark.parametrize("model", ["PINHOLE", "SIMPLE_DIVISION", "EQUIRECTANGULAR", *WIDE])
def test_closed_forms_invert_the_projection_wherever_it_is_defined(model: str):
    family = projections.family_of(model)
    directions = torch.randn(3, 5000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    directions /= directions.norm(dim=0)
    c = tuple(_double(COEFFICIENTS.get(model, ())))
    u, v, valid = projections.project(family, *(3.0 * directions), c)
    *back, found = projections.unproject(family, u[valid], v[valid], c)
    back = torch.stack(back) / torch.stack(back).norm(dim=0)
    assert found.all()
    torch.testing.assert_close(back, directions[:, valid], rtol=0, atol=1e-7)
    widest = torch.rad2deg(torch.acos(directions[2, valid].min())).item()
    expected = {"PINHOLE": 90, "FOV": 90, "DIVISION": 57.7, "EUCM": 133.2}.get(model, 180)
    assert expected - 4 < widest <= expected + 0.1


@given(radius=st.floats(0.0, 30.0), turn=st.floats(0.0, 6.3), model=st.sampled_from(WIDE))
@light
def test_a_ray_of_a_wide_angle_model_is_projected_again(radius: float, turn: float, model: str):
    c = tuple(_double(COEFFICIENTS.get(model, ())))
    u, v = _double([radius * math.cos(turn)]), _double([radius * math.sin(turn)])
    x, y, z, found = projections.unproject(model, u, v, c)
    if found:
        again_u, again_v, valid = projections.project(model, x, y, z, c)
        assert valid
        assert torch.hypot(again_u - u, again_v - v).item() < 1e-8 * max(1.0, radius**2)


def test_points_outside_of_the_domain_of_a_wide_angle_model_have_no_ray():
    outside = {"FISHEYE": 3.15, "FOV": 1.75, "DIVISION": 3.17, "EUCM": 2.14}
    for family, radius in outside.items():
        c = tuple(_double(COEFFICIENTS.get(family, ())))
        found = projections.unproject(family, _double([radius, radius - 0.05]), _double([0.0, 0.0]), c)[3]
        assert found.tolist() == [False, True], family


def test_models_without_distortion_are_limits_of_those_with():
    directions = torch.randn(3, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    directions[2] = directions[2].abs() + 0.1
    pinhole = torch.stack(projections.project("PINHOLE", *directions, ())[:2])
    for family, c in (("DIVISION", [0.0]), ("FOV", [0.0]), ("EUCM", [0.0, 1.0]), ("RADIAL", [0.0, 0.0])):
        found = torch.stack(projections.project(family, *directions, tuple(_double(c)))[:2])
        torch.testing.assert_close(found, pinhole, rtol=1e-9, atol=1e-9)
    fisheye = torch.stack(projections.project("FISHEYE", *directions, ())[:2])
    found = torch.stack(projections.project("OPENCV_FISHEYE", *directions, tuple(_double([0.0] * 4)))[:2])
    torch.testing.assert_close(found, fisheye)
